"""Where a machine's store has its files."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path

from portico.errors import ConfigError

_VERSION = "v1"
"""Of the records: those of another one are in other folders."""


def own_folder(path: Path, mend: str) -> Path:
    """Return a folder that is there, made where it was not; `mend` says what to do where it cannot be used.

    Raises ConfigError where it is not safe: somebody else could have put there what we would read.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; {mend}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise ConfigError(f"{path} is not a folder that only you can write to; {mend}")
    return path


def in_memory(name: str) -> Path:
    """Return the folder, in the memory of the machine where that is to be had, of whatever has this name."""
    chosen = os.environ.get("PORTICO_RUNTIME_DIR")
    if chosen:
        root = Path(chosen)
    elif os.access("/dev/shm", os.W_OK):  # noqa: S108 - the folder in it has to be our own
        root = Path("/dev/shm", f"portico-{os.geteuid()}")  # noqa: S108
    else:
        root = Path(tempfile.gettempdir(), f"portico-{os.geteuid()}")
    mend = "set PORTICO_RUNTIME_DIR to a folder of your own"
    return own_folder(own_folder(root, mend) / f"state-{_digest(name)}", mend)


def volatile_folder(name: str, size: int) -> Path:
    """Return where what may be made anew is.

    A map of another size is another one, as processes that have it open at once must agree on it. So is that of
    another boot: what was not written to a disk in time may be broken there.
    """
    return own_folder(in_memory(name) / f"volatile-{_VERSION}-{size}{_boot()}", "take away what is there")


def durable_folder(name: str, path: str | None) -> Path:
    """Return where what has to last is: in the folder that the file names, or in memory until the machine ends."""
    if path is None:
        return own_folder(in_memory(name) / f"durable-{_VERSION}", "take away what is there")
    mend = "give the state another path"
    return own_folder(own_folder(Path(path), mend) / f"durable-{_VERSION}", mend)


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:12]


def _boot() -> str:
    try:
        return "-" + Path("/proc/sys/kernel/random/boot_id").read_text("ascii")[:8]
    except OSError:
        return ""
