"""The vocabulary in which every version of HTTP meets."""

from __future__ import annotations

from portico.http.body import Trailers
from portico.http.headers import Headers


class KnownRequest:
    """What a request's head said that comes again and again, byte for byte; it has no content and asks for nothing odd.

    `path` is its target in normal form once someone has found that out, and empty until then.
    """

    __slots__ = ("headers", "keep_alive", "method", "minor", "path", "target")

    def __init__(self, method: str, target: bytes, minor: int, headers: Headers, keep_alive: bool) -> None:
        self.method = method
        self.target = target
        self.minor = minor
        self.headers = headers
        self.keep_alive = keep_alive
        self.path = ""


class KnownAnswer:
    """What a response's head said that comes again and again, byte for byte; its content has a length."""

    __slots__ = ("headers", "keep_alive", "length", "status")

    def __init__(self, status: int, headers: Headers, keep_alive: bool, length: int) -> None:
        self.status = status
        self.headers = headers
        self.keep_alive = keep_alive
        self.length = length


class RequestHead:
    """The head of a request.

    `length` is the size of its content in bytes, or None where only the end will tell. `keep_alive` says whether the
    client means to send more on this connection, `expects_continue` whether it waits for a 100 before its content.
    `upgrade` is the one protocol that it would rather speak (RFC 9110 section 7.8), in lower case, or empty.
    `known` is what is remembered of a head that has come before.
    """

    __slots__ = ("expects_continue", "headers", "keep_alive", "known", "length", "method", "minor", "target", "upgrade")

    def __init__(
        self,
        method: str,
        target: bytes,
        minor: int,
        headers: Headers,
        length: int | None,
        keep_alive: bool,  # positional, as all here: keywords cost, and this is built for each request
        expects_continue: bool,
        upgrade: bytes = b"",
        known: KnownRequest | None = None,
    ) -> None:
        self.method = method
        self.target = target
        self.minor = minor
        self.headers = headers
        self.length = length
        self.keep_alive = keep_alive
        self.expects_continue = expects_continue
        self.upgrade = upgrade
        self.known = known


class ResponseHead:
    """The head of a response, interim (1xx) or final; `length` as in RequestHead."""

    __slots__ = ("headers", "length", "status")

    def __init__(self, status: int, headers: Headers, length: int | None) -> None:
        self.status = status
        self.headers = headers
        self.length = length


class Data:
    """A piece of content; `last` where the content is known to end with it."""

    __slots__ = ("data", "last")

    def __init__(self, data: bytes, *, last: bool) -> None:
        self.data = data
        self.last = last


class End:
    """The end of content whose last piece could not be told, with its trailer fields."""

    __slots__ = ("trailers",)

    def __init__(self, trailers: Trailers) -> None:
        self.trailers = trailers
