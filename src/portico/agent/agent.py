"""What the agent does, from its start to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from portico.agent.control_socket import bind, socket_of, unbind
from portico.agent.credentials import Credentials
from portico.agent.page import control, page
from portico.agent.purging import Purging
from portico.agent.recalling import Recalling
from portico.agent.reload import Reloads, Result
from portico.agent.root import Supervisor
from portico.agent.status import status
from portico.agent.upstreams import Upstreams
from portico.agent.watch import INTERVAL, Watch
from portico.agent.workers import WorkerLink, Workers
from portico.errors import ConfigError
from portico.http.message import Handler
from portico.http.target import EncodedSlashes
from portico.net.listener import Listener
from portico.net.server import Server, ServerLimits
from portico.observe.metrics import RELOAD_OK, RELOAD_TIME
from portico.runtime.protocol import Reloading, ReloadWanted, Remember, WantWorker, WorkerGone, WorkerReady
from portico.runtime.scrape import scrape
from portico.runtime.snapshot import read, services_of
from portico.state.board import AGENT, Board, Vital, Word

logger = logging.getLogger("portico.agent")

DRAIN: Final = 5.0
"""Seconds that what is asked of the agent has to be answered when it ends."""

START_TIMEOUT: Final = 30.0
"""Seconds that the supervisor has to tell what stands."""

PATIENCE: Final = 3.0
"""Seconds after a reload, or the agent's start, in which workers are expected to serve what stands."""

MEET_AGAIN: Final = 1.0
"""Seconds until a worker is met again whose channel was cut: where it always is, that must not keep everyone busy."""

LIMITS: Final = ServerLimits(connections=200)


class Agent:
    """The agent of one gateway."""

    def __init__(
        self,
        board: Board,
        sock: socket.socket,
        tasks: asyncio.TaskGroup,
        lost: Callable[[], None],
        speak: Callable[[str, str], None] = lambda *_: None,
    ) -> None:
        """`lost` is called where the supervisor is gone; `speak` has the process log in a format, from a level on."""
        self._board = board
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        self._parent = os.getppid()
        self.workers = Workers(board, self._cut, self._said)
        self.supervisor = Supervisor(
            sock, on_worker=self._worker, on_gone=self._gone, on_reload=self._wanted, on_lost=lost, speak=speak
        )
        self.reloads = Reloads(self.supervisor, self.workers)
        self.upstreams = Upstreams(self.workers, tasks)
        self.credentials = Credentials(board, tasks)
        self.purging = Purging(self.workers)
        self.recalling = Recalling(self.workers)
        self._followed = 0
        """The revision whose services `upstreams` attends to."""
        self._watch = Watch()
        self._control: asyncio.Server | None = None
        self._status: asyncio.Server | None = None
        self._status_at: list[str | int] = []
        self._servers: list[Server] = []
        self._reloading: set[asyncio.Task[Result]] = set()
        self._path: Path | None = None
        self._settle_by = self._loop.time() + PATIENCE

    async def start(self) -> None:
        """Learn what stands, and be there for those who ask. Raises TimeoutError where nobody tells."""
        async with asyncio.timeout(START_TIMEOUT):
            await self.supervisor.standing.wait()
        plan = self.supervisor.plan
        self.reloads.last = Result.from_json(self.supervisor.remembered)
        self._tell_revision()
        self._watch.follow(plan.files, plan.patterns, plan.loaded_at)
        self.credentials.follow(plan.consumer_database)
        await self._follow_services()
        await self._open_control()
        await self._open_status()

    async def run(self) -> None:
        """Watch files, and see to it that every worker serves what stands, until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL)
            if self.supervisor.plan.watch and not self.reloads.under_way and self._watch.changed():
                await self.reload("watch")
            if self._loop.time() > self._settle_by and not self.reloads.under_way:
                for worker in self.workers:
                    await self._check(worker)

    async def reload(self, origin: str) -> Result:
        """Load the file and serve it; what went wrong is in the result."""
        return await asyncio.shield(self._begin_reload(origin))

    async def _reload(self, origin: str) -> Result:
        self._watch.loading()
        self.supervisor.tell(Reloading(begun=True))
        try:
            result = await self.reloads.reload(origin)
        finally:
            self.supervisor.tell(Reloading(begun=False))
        self.supervisor.tell(Remember(result.to_json()))
        outcome = self.reloads.outcome
        self._tell_revision()
        self._settle_by = self._loop.time() + PATIENCE
        self.credentials.follow(self.supervisor.plan.consumer_database)
        await self._follow_services()
        if outcome is not None:  # also of one that failed: it may have been the file that is new in it
            self._watch.follow(outcome.files, outcome.patterns)
        await self._open_status()
        return result

    async def _follow_services(self) -> None:
        """Attend to the services of what stands."""
        revision = self.supervisor.plan.revision
        if revision == self._followed:
            return
        self._followed = revision
        snapshot = os.dup(self.supervisor.snapshot)  # the next reload closes it
        try:
            self.upstreams.follow(services_of(await asyncio.to_thread(read, snapshot)))
        except Exception:  # of another version, perhaps, that was installed meanwhile; all else goes on
            logger.exception("the services of revision %d cannot be read, so their targets are not followed", revision)
        finally:
            os.close(snapshot)

    def _tell_revision(self) -> None:
        revision, segment, last = self.supervisor.plan.revision, self._board.segment(AGENT), self.reloads.last
        self._board.set_word(Word.CONFIG, revision)
        segment[Vital.REVISION] = revision
        if last is not None:
            segment.gauge(RELOAD_TIME.name).write(int(last.at * RELOAD_TIME.scale))
            segment.gauge(RELOAD_OK.name).write(int(last.ok))

    async def state(self) -> dict[str, Any]:
        """Return how the gateway is."""
        return await status(
            self.supervisor.plan,
            self._board,
            self.workers,
            self.reloads,
            self.upstreams,
            self.credentials,
            self._parent,
        )

    async def close(self) -> None:
        """End everything; a reload that is under way changes nothing."""
        for task in self._reloading:
            task.cancel()
        self.upstreams.close()
        self.credentials.close()
        for listening in (self._control, self._status):
            if listening is not None:
                listening.close()
        self.recalling.close()
        for server in self._servers:
            await server.drain(self._loop.time() + DRAIN)
        self.workers.close()
        self.supervisor.close()
        if self._path is not None:
            unbind(self._path)

    # What the supervisor says

    def _worker(self, ready: WorkerReady, sock: socket.socket) -> None:
        link = self.workers.met(ready.slot, ready.pid, sock)
        self.upstreams.greet(link)
        self.recalling.greet(link)

    def _said(self, link: WorkerLink, said: Any) -> None:
        self.recalling.hear(link, said)

    def _gone(self, gone: WorkerGone) -> None:
        self.workers.gone(gone.slot)

    def _cut(self, link: WorkerLink) -> None:
        """Ask for another channel; where the worker has ended, there is nobody to be met."""
        self._loop.call_later(MEET_AGAIN, self.supervisor.tell, WantWorker(link.slot, link.pid))

    def _wanted(self, wanted: ReloadWanted) -> None:
        self._begin_reload(wanted.origin)

    def _begin_reload(self, origin: str) -> asyncio.Task[Result]:
        """Begin a reload, which belongs to nobody: whoever waits for it may leave."""
        task = self._tasks.create_task(self._reload_safely(origin), name="reload")
        self._reloading.add(task)
        task.add_done_callback(self._reloading.discard)
        return task

    async def _reload_safely(self, origin: str) -> Result:
        try:
            return await self._reload(origin)
        except Exception as error:  # a task of the agent's: nothing has changed, and the next one may go better
            logger.exception("%s: the reload failed", origin)
            return Result(origin, time.time(), False, self.supervisor.plan.revision, errors=[repr(error)])

    async def _check(self, worker: WorkerLink) -> None:
        """Have a worker serve what stands, where it does not."""
        plan = self.supervisor.plan
        if worker.revision in (0, plan.revision) or worker.draining:
            return
        logger.warning("worker %d serves revision %d, not %d", worker.slot, worker.revision, plan.revision)
        with contextlib.suppress(TimeoutError):
            await self.reloads.catch_up(worker)
        self._settle_by = self._loop.time() + PATIENCE  # one that cannot is not asked without a pause

    # What it listens to

    async def _open_control(self) -> None:
        try:
            path = socket_of(self.supervisor.plan.file, self._parent)
            sock = bind(path)
        except ConfigError as error:
            logger.error("portico status and portico reload will not find this gateway: %s", error)  # noqa: TRY400 - a trace says no more
            return
        self._path = path
        handler = control(
            self.state, self.reload, self.reloads.try_out, self.purging.purge, scrape(self._board), self.recalling
        )
        listener = self._listener(handler)
        self._control = await self._loop.create_unix_server(listener.protocol, sock=sock)

    async def _open_status(self) -> None:
        """Listen where the configuration that stands now wants the status to be told."""
        wanted = self.supervisor.plan.status
        if wanted == self._status_at:
            return
        self._status_at = wanted
        if self._status is not None:
            self._status.close()
            self._status = None
        if not wanted:
            return
        host, port = wanted
        listener = self._listener(page(self.state, scrape(self._board)))
        try:
            self._status = await self._loop.create_server(listener.protocol, str(host), int(port), reuse_address=True)
        except OSError as error:
            self._status_at = []  # the next reload tries again
            logger.error("status cannot be told at %s:%s: %s", host, port, error.strerror or error)  # noqa: TRY400 - a trace says no more

    def _listener(self, handler: Handler) -> Listener:
        server = Server(handler, LIMITS, EncodedSlashes.KEEP, self._tasks)
        self._servers.append(server)
        return Listener(server)
