"""Which requests are traced, how that is told, and to whom; and what is recorded of the last ones."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, field_validator

from portico.config.addresses import HttpUrl
from portico.config.forms import OneOrMany, Shorthand
from portico.config.part import Part
from portico.config.values import BadValue, Count, FilePath, HeaderName, HeaderValue, Positive, Secret, Share

SHORTEST_SECRET: Final = 16
"""Characters; a shorter secret can be found by trying."""


class TraceExport(Part):
    """Where the spans of recorded traces are sent: by OTLP over HTTP, as JSON. A text stands for `url`."""

    url: HttpUrl
    """Of the collector, such as `http://collector:4318`; without a path, `/v1/traces` is added."""
    headers: dict[HeaderName, Secret] = Field(default_factory=dict)
    """What it is to be sent beside them, such as an API key."""
    ca: FilePath | None = None
    """A PEM file with the authorities that may have signed its certificate; those of the system unless given."""
    timeout: Positive = 5.0
    """How long it may take to answer; then the spans are lost, and counted."""
    interval: Positive = 1.0
    """How long spans wait for others, to be sent together."""
    batch: Annotated[Count, Field(le=10_000)] = 512
    """The most requests whose spans are sent together."""
    queue: Annotated[Count, Field(le=100_000)] = 2048
    """The most requests, of each worker, whose spans wait to be sent; those of others are lost, and counted."""


class TraceForce(Part):
    """Lets whoever has a secret have a request recorded, whatever `sample` says.

    The header is a time and a signature with a full stop between them, `1767225600.9f86d0…`: until when it is good, in
    seconds since the epoch, and the HMAC-SHA256 of `trace until 1767225600` with the secret, in hexadecimal digits.
    """

    header: HeaderName = "X-Trace-Force"
    """Which header that is; no service is sent it."""
    secret: Secret
    """The secret, of 16 characters or more."""
    longest: Positive = 86400.0
    """How far ahead the time may lie."""

    @field_validator("secret")
    @classmethod
    def _not_short(cls, secret: Secret) -> Secret:
        if len(secret.get_secret_value()) < SHORTEST_SECRET:
            raise BadValue("the secret is short", f"make it {SHORTEST_SECRET} characters or more")
        return secret


class Tracing(Part):
    """Gives each request its place in a trace. Without this, headers that speak of traces pass through as they are.

    What a request says of its trace is continued: its service is told of a span of the gateway's own, whose parent is
    whoever has sent the request. Where it says nothing, or nothing sound, a trace begins here. See
    [traces](../operations/observing.md#traces).
    """

    formats: Annotated[tuple[Literal["w3c", "b3", "b3-multi"], ...], Field(min_length=1), OneOrMany()] = ("w3c",)
    """In which headers: `traceparent` and `tracestate` (W3C Trace Context), `b3`, or `X-B3-*`. One, or a list: the
    first in it that a request has is believed, and services are told in all of them."""
    trust: Literal["everyone", "trusted_proxies"] = "everyone"
    """Whose traces are continued. What others say of a trace is taken away, their `baggage` included."""
    parent: Literal["follow", "ignore"] = "follow"
    """Whether a trace that is continued is recorded as it says itself (`follow`), or as `sample` has it."""
    sample: Share = 1.0
    """Which share of all other traces is recorded, by their ids: all unless given. A route's `sample` overrides it."""
    force: TraceForce | None = None
    """Who may have a request recorded in any case; nobody unless given."""
    export: Annotated[TraceExport, Shorthand("url")] | None = None
    """Where the spans of recorded traces are sent; nowhere unless given: then others alone record them."""
    service: HeaderValue = "portico"
    """What the gateway calls itself in its spans (`service.name`)."""
    attributes: dict[str, str] = Field(default_factory=dict)
    """What else its spans say of it, such as `deployment.environment.name: production`."""


class Recorder(Part):
    """What each worker remembers of its last requests, for `portico why`, `portico tail` and `portico top`; never their
    bodies. A number stands for `keep`. See
    [why did this request fail?](../operations/observing.md#why-did-this-request-fail)"""

    keep: Annotated[Count, Field(le=5000)] = 200
    """How many requests; as many again that failed (5xx, or without a whole answer) or were slow, and as many that were
    refused (4xx)."""
    slow: Positive = 1.0
    """How long a request takes that is slow."""
    headers: Annotated[tuple[HeaderName, ...], Field(max_length=20), OneOrMany()] = ("User-Agent", "Content-Type")
    """The headers of requests that are remembered, up to 256 bytes of each."""

    @field_validator("headers")
    @classmethod
    def _no_secrets(cls, headers: tuple[str, ...]) -> tuple[str, ...]:
        for name in headers:
            if name.lower() in _SECRETS:
                raise BadValue(f"{name} is a secret", "leave it out")
        return headers


_SECRETS: Final = frozenset(
    ("authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "x-auth-token", "x-csrf-token")
)
