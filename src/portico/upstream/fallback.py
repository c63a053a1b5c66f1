"""A fallback: what is answered, or who is asked, where a service cannot be."""

from __future__ import annotations

from collections.abc import Callable

from portico.config.resilience import Fallback as FallbackConfig
from portico.errors import UpstreamError
from portico.http.headers import HeaderBlock
from portico.http.message import Handler, Request, Response


def fixed_answer(config: FallbackConfig) -> Handler:
    """Return the Handler of an answer that is always the same. Raises ValueError for a header that cannot be."""
    content = config.body.encode()
    fields = [(b"Content-Type", config.content_type.encode("latin-1"))] if content else []
    fields += [(name.encode("ascii"), value.encode("latin-1")) for name, value in config.headers.items()]
    headers = HeaderBlock(fields)

    async def answer(_: Request) -> Response:
        response = Response(config.status, None, content)
        response.headers.set_block(headers)
        return response

    return answer


class Fallback:
    """The fallback of one service, around all that else is done to have an answer from it."""

    __slots__ = ("_clock", "_inner", "_instead", "_service")

    def __init__(
        self, config: FallbackConfig, other: Handler | None, clock: Callable[[], float], inner: Handler
    ) -> None:
        """`other` is the service that the fallback names; None where it names none."""
        self._service = config.service
        self._instead = fixed_answer(config) if other is None else other
        self._clock = clock
        self._inner = inner

    async def handle(self, request: Request) -> Response:
        """Pass `request` on, and where that fails, answer otherwise; raise the failure where that cannot be done."""
        deadline, upgrade = request.deadline, request.upgrade
        try:
            return await self._inner(request)
        except UpstreamError as error:
            if request.body.whole is None and request.body.touched:
                raise
            if self._service is not None and deadline is not None and self._clock() >= deadline:
                raise  # the other one would fail for want of time, and have that held against it
            failed, kind = error.record, error.type
        # The other service has its own time, as far as the request's goes, and its own protocols to change to.
        request.deadline, request.upgrade = deadline, upgrade
        exchange = request.exchange
        if exchange is None:
            return await self._instead(request)
        exchange.error = failed
        exchange.try_again(kind, self._clock())
        exchange.try_outcome = ""
        response = await self._instead(request)
        if exchange.error != failed:
            exchange.error = f"{failed}; then {exchange.error}"
        return response
