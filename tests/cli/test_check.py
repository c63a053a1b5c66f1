"""`portico check`: what it says, word for word; `UPDATE_GOLDEN=1 pytest tests/cli` writes it anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness.gateway import portico, portico_here
from tests.harness.golden import check_golden

GOLDEN = Path(__file__).parent / "golden"
OK = {"warnings": "warnings.yaml: ok, 12 routes, 4 services, 7 warnings\n"}


@pytest.mark.parametrize("name", ["mistakes", "impossible", "plugins", "tab", "empty", "warnings"])
def test_what_is_said_about(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in (*GOLDEN.glob("*.yaml"), *GOLDEN.glob("*.py")):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "cut_off.py").write_text("class Cut(\n")
    done = portico("check", f"{name}.yaml", cwd=tmp_path)
    check_golden(GOLDEN / f"{name}.txt", done.err)
    assert (done.code, done.out) == ((0, OK[name]) if name in OK else (1, ""))
    assert "Traceback" not in done.err
    # It is the same that `run` does first, and `explain`.
    if name not in OK:
        assert portico("run", f"{name}.yaml", cwd=tmp_path) == done
        monkeypatch.chdir(tmp_path)
        assert portico_here("explain", f"{name}.yaml", "GET", "/") == done


def test_a_file_that_is_well(tmp_path: Path) -> None:
    (tmp_path / "portico.yaml").write_text("routes: [{path: /ping, respond: pong}]\n")
    assert portico("check", "portico.yaml", cwd=tmp_path) == (0, "portico.yaml: ok, 1 route, 0 services\n", "")


@pytest.mark.parametrize("command", [["check"], ["run"], ["explain"], ["schema"]])
def test_a_file_that_is_none(command: list[str], tmp_path: Path) -> None:
    rest = ["GET", "/"] if command == ["explain"] else []
    (tmp_path / "folder").mkdir()
    missing = portico(*command, "nope.yaml", *rest, cwd=tmp_path)
    assert missing == (1, "", "nope.yaml:1:1: cannot read nope.yaml: No such file or directory\n")
    folder = portico(*command, "folder", *rest, cwd=tmp_path)
    assert folder == (1, "", "folder:1:1: cannot read folder: Is a directory\n")
