"""What a service may take, and what is done when it fails."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from portico.config.balance import ContentHeaderName, HashKey
from portico.config.forms import Off, Shorthand
from portico.config.part import Part
from portico.config.values import (
    BadValue,
    Count,
    Duration,
    HeaderValue,
    Method,
    Positive,
    PositiveOrOff,
    ServiceName,
    Share,
    Size,
    StatusCode,
    Whole,
)


class Timeout(Part):
    """How long a service may take; each of them may be `off`.

    Where a request has to be answered by a certain time, by `total` or by the `timeout` of its route, each further try
    has only what is left of it.
    """

    connect: PositiveOrOff = 5.0
    """For a connection to be made, TLS included."""
    tls: PositiveOrOff = None
    """For the TLS handshake alone; within `connect` unless given."""
    first_byte: PositiveOrOff = 30.0
    """From the end of the request to the head of the answer."""
    idle: PositiveOrOff = 60.0
    """Between two pieces of the answer's body."""
    total: PositiveOrOff = None
    """For everything, from the first attempt to the last byte; none unless given."""
    tell: Annotated[ContentHeaderName | None, Off()] = "X-Request-Timeout-Ms"
    """The header in which the service is told how many milliseconds are left, where there is such a time; or `off`."""


class Keepalive(Part):
    """How long connections to a service are kept for the next request."""

    max_idle: Count = 256
    """How many unused connections each worker keeps to a target."""
    idle: Positive = 60.0
    """How long an unused connection is kept."""
    max_age: PositiveOrOff = None
    """How old a connection may become: one that is older takes no further request. Any age unless given."""
    warm: Annotated[Whole, Field(ge=0)] = 0
    """How many connections each worker opens to a target ahead of its first request."""

    @field_validator("warm")
    @classmethod
    def _no_more_than_are_kept(cls, warm: int, info: ValidationInfo) -> int:
        most = info.data.get("max_idle")
        if most is not None and warm > most:
            raise BadValue(f"only {most} unused connections are kept", f"raise max_idle to {warm}")
        return warm


class Backoff(Part):
    """How long to wait before a further try. A duration stands for `base`."""

    base: Duration = 0.025
    """The longest wait before the second try, doubled for each further one; how long it is, is drawn by lot."""
    max: Duration = 1.0
    """The longest wait before any. An answer whose `Retry-After` asks for a longer one is passed on."""


RetryOn = Literal["failure", "timeout"] | StatusCode
"""What may be wrong with a try."""


class Retry(Part):
    """When a request is sent again. A number stands for `attempts`.

    ```yaml
    services:
      orders:
        targets: [127.0.0.1:9002, 127.0.0.1:9012]
        retry: {attempts: 3, per_try: 2s}
      reports:
        url: "http://127.0.0.1:9005"
        retry: {attempts: 2, on: [failure, 503], backoff: {base: 100ms, max: 2s}, budget: 10%}
    routes:
      - {path: /orders/**, service: orders}
      - {path: /reports/**, service: reports}
    ```

    What a service certainly has not begun to work on is always sent again, to each of its targets at most once: where
    the connection was refused, and where a kept connection turns out to have been closed. All that this is about is
    what a service may have seen before.

    Each further try goes to another target where there is one. A try that is to be made after the request's time is
    over is not made, and none once the client has left.
    """

    attempts: Annotated[Whole, Field(ge=1, le=20)] = 3
    """How many times a request may be sent in all, the first one included."""
    per_try: PositiveOrOff = None
    """How long one try may take, from its connection to the head of the answer; `timeout` alone unless given."""
    on: Annotated[tuple[RetryOn, ...], Field(min_length=1)] = ("failure", "timeout", 502, 503, 504)
    """What has a request sent again: `failure` (the connection broke off before the answer's head, or that was
    malformed), `timeout` (no answer in time), and the statuses of answers."""
    methods: tuple[Method, ...] = ("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE")
    """The methods of requests that may be sent again; those that are idempotent unless given (RFC 9110, section 9.2.2).
    With any other, a service may carry out twice what was asked for once."""
    body: Size = 64 * 1024
    """Up to how many bytes a request's body is kept to be sent again; a larger one, and one whose size is not known, is
    sent once."""
    backoff: Annotated[Backoff, Shorthand("base")] = Backoff()
    """How long to wait before a try to a target that was tried before."""
    budget: Share = 0.2
    """How many further tries there may be, compared with the requests to the service: so that a service that is down is
    not asked many times as often."""
    floor: Annotated[Whole, Field(ge=0)] = 3
    """How many further tries each worker may make in a second, however few requests there are."""


class Hedge(Part):
    """When a request is sent to a second target, while the first one has not answered yet. A duration stands for
    `after`.

    The first answer is taken, and the other try is given up; what `retry` would send again (502 to 504 unless it says
    otherwise) is no answer while another may come. Each try goes to another target where there is one. It is for
    requests that may be sent again, as `retry` has it, and is counted among its `budget`.
    """

    after: Positive
    """How long to wait for the first target."""
    max: Annotated[Whole, Field(ge=1, le=5)] = 1
    """How many more targets are asked, one after the other."""


class Breaker(Part):
    """When a service is not asked any more for a while. A number stands for `failures`.

    ```yaml
    services:
      orders:
        url: "http://127.0.0.1:9002"
        breaker: {failures: 5, open_for: 30s}
      quotes:
        url: "http://127.0.0.1:9005"
        breaker: {ratio: 50%, window: 10s, minimum: 20}
        fallback: {status: 200, body: "[]", content_type: application/json}
    routes:
      - {path: /orders/**, service: orders}
      - {path: /quotes/**, service: quotes}
    ```

    The breaker is closed while all is well. It opens after too many failures; then requests are answered 503 at once,
    or by the service's `fallback`. After `open_for` it is half open: `probes` requests at a time go through, and the
    first `successes` of them close it; one that fails opens it again. All workers of the machine share its state. What
    counts is how a request came out in the end, after its retries; where a health check has found none of the targets
    well, nothing does.
    """

    failures: Count = 5
    """How many failures in a row open it."""
    ratio: Annotated[Share, Field(gt=0)] | None = None
    """The share of failures among the requests of the `window` that opens it, instead of `failures`."""
    window: Positive = 10.0
    """The time that `ratio` looks back."""
    minimum: Count = 20
    """How few requests in the `window` say nothing."""
    open_for: Positive = 30.0
    """How long it stays open."""
    probes: Annotated[Count, Field(le=16)] = 1
    """How many requests may be under way while it is half open."""
    successes: Count = 1
    """How many of them have to go well for it to close."""
    statuses: tuple[StatusCode, ...] = (500, 502, 503, 504)
    """The statuses of answers that are failures. No answer always is one."""

    @model_validator(mode="before")
    @classmethod
    def _one_measure(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("ratio") is not None and given.get("failures") is not None:
            raise BadValue("it opens by failures in a row or by their ratio", "leave one of them out")
        return given


class Concurrency(Part):
    """How many requests each worker may have under way at a service (a bulkhead). A number stands for `limit`."""

    limit: Count
    """How many."""
    queue: Annotated[Whole, Field(ge=0)] = 0
    """How many more may wait for their turn, first come, first served; further ones are answered 503."""
    wait: Positive = 1.0
    """How long they may wait; then they are answered 503."""


class Fallback(Part):
    """What is answered, or which service is asked, where this one cannot be: its breaker is open, none of its targets
    is well, or it has not answered. A text stands for `service`.

    A request whose body has been sent already, and was not kept, is answered with the failure.
    """

    service: ServiceName | None = None
    """The service that is asked instead."""
    status: StatusCode = 200
    """The status of the answer."""
    headers: dict[ContentHeaderName, HeaderValue] = Field(default_factory=dict)
    """Further headers of the answer; none of those that frame it, such as `Content-Length`."""
    body: str = ""
    """The body of the answer."""
    content_type: HeaderValue = "text/plain; charset=utf-8"
    """Its media type."""

    @model_validator(mode="before")
    @classmethod
    def _answer_or_service(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("service") is not None and len(given) > 1:
            other = next(key for key in given if key != "service")
            raise BadValue(f"'{other}' belongs to an answer, and there is a service", "leave one of them out")
        return given

    @field_validator("body")
    @classmethod
    def _where_there_is_one(cls, body: str, info: ValidationInfo) -> str:
        status = info.data.get("status")
        if body and status in {204, 205, 304}:
            raise BadValue(f"an answer with status {status} has no body", "leave it out, or take another status")
        return body


class Mirror(Part):
    """A service that gets a copy of requests; what it answers, and how long it takes, is of no concern to the client.
    A text stands for `service`."""

    service: ServiceName
    """The service that gets the copies."""
    share: Share = 1.0
    """How many of the requests are copied."""
    body: Size = 64 * 1024
    """Requests with a larger body are not copied."""
    concurrency: Count = 64
    """How many copies each worker may have under way; further ones are not made."""
    timeout: Positive = 10.0
    """How long a copy may take."""


class SplitPart(Part):
    """One of the services that requests are divided among. A text stands for `service`."""

    service: ServiceName
    """Which service."""
    weight: Annotated[Whole, Field(ge=0)] = 1
    """How large its share of the requests is, compared with the others; 0 for none but those of `when`."""
    when: str | None = None
    """Which requests it gets whatever the weights: a [condition](#conditions), such as `headers["x-canary"] == "1"`.
    The first that holds decides."""
    _origin: str = PrivateAttr("")

    @property
    def origin(self) -> str:
        """Where its condition is written: `file:line:column`."""
        return self._origin

    def written_at(self, origin: str) -> SplitPart:
        """Return the same, with where its condition is written."""
        part = self.model_copy()
        part._origin = origin  # noqa: SLF001 - its own class
        return part


class Split(Part):
    """Divides requests among other services: a canary, or two versions side by side. A list stands for `to`.

    ```yaml
    services:
      v1: http://127.0.0.1:9002
      v2: http://127.0.0.1:9012
      orders:
        split:
          - {service: v1, weight: 95}
          - {service: v2, weight: 5, when: 'headers["x-canary"] == "1"'}
      shop:
        split: {to: [{service: v1, weight: 9}, v2], by: {cookie: visitor}}
    routes:
      - {path: /orders/**, service: orders}
      - {path: /shop/**, service: shop}
    ```
    """

    to: Annotated[tuple[Annotated[SplitPart, Shorthand("service")], ...], Field(min_length=1)]
    """The services."""
    by: Annotated[HashKey, Shorthand("by")] | None = None
    """What keeps requests together: those with the same value go to the same service. Unless given, and for a request
    without it, each is drawn by lot."""

    @field_validator("to")
    @classmethod
    def _someone_gets_them(cls, to: tuple[SplitPart, ...]) -> tuple[SplitPart, ...]:
        if not any(part.weight for part in to):
            raise BadValue("every weight is 0", "give one a weight of 1")
        return to
