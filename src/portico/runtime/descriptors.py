"""How many descriptors a process may have: connections, sockets of doors, files."""

from __future__ import annotations

import contextlib
import resource


def take_all() -> None:
    """Take as many as the system allows: its first offer is often 1024, less than one worker's clients, or than the
    sockets of many workers at many doors.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
