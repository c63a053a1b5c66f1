"""A second target for a request that the first one lets wait."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from portico.errors import UpstreamError
from portico.http.message import Request, Response
from portico.observe.exchange import Exchange
from portico.upstream.retry import RetryPolicy
from portico.upstream.stack import Service
from portico.upstream.target import Target


class Hedge:
    """Sends a request to one more target each time that none has answered for a while, and takes the first answer.

    As "The Tail at Scale" (Dean and Barroso, 2013) has it. Those that are not the first to answer are cancelled, and
    their connections closed; none of them outlives the request.
    """

    __slots__ = ("_after", "_most", "_retry", "_service")

    def __init__(self, service: Service, retry: RetryPolicy, after: float, most: int) -> None:
        """Ask `most` more targets of `service`, each `after` seconds later, of requests that `retry` may repeat."""
        self._service = service
        self._retry = retry
        self._after = after
        self._most = most

    async def handle(self, request: Request) -> Response:
        """Return the first good answer; where there is none, what the first try to fail has come to."""
        await self._service.begin(request)
        if not self._retry.may_repeat(request):
            return await self._service.attempt_beside(request, [])
        race = _Race(request, self._service, self._retry)
        try:
            async with asyncio.TaskGroup() as group:
                race.enter(group)
                for _ in range(self._most):
                    if await race.over(self._after) or not self._retry.budget.spend():
                        break
                    race.enter(group)
                await race.over(None)
                race.stop()
        except BaseException:
            race.forsake()
            raise
        return race.result()


class _Try(NamedTuple):
    """One of the tries of a request."""

    task: asyncio.Task[Response | Exception]
    exchange: Exchange | None


class _Race:
    """The tries of one request."""

    __slots__ = ("_chosen", "_over", "_request", "_retry", "_running", "_service", "_tried", "_tries")

    def __init__(self, request: Request, service: Service, retry: RetryPolicy) -> None:
        self._request = request
        self._service = service
        self._retry = retry
        self._tried: list[Target] = []
        self._tries: list[_Try] = []
        self._running: list[_Try] = []
        self._chosen: _Try | None = None
        """The one whose answer is taken; the first that failed while there is none."""
        self._over = False

    def enter(self, group: asyncio.TaskGroup) -> None:
        """Begin one more try."""
        request = self._request.derive(self._request.path)
        if request.exchange is not None:
            request.exchange = request.exchange.branch()
        entered = _Try(group.create_task(self._outcome(request), name="hedge"), request.exchange)
        self._tries.append(entered)
        self._running.append(entered)

    async def over(self, within: float | None) -> bool:
        """Tell whether within so many seconds there is a good answer, or nothing more to wait for."""
        try:
            async with asyncio.timeout(within):
                while self._running and not self._over:
                    await asyncio.wait([each.task for each in self._running], return_when=asyncio.FIRST_COMPLETED)
                    self._look()
        except TimeoutError:
            return False
        return True

    def _look(self) -> None:
        """Note what has come out; of those that have at the same moment, the one that began first counts."""
        for each in [each for each in self._running if each.task.done()]:
            self._running.remove(each)
            failed = self._has_failed(each.task.result())
            if not failed or self._chosen is None:
                self._chosen = each
            if not failed:
                self._over = True
                break

    def _has_failed(self, outcome: Response | Exception) -> bool:
        """Return whether to wait for the others yet; where it is a mistake of ours nothing is to hide it."""
        return isinstance(outcome, UpstreamError) or (isinstance(outcome, Response) and self._retry.wants(outcome))

    async def _outcome(self, request: Request) -> Response | Exception:
        """Return what comes of a try: its error, too, since that must not end the others."""
        try:
            return await self._service.attempt_beside(request, self._tried)
        except Exception as error:  # noqa: BLE001 - raised where the request is awaited
            return error

    def stop(self) -> None:
        """Give up the tries that are under way."""
        for each in self._running:
            each.task.cancel()

    def result(self) -> Response:
        """Return the answer that is taken, or raise what stood in its way; all tries have ended."""
        chosen = self._chosen
        assert chosen is not None
        self._settle(chosen)
        outcome = chosen.task.result()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def forsake(self) -> None:
        """Take no answer; all tries have ended."""
        self._settle(None)

    def _settle(self, taken: _Try | None) -> None:
        """Let go of the answers that are not taken, and have the record say how it was."""
        exchange = self._request.exchange
        told = taken or self._chosen or self._tries[0]
        for each in self._tries:
            outcome = None if each is taken or each.task.cancelled() else each.task.result()
            if isinstance(outcome, Response):
                outcome.body.close()
            if exchange is not None and each.exchange is not None:
                exchange.tries += each.exchange.tries
                exchange.passed_over += each.exchange.passed_over
                if each is not taken and each.exchange.tries:
                    exchange.passed_over += (outcome.status if isinstance(outcome, Response) else 0,)
                if each is told:
                    exchange.take(each.exchange)
                else:
                    exchange.forgo(each.exchange, _what_came(outcome), self._service.now())


def _what_came(outcome: Response | Exception | None) -> str:
    """Return what a try's record says of one that does not count."""
    if isinstance(outcome, UpstreamError):
        return outcome.type
    if isinstance(outcome, Exception):
        return "failed"
    return "outrun" if outcome is None else f"status-{outcome.status}"
