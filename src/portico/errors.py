"""Every error that Portico raises on purpose, and whose fault each one is.

::

    PorticoError
    ├── ConfigError                the operator's: the file, a key, a value; raised at load, never per request
    ├── RequestError               the client's: answered with `status` in the route's error shape
    │   ├── MalformedRequest       400, the bytes are not HTTP; the connection is closed after the answer
    │   ├── MalformedContent       400, the content is not of the coding that it says
    │   ├── HeadTooLarge           431, the request head is over its limit
    │   ├── TargetTooLong          414, the request target is over its limit
    │   ├── RequestTimeout         408, the head or the body came too slowly
    │   ├── NotImplementedByUs     501, an unknown transfer coding
    │   ├── VersionNotSupported    505, neither HTTP/1.0 nor HTTP/1.1
    │   └── BodyTooLarge           413, the body is over the limit of its reader
    ├── MalformedProxyHeader       the balancer's: closed unanswered, what the connection begins with is no PROXY header
    ├── BodyTruncated              a body ended before its framing said so
    ├── StoreUnavailable           the store's side: it cannot be asked, or not in time; what then is for the policy
    └── UpstreamError              the service's side; becomes a Response at `rescue`
        ├── NoTarget               503, none of the service's targets is well
        ├── CircuitOpen            503, the service's breaker is open
        ├── Overloaded             503, it has all the requests, or connections, it may have (retryable)
        ├── ConnectFailed          502, refused, unreachable, name unknown   (retryable)
        ├── UpstreamClosed         502, closed before it answered            (retryable over a kept one)
        ├── MalformedResponse      502, the answer is not HTTP
        ├── AnswerTooLarge         502, the answer is over the limit of its reader
        └── UpstreamTimeout        504, no connection, no answer, or no next byte in time

`retryable` says that the same request may be sent again, to another target, without the risk of being
carried out twice; whether it *is* sent again is for the retry policy to decide.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class PorticoError(Exception):
    """The root of all errors that Portico raises on purpose."""


class ConfigError(PorticoError):
    """A configuration that cannot be run; the message says what, where, and how to mend it."""


class RequestError(PorticoError):
    """The client's fault; `status` is what it is answered, `type` the stable name of the problem."""

    status: ClassVar[int] = 400
    type: ClassVar[str] = "bad-request"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class MalformedRequest(RequestError):
    """The bytes that came are not a request (RFC 9112)."""

    type: ClassVar[str] = "malformed-request"


class MalformedContent(RequestError):
    """The content is not of the coding that Content-Encoding says (RFC 9110 section 8.4)."""

    type: ClassVar[str] = "malformed-content"


class HeadTooLarge(RequestError):
    """The request head is longer, or has more header fields, than the limit (RFC 6585 section 5)."""

    status: ClassVar[int] = 431
    type: ClassVar[str] = "request-header-fields-too-large"


class TargetTooLong(RequestError):
    """The request target is longer than the limit (RFC 9110 section 15.5.15)."""

    status: ClassVar[int] = 414
    type: ClassVar[str] = "uri-too-long"


class RequestTimeout(RequestError):
    """The client was too slow in sending its request (RFC 9110 section 15.5.9)."""

    status: ClassVar[int] = 408
    type: ClassVar[str] = "request-timeout"


class NotImplementedByUs(RequestError):
    """The request uses a transfer coding that this server does not know (RFC 9112 section 6.1)."""

    status: ClassVar[int] = 501
    type: ClassVar[str] = "not-implemented"


class VersionNotSupported(RequestError):
    """The request speaks another major version of HTTP (RFC 9110 section 15.6.6)."""

    status: ClassVar[int] = 505
    type: ClassVar[str] = "http-version-not-supported"


class BodyTooLarge(RequestError):
    """The body is over the limit of whoever reads it (RFC 9110 section 15.5.14)."""

    status: ClassVar[int] = 413
    type: ClassVar[str] = "content-too-large"


class MalformedProxyHeader(PorticoError):
    """A connection does not begin with the PROXY protocol header that its listener asks for."""


class BodyTruncated(PorticoError):
    """A body ended before its framing said that it was whole."""


class StoreUnavailable(PorticoError):
    """The store cannot be asked, or has not answered in time."""


class Source(StrEnum):
    """Where on the way to a service something went wrong."""

    GATEWAY = "gateway"
    """Before any target was chosen."""
    CONNECT = "connect"
    RESPONSE = "response"


class UpstreamError(PorticoError):
    """The way to a service failed; `source` says where, `retryable` whether another try is safe."""

    status: ClassVar[int] = 502
    type: ClassVar[str] = "bad-gateway"
    title: ClassVar[str] = "The service could not be reached"
    retry_after: float = 0.0
    """Seconds after which it may be otherwise, for `Retry-After`; 0 where nobody knows."""

    def __init__(self, detail: str, *, source: Source, retryable: bool = False) -> None:
        super().__init__(detail)
        self.detail = detail
        self.source = source
        self.retryable = retryable

    @property
    def record(self) -> str:
        """What an exchange's record says of it."""
        return f"{self.type}: {self.source}: {self.detail}"


class NoTarget(UpstreamError):
    """There is no target to send to: none is known, or none of them is well."""

    status: ClassVar[int] = 503
    type: ClassVar[str] = "no-healthy-target"
    title: ClassVar[str] = "Service unavailable"


class CircuitOpen(UpstreamError):
    """The service has failed too often, and is left alone for a while."""

    status: ClassVar[int] = 503
    type: ClassVar[str] = "circuit-open"
    title: ClassVar[str] = "Service unavailable"


class Overloaded(UpstreamError):
    """All requests that the service may have under way, or all connections that its target may have, are."""

    status: ClassVar[int] = 503
    type: ClassVar[str] = "service-overloaded"
    title: ClassVar[str] = "Service overloaded"


class ConnectFailed(UpstreamError):
    """No connection to the target could be made."""

    type: ClassVar[str] = "service-unreachable"


class UpstreamClosed(UpstreamError):
    """The target closed the connection before its answer was whole."""

    type: ClassVar[str] = "service-closed-connection"
    title: ClassVar[str] = "The service closed the connection"


class MalformedResponse(UpstreamError):
    """What the target answered is not an HTTP response."""

    type: ClassVar[str] = "invalid-service-response"
    title: ClassVar[str] = "The service gave an invalid answer"


class AnswerTooLarge(UpstreamError):
    """The target's answer is over the limit of whoever reads it."""

    type: ClassVar[str] = "service-answer-too-large"
    title: ClassVar[str] = "The service's answer is too large"


class UpstreamTimeout(UpstreamError):
    """The target was too slow; `source` says whether to connect or to answer."""

    status: ClassVar[int] = 504
    type: ClassVar[str] = "service-timeout"
    title: ClassVar[str] = "The service did not answer in time"
