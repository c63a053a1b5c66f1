"""Let in who shows a token that its authorization server says is active (RFC 7662).

```yaml
services: {orders: "http://127.0.0.1:9002"}
routes:
  - path: /orders/**
    service: orders
    policies:
      - oauth2-introspection:
          discovery_url: https://issuer.example/.well-known/openid-configuration
          client_id: portico
          client_secret: "${CLIENT_SECRET:-change-me}"
          audience: orders
      - authorize: {scopes: [orders:read]}
  - path: /partners/**
    service: orders
    policies:
      - oauth2-introspection:
          url: https://partners.example/oauth2/introspect
          client_id: portico
          client_secret: "${CLIENT_SECRET:-change-me}"
          client_auth: post
          user: username
          cache: 10s
```

This is for tokens that only the server which has issued them can read. It is asked at `url`, or at the
`introspection_endpoint` of its description at `discovery_url`; the gateway shows that it may ask by `client_id` and
`client_secret`. Where tokens are signed, [`jwt`](jwt.md) asks nobody.

A token is looked for in `Authorization: Bearer`, then in `cookie`, then in `query`, where those are named; the first
that is there counts. Without one the answer is 401 with the title `Missing authentication`. One that is not active, or
is for another `audience` or of another `issuer` than those given, is answered `Invalid token`; so is one that is bound
to a key, as its `token_type` says. Nobody is asked about what cannot be a token. The log `portico.security` says more.

Who it is from is then known to policies, conditions and logs further in: `user` is the claim that is their name, and
what else is said of them are claims as those of [`jwt`](jwt.md) are. Which scopes are needed is for
[`authorize`](authorize.md) to say.

What was answered is remembered: that a token is active for as long as `cache` says, and no longer than it is, and that
it is not for `cache_inactive`. A token that is revoked is good for so long as well. The same question is asked once,
however many requests have it at once. While the server cannot be asked, what is remembered goes on; everything else is
answered 503 (`authentication-unavailable`). Tokens themselves are not remembered, but digests with a key that only this
worker has.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlencode

from pydantic import Field, model_validator

from portico.plugin import (
    NO_ANSWER,
    Authenticator,
    BadValue,
    BearerConfig,
    Body,
    DescribedEndpoint,
    Duration,
    Env,
    FilePath,
    Found,
    Headers,
    KeyUrl,
    Memory,
    NoVerdict,
    Questions,
    Refusal,
    Request,
    Response,
    Secret,
    Size,
    Stage,
    Taken,
    Texts,
    TokenRules,
    Trouble,
    basic_credentials,
    issuers_of,
    said_of_token,
    settings_print,
    token_of,
)

MOST_REFUSED: Final = 1024
"""Tokens that are remembered not to be active: what anybody can make up puts no others out of mind."""
_ACCEPT: Final = (
    (b"Accept", b"application/json"),
    (b"Accept-Encoding", b"identity"),
    (b"Content-Type", b"application/x-www-form-urlencoded"),
)


class OAuth2Introspection(BearerConfig):
    """Who is asked about tokens, and which are taken."""

    url: Annotated[KeyUrl, Field(examples=["https://issuer.example/oauth2/introspect"])] | None = None
    """Where the authorization server answers questions about tokens."""
    discovery_url: KeyUrl | None = None
    """The description of the server, which says where that is."""
    client_id: Annotated[str, Field(min_length=1)] | None = None
    """What the gateway is called there; unless given, it shows nothing of itself."""
    client_secret: Secret | None = None
    """What the server knows it by; better `${file:...}` than in the file itself."""
    client_auth: Literal["basic", "post"] = "basic"
    """How it shows them: in `Authorization`, or with the token in the content."""
    ca: FilePath | None = None
    """A file with the authorities that must have signed the server's certificate; those of the system otherwise."""
    issuer: Texts = ()
    """Who must have issued a token (`iss`), one of these; unless given, what the server says is not looked at."""
    audience: Texts = ()
    """Whom it must be for (`aud`), one of these. Without one, a token for any other application is taken as well."""
    timeout: Annotated[Duration, Field(gt=0)] = 2.0
    """How long the whole answer may take."""
    cache: Duration = 30.0
    """How long a token that is active is not asked about again; `0s` has it done for each request."""
    cache_inactive: Annotated[Duration, Field(le=60)] = 5.0
    """The same for one that is not; at most a minute."""
    max_answer: Size = 65536
    """The most bytes of an answer; one with more is none."""

    @model_validator(mode="after")
    def _one_to_ask(self) -> OAuth2Introspection:
        if (self.url is None) == (self.discovery_url is None):
            what = "there is nobody to ask" if self.url is None else "there are a url and a discovery_url"
            raise BadValue(what, "give one of url and discovery_url")
        if (self.client_id is None) != (self.client_secret is None):
            raise BadValue("only a half of the client is there", "give both client_id and client_secret, or neither")
        return self


class OAuth2IntrospectionPolicy(
    Authenticator[OAuth2Introspection], name="oauth2-introspection", stages=(Stage.AUTHENTICATE,)
):
    """Asks about tokens."""

    def setup(self, env: Env) -> None:
        """Find out whom to ask."""
        config = self.config
        self._env = env
        self._clock, self._wall = env.clock, env.wall
        self._rules = TokenRules(frozenset(config.issuer), frozenset(config.audience), required=())
        self._described = None if config.discovery_url is None else self._look_up(env, config.discovery_url)
        if config.url is not None:
            self._handler = env.web(config.url.partition("?")[0], config.ca)
        fields, secret = list(_ACCEPT), b""
        self._form: dict[str, bytes | str] = {"token_type_hint": "access_token"}
        if config.client_id is not None and config.client_secret is not None:
            known = config.client_secret.get_secret_value()
            secret = known.encode()
            if config.client_auth == "basic":
                fields.append((b"Authorization", basic_credentials(config.client_id, known)))
            else:
                self._form |= {"client_id": config.client_id, "client_secret": known}
        self._headers = Headers(fields)
        trouble = Trouble(
            env.logger, env.clock, f"{self.name}: nobody says what tokens are good", "requests are refused meanwhile"
        )
        self._questions: Questions[Taken | Refusal] = Questions(env, self.name, config.timeout, trouble)
        said = settings_print(config, secret, b"" if config.ca is None else Path(config.ca).read_bytes())
        self._taken: Memory[Taken] = env.share((self.name, said), Memory)
        self._refused: Memory[Refusal] = env.share((self.name, said, "refused"), lambda: Memory(MOST_REFUSED))

    def _look_up(self, env: Env, url: str) -> DescribedEndpoint:
        """Return where the server says that it is asked; what it says is shared."""
        config = self.config
        issuers = frozenset(config.issuer) or issuers_of(url, self.name)
        key = (self.name, url, issuers, config.ca)
        shared = env.share(key, lambda: DescribedEndpoint(url, "introspection_endpoint", issuers, config.ca, env.clock))
        shared.serve(env)
        return shared

    def identify(self, request: Request) -> Found | Awaitable[Found]:
        """Return whose token it is."""
        token = token_of(self.config, request)
        if not isinstance(token, bytes):
            return token
        key, now = self._taken.print_of(token), self._clock()
        taken = self._taken.recall(key, now)
        if taken is not None and self._wall() < taken.until:
            return taken.user
        return self._refused.recall(key, now) or self._later(key, token)

    def challenge(self, refusal: Refusal | None) -> str:
        """Return the challenge (RFC 6750 section 3)."""
        return self.config.challenge(refusal)

    async def _later(self, key: bytes, token: bytes) -> Found:
        said = await self._questions.verdict(key, functools.partial(self._ask, key, token))
        return NO_ANSWER if said is None else said.user if isinstance(said, Taken) else said

    async def _ask(self, key: bytes, token: bytes) -> Taken | Refusal:
        config = self.config
        content = await self._answer(urlencode({"token": token, **self._form}).encode("ascii"))
        said = said_of_token(content, self._rules, lambda claims: config.user_of(claims, self.name), self._wall())
        if isinstance(said, Taken):
            self._taken.keep(key, said, self._clock(), min(config.cache, said.until - self._wall()))
        else:
            self._refused.keep(key, said, self._clock(), config.cache_inactive)
        return said

    async def _answer(self, form: bytes) -> bytes:
        """Return what the server answers."""
        url, handler = self.config.url, None
        if self._described is not None:
            url = await self._described.url(self._env)
            handler = self._env.web(url.partition("?")[0], self.config.ca)
        assert url is not None
        place, _, query = url.partition("?")
        path = "/" + place.partition("://")[2].partition("/")[2]
        request = Request("POST", path, query or None, self._headers.copy(), Body(form))
        request.deadline = self._clock() + self.config.timeout
        answer = await (handler or self._handler)(request)
        try:
            return await self._content(answer)
        finally:
            answer.body.close()

    async def _content(self, answer: Response) -> bytes:
        if answer.status in (401, 403):
            raise NoVerdict(f"it answers {answer.status}: it may know the client by another client_id or client_secret")
        if answer.status != 200 or answer.problem_value is not None:
            raise NoVerdict(f"it answers {answer.status}")
        return await answer.body.read(self.config.max_answer)
