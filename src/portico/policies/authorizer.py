"""Have a function of yours, or a service that answers as AWS Lambda authorizers do, say who may.

```yaml
plugins: [checks.py]
services: {auth: "http://127.0.0.1:9010", orders: "http://127.0.0.1:9002"}
routes:
  - {path: /partners/**, service: orders, policies: [authorizer: {function: "checks:partner"}]}
  - path: /orders/{id}
    service: orders
    policies:
      - authorizer: {service: auth, path: /authorize, ttl: 1m}
  - path: /admin/**
    service: orders
    policies:
      - authorizer:
          url: https://authorizer.example/
          format: iam
          identity_source: {headers: Authorization, cookies: session, path: true}
```

```python
# checks.py
from portico.plugin import Refusal, Request, User

PARTNERS = {b"a-long-key-of-acme": User("acme", roles=frozenset({"partner"}))}


def partner(request: Request) -> User | Refusal | None:
    key = request.headers.get(b"x-partner-key")
    if key is None:
        return None
    return PARTNERS.get(key) or Refusal("unknown-partner", "Unknown partner")
```

A `function` is one of a [plugin](../../writing-a-policy.md), `module:name`. It is given the request, and returns who it
is from (a `User`), `True` where it may pass without a name, `False` where it may not, a `Refusal`, or None where
nothing was shown that it knows. An `async` one runs on the worker's loop; others run in threads, eight at once for each
function in each worker, and have to come to an end by themselves. A reload takes its new code.

A `service`, or a `url`, is asked by a POST with what API Gateway tells Lambda authorizers of HTTP APIs in the format
2.0: `version`, `type`, `routeArn`, `identitySource`, `routeKey`, `rawPath`, `rawQueryString`, `cookies`, `headers`,
`queryStringParameters`, `pathParameters` and `requestContext`; the content of the request is not among it. It answers
200 with JSON:

- `format: simple`: `{"isAuthorized": true, "context": {...}}`;
- `format: iam`: `{"principalId": "ada", "policyDocument": {...}, "context": {...}}`. The request may pass if the
  statements allow `execute-api:Invoke` of its `routeArn`, and none denies it. Statements with conditions, or what else
  is not `Effect`, `Action` and `Resource`, are not understood, and no answer.

What is in `context`, and `principalId`, are claims of who it is: `user` is the one that is their name, without which
the request passes, and nobody is known. Who may not pass is answered 403; an answer of 401 is the client's, too.

Where one of `identity_source` is missing or empty, nobody is asked, and the answer is 401. With a `ttl`, what was
answered holds for so long for all requests of the same route and method that show the same there, whatever else is
different in them, as with AWS: name all that it looks at, such as `path: true`, or have `ttl: 0s`. A `Refusal` with
another status than 401 or 403 is not kept. Of a policy of IAM the statements are looked at each time. A reload that
changes these settings, the function, or the service that is asked, has everything asked anew.

With no answer in time, one that is none, or a function that raises, the answer is 503 (`authentication-unavailable`),
where AWS has 500. It stands beside others that authenticate: one of them is enough, unless it is `required`.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias, cast

import orjson
from pydantic import Field, model_validator

from portico.plugin import (
    ADMITTED,
    DENIED,
    NO_ANSWER,
    Admitted,
    Authenticator,
    BadValue,
    Body,
    ClaimedUser,
    ConfigError,
    Duration,
    Env,
    FilePath,
    FixedVerdict,
    Found,
    HeaderName,
    Headers,
    HeaderValue,
    KeyUrl,
    Memory,
    NotTaken,
    NoVerdict,
    OneOrMany,
    PolicyConfig,
    PolicyVerdict,
    Questions,
    Refusal,
    Request,
    RequestError,
    Response,
    RouteArn,
    ServiceName,
    Shorthand,
    Size,
    Stage,
    Texts,
    Threads,
    TooManyCalls,
    Trouble,
    User,
    UserOf,
    claim_at,
    cookies_of,
    event_of,
    json_object,
    parameters_of,
    read_iam,
    read_simple,
    settings_print,
    target_of,
)

THREADS: Final = 8
"""Calls of a function that is not async which a worker makes at once."""
MOST_WAITING: Final = 64
"""Calls that wait for a thread; beyond them it is as if there were no answer."""
MOST_REFUSED: Final = 1024
"""Refusals that are remembered: what anybody can make up puts no others out of mind."""
TTL: Final = 300.0
"""Seconds for which an answer holds unless the file says otherwise, as AWS has it."""

_UNAUTHORIZED: Final = Refusal("invalid-credentials", "Invalid credentials", "the authorizer answers 401")
_FIELDS: Final = (
    (b"Accept", b"application/json"),
    (b"Accept-Encoding", b"identity"),
    (b"Content-Type", b"application/json"),
)
_OF_HTTP: Final = ("path", "ca", "format", "arn", "max_answer", *(set(ClaimedUser.model_fields) - {"required"}))

Verdict: TypeAlias = FixedVerdict | PolicyVerdict
_READERS: Final[Mapping[str, Callable[[Mapping[str, Any], UserOf], Verdict]]] = {"simple": read_simple, "iam": read_iam}


class IdentitySource(PolicyConfig):
    """What a request shows: all of it has to be there."""

    headers: Annotated[tuple[HeaderName, ...], OneOrMany()] = ()
    """Headers."""
    query: Texts = ()
    """Parameters of the query."""
    cookies: Texts = ()
    """Cookies."""
    path: bool = False
    """The path: whether an answer holds for that of the request alone."""

    @property
    def is_empty(self) -> bool:
        """Whether no client has to show anything of its own."""
        return not (self.headers or self.query or self.cookies)

    def values(self, request: Request) -> list[str] | None:
        """Return what a request shows; None where something is missing or empty."""
        found = [b",".join(request.headers.get_all(name.lower().encode())).decode("latin-1") for name in self.headers]
        if self.query:
            found += _values(parameters_of(request), self.query)
        if self.cookies:
            parts = (cookie.partition("=") for cookie in cookies_of(request))
            found += _values([(name, value) for name, _, value in parts], self.cookies)
        if self.path:
            found.append(request.path)
        return found if all(found) else None


class Authorizer(ClaimedUser):
    """Who says who may, and what of a request it goes by."""

    function: Annotated[str, Field(pattern=r"^[\w.-]+:\w+$", examples=["checks:may_pass"])] | None = None
    """The function of a plugin, `module:name`; `module` is the file without its `.py`."""
    service: ServiceName | None = None
    """The service of the file that is asked instead."""
    path: Annotated[str, Field(pattern=r"^/[!-\"$-~]*$", examples=["/authorize"])] = "/"
    """The path at that service, and a query where it needs one."""
    url: Annotated[KeyUrl, Field(examples=["https://authorizer.example/"])] | None = None
    """The URL that is asked instead, where it is no service of the file."""
    ca: FilePath | None = None
    """A file with the authorities that must have signed the certificate at `url`; those of the system otherwise."""
    format: Literal["simple", "iam"] = "simple"
    """What is answered: whether a request `isAuthorized`, or a policy of IAM."""
    arn: Annotated[str, Field(pattern=r"^arn:[\w-]+:execute-api:[\w-]*:\w*:[\w-]+/[\w$.-]+$")] = (
        "arn:aws:execute-api:local:000000000000:portico/$default"
    )
    """What the ARN of each request begins with; `/GET/orders/7` follows."""
    identity_source: Annotated[IdentitySource, Shorthand("headers")] | None = None
    """What a request has to show, and is known again by. Unless given, `Authorization` where a service is asked, and
    nothing where a function is."""
    ttl: Annotated[Duration, Field(le=3600)] | None = None
    """How long an answer holds, at most an hour; `0s` has each request asked about. Unless given, 5 minutes where a
    service is asked, and no time where a function is."""
    timeout: Annotated[Duration, Field(gt=0)] = 2.0
    """How long the whole answer may take."""
    challenge: HeaderValue = "Bearer"
    """What `WWW-Authenticate` says with a 401; nothing if it is empty."""
    max_answer: Size = 16384
    """The most bytes of an answer; one with more is none."""
    user: str = "principalId"
    """The claim that is the user's name; without it the request passes, and nobody is known."""

    @model_validator(mode="after")
    def _one_to_ask(self) -> Authorizer:
        given = [name for name in ("function", "service", "url") if getattr(self, name) is not None]
        if len(given) != 1:
            what = f"there are a {' and a '.join(given)}" if given else "there is nobody to ask"
            raise BadValue(what, "give one of function, service and url")
        if self.url is not None and "path" in self.model_fields_set:
            raise BadValue("the url has a path of its own", "leave path out")
        if self.service is not None and self.ca is not None:
            raise BadValue("there is a ca, and no url", "the service says itself who must have signed its certificate")
        strange = sorted(self.model_fields_set.intersection(_OF_HTTP)) if self.function is not None else []
        if strange:
            raise BadValue(f"{strange[0]} is of no use to a function", "leave it out")
        if self.ttl and self.source.is_empty:
            hint = "name in identity_source all that it looks at, or leave ttl out"
            raise BadValue("with a ttl, what was answered to one would hold for all", hint)
        return self

    @property
    def source(self) -> IdentitySource:
        """What a request has to show."""
        if self.identity_source is not None:
            return self.identity_source
        return IdentitySource(headers=("Authorization",) if self.function is None else ())

    @property
    def holds(self) -> float:
        """How long an answer holds."""
        if self.ttl is not None:
            return self.ttl
        return 0.0 if self.function is not None or self.source.is_empty else TTL


class AuthorizerPolicy(Authenticator[Authorizer], name="authorizer", stages=(Stage.AUTHENTICATE,)):
    """Asks, and does as it is told."""

    def setup(self, env: Env) -> None:
        """Find out whom to ask."""
        config = self.config
        self._clock, self._wall = env.clock, env.wall
        self._source, self._holds = config.source, config.holds
        self._arn = RouteArn(config.arn, env.route.name, env.route.paths)
        self._numbers = itertools.count()
        self._ask: Callable[[Request, Sequence[str]], Awaitable[Verdict]]
        asked: tuple[object, ...] = ()
        settings = b""
        if config.function is not None:
            try:
                function = env.function(config.function)
            except ConfigError as error:
                raise ConfigError(f"{self.name}: {error}") from None
            asked, self._ask = (function,), self._call
            self._call_function = self._caller(env, function)
        else:
            settings, self._ask = self._whom(env), self._post
        trouble = Trouble(
            env.logger, env.clock, f"{self.name}: nobody says who may pass", "requests are refused meanwhile"
        )
        self._questions: Questions[Verdict] = Questions(env, self.name, config.timeout, trouble)
        # With its paths: a name that the file does not give may be another route's after a reload.
        self._place = f"{env.route.name} {env.route.paths}"
        key = (self.name, settings_print(config, settings), *asked)
        self._known: Memory[Verdict] = env.share((*key, "known"), Memory)
        self._refused: Memory[Verdict] = env.share((*key, "refused"), lambda: Memory(MOST_REFUSED))

    def _whom(self, env: Env) -> bytes:
        """Find out where the service is; return what of that the settings do not say."""
        config = self.config
        if config.service is not None:
            self._handler = env.service(config.service)
            self._path, _, query = config.path.partition("?")
            self._query = query or None
            return env.settings_of(config.service)
        assert config.url is not None
        place, self._path, self._query = target_of(config.url)
        self._handler = env.web(place, config.ca)
        return b"" if config.ca is None else Path(config.ca).read_bytes()

    def _caller(self, env: Env, function: Callable[..., object]) -> Callable[[Request], Awaitable[object]]:
        """Return what calls a function, without holding up the loop."""
        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004 - not whether it can be called
            return cast("Callable[[Request], Awaitable[object]]", function)
        threads = env.share(("authorizer threads", function), lambda: Threads(THREADS, MOST_WAITING, "authorizer"))

        async def call(request: Request) -> object:
            try:
                found = await asyncio.get_running_loop().run_in_executor(threads, function, request)
            except TooManyCalls:
                raise NoVerdict(f"{THREADS} calls of the function are under way, and {MOST_WAITING} wait") from None
            return await found if inspect.isawaitable(found) else found

        return call

    def identify(self, request: Request) -> Found | Awaitable[Found]:
        """Return what is known of a request, or what is answered."""
        shown = self._source.values(request)
        if shown is None:
            return None
        if not self._holds:
            return self._later(request, shown, b"%d" % next(self._numbers))
        key, now = self._known.print_of((request.method, self._place, shown)), self._clock()
        verdict = self._known.recall(key, now) or self._refused.recall(key, now)
        return self._later(request, shown, key) if verdict is None else verdict.of(self._arn.of(request))

    def challenge(self, refusal: Refusal | None) -> str:
        """Return the challenge of the file."""
        return self.config.challenge

    async def _later(self, request: Request, shown: Sequence[str], key: bytes) -> Found:
        verdict = await self._questions.verdict(key, functools.partial(self._find_out, request, shown, key))
        return NO_ANSWER if verdict is None else verdict.of(self._arn.of(request))

    async def _find_out(self, request: Request, shown: Sequence[str], key: bytes) -> Verdict:
        verdict = await self._ask(request, shown)
        found = verdict.of(self._arn.of(request))
        if self._holds and found is not _UNAUTHORIZED and _is_of_credentials(found):
            memory = self._known if isinstance(found, User | Admitted) else self._refused
            memory.keep(key, verdict, self._clock(), self._holds)
        return verdict

    async def _call(self, request: Request, shown: Sequence[str]) -> FixedVerdict:
        try:
            found = await self._call_function(request)
        except RequestError as error:  # of content that it has looked at
            return FixedVerdict(Refusal(error.type, "", str(error), status=error.status))
        if isinstance(found, User):
            return FixedVerdict(found if found.kind else replace(found, kind=self.name))
        if isinstance(found, bool):
            return FixedVerdict(ADMITTED if found else DENIED)
        if found is None or isinstance(found, Refusal):
            return FixedVerdict(found)
        raise TypeError(f"{self.config.function} has returned neither a User, a Refusal, a truth value nor None")

    async def _post(self, request: Request, shown: Sequence[str]) -> Verdict:
        event = orjson.dumps(event_of(request, self._arn, shown, self._wall()))
        question = Request("POST", self._path, self._query, Headers(_FIELDS), Body(event))
        question.deadline = self._clock() + self.config.timeout
        answer = await self._handler(question)
        try:
            return await self._judged(answer)
        finally:
            answer.body.close()

    async def _judged(self, answer: Response) -> Verdict:
        if answer.status == 401:
            return FixedVerdict(_UNAUTHORIZED)
        if answer.status != 200 or answer.problem_value is not None:
            raise NoVerdict(f"it answers {answer.status}")
        content = await answer.body.read(self.config.max_answer)
        try:
            return _READERS[self.config.format](json_object(content, "answer"), self._user_of)
        except NotTaken as error:
            raise NoVerdict(f"it answers what is of no use: {error}") from None

    def _user_of(self, claims: Mapping[str, Any]) -> User | Admitted:
        named = claim_at(claims, self.config.user) is not None
        return self.config.user_of(claims, self.name) if named else ADMITTED


def _is_of_credentials(found: Found) -> bool:
    """Whether an answer would be the same to another request, and not one to its content, or to some trouble."""
    return not isinstance(found, Refusal) or found.status in (401, 403)


def _values(pairs: Sequence[tuple[str, str]], names: Sequence[str]) -> list[str]:
    """Return the values of each name, with commas between them."""
    return [",".join(value for known, value in pairs if known == name) for name in names]
