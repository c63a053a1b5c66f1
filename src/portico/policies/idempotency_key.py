"""Carry each request out once, however often its client sends it: `Idempotency-Key`.

```yaml
state: {path: /var/lib/portico}
services: {payments: "http://127.0.0.1:9004", orders: "http://127.0.0.1:9002"}
routes:
  - {path: /orders/**, service: orders, policies: [idempotency-key]}
  - path: /payments/**
    service: payments
    policies:
      - idempotency-key:
          required: true
          ttl: 72h
          wait: 10s
          documentation: https://developer.example.com/idempotency
```

A client that had no answer cannot know whether its payment was made. So it gives each POST or PATCH a key of its own,
such as `Idempotency-Key: "8e03978e-40d5-43dd-bc93-6894a57f9324"`, and sends the same request with the same key again.
This is the header of the IETF (draft-ietf-httpapi-idempotency-key-header-07); where that says nothing, it is as with
Stripe. Over all workers, and all machines that share a store:

- The first request goes to the service, and its answer is kept, whatever that was: 201, 402 and 500 alike. It goes on
  when its client leaves, also when the gateway is given another configuration.
- The same request again is given that answer: status, headers, content, and `Idempotency-Replayed: true`.
- While the first has no answer yet, it is answered 409 (`idempotency-key-in-use`) with `Retry-After`, or waits for it
  (`wait`).
- Another request with the same key is answered 422 (`idempotency-key-reused`). Requests are the same where method,
  host, path, query, `Content-Type` and all bytes of the content are.
- One without a key passes as ever, or is answered 400 (`idempotency-key-missing`) where one is `required`; a key that
  is none, or more than one, is a 400 in any case (`idempotency-key-invalid`).

**What is not kept.** Where the gateway refuses a request, where it could be sent to no target of the service, and where
an answer says that nothing was done (`retryable`), the key is as if it had not been used: the next try goes to the
service. An answer that is larger than `max_answer`, or has trailers, comes as ever; the request again is answered 409
(`idempotency-answer-not-kept`).

**When nobody knows.** Where the service was sent a request and there was no answer, or half of one, it may have been
carried out. Its client is told of the failure. By default the key is used up: trying again is answered 409
(`idempotency-outcome-unknown`), and somebody has to look. With `on_unknown: retry` it goes to the service again: for
services that can tell by the key themselves, which they are sent. So it is with a request that is still at work when a
worker has to end (`shutdown_timeout`). Where a worker is killed with one at work, the next try is answered 409 until
the claim to the key is over, at the end of `lock`, and is then carried out again; with a `lock` as long as `ttl` it
never is.

**Whose keys.** One caller's keys are not another's (`key`), and each line of a file that has this policy has keys of
its own, which go with the name of its route or service. A caller who is not known, or is let in as
[anonymous](anonymous.md), counts by address, and a client that has another one when it tries again is somebody else:
where that happens, have callers known, or write `key: everyone`, and keys that nobody can guess are all that keeps them
apart.

**What is kept where.** Answers are in the [store](../configuration.md#state) for `ttl`, as they are: who can read the
store can read the personal data in them. Keys are there as digests only, requests as fingerprints, and cookies that an
answer sets are not kept, since they may be credentials: an answer that is given again sets none. Without a `path`, the
store of one machine lasts until that is started again; a Redis has to append to a file to keep more than its memory,
and where another takes its place, that may lack what it was told last. Have its `size` be enough for all answers of a
`ttl`: what does not fit goes, and the request is then carried out again.

While the store cannot be asked, requests with a key are answered 503 (`idempotency-unavailable`), for nothing is to be
paid twice; with `on_store_failure: allow` they pass without this protection.

The content of a request with a key has to be whole to be compared: more than `max_body` is a 413. So has its answer,
up to `max_answer`, before the client gets any of it: events are better streamed on a route without this policy.
Browsers need the header in `headers` of [cors](cors.md). `portico_idempotency_key_requests_total` counts by the name
of the policy and by `result`: `first`, `replayed`, or why there was neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import Field, field_validator, model_validator

from portico.plugin import (
    LARGEST_ANSWER,
    BadValue,
    CallerKey,
    ConditionError,
    ConfigError,
    Duration,
    Env,
    Handler,
    HeaderName,
    KeyParts,
    KeyReader,
    MalformedKey,
    Method,
    Once,
    OnceRules,
    OneOrMany,
    Policy,
    PolicyConfig,
    Problem,
    Request,
    Response,
    Result,
    ResultKind,
    Size,
    Stage,
    Standing,
    StatusCode,
    fingerprint,
)

_COUNTER: Final = "portico_idempotency_key_requests_total"
_SAFE: Final = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))
_SOON: Final = b"1"
"""Seconds after which it may be otherwise."""

_IN_USE: Final = "A request is outstanding for this Idempotency-Key"
_REUSED: Final = "Idempotency-Key is already used"
_SAID: Final[Mapping[Standing, Problem]] = {
    Standing.UNDER_WAY: Problem(
        409, "idempotency-key-in-use", _IN_USE, "The first request with this key has no answer yet."
    ),
    Standing.REUSED: Problem(
        422, "idempotency-key-reused", _REUSED, "This key came with another request; a new request needs a new key."
    ),
    Standing.UNKNOWN: Problem(
        409,
        "idempotency-outcome-unknown",
        "Nobody knows what became of the first request",
        "The service was sent the first request with this key, and gave no answer. It may have been carried out.",
    ),
    Standing.UNKEPT: Problem(
        409,
        "idempotency-answer-not-kept",
        _REUSED,
        "The first request with this key was carried out, and its answer was too large to be given again.",
    ),
    Standing.LATE: Problem(504, "timeout", detail="There was no answer in the time that this request may take."),
    Standing.NO_STORE: Problem(
        503,
        "idempotency-unavailable",
        "Service unavailable",
        "It cannot be found out whether this request was carried out before.",
    ),
    Standing.CROWDED: Problem(
        503,
        "idempotency-unavailable",
        "Service unavailable",
        "Too many requests with an idempotency key are under way.",
    ),
}
_PASSING: Final = frozenset((Standing.UNDER_WAY, Standing.NO_STORE, Standing.CROWDED))
"""What is otherwise after a while."""


class IdempotencyKey(PolicyConfig):
    """Which requests have a key, and what becomes of those that come again."""

    header: HeaderName = "Idempotency-Key"
    """The header with the key; the service is sent it as well."""
    methods: Annotated[tuple[Method, ...], OneOrMany(), Field(min_length=1)] = ("POST", "PATCH")
    """The methods of requests that may have a key; with any other, the header means nothing."""
    required: bool = False
    """Whether such a request has to have one."""
    unquoted: bool = True
    """Whether a key may come without the quotes that it has in the draft of the IETF, as most clients send it."""
    key: KeyParts = ("user",)
    """Whose keys are told from those of others: `user`, `address`, `everyone`, or expressions such as
    `headers['x-tenant']`."""
    ttl: Annotated[Duration, Field(gt=0)] = 86400.0
    """How long an answer is kept. After it the same key is a new one."""
    lock: Annotated[Duration, Field(ge=1)] = 120.0
    """How long a key is claimed for a request at work. There has to be an answer, and it has to be kept, within it: the
    request is given up 5 s before its end, or after four fifths of it where that is later."""
    wait: Duration = 0.0
    """How long a request waits for the first one with its key, before it is answered 409."""
    max_body: Size = 262144
    """The most bytes of content of a request with a key; more is answered 413."""
    max_answer: Annotated[Size, Field(le=LARGEST_ANSWER)] = 262144
    """The most bytes of content of an answer that is kept."""
    retryable: Annotated[tuple[StatusCode, ...], OneOrMany()] = (401, 408, 425, 429, 503)
    """The statuses by which the service says that it has done nothing; they are not kept. With 500, 502 and 504 among
    them, what has failed is carried out again."""
    on_unknown: Literal["refuse", "retry"] = "refuse"
    """What becomes of another try where the service was sent the first one and gave no answer."""
    on_store_failure: Literal["deny", "allow"] = "deny"
    """What becomes of requests with a key while the store cannot be asked."""
    documentation: Annotated[str, Field(pattern=r"^https?://[!#-;=?-~]+$")] | None = None
    """Where clients can read what they are to do with the key; problems have it as a `Link` (`rel="describedby"`)."""

    @field_validator("methods")
    @classmethod
    def _unsafe(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        for method in methods:
            if method in _SAFE:
                raise BadValue(f"{method} changes nothing, and may be sent again without a key", "leave it out")
        return methods

    @model_validator(mode="after")
    def _lock_within_ttl(self) -> IdempotencyKey:
        if self.lock > self.ttl:
            raise BadValue("lock is longer than ttl", "keep answers for as long as requests may be at work, at least")
        return self


class IdempotencyKeyPolicy(Policy[IdempotencyKey], name="idempotency-key", stages=(Stage.CACHE, Stage.LIMIT)):
    """Claims the key of a request, and keeps its answer."""

    of_callers = True

    def setup(self, env: Env) -> None:
        """Find the store."""
        config = self.config
        self._methods = frozenset(config.methods)
        self._reader = KeyReader(config.header, unquoted=config.unquoted)
        caller = CallerKey(config.key)
        try:
            caller.check_captures(env)
        except ConditionError as error:
            raise ConfigError(f"key: {error}") from None
        self._caller = caller.of
        name = env.place.rpartition(":")[2]  # not the route's: a board has no room for each result of each of them
        results = ("first", "replayed", "missing", "invalid", *(each.value for each in Standing))
        self._counters = {result: env.counter(_COUNTER, policy=name, result=result) for result in results}
        self._results = {result: (Result(ResultKind.IDEMPOTENCY, name, result),) for result in results}
        rules = OnceRules(
            ttl=config.ttl,
            lock=config.lock,
            wait=config.wait,
            largest=config.max_answer,
            retryable=frozenset(config.retryable),
            keep_unknown=config.on_unknown == "refuse",
        )
        self._once = Once(env.store.durable, env.place, rules, env.see_through, env.clock, env.logger)
        link = config.documentation
        self._link = None if link is None else b'<%s>; rel="describedby"; type="text/html"' % link.encode("ascii")

    async def handle(self, request: Request, next: Handler) -> Response:  # noqa: A002 - the field's word
        """Answer a request by what the first one with its key was answered."""
        if request.method not in self._methods:
            return await next(request)
        try:
            key = self._reader.read(request.headers)
        except MalformedKey as error:
            title = "Idempotency-Key is not valid"
            return self._refused(request, "invalid", Response.problem(error.status, error.type, title, error.detail))
        if key is None:
            return self._refused(request, "missing", _missing()) if self.config.required else await next(request)
        content = await request.body.read(self.config.max_body)
        print_ = await fingerprint(request, content)
        found, again = await self._once.answer(request, next, self._caller(request), key, print_)
        if isinstance(found, Response):
            self._came(request, "replayed" if again else "first")
            return self.stopped(request, found) if again else found
        if found is Standing.NO_STORE and self.config.on_store_failure == "allow":
            self._came(request, found.value)
            return await next(request)
        return self._refused(request, found.value, _told(found))

    def _came(self, request: Request, result: str) -> None:
        """Count what came of a request, and have its record tell of it."""
        self._counters[result].add()
        if request.exchange is not None:
            request.exchange.results += self._results[result]

    def _refused(self, request: Request, result: str, response: Response) -> Response:
        self._came(request, result)
        if self._link is not None:
            response.headers.set(b"Link", self._link)
        return self.stopped(request, response)


def _missing() -> Response:
    return Response.problem(
        400, "idempotency-key-missing", "Idempotency-Key is missing", "A request of this kind needs a key of its own."
    )


def _told(standing: Standing) -> Response:
    """Return the problem that tells why there is no answer."""
    problem = _SAID[standing]
    response = Response(problem.status)
    response.problem_value = problem
    if standing in _PASSING:
        response.headers.set(b"Retry-After", _SOON)
    return response
