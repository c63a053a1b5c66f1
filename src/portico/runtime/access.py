"""The access logs of a worker: one for each that a configuration wants, kept over reloads that change nothing of it."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import Callable, Mapping
from typing import Final

from portico.config.access_log import AccessLog, Collector, RouteAccessLog
from portico.errors import ConfigError
from portico.exporters.access_log.collector import CollectorWay
from portico.exporters.access_log.files import DescriptorSink
from portico.exporters.access_log.json_lines import JsonLines
from portico.exporters.access_log.log import Log
from portico.exporters.access_log.losses import Losses
from portico.exporters.access_log.record import Lines
from portico.exporters.access_log.recorder import Choice, Recorder
from portico.exporters.access_log.redaction import Redaction
from portico.exporters.access_log.syslogs import SyslogSink
from portico.exporters.access_log.text_lines import TextLines
from portico.exporters.access_log.ways import LAST_WAIT, FileWay, SyslogWay, Way
from portico.http.headers import Headers
from portico.http.message import Observer
from portico.net import syslog
from portico.observe.metrics import ACCESS_LOG_DROPPED
from portico.runtime.life import Life
from portico.runtime.observing import Ground, Watch, Watched
from portico.state.board import Segment

_NEVER: Final = float("inf")


class RouteLogs:
    """Watches requests for one log."""

    def __init__(self, log: Log, config: AccessLog, routes: Mapping[str, RouteAccessLog], rng: random.Random) -> None:
        """`routes` has what routes say of it themselves, by their names."""
        self._recorder = Recorder(log.keep)
        self._config = config
        self._routes = routes
        self._rng = rng

    def of_route(self, route: Watched) -> Observer | None:
        """Return what keeps records of a route's requests."""
        if route.probed:
            return self._observer(RouteAccessLog(level="off" if self._config.level == "off" else "errors"))
        return self._observer(self._routes.get(route.name) or RouteAccessLog())

    def of_rest(self) -> Observer | None:
        """Return what keeps records of the others."""
        return self._observer(RouteAccessLog())

    def _observer(self, own: RouteAccessLog) -> Observer | None:
        config = self._config
        level = own.level or config.level
        if level == "off":
            return None
        share = config.sample if own.sample is None else own.sample
        slow = config.slow if own.slow is None else own.slow
        if level == "all" and share >= 1.0:
            return self._recorder
        return Choice(self._recorder, share if level == "all" else 0.0, _NEVER if slow is None else slow, self._rng)


class AccessLogs:
    """All that one worker has."""

    def __init__(
        self,
        segment: Segment,
        tasks: asyncio.TaskGroup,
        loop: asyncio.AbstractEventLoop,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._tasks = tasks
        self._loop = loop
        self._wall = wall
        self._segment = segment
        self._rng = random.Random()  # noqa: S311 - it draws samples
        self._losses: Losses | None = None
        self._open: list[_Opened] = []
        self._closing: list[_Opened] = []

    def watch(self, ground: Ground) -> Watch | None:
        """Return what keeps records for the log of a configuration; None where it wants none."""
        config = ground.config.access_log
        if config is None:
            return None
        log: _Opened = ground.share(("access log", _print_of(config)), lambda: self._opened(config, ground))
        own = {route.name: route.access_log for route in ground.config.routes if route.access_log is not None}
        return RouteLogs(log.log, config, own, self._rng)

    def reopen(self) -> None:
        """Have all files opened anew."""
        for opened in self._open:
            opened.log.reopen()

    def flush(self) -> None:
        """Make lines of all that is over, ahead of the end."""
        for opened in self._open:
            opened.log.flush()

    async def settle(self, by: float) -> None:
        """Wait for what collectors still are sent, until a time of the loop."""
        self.flush()
        try:
            async with asyncio.timeout_at(by):
                for opened in (*self._open, *self._closing):
                    if opened.life is not None:
                        await opened.life.settled()
        except TimeoutError:
            for opened in (*self._open, *self._closing):
                if opened.life is not None:
                    opened.life.close()

    def finish(self, seconds: float = LAST_WAIT) -> None:
        """Wait for what is still to be written at the end, for so long; nothing else happens meanwhile."""
        until = time.monotonic() + seconds
        for opened in self._closing:
            opened.log.finish(max(0.0, until - time.monotonic()))
            if opened.life is not None:
                opened.life.close()
        self._closing.clear()
        if self._losses is not None:
            self._losses.tell()

    def look(self) -> None:
        """Tell of lines that were lost, where that is due."""
        if self._losses is not None:
            self._losses.look()

    def closing(self, opened: _Opened) -> None:
        """Know that nobody keeps records for a log any more."""
        self._open.remove(opened)
        self._closing = [*(each for each in self._closing if not each.over), opened]

    def _opened(self, config: AccessLog, ground: Ground) -> _Opened:
        if self._losses is None:
            self._losses = Losses(self._segment.counter(ACCESS_LOG_DROPPED.name), self._loop.time)
        life = None if config.collector is None else Life(self._tasks, ground.web())
        try:
            way = self._way(config, life)
        except BaseException:
            if life is not None:
                life.close()
            raise
        log = Log(
            _lines(config),
            way,
            self._losses,
            clock=self._loop.time,
            wall=self._wall,
            later=self._loop.call_later,
        )
        opened = _Opened(self, log, way, life)
        self._open.append(opened)
        return opened

    def _way(self, config: AccessLog, life: Life | None) -> Way:
        losses, loop = self._losses, self._loop
        assert losses is not None

        def lost(lines: int, why: str) -> None:
            """Count lines that a thread has lost."""
            if not loop.is_closed():
                loop.call_soon_threadsafe(losses.add, lines, why)

        if config.syslog is not None:
            head = syslog.header(config.syslog.priority, config.syslog.app_name, "access")
            return SyslogWay(SyslogSink(syslog.Syslog(config.syslog.address)), config.buffer, lost, head, self._wall)
        if config.collector is not None:
            assert life is not None
            return _collecting(config.collector, life, config.buffer, loop, losses)
        return FileWay(DescriptorSink(config.file), config.buffer, lost)


class _Opened:
    """A log that is leased."""

    def __init__(self, logs: AccessLogs, log: Log, way: Way, life: Life | None) -> None:
        self._logs = logs
        self._way = way
        self.log = log
        self.life = life
        """The work for a collector."""

    @property
    def over(self) -> bool:
        """Whether nothing is left to be written."""
        return self._way.over

    def close(self) -> None:
        """Keep no more records."""
        self.log.close()
        self._logs.closing(self)


def _collecting(
    config: Collector, life: Life, most: int, loop: asyncio.AbstractEventLoop, losses: Losses
) -> CollectorWay:
    headers = Headers([(b"Content-Type", config.content_type.encode("latin-1"))])
    for name, value in config.headers.items():
        try:
            headers.set(name.encode("ascii"), value.get_secret_value().encode("latin-1"))
        except ValueError:
            raise ConfigError(f"access_log: this cannot stand in the header {name}") from None

    def later(close: Callable[[], None]) -> None:
        """Close once the work that says that it is over is."""
        loop.call_soon(close)

    origin = config.url._replace(path="")
    return CollectorWay(
        life.web.handler(origin, config.ca),
        config.url.path or "/",
        headers,
        batch=config.batch,
        linger=config.linger,
        timeout=config.timeout,
        most=most,
        clock=loop.time,
        begin=lambda work: life.see_through(work, "access log"),
        ended=lambda: later(life.close),
        lost=losses.add,
    )


def _lines(config: AccessLog) -> Lines:
    redaction = Redaction(config.redact)
    if config.format != "json":
        return TextLines(config.format, redaction)
    key = b"" if config.hash_key is None else config.hash_key.get_secret_value().encode()
    return JsonLines(redaction, config.headers, config.hashed, key)


def _print_of(config: AccessLog) -> bytes:
    """Return what tells a log from others: all but which requests have a line."""
    said = repr(config.model_dump(exclude={"level", "sample", "slow"}))
    secrets = [config.hash_key, *(() if config.collector is None else config.collector.headers.values())]
    known = repr([secret.get_secret_value() for secret in secrets if secret is not None])
    return hashlib.sha256(f"{said}\0{known}".encode("utf-8", "backslashreplace")).digest()
