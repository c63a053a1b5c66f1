"""SIGUSR2: the file is loaded by the version that is installed now, as a trial and as what its supervisor begins with.

Nothing is given up before that has worked: a version that does not even start, or refuses the file, changes nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Final

from portico.runtime.protocol import Plan
from portico.state.board import shared_file

LOADER: Final = "portico.cli.handover"

TIMEOUT: Final = 120.0
"""Seconds that the trial may take."""


class Upgrade:
    """The trial: a process of the installed version that loads the file and writes a handover."""

    def __init__(self, plan: Plan) -> None:
        """Start it. Raises OSError."""
        self.why = ""
        """Why it has failed, once it has."""
        self._by = time.monotonic() + TIMEOUT
        self.file = shared_file("portico-handover", b"")
        """The descriptor of the handover."""
        self.snapshot = shared_file("portico-snapshot", b"")
        command = [sys.executable, "-m", LOADER, plan.file]
        options = [f"--revision={plan.revision + 1}", f"--snapshot={self.snapshot}", f"--to={self.file}"]
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [*command, *options], stdin=subprocess.DEVNULL, pass_fds=(self.file, self.snapshot)
            )
        except OSError:
            os.close(self.file)
            os.close(self.snapshot)
            raise

    def poll(self, now: float) -> bool:
        """Tell whether the handover is there; where it never will be, `why` says why."""
        code = self._process.poll()
        if code is None and now >= self._by:
            self._process.kill()
            self._process.wait()
            self.why = f"the installed version took more than {TIMEOUT:g} s to load the file"
        elif code:
            self.why = "the installed version cannot run the file"
        return code == 0

    def close(self) -> None:
        """End the trial, where it runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self.file)
        os.close(self.snapshot)
