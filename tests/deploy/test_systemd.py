"""The units: systemd finds nothing wrong, and little that the gateway could do beyond its work."""

from __future__ import annotations

import re
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest

from portico.config.schema import Config
from tests.harness.deployment import DEPLOY
from tests.harness.gateway import DEADLINE, ROOT
from tests.harness.tools import program

UNITS = ("portico.service", "portico.socket")


def told(folder: Path, *command: str, old: str = "", new: str = "") -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze over the units, in which the program is one that is here."""
    for name in UNITS:
        text = (DEPLOY / "systemd" / name).read_text("utf-8")
        (folder / name).write_text(text.replace("/opt/portico/bin/portico", "/bin/true").replace(old, new), "utf-8")
    files = [str(folder / name) for name in UNITS]
    return subprocess.run(
        [program("systemd-analyze"), *command, *(files if "verify" in command else files[:1])],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )


def service() -> dict[str, str]:
    unit = ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string((DEPLOY / "systemd" / "portico.service").read_text("utf-8"))
    return dict(unit["Service"])


def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    done = told(tmp_path, "verify", "--man=no")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("WatchdogSec=", "WatchDog=", "'WatchDog' in section"),
        ("Type=notify", "Type=notified", "Failed to parse service type"),
        ("ListenStream=443", "ListenStream=443443", "Failed to parse address value"),
        ("@system-service", "@sytem-service", "Unknown system call group"),
    ],
)
def test_systemd_finds_a_slip(old: str, new: str, said: str, tmp_path: Path) -> None:
    assert said in told(tmp_path, "verify", "--man=no", old=old, new=new).stderr


def test_it_can_do_little_beyond_its_work(tmp_path: Path) -> None:
    """The exposure is told from 0 to 10 and as a threshold from 0 to 100."""
    done = told(tmp_path, "security", "--offline=true", "--threshold=20")
    assert done.returncode == 0, done.stdout
    lax = told(tmp_path, "security", "--offline=true", "--threshold=20", old="SystemCallFilter=", new="# ")
    assert lax.returncode != 0


def test_it_is_given_the_time_that_it_takes_to_end() -> None:
    assert float(service()["TimeoutStopSec"]) > Config.model_fields["shutdown_timeout"].get_default()


def test_the_runtime_folder_is_the_one_that_systemd_makes_for_it_alone() -> None:
    assert service()["Environment"] == f"PORTICO_RUNTIME_DIR=/run/{service()['RuntimeDirectory']}"
    assert service()["RuntimeDirectoryMode"] == "0700"


def steps(*wanted: str) -> list[int]:
    """Return where the page first has each of these commands, among those of systemd."""
    page = (ROOT / "docs" / "operations" / "deployment.md").read_text("utf-8")
    section = page[page.index("\n## systemd\n") :]
    lines = [line.strip() for line in section.splitlines() if line.startswith("    ")]
    return [next(at for at, line in enumerate(lines) if line.startswith(command)) for command in wanted]


def test_what_is_started_is_given_first_what_it_needs() -> None:
    unit = service()
    (environment,) = (value.lstrip("-") for name, value in unit.items() if name == "EnvironmentFile")
    file = unit["ExecStart"].split()[-1]
    service_steps = steps(
        f"useradd --system --home-dir /var/lib/{unit['StateDirectory']}",
        "install -d /etc/portico",
        f"install -m 0644 portico.yaml {file}",
        f"install -m 0600 environment {environment}",
        "cp deploy/systemd/portico.service /etc/systemd/system/",
        "systemctl enable --now portico",
    )
    assert service_steps == sorted(service_steps)
    socket_steps = steps(
        "cp deploy/systemd/portico.socket /etc/systemd/system/",
        "systemctl stop portico",
        "systemctl enable --now portico.socket",
        "systemctl start portico",
    )
    assert socket_steps == sorted(socket_steps)


def test_all_commands_are_about_one_file() -> None:
    lines = re.findall(r"^Exec\w+=(.*)$", (DEPLOY / "systemd" / "portico.service").read_text("utf-8"), re.MULTILINE)
    assert [line.split()[1] for line in lines] == ["run", "reload"]
    assert {line.split()[2] for line in lines} == {"/etc/portico/portico.yaml"}
