"""The entry of `portico`. It imports little, so that Ctrl-C is in its hands before the rest is imported."""

from __future__ import annotations

import os
import signal
import sys

INTERRUPTED = 130
"""The exit code that shells know an interrupted command by."""


def main() -> int:
    """Run the command line and return its exit code."""
    # A KeyboardInterrupt would show a trace, or be lost in a callback of the import system. Until a command has started
    # something, and takes over the signal, there is nothing to put in order.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    from portico.cli.commands import app
    from portico.errors import PorticoError

    try:
        app(prog_name="portico")
    except PorticoError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0
