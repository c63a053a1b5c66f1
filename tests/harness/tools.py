"""The programs that the tests need beside Python: `python -m tests.harness.tools` installs what is missing.

It does what it may and says plainly what it could not; tests that need what is not there are skipped, and say so.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence

import pytest

from bench import BenchError
from bench.machine import Tool, provide

TOOLS = (
    Tool("chromium", "chromium"),
    Tool("curl", "curl"),
    Tool("dnsmasq", "dnsmasq-base"),
    Tool("haproxy", "haproxy"),
    Tool("nginx", "nginx"),
    Tool("node", "nodejs"),
    Tool("openssl", "openssl"),
    Tool("prometheus", "prometheus"),
    Tool("promtool", "prometheus"),
    Tool("systemd-analyze", "systemd"),
)


def program(name: str) -> str:
    """Return the path of one of TOOLS, or skip the test that needs it."""
    (tool,) = (tool for tool in TOOLS if tool.program == name)
    path = tool.path()
    if path is None:
        pytest.skip(f"{name} is not installed; `make tools` installs {tool.package} where it may")
    return path


def missing() -> list[Tool]:
    return [tool for tool in TOOLS if tool.path() is None]


def hindrance() -> str:
    """Say why nothing can be installed here; empty where it can."""
    if shutil.which("apt-get") is None:
        return "this machine has no apt-get"
    if os.geteuid() != 0:
        return "only root may install packages"
    return ""


def install(tools: Sequence[Tool]) -> None:
    """Install `tools` together, or where that fails one by one, so that one that is not to be had costs only itself."""
    try:
        provide(list(tools))
    except BenchError as error:
        if len(tools) == 1:
            print(error, file=sys.stderr)
            return
        for tool in tools:
            install([tool])


def main() -> None:
    wanted = missing()
    if not wanted:
        return
    why = hindrance()
    if why:
        packages = " ".join(tool.package for tool in wanted)
        print(f"Some tests will be skipped: {why}. They need: apt-get install {packages}", file=sys.stderr)
        return
    install(wanted)
    if left := ", ".join(tool.program for tool in missing()):
        print(f"Some tests will be skipped: {left} could not be installed", file=sys.stderr)


if __name__ == "__main__":
    main()
