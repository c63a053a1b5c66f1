"""Answer without the service what it has answered before, for as long as it says that this may be done (RFC 9111).

```yaml
policies:
  - cache
routes:
  - {path: /orders/**, service: orders}
  - {path: /news/**, service: news, policies: [{cache: {ttl: 60s, stale_if_error: 10m}}]}
  - path: /shop/**
    service: shop
    policies:
      - cache:
          ttl: {200: 5m, 404: 10s}
          key: {without: [tracking, ref], sorted: true, headers: [X-Country]}
          stale_while_revalidate: 30s
          header: X-Cache-Status
  - {path: /reports/**, service: reports, policies: [{cache: {users: apart, bypass: "headers['x-preview'] != ''"}}]}
  - {path: /login, service: shop, policies: [{cache: off}]}
```

What is kept is for the service to say: by `Cache-Control`, `Expires`, or `CDN-Cache-Control`, which no browser heeds
(RFC 9213). Where it says nothing, `ttl` is for how long an answer is fresh, as nginx's `proxy_cache_valid` has it: a
time is for 200, 301 and 302, and a mapping has one for each status. It overrides nothing that an answer says. Only
answers to GET are kept; HEAD is answered by them, and so are `Range`, `If-None-Match` and `If-Modified-Since`. What is
stale is validated, where it has an `ETag` or `Last-Modified`. `Vary` is heeded: up to 16 answers are kept for one URL.

**Where the policy stands matters.** It stands behind those that authenticate and authorize, so nobody is given what
they may not see. Requests that change something (any method but GET, HEAD and OPTIONS) have go what is kept for their
URL, on all routes around which the same line of the file stands: so it is better written for a service, or for the
file, than for each route. What one route has answered is given on no other. Changing the policy's settings begins anew.

**Who asks.** An answer to a request in somebody's name, with `Authorization` or by whichever policy has found out whose
it is, is kept only where it says that others may have it (`public`, `s-maxage`, `must-revalidate`). With `users: apart`
it is kept for each user; with `users: alike` as if nobody in particular had asked, which is right only where all are
answered the same. Nor are they given what was kept for nobody in particular and is fresh only by `ttl` or `heuristic`.
A cookie may be somebody's session: a request with one is answered by, and kept as, only what says by itself for how
long it is fresh, unless `cookies` are to be ignored. What sets a cookie is not kept (`set_cookie`). Credentials in
other headers the gateway does not know: name them in `key.headers`.

**Many at once.** Requests for what is being fetched wait for that, also those to other workers, and other machines with
the same store, for up to `wait`; so the service is asked once. The one who began is sent the answer as it comes. What
turns out not to be kept is remembered for two minutes, in which nobody waits for anybody. A client that leaves does not
end a fetch that others wait for, or that will be kept within 30 seconds.

**When the service fails.** With `stale-if-error` in the answer's `Cache-Control`, or `stale_if_error` here, what is
stale is given instead of 500, 502, 503 and 504, and where the service cannot be reached (RFC 5861). With
`stale-while-revalidate`, or `stale_while_revalidate` here, what is stale is given at once, and one request is sent to
renew it. No stale answer is given that says `must-revalidate`.

**Where it is kept.** In the [store](../configuration.md#state), whose size is bounded, and in front of it in the memory
of each worker: what has come is there for the next request without a look at the store. What one worker has go, all
workers of the machine have go at once; other machines with the same Redis within a second. While the store cannot be
asked, requests go to the service, or are answered from memory. An answer that is not whole is never kept, nor one over
`max_size`, which passes as it comes.

**Purging.** `portico purge` has answers go by URL, by tag, or all of them
([purging](../../operations/state.md#purging)). Where `key` leaves out parameters of the query, or sorts them, give the
URL without its query, which stands for all of its queries. Services tag their answers by `Cache-Tag` or
`Surrogate-Key`, which clients do not get unless `show_tags` is set.

**Telling.** `Cache-Status` (RFC 9211) says what has happened, as in `portico; hit; ttl=42` or `portico; fwd=stale`;
`header` names one for nginx's word: HIT, MISS, EXPIRED, STALE, UPDATING, REVALIDATED or BYPASS. A client that says
`only-if-cached` is answered 504 where nothing is kept. `portico_cache_requests_total` counts, by `policy` and `result`
(`hit`, `stale`, `miss`, `pass`); so do `portico_cache_stored_total`, `portico_cache_evicted_total` (from the memory of
workers) and `portico_cache_store_failures_total`.

**Poisoning.** The path is in its normal form before it is looked for, and is the one that the service sees. Host, port
and scheme are part of the key. Requests with headers by which some services take another path, host or method for what
was asked for (`X-Original-URL`, `X-HTTP-Method-Override`, `X-Forwarded-Prefix`, ...) go past the cache, unless
`key.headers` has them. A query with a semicolon in it counts as it is written, whatever `key` leaves out: some services
take what follows for one more parameter. Where a service answers by a header that its `Vary` does not name, name it
there, too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, field_validator

from portico.plugin import (
    BadValue,
    Condition,
    ConditionError,
    Duration,
    Env,
    Expression,
    Handler,
    HeaderName,
    Off,
    Policy,
    PolicyConfig,
    Request,
    Response,
    Share,
    Size,
    Stage,
    StatusCode,
    caching,
    response_cache,
)

_LARGEST: Final = 16 * 1024 * 1024
_USUAL: Final = (200, 301, 302)
"""Statuses that a `ttl` without any is for, as in nginx."""


def _by_status(value: object) -> object:
    return value if isinstance(value, Mapping) else dict.fromkeys(_USUAL, value)


def _either(schema: dict[str, Any]) -> None:
    mapping = {key: schema.pop(key) for key in ("type", "additionalProperties", "propertyNames") if key in schema}
    schema["anyOf"] = [mapping.get("additionalProperties", {}), mapping]


def _compiled(kind: type[Condition] | type[Expression], text: str) -> str:
    try:
        kind(text)
    except ConditionError as error:
        raise BadValue(str(error), error.hint) from None
    return text


class CacheKey(PolicyConfig):
    """In what requests must be alike to be answered the same, beside the method, the URL, and what `Vary` names."""

    query: tuple[str, ...] | None = None
    """The only query parameters that count; all of them unless given, none with `[]`. A `*` at the end of a name stands
    for whatever follows."""
    without: tuple[str, ...] = ()
    """Query parameters that do not count; `tracking` stands for those by which visitors are tracked (`utm_*`, `gclid`,
    `fbclid` and the like)."""
    sorted: bool = False
    """Whether the order of query parameters does not count."""
    headers: tuple[HeaderName, ...] = ()
    """Headers of requests each value of which is answered apart."""
    by: tuple[str, ...] = Field((), examples=[["user.claims['org']"]])
    """Expressions each value of which is answered apart, such as `user.claims['org']` or `cookies['currency']`."""

    @field_validator("by")
    @classmethod
    def _expressions(cls, by: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_compiled(Expression, text) for text in by)


class Cache(PolicyConfig):
    """What is kept, for whom, and for how long."""

    ttl: Annotated[Mapping[StatusCode, Duration], BeforeValidator(_by_status)] = Field(
        {}, json_schema_extra=_either, examples=["60s", {"200": "5m", "404": "10s"}]
    )
    """For how long an answer that does not say so itself is fresh, by its status; a time alone is for 200, 301 and
    302."""
    key: CacheKey = CacheKey()
    """In what requests must be alike."""
    users: Literal["heed", "apart", "alike"] = "heed"
    """What becomes of answers to those who are known: they are kept where they say that others may have them, or for
    each user apart, or as if nobody in particular had asked."""
    cookies: Literal["heed", "ignore"] = "heed"
    """Whether requests with cookies have nothing to do with answers that are fresh only by `ttl` or `heuristic`."""
    set_cookie: Literal["refuse", "strip", "keep"] = "refuse"
    """What becomes of answers that set a cookie: they are not kept, or without the cookie, or with it, so that all are
    given the same one."""
    clients: Literal["heed", "ignore"] = "heed"
    """Whether clients may say what they take, as by `Cache-Control: no-cache` or `max-age`. Their `no-store` always
    counts."""
    bypass: str | None = None
    """A condition; a request for which it holds is neither answered by what is kept, nor is its answer kept."""
    max_size: Annotated[Size, Field(le=_LARGEST)] = 1024 * 1024
    """The most bytes of a content that is kept; up to 16 MiB."""
    memory: Size = 32 * 1024 * 1024
    """The bytes that each worker has at hand, of all policies that say the same."""
    wait: Annotated[Duration, Field(le=60)] = 5.0
    """How long a request waits for another one that fetches the same; then it asks the service by itself."""
    stale_while_revalidate: Duration = 0.0
    """For how long a stale answer is given while it is renewed, where it does not say so itself."""
    stale_if_error: Duration = 0.0
    """For how long a stale answer is given where the service fails, where it does not say so itself."""
    keep_stale: Duration = 3600.0
    """For how long a stale answer is kept that can be validated."""
    heuristic: Share = 0.0
    """For which part of the time since it was last changed an answer is fresh that does not say so, and has no `ttl`;
    RFC 9111 names `10%`. At most for a day."""
    targeted: tuple[HeaderName, ...] = ("CDN-Cache-Control",)
    """Headers of answers that count instead of `Cache-Control` and `Expires`; the first that is there (RFC 9213)."""
    ignore: tuple[Literal["cache-control", "expires"], ...] = ()
    """Headers of answers that do not count, so that `ttl` does; `private` is heeded all the same."""
    ignore_vary: tuple[HeaderName, ...] = ()
    """What makes no difference even where `Vary` names it, such as `User-Agent`."""
    tags: tuple[HeaderName, ...] = ("Cache-Tag", "Surrogate-Key")
    """Headers of answers with the tags by which they are purged, parted by commas or spaces."""
    show_tags: bool = False
    """Whether clients get these headers."""
    name: Annotated[Annotated[str, Field(min_length=1, max_length=64)] | None, Off()] = "portico"
    """What the cache is called in `Cache-Status`, which is left out with `off`."""
    header: HeaderName | None = None
    """A header that tells what has happened in a word, such as `X-Cache-Status`; none unless given."""

    @field_validator("bypass")
    @classmethod
    def _condition(cls, bypass: str | None) -> str | None:
        return None if bypass is None else _compiled(Condition, bypass)


class CachePolicy(Policy[Cache], name="cache", stages=(Stage.CACHE,)):
    """Answers what it can, and has the rest fetched."""

    of_callers = True

    def setup(self, env: Env) -> None:
        """Prepare the rules, the key and the store."""
        users = response_cache.Users(self.config.users)
        settings, key, bypass = self._settings(users), self._key(env, users), self._bypass(env)
        self._cache: response_cache.ResponseCache | None = None
        if not env.route.built_in:  # who asks for what is not there gets nothing that could be kept
            self._cache = response_cache.ResponseCache(settings, key, env, bypass)

    def handle(self, request: Request, next: Handler) -> Awaitable[Response]:  # type: ignore[override]  # noqa: A002
        """Answer by what is kept, or by what the service says."""
        return next(request) if self._cache is None else self._cache.handle(request, next)

    def close(self) -> None:
        """End what is being fetched."""
        if self._cache is not None:
            self._cache.close()

    def _settings(self, users: response_cache.Users) -> response_cache.CacheSettings:
        config = self.config
        rules = caching.CachingRules(
            targeted=tuple(map(_lower, config.targeted)),
            ttl=dict(config.ttl),
            ignored=frozenset(name.encode() for name in config.ignore),
            unvaried=frozenset(map(_lower, config.ignore_vary)),
            set_cookie=caching.SetCookie(config.set_cookie),
            heuristic=config.heuristic,
            stale_while_revalidate=config.stale_while_revalidate,
            stale_if_error=config.stale_if_error,
            heed_clients=config.clients == "heed",
            per_user=users is response_cache.Users.APART,
        )
        return response_cache.CacheSettings(
            rules=rules,
            users=users,
            cookies=config.cookies == "heed",
            max_size=config.max_size,
            memory=config.memory,
            wait=config.wait,
            keep_stale=config.keep_stale,
            tags=tuple(map(_lower, config.tags)),
            show_tags=config.show_tags,
            name=config.name or "",
            header=b"" if config.header is None else config.header.encode("ascii"),
        )

    def _key(self, env: Env, users: response_cache.Users) -> response_cache.KeySettings:
        key = self.config.key
        expressions = [Expression(text) for text in key.by]
        for expression in expressions:
            expression.check_paths(env.route.captures)
        without = [name for each in key.without for name in (caching.TRACKING if each == "tracking" else (each,))]
        return response_cache.KeySettings(
            only=key.query,
            without=tuple(without),
            in_order=key.sorted,
            headers=tuple(map(_lower, key.headers)),
            texts=key.by,
            parts=tuple(expression.read for expression in expressions),
            users=users is response_cache.Users.APART,
        )

    def _bypass(self, env: Env) -> Callable[[Request], bool] | None:
        if self.config.bypass is None:
            return None
        condition = Condition(self.config.bypass)
        condition.check_paths(env.route.captures)
        return condition.holds


def _lower(name: str) -> bytes:
    return name.lower().encode("ascii")
