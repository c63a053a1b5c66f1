"""SIGUSR2: the file is loaded by the version that is installed now, as a trial and as what its supervisor begins with.

Nothing is given up before that has worked, and the addresses that are new in it are bound: a version that does not
even start, or refuses the file, or an address that is taken, changes nothing.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from portico.runtime.protocol import Plan
from portico.state.board import shared_file
from portico.supervisor.agent_link import AgentLink
from portico.supervisor.doors import CannotStart
from portico.supervisor.handover import HANDLED, BadHandover

if TYPE_CHECKING:
    from portico.supervisor.supervisor import Supervisor

logger = logging.getLogger("portico.supervisor")

LOADER: Final = "portico.cli.handover"

TIMEOUT: Final = 120.0
"""Seconds that the trial may take."""


class Trial:
    """A process of the installed version that loads the file and writes a handover."""

    def __init__(self, plan: Plan) -> None:
        """Start it. Raises OSError."""
        self.why = ""
        """Why it has failed, once it has."""
        self._by = time.monotonic() + TIMEOUT
        self.revision = plan.revision
        """What stood when it began."""
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

    def wanted(self) -> tuple[list[list[str | int]], int]:
        """Return the addresses, and the number of workers, that the handover is for. Raises BadHandover."""
        try:
            plan: dict[str, Any] = json.loads(os.pread(self.file, os.fstat(self.file).st_size, 0))["plan"]
            return plan["listen"], plan["workers"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadHandover(str(error)) from error

    def close(self) -> None:
        """End it, where it runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self.file)
        os.close(self.snapshot)


class Upgrade:
    """What SIGUSR2 asks for, one at a time."""

    def __init__(self, supervisor: Supervisor, link: AgentLink) -> None:
        self._supervisor = supervisor
        self._link = link
        self._trial: Trial | None = None

    def begin(self) -> None:
        """Begin a trial, unless this is no time for one."""
        supervisor = self._supervisor
        if supervisor.stopping or not supervisor.announced:
            logger.warning("SIGUSR2: not now, while workers start or end")
        elif self._trial is not None:
            logger.warning("SIGUSR2: the last one is still being carried out")
        else:
            self._try()

    def tend(self, now: float) -> None:
        """Have another program take the supervisor's place, once its trial has worked and no reload is under way."""
        trial = self._trial
        if trial is None:
            return
        ready = trial.poll(now)
        if trial.why:
            self._fail(trial.why)
        elif ready and not self._link.busy:
            if trial.revision != self._supervisor.plan.revision:  # what it has loaded is older than what is served
                self.give_up()
                self._try()
            else:
                self._hand_over(trial)

    def give_up(self) -> None:
        """End what is under way."""
        trial, self._trial = self._trial, None
        if trial is not None:
            trial.close()

    def _try(self) -> None:
        plan = self._supervisor.plan
        logger.info("SIGUSR2: loading %s by the version that is installed", plan.file)
        try:
            self._trial = Trial(plan)
        except OSError as error:
            self._fail(str(error))

    def _fail(self, why: str) -> None:
        self.give_up()
        logger.error("SIGUSR2: %s; everything stays as it is", why)

    def _hand_over(self, trial: Trial) -> None:
        """Put the other program in the supervisor's place; this returns where a signal is to be acted on first, or it
        cannot be done.
        """
        supervisor = self._supervisor
        # Whatever comes from now on is for the other program: it stays blocked until that one has its handlers.
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        try:
            if supervisor.asked:
                return
            listen, workers = trial.wanted()
            current = supervisor.doors.current
            doors = supervisor.doors.propose(listen, range(workers))
            try:
                left = supervisor.left([*current, *(door for door in doors if door not in current)])
                left.become_by(trial.file, supervisor.notifier.environment())
            finally:
                supervisor.doors.withdraw(doors)
        except (BadHandover, CannotStart, OSError) as error:
            self._fail(str(error))
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
