"""Requests, responses, and what turns one into the other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Generic, Protocol, TypeVar, cast

from mypy_extensions import mypyc_attr

from portico.http.body import Body
from portico.http.duplex import Duplex
from portico.http.forwarded import Client as Client
from portico.http.headers import Headers
from portico.http.problem import Problem
from portico.observe.exchange import Exchange

T = TypeVar("T")


class Key(Generic[T]):
    """The name of a typed slot on a request: `USER: Key[User] = Key("user")`, then `request[USER]`."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"Key({self.name!r})"


class Interim(Protocol):
    """What sends an interim response to the client."""

    def __call__(self, status: int, headers: Headers) -> None:
        """Send a 1xx answer now."""


class Request:
    """One request on its way to a service.

    `path` is normalised (see `portico.http.target`) and begins with a slash; `query` is what followed the question
    mark, untouched, or None where there was none. `host` is the lower-case host that was asked for, without its port;
    `authority` is the Host that a service is sent, or None for the target's own. `captures` are the matched route's
    path captures, decoded. `deadline` is a time of the worker's clock after which no answer is of use; `answer_by`
    one at which somebody further out gives up, unless an answer has begun. `upgrade` is the
    protocol that the client would rather speak on its connection (RFC 9110 section 7.8), in lower case, or empty.
    `client` and `exchange` are None for a request that a policy made by itself.
    """

    __slots__ = (
        "_interim",
        "_sent",
        "_slots",
        "answer_by",
        "authority",
        "body",
        "captures",
        "client",
        "deadline",
        "exchange",
        "headers",
        "host",
        "known",
        "method",
        "observer",
        "path",
        "query",
        "upgrade",
    )

    def __init__(
        self,
        method: str,
        path: str,
        query: str | None = None,
        headers: Headers | None = None,
        body: Body | None = None,
        host: str = "",
        client: Client | None = None,
        exchange: Exchange | None = None,
        interim: Interim | None = None,
        sent: bytes = b"",
        known: object = None,
    ) -> None:
        """`sent` is the request target as it came, where a client has sent one.

        `known` stands for a head that comes again and again, byte for byte: whatever was found out of nothing but the
        head holds for each request that has the same one.
        """
        self.method = method
        self.path = path
        self.query = query
        self.headers = Headers() if headers is None else headers
        self.body = Body() if body is None else body
        self.host = host
        self.client = client
        self.exchange = exchange
        self._interim = interim
        self._sent = sent
        self.known = known
        self.authority: bytes | None = None
        self.captures: dict[str, str] = {}
        self.deadline: float | None = None
        self.answer_by: float | None = None
        self.upgrade = b""
        self.observer: Observer | None = None
        """Who is told of the answer and of the end, where a client has sent this."""
        self._slots: dict[Key[Any], Any] | None = None

    @property
    def target(self) -> str:
        """The request target in origin form: path and query (RFC 9112 section 3.2.1)."""
        return self.path if self.query is None else f"{self.path}?{self.query}"

    @property
    def sent(self) -> bytes:
        """The request target as the client has sent it, in bytes; empty for a request that no client has sent."""
        return self._sent

    @property
    def sent_target(self) -> str:
        """The request target as the client has sent it, in whatever form, and not as policies have made it since."""
        return self._sent.decode("latin-1") if self._sent else self.target

    @property
    def raw_target(self) -> bytes:
        """The same in bytes; empty where no client has sent this."""
        return self._sent

    @property
    def has_slots(self) -> bool:
        """Whether something was put into a slot."""
        return self._slots is not None

    def derive(self, path: str) -> Request:
        """Return the same request for another path; headers, body and slots are shared, not copied."""
        other = Request(
            self.method, path, self.query, self.headers, self.body, self.host, self.client, self.exchange, self._interim
        )
        other._sent = self._sent
        other.authority = self.authority
        other.captures = self.captures
        other.deadline = self.deadline
        other.answer_by = self.answer_by
        other.upgrade = self.upgrade
        other._slots = self._slots
        return other

    def copy(self, body: Body) -> Request:
        """Return a request of its own that says the same, with `body`: no client waits for what it is answered.

        It has no exchange, no deadline, and no wish for another protocol.
        """
        other = Request(self.method, self.path, self.query, self.headers.copy(), body, self.host, self.client)
        other._sent = self._sent
        other.authority = self.authority
        other.captures = self.captures
        if self._slots is not None:
            other._slots = self._slots.copy()
        return other

    def interim(self, status: int, headers: Headers) -> None:
        """Send an interim (1xx) answer ahead of the final one (RFC 9110 section 15.2), where the client can take it.

        Once the final answer has begun, or the exchange is over, this does nothing.
        """
        exchange = self.exchange
        over = exchange is not None and (exchange.status != 0 or exchange.outcome is not None)
        if self._interim is not None and not over:
            self._interim(status, headers)

    def __getitem__(self, key: Key[T]) -> T:
        if self._slots is None:
            raise KeyError(key.name)
        return cast(T, self._slots[key])

    def __setitem__(self, key: Key[T], value: T) -> None:
        if self._slots is None:
            self._slots = {}
        self._slots[key] = value

    def __delitem__(self, key: Key[Any]) -> None:
        if self._slots is None:
            raise KeyError(key.name)
        del self._slots[key]

    def get(self, key: Key[T]) -> T | None:
        """Return the slot's value, or None where nothing was put there."""
        return None if self._slots is None else self._slots.get(key)

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.target}>"


class Response:
    """One answer.

    `problem`, where set, is written into the body at the route's edge, in the route's error shape; until then
    policies see the value, not its rendering. `duplex` is there where the status is 101: the connection that the client
    is joined to.
    """

    __slots__ = ("body", "duplex", "headers", "problem_value", "status")

    def __init__(self, status: int = 200, headers: Headers | None = None, body: Body | bytes = b"") -> None:
        self.status = status
        self.headers = Headers() if headers is None else headers
        self.body = Body(body) if isinstance(body, bytes) else body
        self.body.of_answer = True
        self.problem_value: Problem | None = None
        self.duplex: Duplex | None = None

    @classmethod
    def problem(
        cls,
        status: int,
        type: str,  # noqa: A002 - RFC 9457's word
        title: str = "",
        detail: str = "",
        **extensions: str | int | list[str],
    ) -> Response:
        """Return an answer that says what went wrong; `type` is a stable name such as "country-not-allowed"."""
        self = cls(status)
        self.problem_value = Problem(status, type, title, detail, extensions)
        return self

    def __repr__(self) -> str:
        return f"<Response {self.status}>"


@mypyc_attr(allow_interpreted_subclasses=True)
class Observer:
    """Sees the exchanges of a route, or of what comes to no route. Each is told of twice, by the server.

    Neither method may wait, or keep the request. `request` is None for what never became one.
    """

    def answering(self, exchange: Exchange, request: Request | None) -> None:
        """See an exchange whose status is known, before the client sees it; where nothing is answered, at the end."""

    def ended(self, exchange: Exchange, request: Request | None) -> None:
        """See an exchange at its end, of which nothing more will change."""


Handler = Callable[[Request], Awaitable[Response]]
"""The one shape of everything that answers: proxy, policy chain, cache, test double."""
