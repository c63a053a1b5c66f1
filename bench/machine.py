"""The machine: its cores, its Debian packages, and the facts without which a figure means nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import ssl
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bench import BenchError

ROOT = Path(__file__).parent.parent
INSTALL_SECONDS = 600
BUSY_FIELDS = ("user", "nice", "system", "irq", "softirq", "steal")
STAT_FIELDS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")


@dataclass(frozen=True)
class Tool:
    program: str
    package: str

    def path(self) -> str | None:
        # Debian keeps servers where the PATH of a plain user does not look.
        return shutil.which(self.program, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/bin")

    def find(self) -> str:
        path = self.path()
        if path is None:
            raise BenchError(f"{self.program} is not installed")
        return path


def provide(tools: list[Tool]) -> None:
    """Install with apt-get what is missing, or say plainly why that cannot be done here."""
    missing = [tool for tool in tools if tool.path() is None]
    if not missing:
        return
    packages = sorted({tool.package for tool in missing})
    wanted = (
        f"{', '.join(tool.program for tool in missing)} not installed; needed: apt-get install {' '.join(packages)}"
    )
    apt = shutil.which("apt-get")
    if apt is None:
        raise BenchError(f"{wanted}. This machine has no apt-get: install it by other means")
    if os.geteuid() != 0:
        raise BenchError(f"{wanted}. Only root may do that, and the bench does not run as root")
    print(f"installing {' '.join(packages)} with apt-get", file=sys.stderr)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for step in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", *packages]):
        try:
            done = subprocess.run(
                [apt, *step], env=environment, timeout=INSTALL_SECONDS, capture_output=True, text=True
            )
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"{wanted}. apt-get {step[0]} did not end in {INSTALL_SECONDS} s") from error
        if done.returncode != 0:
            tail = "\n".join((done.stdout + done.stderr).splitlines()[-8:])
            raise BenchError(f"{wanted}. apt-get {step[0]} failed:\n{tail}")
    for tool in missing:
        tool.find()


@dataclass(frozen=True)
class Cores:
    load: int
    """Runs wrk, the service and the bench itself."""
    proxy: int
    """Runs the peers, one under load at a time."""


def choose_cores() -> Cores:
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise BenchError("the bench needs two cores, one for the proxy and one for the load; it may use only one here")
    siblings = _siblings(allowed[0])
    apart = [core for core in allowed[1:] if core not in siblings]
    if not apart:
        print("warning: the only two cores share a physical core; expect noise", file=sys.stderr)
    return Cores(load=allowed[0], proxy=(apart or allowed[1:])[0])


def _siblings(core: int) -> set[int]:
    path = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
    found: set[int] = set()
    for part in path.read_text().split(",") if path.is_file() else []:
        low, _, high = part.strip().partition("-")
        found.update(range(int(low), int(high or low) + 1))
    return found


def busy_seconds(core: int) -> float:
    """What one core did other than idle since boot: its resolution is that of /proc/stat, 10 ms."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *values = line.split()
        if name == f"cpu{core}":
            ticks = dict(zip(STAT_FIELDS, map(int, values), strict=False))
            return sum(ticks[field] for field in BUSY_FIELDS) / os.sysconf("SC_CLK_TCK")
    raise BenchError(f"/proc/stat does not know cpu{core}")


def facts(cores: Cores, tools: list[Tool]) -> dict[str, object]:
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "load_core": cores.load,
        "proxy_core": cores.proxy,
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", ""),
        "load_average": os.getloadavg(),
        "python": sys.version.split()[0],
        "python_build": " ".join(platform.python_build()),
        "python_tls": ssl.OPENSSL_VERSION,
        "packages": {name: _package(name) for name in ("portico", "uvloop", "httptools")},
        "tools": {tool.program: _tool_version(tool) for tool in tools},
        "revision": _revision(),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def _package(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _tool_version(tool: Tool) -> str:
    done = subprocess.run([tool.find(), "-v"], capture_output=True, text=True, timeout=10)
    return (done.stdout + done.stderr).partition("\n")[0].strip()


def _revision() -> str | None:
    git = shutil.which("git")
    if git is None:
        return None
    answers = []
    for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain"]):
        # The locks are optional so that a look at the tree never gets in the way of somebody's commit.
        command = [git, "-C", str(ROOT), "--no-optional-locks", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        if done.returncode != 0:
            return None
        answers.append(done.stdout.strip())
    return answers[0] + (" with changes" if answers[1] else "")
