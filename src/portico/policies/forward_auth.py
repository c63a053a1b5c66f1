"""Ask another service whether a request may pass, as nginx's `auth_request` and Traefik's `ForwardAuth` do.

```yaml
services: {auth: "http://127.0.0.1:9010", orders: "http://127.0.0.1:9002"}
routes:
  - path: /orders/**
    service: orders
    policies:
      - forward-auth: {service: auth, path: /verify, identity: X-Auth-User, pass: [X-Auth-User, X-Auth-Roles]}
  - path: /pages/**
    service: orders
    policies:
      - forward-auth:
          url: https://login.example/oauth2/auth
          send: [Cookie, Accept]
          identity: {name: X-Auth-Request-User, groups: X-Auth-Request-Groups, claims: {email: X-Auth-Request-Email}}
          answer: [Location, Set-Cookie]
          cookies: _oauth2_proxy*
          cache: 10s
```

It is asked by a GET without content, which has the client's headers that `send` names, `X-Forwarded-Method` and
`X-Forwarded-Uri` with the method and the target of the request, and what every service is told of the client
([`forwarded`](../configuration.md#forwarded)): `X-Forwarded-For`, `-Proto`, `-Host` and `-Port`, unless the file says
otherwise. Nothing that the client claims in these is believed.

- An answer of 2xx lets the request pass. `identity` says which of its headers tell who it is from, for policies,
  conditions and logs further in; without a name the request passes, and nobody is known. What `pass` names is copied
  to the service. Cookies that it sets are for the client where `cookies` names them, such as those of a session that
  goes on, and come in the place of cookies of the same names that the service itself sets; no cache keeps such an
  answer (`Cache-Control: no-store`).
- Any other answer below 500, such as 401, 403 or a redirect to a login, is what the client is answered: its status, its
  content, and the headers that `answer` names. It is not cached by anybody unless it says so itself.
- With no answer in time, one of 5xx, or one that is too large or names nobody clearly, the answer is 503
  (`authentication-unavailable`); with `on_failure: allow` the request passes, and nobody is known.

What a client sends under a name that `identity` or `pass` has, with dashes or underscores, as a header or a trailer,
never comes to the service; nor does it where another policy has found out who is calling. Only a policy whose `when`
does not hold leaves it there.

Identical requests that come at once are one question, which goes on while any of them waits for it. With `cache`, an
answer of 2xx holds for so long, for requests that show the same headers and are alike in all that `cache_by` names; for
less, or not at all, where its `Cache-Control` says `max-age`, `no-cache` or `no-store`, or where it sets a cookie that
the client is given. Credentials that are withdrawn are good for so long as well. A reload that changes these settings,
or those of the service that is asked, has everything asked anew.

It stands beside others that authenticate: one of them is enough, unless it is `required`. Whom the service refuses is
never taken for one who has shown nothing; so `anonymous` does not take them.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple, TypeAlias

from pydantic import Field, field_validator, model_validator

from portico.plugin import (
    ADMITTED,
    FORWARDED_HEADERS,
    HOP_BY_HOP,
    NO_ANSWER,
    Admitted,
    Authenticator,
    AuthenticatorConfig,
    BadValue,
    Client,
    Duration,
    Env,
    Fields,
    FilePath,
    Found,
    HeaderName,
    Headers,
    Identity,
    Key,
    KeyUrl,
    Memory,
    NoVerdict,
    OneOrMany,
    PorticoError,
    Questions,
    Refusal,
    Request,
    Response,
    ServiceName,
    Shorthand,
    Size,
    Stage,
    Trouble,
    User,
    fields_told,
    settings_print,
    target_of,
    with_cookies,
)

_OURS: Final = (
    HOP_BY_HOP
    | FORWARDED_HEADERS
    | {b"accept-encoding", b"content-encoding", b"content-length", b"content-type", b"expect", b"host"}
)
"""Headers that a client has no say in, and a service that decides has none either."""
_OF_CONTENT: Final = (b"content-type", b"content-encoding", b"content-language")
_NOT_KEPT: Final = re.compile(r"(?:^|[\s,])no-(?:store|cache)(?:$|[\s,=])")
_MAX_AGE: Final = re.compile(r"(?:^|[\s,])max-age=\"?(\d{1,9})")

Names = Annotated[tuple[HeaderName, ...], OneOrMany()]
Alike = Literal["client", "host", "method", "path", "query"]
CookieNames = Annotated[
    tuple[Annotated[str, Field(pattern=r"^[!#$%&'+.^_`|~0-9A-Za-z-]+\*?$", examples=["session"])], ...], OneOrMany()
]


class ForwardAuth(AuthenticatorConfig):
    """Who is asked, with what, and what becomes of the answer."""

    service: ServiceName | None = None
    """The service of the file that is asked."""
    path: Annotated[str, Field(pattern=r"^/[!-\"$-~]*$", examples=["/verify"])] = "/"
    """The path at that service, and a query where it needs one."""
    url: Annotated[KeyUrl, Field(examples=["https://login.example/oauth2/auth"])] | None = None
    """The URL that is asked instead, where it is no service of the file."""
    ca: FilePath | None = None
    """A file with the authorities that must have signed the certificate at `url`; those of the system otherwise."""
    send: Names = ("Authorization", "Cookie")
    """The headers of the client that are sent along."""
    original_uri: bool = False
    """Whether the target of the request is sent as `X-Original-URI` as well."""
    identity: Annotated[Identity, Shorthand("name")] | None = None
    """Which headers of an answer tell who it is, or only the one with the name; unless given, nobody is known."""
    pass_: Names = Field((), alias="pass", examples=[["X-Auth-User"]])
    """The headers of an answer that are copied to the service."""
    answer: Names = ("WWW-Authenticate", "Location", "Retry-After", "Cache-Control")
    """The headers of an answer that a client is given with it when it is refused, beside those that tell of its
    content; `Set-Cookie` where it is to come along."""
    cookies: CookieNames = ()
    """The cookies of an answer of 2xx that the client is given with what the service answers: their names, `*` at the
    end of one for whatever follows."""
    timeout: Annotated[Duration, Field(gt=0)] = 2.0
    """How long the whole answer may take."""
    on_failure: Literal["refuse", "allow"] = "refuse"
    """What becomes of a request while nobody can be asked, or too many requests are asked about; with `allow`, whoever
    can bring that about is let in."""
    cache: Duration = 0.0
    """How long an answer of 2xx holds for further requests; `0s` has each of them asked about."""
    cache_by: Annotated[tuple[Alike, ...], OneOrMany()] = ("client", "host", "method", "path", "query")
    """In what requests must be alike for that, beside the headers that are sent along: the client's address, the scheme
    and the host, the method, the path, the query. Leave out only what the service does not look at."""
    max_answer: Size = 65536
    """The most bytes of the content that a refused client is given; an answer with more is none."""

    @field_validator("send", "pass_", "answer")
    @classmethod
    def _not_ours(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if _plain(name) in _OURS:
                raise BadValue(f"{name} is for the gateway to say", "leave it out")
        return names

    @field_validator("pass_")
    @classmethod
    def _no_cookie(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if any(_plain(name) == b"cookie" for name in names):
            raise BadValue("the client would lose its cookies", "take a header of its own, such as X-Auth-User")
        return names

    @model_validator(mode="after")
    def _one_to_ask(self) -> ForwardAuth:
        if (self.service is None) == (self.url is None):
            what = "there is nobody to ask" if self.url is None else "there are a service and a url"
            raise BadValue(what, "give one of service and url")
        if self.url is not None and "path" in self.model_fields_set:
            raise BadValue("the url has a path of its own", "leave path out")
        if self.url is None and self.ca is not None:
            raise BadValue("there is a ca, and no url", "the service says itself who must have signed its certificate")
        return self


class Pass(NamedTuple):
    """A request may pass."""

    found: User | Admitted
    told: Fields
    """What the service is told."""
    cookies: tuple[bytes, ...] = ()
    """What the client is given."""


class Denial(NamedTuple):
    """What the client is answered instead."""

    status: int
    headers: Fields
    content: bytes

    def response(self) -> Response:
        """Return it as an answer of its own."""
        return Response(self.status, Headers(self.headers), self.content)


Verdict: TypeAlias = Pass | Denial


class Question(NamedTuple):
    """What is asked about a request, and what others are known by that would be answered the same."""

    headers: Headers
    client: Client | None
    print_: bytes
    """Of all that is sent."""
    kept_as: bytes
    """Of that in which requests must be alike for the same answer; empty where none is kept."""


class ForwardAuthPolicy(Authenticator[ForwardAuth], name="forward-auth", stages=(Stage.AUTHENTICATE,)):
    """Asks, and does as it is told."""

    def setup(self, env: Env) -> None:
        """Find out whom to ask."""
        config = self.config
        self._clock: Callable[[], float] = env.clock
        self._spawn = env.spawn
        self._logger = env.logger
        if config.url is not None:
            place, self._path, self._query = target_of(config.url)
            self._handler = env.web(place, config.ca)
        else:
            assert config.service is not None
            self._handler = env.service(config.service)
            self._path, _, query = config.path.partition("?")
            self._query = query or None
        self._send = frozenset(name.lower().encode("ascii") for name in config.send)
        self._pass = tuple(name.encode("ascii") for name in config.pass_)
        self._answer = frozenset((*(name.lower().encode("ascii") for name in config.answer), *_OF_CONTENT))
        told = [] if config.identity is None else config.identity.names
        self._ours = frozenset(map(_plain, (*config.pass_, *told)))
        self._told: Key[Fields] = Key("forward-auth")
        self._cookies: Key[tuple[bytes, ...]] = Key("forward-auth cookies")
        become = "pass" if config.on_failure == "allow" else "are refused"
        trouble = Trouble(
            env.logger, env.clock, "forward-auth: nobody says who may pass", f"requests {become} meanwhile"
        )
        self._questions: Questions[Verdict] = Questions(env, "forward-auth", config.timeout, trouble)
        asked = b"" if config.service is None else env.settings_of(config.service)
        ca = b"" if config.ca is None else Path(config.ca).read_bytes()
        self._memory: Memory[Pass] = env.share(("forward-auth", settings_print(config, asked, ca)), Memory)

    def identify(self, request: Request) -> Found | Awaitable[Found]:
        """Return what is known of a request, or what the service says."""
        question = self._question(request)
        if question.kept_as:
            known = self._memory.recall(question.kept_as, self._clock())
            if known is not None:
                return self._passed(request, known)
        return self._later(request, question)

    def conceal(self, request: Request) -> None:
        """Take what only the service that decides has to say, and put there what it has said."""
        headers, ours = request.headers, self._ours
        for key in [key for key in headers.index if key.replace(b"_", b"-") in ours]:
            headers.remove(key)
        request.body.refuse_trailers(ours.__contains__)
        for name, value in request.get(self._told) or ():
            headers.put_parsed(name, value)

    def response(self, request: Request, response: Response) -> Response:
        """Give the client the cookies of the service that decides, and none of their names by anybody else."""
        cookies = request.get(self._cookies)
        if cookies:
            names = {_cookie_of(value) for value in cookies}
            kept = [value for value in response.headers.get_all(b"set-cookie") if _cookie_of(value) not in names]
            response.headers.remove(b"set-cookie")
            for value in kept:
                response.headers.put_parsed(b"Set-Cookie", value)
            return with_cookies(response, cookies)
        return response

    def challenge(self, refusal: Refusal | None) -> str:
        """Return none: the service that decides has its own."""
        return ""

    def _question(self, request: Request) -> Question:
        sent, client = request.headers, request.client
        host = sent.get(b"host")
        fields = [pair for pair in sent.pairs if pair[0].lower() in self._send]
        target = request.target.encode("utf-8", "surrogateescape")
        headers = Headers()
        if host is not None:
            headers.put_parsed(b"Host", host)  # so that X-Forwarded-Host tells it; it is not sent as Host
        headers.put_parsed(b"Accept-Encoding", b"identity")
        for name, value in fields:
            headers.put_parsed(name, value)
        headers.add(b"X-Forwarded-Method", request.method.encode("ascii"))
        headers.add(b"X-Forwarded-Uri", target)
        if self.config.original_uri:
            headers.add(b"X-Original-URI", target)
        lines = () if client is None else tuple(client.forwarded(host))
        print_ = self._memory.print_of((headers.pairs, lines))
        if not self.config.cache:
            return Question(headers, client, print_, b"")
        shown = [(name.lower(), value) for name, value in fields]
        alike = [_part(request, host, part) for part in self.config.cache_by]
        return Question(headers, client, print_, self._memory.print_of((shown, alike)))

    async def _later(self, request: Request, question: Question) -> Found:
        verdict = await self._questions.verdict(question.print_, functools.partial(self._ask, question))
        if verdict is None:
            return ADMITTED if self.config.on_failure == "allow" else NO_ANSWER
        return verdict.response() if isinstance(verdict, Denial) else self._passed(request, verdict)

    def _passed(self, request: Request, verdict: Pass) -> User | Admitted:
        if verdict.told:
            request[self._told] = verdict.told
        if verdict.cookies:
            request[self._cookies] = verdict.cookies
        return verdict.found

    async def _ask(self, question: Question) -> Verdict:
        request = Request("GET", self._path, self._query, question.headers, client=question.client)
        request.deadline = self._clock() + self.config.timeout
        answer = await self._handler(request)
        try:
            verdict = await self._judged(answer)
        finally:
            answer.body.close()
        if question.kept_as and isinstance(verdict, Pass) and not verdict.cookies:
            self._memory.keep(question.kept_as, verdict, self._clock(), self._holds(answer.headers))
        return verdict

    async def _judged(self, answer: Response) -> Pass | Denial:
        """Return what an answer says; raise PorticoError where that is nothing."""
        status, headers = answer.status, answer.headers
        if not 200 <= status < 500 or answer.problem_value is not None:
            raise NoVerdict(f"it answers {status}")
        limit = self.config.max_answer
        if status < 300:
            verdict = Pass(self._named(headers), self._copied(headers), self._set(headers))
            with suppress(PorticoError):  # its content is of no use, but that its connection can be kept
                await answer.body.read(limit)
            return verdict
        fields = [(name, value) for name, value in headers.pairs if name.lower() in self._answer]
        if not any(name.lower() == b"cache-control" for name, _ in fields):
            fields.append((b"Cache-Control", b"no-store"))
        return Denial(status, fields_told(fields), await answer.body.read(limit))

    def _named(self, headers: Headers) -> User | Admitted:
        identity = self.config.identity
        return ADMITTED if identity is None else identity.user_of(headers, self.name) or ADMITTED

    def _copied(self, headers: Headers) -> Fields:
        return fields_told((name, value) for name in self._pass for value in headers.get_all(name.lower()))

    def _set(self, headers: Headers) -> tuple[bytes, ...]:
        """Return the cookies that the client is given."""
        chosen = [value for value in headers.get_all(b"set-cookie") if self._is_chosen(_cookie_of(value))]
        return tuple(value for _, value in fields_told((b"Set-Cookie", value) for value in chosen))

    def _is_chosen(self, cookie: str) -> bool:
        return any(
            cookie.startswith(name[:-1]) if name.endswith("*") else cookie == name for name in self.config.cookies
        )

    def _holds(self, headers: Headers) -> float:
        """Return for how many seconds an answer holds."""
        said = b",".join(headers.get_all(b"cache-control")).decode("latin-1").lower()
        if _NOT_KEPT.search(said) is not None:
            return 0.0
        age = _MAX_AGE.search(said)
        return self.config.cache if age is None else min(self.config.cache, float(age[1]))


def _plain(name: str) -> bytes:
    """Return the name of a header as one that a service may take for it is compared."""
    return name.lower().replace("_", "-").encode("ascii")


def _part(request: Request, host: bytes | None, part: Alike) -> object:
    client = request.client
    if part == "client":
        return None if client is None else client.address
    if part == "host":
        return host if client is None else (client.scheme, client.asked(host))
    return request.method if part == "method" else request.path if part == "path" else request.query


def _cookie_of(set_cookie: bytes) -> str:
    """Return the name of the cookie that a Set-Cookie sets (RFC 6265 section 5.2)."""
    return set_cookie.partition(b";")[0].partition(b"=")[0].strip().decode("latin-1")
