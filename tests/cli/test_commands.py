"""The other commands, and what they all have in common."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import jsonschema
import pytest
import yaml

from portico import __version__
from portico.wire import h1
from tests.harness.gateway import DEADLINE, PORTICO, Done, portico, wait_for

COMMANDS = ["run", "reload", "status", "purge", "why", "tail", "top", "check", "explain", "demo"]
COMMANDS += ["demo-service", "init", "new", "hash", "token", "schema"]
COMMANDS += ["version", "consumer"]
PLATFORM = Path(__file__).parents[2] / "examples" / "platform" / "portico.yaml"


def script(*arguments: str, cwd: Path) -> Done:
    """Run the installed script, in place of the module."""
    command = [str(Path(sys.executable).parent / "portico"), *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=DEADLINE)
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command: str) -> None:
    done = portico(command, "--help")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"Usage: portico {command} ")
    assert len(done.out.splitlines()) > 5


def test_the_list_of_commands() -> None:
    done = portico("--help")
    assert (done.code, done.err) == (0, "")
    assert [line.split()[0] for line in done.out.partition("Commands:\n")[2].splitlines()] == COMMANDS


@pytest.mark.parametrize("arguments", [["bogus"], ["check"], ["check", "a", "b"], ["run", "--fast", "a"]])
def test_a_wrong_call_is_2(arguments: list[str]) -> None:
    done = portico(*arguments)
    assert (done.code, done.out) == (2, "")
    assert "Error: " in done.err
    assert "Traceback" not in done.err


def test_the_module_is_the_script(tmp_path: Path) -> None:
    for arguments in (["--help"], ["check", "--help"], ["version"], ["check", "nope.yaml"], ["bogus"]):
        assert script(*arguments, cwd=tmp_path) == portico(*arguments, cwd=tmp_path)


def test_version() -> None:
    done = portico("version")
    assert (done.code, done.err) == (0, "")
    build = "interpreted" if h1.__file__.endswith(".py") else "compiled"
    assert done.out.startswith(f"portico {__version__}, {build} (CPython {sys.version.split()[0]}, uvloop ")


def test_init_writes_a_file_that_is_well(tmp_path: Path) -> None:
    done = portico("init", cwd=tmp_path)
    said = "wrote portico.yaml; next: portico check portico.yaml, then portico run portico.yaml\n"
    assert done == (0, said, "")
    assert portico("check", "portico.yaml", cwd=tmp_path) == (0, "portico.yaml: ok, 2 routes, 1 service\n", "")


def test_init_does_not_overwrite(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("mine")
    assert portico("init", "mine.yaml", cwd=tmp_path) == (1, "", "mine.yaml exists already; --force overwrites it\n")
    assert file.read_text() == "mine"
    assert portico("init", "mine.yaml", "--force", cwd=tmp_path).code == 0
    assert "services:" in file.read_text()
    missing = portico("init", "no/such/folder.yaml", cwd=tmp_path)
    assert missing == (1, "", "no/such/folder.yaml cannot be written: No such file or directory\n")


def test_the_schema_is_one_and_takes_what_check_takes(tmp_path: Path) -> None:
    done = portico("schema")
    assert (done.code, done.err) == (0, "")
    schema = json.loads(done.out)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert portico("init", cwd=tmp_path).code == 0
    for file in (tmp_path / "portico.yaml", PLATFORM):
        assert not list(validator.iter_errors(yaml.safe_load(file.read_text())))
    for wrong in ({"listn": ":80"}, {"routes": [{"path": "/a", "respond": {"status": "many"}}]}, {"workers": -1}):
        assert list(validator.iter_errors(wrong))


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        (tmp_path / "a.yaml").write_text(f"listen: 127.0.0.1:{port}\nworkers: 1\n")
        done = portico("run", "a.yaml", cwd=tmp_path)
    assert done == (1, "", f"a.yaml: cannot listen on 127.0.0.1:{port}: Address already in use\n")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("no-such-host.invalid:8000", "cannot listen on no-such-host.invalid:8000: "),
        ("192.0.2.1:8000", "cannot listen on 192.0.2.1:8000: Cannot assign requested address"),
    ],
)
def test_an_address_that_is_not_ours(tmp_path: Path, address: str, said: str) -> None:
    (tmp_path / "a.yaml").write_text(f"listen: {address}\nworkers: 1\n")
    done = portico("run", "a.yaml", cwd=tmp_path)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert done.err.startswith(f"a.yaml: {said}")
    assert "Unknown error" not in done.err


WAITS = "import pathlib, threading\npathlib.Path('here').touch()\nthreading.Event().wait(60)\n"


@pytest.mark.parametrize("where", ["typer.py", "plugin.py"])  # while it is imported, and while the file is loaded
@pytest.mark.parametrize("command", [["check"], ["run"], ["explain"]])
def test_an_interrupted_command_is_130(command: list[str], where: str, tmp_path: Path) -> None:
    (tmp_path / where).write_text(WAITS)
    (tmp_path / "a.yaml").write_text("plugins: [plugin.py]\n")
    rest = ["GET", "/"] if command == ["explain"] else []
    with subprocess.Popen(
        [*PORTICO, *command, "a.yaml", *rest],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            wait_for((tmp_path / "here").exists, "the command to begin")
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=DEADLINE) == (b"", b"")
        finally:
            process.kill()
    assert process.returncode == 130


def test_output_to_a_pipe_that_nobody_reads(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with closing(os.fdopen(writer, "wb")) as output:
        os.close(reader)
        done = subprocess.run(
            [sys.executable, "-m", "portico", "schema"], stdout=output, stderr=subprocess.PIPE, timeout=DEADLINE
        )
    assert b"Traceback" not in done.stderr
