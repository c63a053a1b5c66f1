"""Requests that a test has go on and come to their end one step at a time, without a loop."""

from __future__ import annotations

import asyncio
from collections.abc import Generator

from portico.http.message import Handler, Request, Response


class Turn:
    """What a Handler awaits until the test says what comes of it."""

    def __await__(self) -> Generator[None, Response, Response]:
        return (yield)


class Asked:
    """A service that answers when it is told to."""

    def __init__(self) -> None:
        self.count = 0

    async def handle(self, request: Request) -> Response:
        self.count += 1
        return await Turn()


class Call:
    """One request to a Handler, up to where the service has it, or to its end."""

    def __init__(self, handler: Handler, request: Request | None = None) -> None:
        self._coroutine = handler(Request("GET", "/") if request is None else request)
        self.response: Response | None = None
        self.error: BaseException | None = None
        self._step(None)

    @property
    def under_way(self) -> bool:
        return self.response is None and self.error is None

    def answer(self, status: int = 200) -> Call:
        self._step(Response(status))
        return self

    def fail(self, error: BaseException) -> Call:
        self._step(error)
        return self

    def leave(self) -> Call:
        return self.fail(asyncio.CancelledError())

    def _step(self, what: Response | BaseException | None) -> None:
        assert self.under_way
        try:
            if isinstance(what, BaseException):
                self._coroutine.throw(what)  # type: ignore[attr-defined]
            else:
                self._coroutine.send(what)  # type: ignore[attr-defined]
        except StopIteration as end:
            self.response = end.value
        except BaseException as error:  # noqa: BLE001 - a cancellation is one of the ends
            self.error = error
