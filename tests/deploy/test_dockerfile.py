"""The Dockerfile: hadolint finds nothing, what it copies and runs is there, and its health check tells the truth."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.harness.deployment import DEPLOY, DOCKERFILE, instruction, instructions
from tests.harness.gateway import DEADLINE, ROOT, Gateway, refusing_port

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def hadolint(file: Path) -> str:
    """Return what hadolint finds in a Dockerfile."""
    program = Path(sysconfig.get_path("scripts"), "hadolint")
    command = [str(program), "--no-color", "--failure-threshold", "style", str(file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE).stdout


def test_hadolint_finds_nothing() -> None:
    assert hadolint(DOCKERFILE) == ""


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("--no-install-recommends ", "", "DL3015"),
        ("WORKDIR /source", "WORKDIR source", "DL3000"),
        ("FROM python:${PYTHON}-slim-bookworm\n", "FROM python\n", "DL3006"),
        ('ENTRYPOINT ["portico"]', "ENTRYPOINT portico", "DL3025"),
    ],
)
def test_hadolint_finds_a_slip(old: str, new: str, rule: str, tmp_path: Path) -> None:
    text = DOCKERFILE.read_text("utf-8")
    assert old in text
    (tmp_path / "Dockerfile").write_text(text.replace(old, new), "utf-8")
    assert rule in hadolint(tmp_path / "Dockerfile")


def copied() -> list[str]:
    """Return what the first stage has of this folder."""
    texts = (each.text for each in instructions() if each.name == "COPY" and not each.text.startswith("--from"))
    return [source for text in texts for source in text.split()[:-1]]


def test_what_the_wheel_is_made_of_is_copied() -> None:
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    wanted = ["pyproject.toml", PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]]
    wanted += [*wheel["packages"], *wheel["force-include"], wheel["hooks"]["custom"]["path"]]
    for path in wanted:
        assert any(Path(source) in (Path(path), *Path(path).parents) for source in copied()), path
    assert all((ROOT / source).exists() for source in copied())


def test_the_builder_is_given_what_is_copied_and_nothing_else() -> None:
    lines = (DEPLOY / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    given = {rule[1:] for rule in rules if rule.startswith("!")}
    assert given == {*copied(), "examples"}
    assert "examples/*" in rules  # all but the platform


def test_the_python_is_one_that_is_supported() -> None:
    (version,) = (each.text.partition("=")[2] for each in instructions() if each.name == "ARG")
    assert f"Programming Language :: Python :: {version}" in PROJECT["project"]["classifiers"]
    stages = [each.text for each in instructions() if each.name == "FROM"]
    assert [stage.partition(" AS ")[0] for stage in stages] == ["python:${PYTHON}-slim-bookworm"] * 2


def test_it_is_compiled_or_not_built_at_all() -> None:
    (building,) = (each.text for each in instructions() if " wheel " in each.text)
    assert building.startswith("PORTICO_COMPILE=1 ")


def test_it_starts_the_gateway_as_a_user_who_may_little() -> None:
    assert instruction("ENTRYPOINT").words == ["portico"]
    assert "portico" in PROJECT["project"]["scripts"]
    (command,) = (each.words for each in instructions() if each.name == "CMD")
    assert command == ["run", "/etc/portico/portico.yaml"]
    assert instruction("STOPSIGNAL").text == "SIGTERM"
    names = [each.name for each in instructions()]
    assert names.index("USER") > max(number for number, name in enumerate(names) if name in ("RUN", "COPY"))
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", instruction("USER").text)


def health_check(port: int) -> subprocess.CompletedProcess[str]:
    """Run the command of the health check, with this port for that of the gateway."""
    python, *arguments, url = instruction("HEALTHCHECK").words
    assert python == "python"
    command = [sys.executable, *arguments, url.replace(":8000/", f":{port}/")]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)


def test_the_health_check_tells_a_gateway_that_is_well(tmp_path: Path) -> None:
    with Gateway(tmp_path, "routes: []\n") as gateway:
        assert health_check(gateway.port).returncode == 0


def test_the_health_check_tells_where_there_is_none() -> None:
    with refusing_port() as port:
        done = health_check(port)
    assert done.returncode == 1
    assert done.stderr == f"http://127.0.0.1:{port}/livez does not answer: [Errno 111] Connection refused\n"
