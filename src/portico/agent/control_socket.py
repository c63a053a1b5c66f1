"""Where the agent of a running gateway is found: a Unix socket in a folder that is its user's alone."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import tempfile
from pathlib import Path

from portico.errors import ConfigError
from portico.state.places import own_folder


def folder() -> Path:
    """Return the folder of the sockets; `PORTICO_RUNTIME_DIR` names another.

    Raises ConfigError where it is not safe: somebody else could stand there in the gateway's place.
    """
    chosen = os.environ.get("PORTICO_RUNTIME_DIR")
    if chosen:
        path = Path(chosen)
    elif os.environ.get("XDG_RUNTIME_DIR"):
        path = Path(os.environ["XDG_RUNTIME_DIR"], "portico")
    elif os.geteuid() == 0 and Path("/run").is_dir():
        path = Path("/run/portico")
    else:
        path = Path(tempfile.gettempdir(), f"portico-{os.geteuid()}")
    return own_folder(path, "set PORTICO_RUNTIME_DIR to a folder of your own")


def socket_of(file: str, supervisor: int) -> Path:
    """Return the path of the socket of the gateway with this file and supervisor. Raises ConfigError."""
    return folder() / f"{_name(file)}-{supervisor}.sock"


def sockets_of(file: str | None) -> list[Path]:
    """Return the sockets of all gateways with this file that run, or of all gateways. Raises ConfigError."""
    names = {""} if file is None else {f"{_name(file)}-", f"{_name(os.path.realpath(file))}-"}
    found = {path for name in names for path in folder().glob(f"{name}*.sock")}
    return sorted(path for path in found if _answers(path))


def bind(path: Path) -> socket.socket:
    """Return a socket that listens at `path`, in the place of whatever was there. Raises ConfigError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    beside = path.with_suffix(f".{os.getpid()}")
    try:
        beside.unlink(missing_ok=True)
        sock.bind(str(beside))
        beside.chmod(0o600)
        sock.listen(64)
        beside.rename(path)  # whoever connects meanwhile finds the one or the other
    except OSError as error:
        sock.close()
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise ConfigError(f"{path}: {error.strerror or error}; set PORTICO_RUNTIME_DIR to another folder") from error
    return sock


def unbind(path: Path) -> None:
    """Take away the socket at `path`, unless another has taken its place."""
    with contextlib.suppress(OSError):
        if not _answers(path):
            path.unlink()


def _name(file: str) -> str:
    """Return what tells a file from others: where a link leads may change, as Kubernetes does it, and so is no part."""
    path = Path(file)
    whole = os.path.join(os.path.realpath(path.parent), path.name)  # noqa: PTH118 - as realpath has it
    stem = re.sub(r"[^A-Za-z0-9_.]+", "_", path.stem)[:24]
    return f"{stem}-{hashlib.sha256(whole.encode()).hexdigest()[:10]}"


def _answers(path: Path) -> bool:
    """Tell whether somebody listens at `path`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
