"""`portico new`: what it writes passes lint, loads, and its own test passes as written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from portico.runtime.loading import load
from tests.harness.gateway import DEADLINE, ROOT, portico_here

KINDS = ("policy", "endpoint")
RULES = "A,ANN,B,C4,E,F,I,N,PL,PT,RUF,SIM,UP,W"


def run(*command: str, cwd: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=DEADLINE * 2
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_passes_its_test_and_lint(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = portico_here("new", kind, "my-first-one", "--in", "my policies")
    assert (done.code, done.err) == (0, "")
    files = ["my policies/my_first_one.py", "my policies/test_my_first_one.py"]
    assert done.out.startswith(f"wrote {files[0]} and {files[1]}; next: python -m pytest ")
    assert sorted(path.name for path in (tmp_path / "my policies").iterdir()) == [Path(file).name for file in files]
    assert "3 passed" in run("pytest", "-q", "-p", "no:cacheprovider", files[1], cwd=tmp_path)
    plain = ("--no-cache", "--isolated", "--line-length=120")  # as it is where portico is a package like any other
    run("ruff", "check", *plain, f"--select={RULES}", "--ignore=PLR2004", *files, cwd=tmp_path)
    run("ruff", "check", *plain, "--select=D1", "--ignore=D107", files[0], cwd=tmp_path)
    run("ruff", "format", "--check", *plain, *files, cwd=tmp_path)
    run("mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path / 'cache'}", *files, cwd=tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_the_example_that_is_written_loads(kind: str, tmp_path: Path) -> None:
    assert portico_here("new", kind, "x2", "--in", str(tmp_path)).code == 0
    found = re.search(r"```yaml\n(.*?)```", (tmp_path / "x2.py").read_text(), re.DOTALL)
    assert found is not None
    services = "" if "services:" in found[1] else "services: {shop: http://127.0.0.1:9}\n"
    (tmp_path / "portico.yaml").write_text(found[1] + services)
    loaded = load(tmp_path / "portico.yaml")
    assert loaded.config is not None, loaded.findings


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    for name in ("geo_fence.py", "test_geo_fence.py"):
        file = tmp_path / name
        file.write_text("mine\n")
        done = portico_here("new", "policy", "geo-fence", "--in", str(tmp_path))
        assert (done.code, done.err) == (1, f"{file} exists already; it is left as it is\n")
        assert [(path, path.read_text()) for path in tmp_path.iterdir()] == [(file, "mine\n")]
        file.unlink()


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        ("policy", "GeoFence", "write it in lower case with dashes"),
        ("policy", "geo_fence", "write it in lower case with dashes"),
        ("policy", "../geo", "write it in lower case with dashes"),
        ("policy", "2fa", "write it in lower case with dashes"),
        ("endpoint", "-a", "No such option"),
        ("policy", "request", "a class Request, which Portico has already"),
        ("policy", "gateway", "a class Gateway, which Portico has already"),
        ("policy", "none", "would hide a name or a module of Python's"),
        ("endpoint", "json", "would hide a name or a module of Python's"),
        ("policy", "pytest", "would hide a name or a module of Python's"),
        ("policy", "correlation-id", "policy 'correlation-id' is there already"),
        ("endpoint", "respond", "endpoint 'respond' is there already"),
        ("thing", "a", "'thing' is not one of 'policy', 'endpoint'"),
    ],
)
def test_names_and_kinds_are_checked(kind: str, name: str, reason: str, tmp_path: Path) -> None:
    done = portico_here("new", kind, name, "--in", str(tmp_path))
    assert done.code == (2 if "No such" in reason or "is not one of" in reason else 1)
    assert reason in " ".join(done.err.replace("│", " ").split())
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = portico_here("new", "policy", "a-b", "--in", str(tmp_path / "file" / "x"))
    assert done.code == 1
    assert "cannot be written: Not a directory" in done.err
