"""`python -m portico.cli.probe`: whether a URL answers 200, for health checks of containers."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable

import pytest

from portico.cli.probe import main, probe
from tests.harness.gateway import DEADLINE, Call, Service, refusing_port


def answering(status: int) -> Callable[[Call], None]:
    return lambda call: (call.note(), call.answer(status))[1]


def test_200_is_well() -> None:
    with Service(answering(200)) as service:
        assert main([f"http://127.0.0.1:{service.port}/livez"]) == 0
        assert service.last.target == "/livez"


@pytest.mark.parametrize("status", [204, 302, 404, 503])
def test_all_else_is_not(status: int, capsys: pytest.CaptureFixture[str]) -> None:
    with Service(answering(status)) as service:
        url = f"http://127.0.0.1:{service.port}"
        assert main([url]) == 1
    assert capsys.readouterr().err == f"{url} answers {status}\n"


def test_nobody_there() -> None:
    with refusing_port() as port:
        assert "Connection refused" in probe(f"http://127.0.0.1:{port}/")


def test_somebody_who_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert "timed out" in probe(f"http://127.0.0.1:{silent.getsockname()[1]}/", timeout=0.05)


@pytest.mark.parametrize("url", ["", "livez", "https://127.0.0.1/", "http://", "http://[::1", "http://127.0.0.1:x/"])
def test_what_is_no_url(url: str) -> None:
    assert probe(url)


def test_it_is_quick_to_start() -> None:
    """It is run every few seconds: what the rest of the command line imports takes a second of CPU."""
    code = "import sys, portico.cli.probe; print(*sorted(name for name in sys.modules if name.startswith('portico')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE, check=True)
    assert done.stdout == "portico portico.cli portico.cli.probe\n"
