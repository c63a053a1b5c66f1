"""A reload: load the file, have every worker compile it, and only then have all of them serve it.

Whatever fails on the way, nothing has changed, and what was wrong is told: in the log, to whoever asked, and in
`portico status` until the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Protocol, Self

from portico.agent.loader import Outcome, Problem
from portico.agent.workers import WorkerGone, WorkerLink, Workers
from portico.net.channel import close_all
from portico.runtime.protocol import (
    Abandon,
    Accept,
    Adopted,
    Bound,
    Commit,
    Committed,
    Declined,
    Plan,
    Prepare,
    Prepared,
    Refused,
    Withdraw,
)
from portico.state.board import shared_file

logger = logging.getLogger("portico.agent")

LINE_LIMIT: Final = 64 * 1024 * 1024
"""The most bytes of a line that the loader prints."""

LOAD_TIMEOUT: Final = 120.0
"""Seconds that reading and validating the file may take."""

PREPARE_TIMEOUT: Final = 120.0
"""Seconds that a worker may take to compile it while it serves."""

COMMIT_TIMEOUT: Final = 10.0
"""Seconds that the supervisor, or a worker, may take for what is the matter of a moment."""


@dataclass(frozen=True)
class Result:
    """How a reload went."""

    origin: str
    at: float
    """When it was over, in seconds since the epoch."""
    ok: bool
    revision: int
    """The revision that is served after it."""
    seconds: float = 0.0
    loading: float = 0.0
    """Seconds of it in which the file was read and validated; in the others, workers compiled it and swapped."""
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    """What the load has found, errors and warnings, by the objects of the file."""
    changes: dict[str, list[str]] = field(default_factory=dict)
    summary: str = ""

    @classmethod
    def from_json(cls, text: str) -> Result | None:
        """Return what another agent has left; None where that makes no sense here."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError):
            return None

    def to_json(self) -> str:
        """Return it as text."""
        return json.dumps(asdict(self))


class Root(Protocol):
    """The supervisor, as far as a reload needs it."""

    plan: Plan
    """What stands."""
    snapshot: int
    """The descriptor of its snapshot."""

    async def ask(self, message: Any, answers: tuple[type, ...], descriptors: Sequence[int] = ()) -> Any:
        """Send a message, and return the answer that is of one of these kinds. Raises TimeoutError."""
        ...

    def tell(self, message: Any) -> None:
        """Send a message that needs no answer."""
        ...

    async def sockets_of(self, slot: int) -> dict[int, int]:
        """Return the descriptors of all sockets of a worker, by door; they are the caller's to close."""
        ...

    def take_sockets(self) -> dict[int, dict[int, int]]:
        """Return the descriptors that came since the last time, by slot and door; they are the caller's to close."""
        ...

    def adopted(self, plan: Plan, snapshot: int) -> None:
        """Note what stands now."""
        ...


class _Failed(Exception):
    """It goes no further; nothing has changed."""

    def __init__(self, errors: Sequence[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = list(errors)


class Load:
    """One run of the loader, which is ended with the block."""

    def __init__(self, root: Root, origin: str) -> None:
        self.origin = origin
        self.loading = 0.0
        """Seconds until it was read and validated."""
        self.snapshot = -1
        """The descriptor of what workers can compile."""
        self._root = root
        self._began = time.monotonic()
        self._last: Outcome | None = None

    def elapsed(self) -> float:
        """Return for how many seconds this has taken so far."""
        return time.monotonic() - self._began

    async def __aenter__(self) -> Self:
        root = self._root
        self.snapshot = shared_file("portico-snapshot", b"")
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "portico.agent.loader",
                root.plan.file,
                f"--origin={self.origin}",
                f"--revision={root.plan.revision + 1}",
                f"--snapshot={self.snapshot}",
                f"--served={root.snapshot}",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                pass_fds=(self.snapshot, root.snapshot),
                limit=LINE_LIMIT,
            )
        except BaseException:
            os.close(self.snapshot)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        os.close(self.snapshot)
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def first(self) -> Outcome:
        """Return what came of reading and validating the file."""
        outcome = await self._next()
        self.loading = self.elapsed()
        return outcome

    async def last(self) -> Outcome:
        """Return what came of compiling it, too."""
        if self._last is None:
            self._last = await self._next()
        return self._last

    async def _next(self) -> Outcome:
        out = self._process.stdout
        assert out is not None
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + LOAD_TIMEOUT):
                line = await out.readline()
                if line:
                    return Outcome.from_json(line)
                code = await self._process.wait()
        except TimeoutError:
            why = f"loading it took more than {LOAD_TIMEOUT:g} s"
        else:
            why = f"loading it ended by signal {-code}" if code < 0 else f"loading it ended with exit code {code}"
        return Outcome(None, [f"{self._root.plan.file}: {why}"], [], [], [])


class Reloads:
    """Carries out reloads, one at a time."""

    def __init__(self, root: Root, workers: Workers) -> None:
        self._root = root
        self._workers = workers
        self._one = asyncio.Lock()
        self.last: Result | None = None
        """How the last one went; None before the first."""
        self.outcome: Outcome | None = None
        """What the last load has found: the files that belong to it, above all."""

    @property
    def under_way(self) -> bool:
        """Whether one is being carried out."""
        return self._one.locked()

    async def reload(self, origin: str) -> Result:
        """Load the file, and serve it where that can be done."""
        async with self._one:
            logger.info("%s: loading %s", origin, self._root.plan.file)
            result = await self._reload(origin)
            self.last = result
            if result.ok:
                logger.info(
                    "%s: revision %d after %.1f s (%.1f s to load it): %s",
                    origin,
                    result.revision,
                    result.seconds,
                    result.loading,
                    result.summary,
                )
            else:
                for error in result.errors:
                    logger.error("%s", error)
                logger.error("%s: nothing has changed, revision %d goes on", origin, result.revision)
            return result

    async def try_out(self, origin: str) -> Result:
        """Load the file, and tell what would change."""
        async with self._one, Load(self._root, origin) as load:
            outcome = await load.first()
            outcome = outcome if outcome.plan is None else await load.last()
            return self._result(load, outcome, outcome.errors)

    async def _reload(self, origin: str) -> Result:
        async with Load(self._root, origin) as load:
            outcome = self.outcome = await load.first()
            if outcome.plan is None:
                return self._result(load, outcome, outcome.errors)
            errors: list[str] = []
            if not outcome.unchanged:
                try:
                    await self._carry_out(outcome.plan, load)
                except _Failed as failed:
                    errors = failed.errors
            seconds = load.elapsed()
            # The workers have decided; the loader's own look adds what changed, and what is odd.
            return replace(self._result(load, await load.last(), errors), seconds=seconds)

    def _result(self, load: Load, outcome: Outcome, errors: list[str]) -> Result:
        found = outcome.changes
        return Result(
            origin=load.origin,
            at=time.time(),
            ok=not errors,
            revision=self._root.plan.revision,
            seconds=load.elapsed(),
            loading=load.loading,
            errors=errors,
            warnings=outcome.warnings if errors else [*outcome.warnings, *outcome.errors],
            problems=outcome.problems,
            changes={} if found is None else asdict(found),
            summary="" if found is None else found.summary(),
        )

    async def _carry_out(self, plan: Plan, load: Load) -> None:
        """Have `plan` served by all workers, or by none. Raises _Failed."""
        root, snapshot = self._root, load.snapshot
        try:
            answer = await root.ask(plan, (Bound, Declined), [snapshot])
        except TimeoutError:
            raise _Failed(["the supervisor does not answer"]) from None
        if isinstance(answer, Declined):
            raise _Failed([f"{plan.file}: {answer.reason}"])
        sockets = root.take_sockets()
        plan = replace(plan, doors=answer.doors)
        try:
            ready = await self._prepare(plan, load, sockets)
            await root.ask(Accept(plan.revision), (Adopted,))
        except BaseException as error:
            for worker in self._workers:
                worker.tell(Abandon(plan.revision))
            root.tell(Withdraw(plan.revision))
            if isinstance(error, TimeoutError):
                raise _Failed(["the supervisor does not answer"]) from None
            raise
        finally:
            for slot in sockets.values():
                close_all(slot.values())
        root.adopted(plan, os.dup(snapshot))
        async with asyncio.TaskGroup() as group:
            for worker in ready:
                group.create_task(_commit(worker, plan.revision))

    async def _prepare(self, plan: Plan, load: Load, sockets: dict[int, dict[int, int]]) -> list[WorkerLink]:
        """Return the workers that are ready to serve `plan`. Raises _Failed where one refuses."""
        async with asyncio.TaskGroup() as group:
            asked = {
                worker: group.create_task(_prepared(worker, plan, load.snapshot, sockets.get(worker.slot, {})))
                for worker in self._workers
            }
        refusals = [error for task in asked.values() for error in task.result().errors]
        if refusals:
            raise _Failed(list(dict.fromkeys(refusals)))
        ready = [worker for worker, task in asked.items() if not task.result().gone]
        if not ready and (outcome := await load.last()).errors:  # there was no worker to find them
            raise _Failed(outcome.errors)
        return ready

    async def catch_up(self, worker: WorkerLink) -> None:
        """Have a worker serve what stands: it, or an agent before this one, has missed it. Raises TimeoutError."""
        async with self._one:  # a worker prepares one configuration at a time
            plan = self._root.plan
            sockets = await self._root.sockets_of(worker.slot)
            try:
                answer = await _prepared(worker, plan, self._root.snapshot, sockets)
                for error in answer.errors:
                    logger.error("worker %d cannot serve revision %d: %s", worker.slot, plan.revision, error)
                if not answer.gone and not answer.errors:
                    await _commit(worker, plan.revision)
            finally:
                close_all(sockets.values())


@dataclass(frozen=True)
class _Answer:
    errors: list[str] = field(default_factory=list)
    gone: bool = False


async def _prepared(worker: WorkerLink, plan: Plan, snapshot: int, sockets: dict[int, int]) -> _Answer:
    """Have a worker compile; one that ends meanwhile starts with what stands then, and need not be waited for."""
    order = Prepare(plan.revision, plan.doors, list(sockets))

    def answers(said: Any) -> bool:
        return isinstance(said, Prepared | Refused) and said.revision == plan.revision

    try:
        answer = await worker.ask(order, answers, PREPARE_TIMEOUT, [snapshot, *sockets.values()])
    except WorkerGone:
        return _Answer(gone=True)
    except TimeoutError:
        return _Answer([f"worker {worker.slot} was not ready after {PREPARE_TIMEOUT:g} s"])
    if isinstance(answer, Refused):
        return _Answer(answer.reasons)
    logger.debug("worker %d compiled in %.3f s, %.1f ms at a time", worker.slot, answer.seconds, answer.longest * 1e3)
    return _Answer()


async def _commit(worker: WorkerLink, revision: int) -> None:
    def answers(said: Any) -> bool:
        return isinstance(said, Committed | Refused) and said.revision == revision

    try:
        answer = await worker.ask(Commit(revision), answers, COMMIT_TIMEOUT)
    except (WorkerGone, TimeoutError):
        return  # it is replaced by one that starts with it, or it catches up
    if isinstance(answer, Refused):
        logger.error("worker %d: %s", worker.slot, "; ".join(answer.reasons))
