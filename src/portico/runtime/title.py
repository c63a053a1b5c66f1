"""What a process calls itself, for `ps` and `top`."""

from __future__ import annotations

from setproctitle import setproctitle


def entitle(what: str) -> None:
    """Have the process listed as `portico: ` and what it is."""
    setproctitle(f"portico: {what}")
