"""The content of a message: read once, piece by piece, with back-pressure; or buffered under a limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from portico.errors import AnswerTooLarge, BodyTooLarge, PorticoError, Source
from portico.http.headers import spelled

Trailers = list[tuple[bytes, bytes]]


class BodySource(Protocol):
    """Where a body comes from while it is still on its way."""

    async def read(self) -> bytes:
        """Return the next piece, or b"" at the body's end; raise if it breaks off before."""
        ...

    def trailers(self) -> Trailers:
        """Return the trailer fields; complete only after the end."""
        ...

    def close(self) -> None:
        """Give up the rest, if any, and free what the source holds; may be called more than once."""
        ...


class Body:
    """The content of a request or a response.

    `length` is its size in bytes, or None where only its end will tell. `whole` is the entire content where it is in
    memory (and then nothing is consumed by reading it), otherwise None.
    """

    __slots__ = ("_peeked", "_refused", "_source", "length", "limit", "of_answer", "pending", "touched", "whole")

    def __init__(self, whole: bytes | None = b"", source: BodySource | None = None, length: int | None = None) -> None:
        """Hold `whole`; or, where that is None, stream `length` bytes from `source`."""
        self.whole = whole
        self.length = length if whole is None else len(whole)
        self.limit: int | None = None
        """Bytes that may pass in all; more is BodyTooLarge. For the request's body, the tightest of the route's."""
        self.of_answer = False
        """True for a response's body, whose size is the service's fault and not the client's."""
        self.touched = False
        """True once somebody has begun to read the pieces: they do not come again."""
        self.pending = False
        """True while the next piece has been asked for and has not come, and for good where it never did."""
        self._source = source
        self._peeked = b""
        self._refused: tuple[Callable[[bytes], object], ...] = ()

    @classmethod
    def stream(cls, source: BodySource, length: int | None) -> Body:
        """Return a body that is read from `source`."""
        return cls(None, source, length)

    def restrict(self, limit: int) -> bool:
        """Let at most `limit` bytes pass; return False where it is known already that there are more."""
        left = limit - len(self._peeked)  # what was peeked at is of the same content
        if self.limit is None or left < self.limit:
            self.limit = left
        return left >= 0 and (self.length is None or self.length <= limit)

    def pass_through(self, through: Callable[[BodySource, bytes], BodySource]) -> None:
        """Have what was not read yet come through another source, made of this one and of what was peeked at.

        That comes ahead of what the source will be asked for, and is not asked for again.
        """
        assert self._source is not None
        self._source = through(self._source, self._peeked)

    async def chunk(self) -> bytes:
        """Return the next piece, or b"" at the end. Back-pressure: the next is only fetched when asked for."""
        if self.whole is not None:
            raise RuntimeError("a body in memory is read as `whole`")
        self.touched = True
        if self._peeked:
            piece, self._peeked = self._peeked, b""
            return piece
        return await self._next()

    async def _next(self) -> bytes:
        assert self._source is not None
        self.pending = True
        piece = await self._source.read()
        self.pending = False
        if self.limit is not None:
            self.limit -= len(piece)
            if self.limit < 0:
                raise self._too_large("the body is larger than this route takes")
        return piece

    def _too_large(self, detail: str) -> PorticoError:
        if self.of_answer:
            return AnswerTooLarge(detail, source=Source.RESPONSE)
        return BodyTooLarge(detail)

    async def read(self, limit: int) -> bytes:
        """Return the whole content, buffered; later readers, and the service, get the same bytes.

        Raises BodyTooLarge, or for an answer AnswerTooLarge, where it is over `limit` bytes, before that much is held.
        """
        if self.whole is not None:
            if len(self.whole) > limit:
                raise self._too_large(f"the body is over {limit} bytes")
            return self.whole
        if self.length is not None and self.length > limit:
            raise self._too_large(f"the body is over {limit} bytes")
        pieces: list[bytes] = []
        size = 0
        while piece := await self.chunk():
            size += len(piece)
            if size > limit:
                raise self._too_large(f"the body is over {limit} bytes")
            pieces.append(piece)
        self.whole = b"".join(pieces)
        self.length = size
        return self.whole

    async def peek(self, size: int) -> bytes:
        """Return the first `size` bytes (fewer where the body is shorter); the body still streams from its start."""
        if self.whole is not None:
            return self.whole[:size]
        while len(self._peeked) < size:
            piece = await self._next()
            if not piece:
                break
            self._peeked += piece
        return self._peeked[:size]

    def trailers(self) -> Trailers:
        """Return the trailer fields, complete only after the body's end."""
        found = [] if self._source is None else self._source.trailers()
        if not found or not self._refused:
            return found
        return [field for field in found if not any(refuses(spelled(field[0])) for refuses in self._refused)]

    def refuse_trailers(self, refuses: Callable[[bytes], object]) -> None:
        """Leave out trailer fields whose name, as `spelled` returns it, is one of those that are refused.

        Whoever takes a header from a request, for only the gateway may say it, takes it from what follows the body as
        well: some servers take trailers for headers (RFC 9110 section 6.5.1 says when they must not).
        """
        if self._source is not None:  # also where the content was buffered: trailers are not part of it
            self._refused = (*self._refused, refuses)

    def close(self) -> None:
        """Give up the rest: the connection that it came on is closed or reset where it was not read to its end."""
        if self._source is not None:
            self._source.close()
