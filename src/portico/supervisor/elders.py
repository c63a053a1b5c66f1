"""Workers that a supervisor before this one has started: they serve until there are new ones, and then drain."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Sequence

logger = logging.getLogger("portico.supervisor")


class Elders:
    """They are children of this very process, which another program ran in before; what else is known is their ids."""

    def __init__(self, pids: Sequence[int], lifelines: Sequence[int]) -> None:
        self.pids = list(pids)
        self.lifelines = list(lifelines)
        self._kill_at = float("inf")
        self._told = False

    def tend(self, now: float) -> None:
        """Notice those that have ended, and end those that are late."""
        for pid in tuple(self.pids):
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0] == 0:
                    continue
            self.pids.remove(pid)
        if not self.pids and self.lifelines:
            for each in self.lifelines:
                os.close(each)
            self.lifelines.clear()
            logger.info("the workers from before have ended")
        if self.pids and now >= self._kill_at:
            logger.warning("workers from before are still busy after the deadline; ending them")
            self.kill()

    def reopen_logs(self) -> None:
        """Have them open their logs anew."""
        self._signal(signal.SIGUSR1)

    def terminate(self, kill_at: float) -> None:
        """Tell them to drain, until `kill_at`."""
        self._kill_at = min(self._kill_at, kill_at)
        if not self._told:
            self._told = True
            self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End them by force."""
        self._kill_at = float("inf")
        self._signal(signal.SIGKILL)
        for pid in self.pids:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        self.pids.clear()

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
