"""One look at one target: is it well?"""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

from portico.config.balance import HealthCheck, Target
from portico.config.tls import ServiceTls
from portico.errors import PorticoError
from portico.http.headers import Headers
from portico.http.message import Request, Response
from portico.net.client import ClientStream, Patience
from portico.net.pem import KeyPair, reason_of_service
from portico.net.pool import Pool, PoolOptions
from portico.net.stream import NEVER
from portico.net.tls import ClientTls
from portico.runtime.certificates import CertificateWatch
from portico.runtime.listeners import tls_version

BODY_LIMIT: Final = 64 * 1024
"""The most bytes of an answer's body that are read; then the connection is closed."""

_OPTIONS: Final = PoolOptions(max_connections=1, max_idle=0, idle_timeout=0.0)
_PATIENCE: Final = Patience(NEVER, NEVER)  # the look as a whole has a limit
_AGENT: Final = (b"User-Agent", b"portico-health")


class Finding(NamedTuple):
    """What a look has found."""

    well: bool
    why: str


class Looks:
    """Looks at the targets of one service, each time by a connection of its own."""

    def __init__(
        self, check: HealthCheck, tls: ServiceTls | None, watch: CertificateWatch, tasks: asyncio.TaskGroup
    ) -> None:
        self._check = check
        self._config = tls or ServiceTls()
        self._watch = watch
        self._tasks = tasks
        self._made: ClientTls | None = None
        path, question, query = (check.path or "/").partition("?")
        self._path, self._query = path, query if question else None
        fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in check.headers.items()]
        own = any(name.lower() == b"user-agent" for name, _ in fields)
        self._headers = fields if own else [_AGENT, *fields]

    async def at(self, target: Target) -> Finding:
        """Look at `target`. Raises ConfigError where the files of the service's certificates cannot be used."""
        tls = None if target.scheme == "http" else self._tls()
        pool = Pool(target.host, target.port, tls, _OPTIONS, self._tasks, server_name=target.server_name)
        check = self._check
        what = "connection"
        try:
            async with asyncio.timeout(check.timeout):
                if check.tcp:
                    await pool.probe()
                    return Finding(True, "it accepts connections")
                stream = await pool.connect(2 * check.timeout, None)
                what = "answer"
                return await self._answer(stream, target)
        except TimeoutError:
            return Finding(False, f"no {what} within {check.timeout:g} s")
        except OSError as error:
            return Finding(False, reason_of_service(error))
        except PorticoError as error:
            return Finding(False, str(error))

    async def _answer(self, stream: ClientStream, target: Target) -> Finding:
        check = self._check
        request = Request("GET", self._path, self._query, Headers(self._headers))
        authority = target.authority if check.host is None else check.host
        response = await stream.send(request, request.target, authority.encode("latin-1"), _PATIENCE)
        await _read(response)
        status = response.status
        well = status in check.statuses if check.statuses else 200 <= status < 300
        return Finding(well, f"status {status}")

    def _tls(self) -> ClientTls:
        if self._made is None:
            said = self._config
            pair = None if said.pair is None else KeyPair(*said.pair)
            self._made = ClientTls(said.ca, pair, said.verify, tls_version(said.min_version), said.server_name)
            self._watch.add(self._made)
        return self._made


async def _read(response: Response) -> None:
    """Read the answer to its end, so that the target is not interrupted; but no more than the bound."""
    body = response.body
    if body.whole is not None:
        return
    left = BODY_LIMIT
    try:
        while left > 0 and (piece := await body.chunk()):
            left -= len(piece)
    finally:
        body.close()
