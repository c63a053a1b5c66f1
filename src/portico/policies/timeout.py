"""Give up on a request that takes too long.

```yaml
policies:
  - timeout: 10s
routes:
  - {path: /reports/**, service: reports, policies: [{timeout: 2m}]}
  - {path: /quotes/**, service: quotes, policies: [{timeout: {after: 3s, total: true}}]}
```

Everything further in has so long to begin its answer: policies that wait, tries and retries, the service. Then all of
it is cancelled, its connections are let go, and the client is answered 504. The time that the client takes to send its
request counts, too.

An answer that has begun in time may go on for as long as it likes, as a download or a stream of events does; its
service's `timeout.idle` sees to it that it does not stall. With `total`, the time is for the whole answer: one that is
still under way when it is over is cut off, which is the only way left to tell the client, and further in it is known as
the request's deadline. A WebSocket that has begun is never cut off.

How it differs from the `timeout` of a service, or of a route: that one is for the exchange with the service alone, all
of it, content too, and tells of a slow service (`service-timeout`). This one is for the route: whatever the time was
spent on, and however many services were asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pydantic import field_validator

from portico.plugin import (
    Body,
    BodyTruncated,
    Duration,
    Env,
    Handler,
    Policy,
    PolicyConfig,
    Request,
    Response,
    Stage,
)


class Timeout(PolicyConfig):
    """How long."""

    after: Duration
    """The time in which the answer has to begin."""
    total: bool = False
    """The answer has to end in that time as well."""

    @field_validator("after")
    @classmethod
    def _some_time(cls, after: float) -> float:
        if after == 0:
            raise ValueError("no time at all lets nothing through; to have no limit, leave the policy out")
        return after


class TimeoutPolicy(
    Policy[Timeout],
    name="timeout",
    stages=(
        Stage.GUARD,
        Stage.OBSERVE,
        Stage.AUTHENTICATE,
        Stage.AUTHORIZE,
        Stage.LIMIT,
        Stage.CACHE,
        Stage.TRANSFORM,
    ),
):
    """Puts a limit to the time that everything further in takes."""

    def setup(self, env: Env) -> None:
        """Remember the clock."""
        self._clock = env.clock

    async def handle(self, request: Request, next: Handler) -> Response:  # noqa: A002 - the field's word
        """Answer in time, by whatever answer there is."""
        end = self._clock() + self.config.after
        if self.config.total and (request.deadline is None or end < request.deadline):
            request.deadline = end
        if request.answer_by is None or end < request.answer_by:
            request.answer_by = end
        limit = asyncio.timeout_at(end)
        try:
            async with limit:
                response = await next(request)
        except TimeoutError:
            if not limit.expired():
                raise  # somebody else's
            return self._too_late(request)
        if not self.config.total:
            return response
        if response.status == 504 and self._clock() >= end:  # a service kept to the deadline that it was given
            response.body.close()
            return self._too_late(request)
        if response.body.whole is None and response.duplex is None:
            timed = Body.stream(_Timed(response.body, end, self._clock), response.body.length)
            timed.of_answer = True
            response.body = timed
        return response

    def _too_late(self, request: Request) -> Response:
        detail = "There was no answer in the time that this request may take."
        return self.stopped(request, Response.problem(504, "timeout", detail=detail))


class _Timed:
    """Content that has to come to its end in time."""

    __slots__ = ("_body", "_clock", "_end")

    def __init__(self, body: Body, end: float, clock: Callable[[], float]) -> None:
        self._body = body
        self._end = end
        self._clock = clock

    async def read(self) -> bytes:
        """Return the next piece, or b"" at the end."""
        if self._clock() < self._end:
            limit = asyncio.timeout_at(self._end)
            try:
                async with limit:
                    return await self._body.chunk()
            except TimeoutError:
                if not limit.expired():
                    raise
        self._body.close()
        raise BodyTruncated("the answer took longer than the timeout policy allows")

    def trailers(self) -> list[tuple[bytes, bytes]]:
        """Return the trailer fields."""
        return self._body.trailers()

    def close(self) -> None:
        """Give up the rest."""
        self._body.close()
