"""A second target for a request that the first one lets wait."""

from __future__ import annotations

import asyncio

from portico.http.message import Handler, Request, Response
from portico.upstream.retry import RetryPolicy


class Hedge:
    """Sends a request to one more target each time that none has answered for a while, and takes the first answer.

    As "The Tail at Scale" (Dean and Barroso, 2013) has it. The tries run in the worker's TaskGroup; those that are not
    the first to answer are cancelled, and their connections closed.
    """

    __slots__ = ("_after", "_inner", "_most", "_retry", "_tasks")

    def __init__(self, inner: Handler, retry: RetryPolicy, after: float, most: int, tasks: asyncio.TaskGroup) -> None:
        """Ask `most` more targets, each `after` seconds later, of requests that `retry` may repeat."""
        self._inner = inner
        self._retry = retry
        self._after = after
        self._most = most
        self._tasks = tasks

    async def handle(self, request: Request) -> Response:
        """Return the first answer."""
        if self._retry.worth_keeping(request):
            await request.body.read(self._retry.body)
        if not self._retry.may_repeat(request):
            return await self._inner(request)
        race = _Race(request, self._inner, self._tasks)
        race.enter()
        try:
            for _ in range(self._most):
                answer = await race.first(self._after)
                if answer is not None:
                    return answer
                if race.over or not self._retry.budget.spend():
                    break
                race.enter()
            return await race.last()
        finally:
            race.end()


class _Race:
    """The tries of one request."""

    __slots__ = ("_error", "_inner", "_request", "_running", "_tasks", "_won")

    def __init__(self, request: Request, inner: Handler, tasks: asyncio.TaskGroup) -> None:
        self._request = request
        self._inner = inner
        self._tasks = tasks
        self._running: dict[asyncio.Task[Response | Exception], str] = {}
        self._error: Exception | None = None

    @property
    def over(self) -> bool:
        """Whether nothing is under way any more."""
        return not self._running

    def enter(self) -> None:
        """Begin one more try."""
        task = self._tasks.create_task(_outcome(self._inner, self._request.derive(self._request.path)), name="hedge")
        self._running[task] = ""

    async def first(self, within: float | None) -> Response | None:
        """Return the first good answer within so many seconds, or None."""
        deadline = None if within is None else asyncio.get_running_loop().time() + within
        while self._running:
            left = None if deadline is None else max(0.0, deadline - asyncio.get_running_loop().time())
            done, _ = await asyncio.wait(self._running, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                return None
            for task in done:
                del self._running[task]
                outcome = task.result()
                if isinstance(outcome, Response):
                    return outcome
                self._error = self._error or outcome
        return None

    async def last(self) -> Response:
        """Return the first good answer, whenever it comes; raise what the first try has met where there is none."""
        answer = await self.first(None)
        if answer is None:
            assert self._error is not None
            raise self._error
        return answer

    def end(self) -> None:
        """Give up the tries that are under way."""
        for task in self._running:
            if not task.cancel() and not task.cancelled():
                outcome = task.result()
                if isinstance(outcome, Response):
                    outcome.body.close()


async def _outcome(inner: Handler, request: Request) -> Response | Exception:
    """Return what comes of a try: its error, too, since the group that it runs in is not the request's."""
    try:
        return await inner(request)
    except Exception as error:  # noqa: BLE001 - raised where the request is awaited
        return error
