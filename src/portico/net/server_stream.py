"""The server side, whatever the version of HTTP: room for one request on a connection, and its answer."""

from __future__ import annotations

import asyncio
import logging
from typing import ClassVar, Final

from mypy_extensions import mypyc_attr

from portico.errors import BodyTruncated, MalformedRequest, PorticoError, RequestError
from portico.http.body import Body, Trailers
from portico.http.forwarded import Client
from portico.http.headers import HOP_BY_HOP, Headers, Pair
from portico.http.message import Handler, Interim, Request, Response
from portico.http.problem import Problem
from portico.http.target import parse_host, parse_target
from portico.net.server import Server
from portico.net.stream import DeadlineExceeded
from portico.observe.exchange import Exchange, Outcome
from portico.wire import h1
from portico.wire.events import Data, End, RequestHead

logger = logging.getLogger("portico.server")

REFUSED_METHODS: Final = frozenset(("CONNECT", "TRACE"))
SERVED_METHODS: Final = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"


@mypyc_attr(allow_interpreted_subclasses=True)
class ServerStream:
    """Room for one request and its answer on a client's connection, whatever the connection beneath.

    A codec says how content comes in, and how an answer's head, content and end go out; what is done with them is here.
    """

    __slots__ = (
        "_asked",
        "_content",
        "_direct",
        "_exchange",
        "_host",
        "_left",
        "_raw_host",
        "_said",
        "_task",
        "client",
        "epoch",
        "server",
        "trusted",
    )

    def __init__(self, server: Server, client: Client) -> None:
        self.server = server
        self.epoch = server.epoch_of_new
        self.client = client
        """Who sends the requests; behind a trusted proxy it may be another one for each of them."""
        self.trusted = server.trust.includes(client.peer)
        self._direct = client
        self._said: tuple[bytes, ...] = ()
        self._exchange: Exchange | None = None
        self._asked: Request | None = None
        """What is being answered; None while nothing is, for it leads back here."""
        self._content: RequestContent | None = None
        self._raw_host = b""
        self._host = ""
        self._task: asyncio.Task[None] | None = None
        self._left = False

    # What a codec does its own way.

    async def read_content(self) -> Data | End:
        """Return the next piece of the request's content, and give its sender leave to send on."""
        raise NotImplementedError

    def take_whole(self) -> bytes | None:
        """Return all of the request's content, where it has come already and ends without trailers; otherwise None."""
        raise NotImplementedError

    def send_interim(self, status: int, headers: Headers) -> None:
        """Send a 1xx answer ahead of the final one (RFC 9110 section 15.2)."""
        raise NotImplementedError

    def send_head(self, head: RequestHead, response: Response) -> None:
        """Send the head of an answer, ahead of its content."""
        raise NotImplementedError

    def send_content(self, data: bytes) -> None:
        """Send a piece of the answer's content, as the client takes it; `drain` before the next."""
        raise NotImplementedError

    def send_end(self, trailers: Trailers) -> None:
        """Say that the answer is whole, where nothing has said so before; every answer that is not cut ends with it."""
        raise NotImplementedError

    async def drain(self) -> None:
        """Wait for the client to take what was sent, for as long as the limits allow."""
        raise NotImplementedError

    def cut(self) -> None:
        """Break the answer off, so that nobody takes it for whole."""
        raise NotImplementedError

    def over(self) -> None:
        """Let go of what `begin` has begun; what has not come to its end, in either direction, is broken off."""
        raise NotImplementedError

    # What is the same for all of them.

    def request(self, head: RequestHead, exchange: Exchange, body: Body, interim: Interim | None) -> Request:
        """Build the Request that a head announces; raise a RequestError where the head is not sound."""
        method = exchange.method = head.method
        if method in REFUSED_METHODS:
            raise MethodRefused(f"{method} is not served here")
        headers = head.headers
        known = head.known
        if known is not None and known.path:
            path, query, authority = known.path, None, None
        else:
            path, query, authority = parse_target(head.target, method, self.server.slashes)
            if known is not None and authority is None:
                known.path = path  # without a query: heads with one are not remembered
        self._take_host(headers, head.minor)
        if authority is not None:  # it replaces the Host header for everyone after us (RFC 9112 section 3.2.2)
            headers.set(b"Host", authority.encode("ascii"))
            self._take_host(headers, head.minor)
        if self.trusted:
            self._take_client(headers)
        if head.minor != self.client.minor:
            self.client.came_by(head.minor)
        request = Request(
            method,
            path,
            query,
            headers,
            body,
            self._host,
            self.client,
            exchange,
            interim,
            head.target,
            known if authority is None else None,
        )
        if head.upgrade:
            request.upgrade = head.upgrade
        request.observer = self.server.observer  # unless a route has another
        self._asked = request
        return request

    def _take_host(self, headers: Headers, minor: int) -> None:
        """Read the Host header (RFC 9112 section 3.2); that of the request before is not read again."""
        raw_host = headers.index.get(b"host")
        if raw_host is None:
            if minor:
                raise MalformedRequest("the Host header is missing")
            self._raw_host, self._host = b"", ""
        elif raw_host != self._raw_host or not raw_host:
            self._host = parse_host(raw_host)[0]
            self._raw_host = raw_host
        if len(headers.index) != len(headers.pairs) and len(headers.get_all(b"host")) > 1:
            raise MalformedRequest("the Host header is repeated")

    def _take_client(self, headers: Headers) -> None:
        """Learn from a trusted proxy who its client is."""
        trust = self.server.trust
        said = trust.said(headers)
        if said != self._said:
            self._said = said
            self.client = trust.client_behind(self._direct, said) if any(said) else self._direct

    def begin(self, head: RequestHead, handler: Handler | None) -> None:
        """Answer the one request of a stream that shares its connection, in a task that the server's group owns.

        `handler`, where there is one, answers instead of the server's. `over` is called in any case.
        """
        self._task = self.server.tasks.create_task(self._answer(head, handler), name=f"{head.method} stream")
        self._task.add_done_callback(self._ended)

    def exchanges(self) -> list[Exchange]:
        """Return the exchange of the stream's request, while that is under way."""
        exchange = self._exchange
        return [] if exchange is None or exchange.outcome is not None else [exchange]

    def client_left(self) -> None:
        """End at once what `begin` began: the client has taken its request back, or is gone."""
        self._left = True
        self.give_up()

    def give_up(self) -> None:
        """End what `begin` began, whatever it is doing."""
        if self._task is not None:
            self._task.cancel()

    def _ended(self, _: asyncio.Task[None]) -> None:
        self.over()

    async def _answer(self, head: RequestHead, handler: Handler | None) -> None:
        """Answer one request; what ends that early is dealt with here, and harms no other on the connection."""
        server = self.server
        exchange = self._exchange = Exchange(server.loop.time())
        try:
            try:
                request = self.request(head, exchange, self._body(head, exchange), self.send_interim)
                response = await (server.handler if handler is None else handler)(request)
            except RequestError as error:
                self.rejected(error, head)
                response = self._refusal(head, error)
            if response.duplex is not None:
                response.duplex.close()
                raise no_switch()  # noqa: TRY301 - a bug like any other that a handler may raise
            if response.body.whole is not None:
                self.answering(exchange, response.status)
                exchange.bytes_out = self._send_all(head, response)
                await self.drain()
            elif not await self.send_stream(head, response, exchange):
                return
            self.complete(exchange, server.loop.time())
        except (ConnectionError, DeadlineExceeded):
            self.end(Outcome.CLIENT_LEFT)
        except asyncio.CancelledError:
            self.end(Outcome.CLIENT_LEFT if self._left else Outcome.CANCELLED)
            raise
        except Exception:  # the connection boundary: a bug ends one request, not the worker
            logger.exception("a request failed")
            self.end(Outcome.FAILED)
        finally:
            if self._content is not None:
                self._content.close()

    def _body(self, head: RequestHead, exchange: Exchange) -> Body:
        """Return the request's content: in memory where all of it has come already."""
        whole = b"" if head.length == 0 else self.take_whole()
        if whole is not None:
            exchange.bytes_in = len(whole)
            return Body(whole)
        self._content = RequestContent(self, head, exchange)
        return Body.stream(self._content, head.length)

    def _send_all(self, head: RequestHead, response: Response) -> int:
        """Send an answer whose content is in memory; return how many bytes of content go out."""
        content = response.body.whole
        assert content is not None
        if not h1.has_content(response.status, head.method):
            content = b""
        self.send_head(head, response)
        if content:
            self.send_content(content)
        self.send_end(response.body.trailers())
        return len(content)

    async def send_stream(self, head: RequestHead, response: Response, exchange: Exchange) -> bool:
        """Send an answer whose content is still on its way; return False where it had to be cut."""
        body = response.body
        self.answering(exchange, response.status)
        try:
            self.send_head(head, response)
            if h1.has_content(response.status, head.method):
                while data := await body.chunk():
                    exchange.bytes_out += len(data)
                    if body.length is not None and exchange.bytes_out > body.length:
                        raise BodyTruncated("the answer is longer than it says")
                    self.send_content(data)
                    await self.drain()
                if body.length is not None and exchange.bytes_out < body.length:
                    raise BodyTruncated("the answer is shorter than it says")
            self.send_end(body.trailers())
        except (PorticoError, ConnectionError, DeadlineExceeded) as error:
            # The head is gone: a cut connection, or stream, is the only way left to say that the content is not whole.
            exchange.error = f"{type(error).__name__}: {error}"
            self.end(Outcome.TRUNCATED if isinstance(error, PorticoError) else Outcome.CLIENT_LEFT)
            self.cut()
            return False
        finally:
            body.close()
        return True

    def answer_fields(self, head: RequestHead, response: Response) -> list[Pair]:
        """Return the header fields of an answer, for a codec that sends them as pairs: what `h1.response_head` sends,
        without what only HTTP/1 needs."""
        headers, length = response.headers, response.body.length
        has_content = h1.has_content(response.status, head.method)
        drop = h1.RESPONSE_DROP if has_content or response.status == 204 else HOP_BY_HOP
        fields = [(name, value) for name, value in headers.pairs if name.lower() not in drop]
        as_to_get = head.method == "HEAD" and length != 0 and b"content-length" not in headers.index
        if length is not None and (has_content or as_to_get):
            fields.append((b"Content-Length", b"%d" % length))
        if b"date" not in headers.index:
            name, _, value = self.server.date().partition(b": ")
            fields.append((name, value))
        return fields

    def answering(self, exchange: Exchange, status: int) -> None:
        """Note what the client is about to be answered, and tell whoever watches."""
        exchange.status = status
        request = self._asked
        observer = self.server.observer if request is None else request.observer
        if observer is not None:
            try:
                observer.answering(exchange, request)
            except Exception:  # a bug of who only watches must not cost an answer
                logger.exception("an answer could not be counted")

    def _tell_end(self, exchange: Exchange) -> None:
        request, self._asked = self._asked, None
        observer = self.server.observer if request is None else request.observer
        if observer is not None:
            try:
                observer.ended(exchange, request)
            except Exception:  # as above
                logger.exception("the end of a request could not be noted")

    def complete(self, exchange: Exchange, now: float) -> None:
        """Close the books of one request; whoever still holds its body gets nothing of the next one's."""
        self.server.answered += 1
        exchange.end(_COMPLETE, now)
        self._tell_end(exchange)
        if self._content is not None:
            self._content.close()
            self._content = None

    def end(self, outcome: Outcome) -> None:
        """Close the books of a request that did not come to its proper end."""
        exchange = self._exchange
        if exchange is not None and exchange.outcome is None:
            self.server.answered += 1
            if exchange.status == 0:
                self.answering(exchange, 499 if outcome is Outcome.CLIENT_LEFT else 0)
            exchange.end(outcome, self.server.loop.time())
            self._tell_end(exchange)

    def _refusal(self, head: RequestHead, error: RequestError) -> Response:
        """Return the answer to what never became a request, or broke off as one."""
        problem = Problem(error.status, error.type, detail=error.detail)
        return refused(self.server, problem, Request(head.method, "", None, head.headers))

    def rejected(self, error: RequestError, head: RequestHead | None) -> None:
        """Record what never became a request, or broke off as one; `head` is its own, where there was one."""
        if self._exchange is None or self._exchange.outcome is not None:
            self._exchange = Exchange(self.server.loop.time())
            self._asked = None
        exchange = self._exchange
        exchange.error = f"{error.type}: {error.detail}"
        if self._asked is None:  # then nobody else knows whose it was
            exchange.note("client.address", self.client.address)
            if head is not None:
                path = head.target.partition(b"?")[0]  # what follows may be a secret
                exchange.note("client.path", path.decode("utf-8", "backslashreplace"))
        if exchange.status == 0:
            self.answering(exchange, error.status)
        self.end(Outcome.REJECTED)


class MethodRefused(RequestError):
    """CONNECT would make an open proxy of the gateway, TRACE shows a client what the gateway adds."""

    status: ClassVar[int] = 405
    type: ClassVar[str] = "method-not-allowed"


_COMPLETE: Final = Outcome.COMPLETE  # a name of this module costs less than the attribute of an enum


def refused(server: Server, problem: Problem, request: Request) -> Response:
    """Return the answer to `request`, or to what is known of it, before anyone but the server has seen it."""
    response = Response(problem.status)
    if problem.status == 405:
        response.headers.set(b"Allow", SERVED_METHODS)
    server.write_problem(problem, request, response)
    return response


def no_switch() -> ValueError:
    """Return the error of a handler that has switched protocols where nobody asked for that."""
    return ValueError("a request was answered by a change of protocol that it did not ask for, or cannot have")


class RequestContent:
    """The content of one request while it is still on its way."""

    __slots__ = ("_closed", "_exchange", "_head", "_over", "_started", "_stream", "_trailers")

    def __init__(self, stream: ServerStream, head: RequestHead, exchange: Exchange) -> None:
        self._stream = stream
        self._head = head
        self._exchange = exchange
        self._started = False
        self._over = False
        self._closed = False
        self._trailers: Trailers = []

    async def read(self) -> bytes:
        """Return the next piece, or b"" at the end."""
        if self._closed:
            raise BodyTruncated("the request is over")
        if self._over:
            return b""
        if not self._started:
            self._started = True
            if self._head.expects_continue and self._exchange.status == 0:
                self._stream.send_interim(100, Headers())
        event = await self._stream.read_content()
        if isinstance(event, Data):
            self._over = event.last
            self._exchange.bytes_in += len(event.data)
            return event.data
        self._over = True
        self._trailers = event.trailers
        return b""

    def trailers(self) -> Trailers:
        """Return the trailer fields, complete only after the end."""
        return self._trailers

    def close(self) -> None:
        """Give up the rest."""
        self._closed = True  # what is left on the connection is the connection's to discard
