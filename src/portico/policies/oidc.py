"""Have browsers log in at a provider of OpenID Connect, and know them by a session afterwards.

```yaml
services: {shop: "http://127.0.0.1:9002"}
routes:
  - path: /**
    service: shop
    policies:
      - oidc:
          discovery_url: https://login.example/realms/shop/.well-known/openid-configuration
          client_id: shop
          client_secret: "${CLIENT_SECRET:-the-secret-of-the-client}"
          external_url: https://shop.example
          cookie: "${COOKIE_SECRET:-at-least-32-random-characters-are-needed}"
          roles: realm_access.roles
```

A browser that asks for a page without a session is led to the provider (authorization code with PKCE, `state` and
`nonce`), and then back to that page. Anything else, such as what a script or a form sends, is answered 401: it could
not follow. `Sec-Fetch-Mode` tells them apart, or `Accept` where it is not there.

The provider has to know the gateway as a client, with the redirect URI `external_url` and `callback` together:
`https://shop.example/oidc/callback`; and where it has a logout of its own, `https://shop.example/` as the URI to come
back to from there. Nothing that a client sends, such as `Host`, decides where browsers are led. A route with this
policy has to match `callback` and `logout`, as `/**` does, and its `when` has to hold there; where the policy stands
for the whole file, no route has to match.

The session is in the browser alone: in a cookie that is encrypted (AES-256-GCM), for this host, unreadable for scripts,
and not sent along with what other sites send (`SameSite=Lax`). It ends after `session.idle` without a request, and
after `session.max` in any case. Where the provider gives a refresh token, for which many want the scope
`offline_access`, the tokens are renewed before they end, and the session ends when the provider refuses that. Whoever
has copied a cookie can use it for as long. A logout ends that as well where there is a refresh token and the provider
revokes it (`revocation_endpoint`), as soon as the tokens end. Services are sent none of these cookies, but by routes
of the same host that are without this policy, or where its `when` does not hold: have the whole file have it.

To have another secret, put it before the old one: `secret: [new, old]`. Take the old one away after `session.max`.

A link or a form to `logout` ends the session, here and at the provider (`end_session_endpoint`). From other sites it
only leads to a page that asks whether it is meant.

While the provider is down, sessions go on until their tokens end; logins are answered 503.

Who it is from is known by the ID token as it is by the token of [jwt](jwt.md). Put both on one route for browsers and
for programs; with [anonymous](anonymous.md), whoever has no session is a guest, until [authorize](authorize.md) wants
to know who it is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Annotated, Final

from pydantic import Field, field_validator, model_validator

from portico.plugin import (
    Algorithm,
    Authenticator,
    BadValue,
    ClaimedUser,
    ClientAuth,
    Duration,
    Env,
    FilePath,
    Found,
    KeyUrl,
    LoginPaths,
    OneOrMany,
    Origin,
    PartySettings,
    PolicyConfig,
    ProviderSettings,
    Refusal,
    Registration,
    Relay,
    RelyingParty,
    Request,
    Response,
    Secret,
    SessionLifetime,
    SessionSettings,
    Shorthand,
    Stage,
    Texts,
    issuers_of,
    settings_print,
)

MIN_SECRET: Final = 32
"""Characters of a secret for cookies."""
MOST_SECRETS: Final = 4
_OURS: Final = frozenset(
    (
        *("response_type", "response_mode", "client_id", "redirect_uri", "scope", "state", "nonce"),
        *("code_challenge", "code_challenge_method", "request", "request_uri"),
    )
)
_OF_SCOPE: Final = frozenset(("openid", "profile", "email", "offline_access"))

Path = Annotated[str, Field(pattern=r"^/(?:[A-Za-z0-9_~-][A-Za-z0-9._~-]*(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*/?)?$")]


class OidcCookie(PolicyConfig):
    """What browsers keep."""

    secret: Annotated[tuple[Secret, ...], OneOrMany()]
    """What it is encrypted by, of 32 characters or more: the first. Those after it are still good for what they have
    encrypted. Every instance of the gateway has to have the same; better `${file:...}` than in the file itself."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = "portico"
    """Its name, which has `__Host-` before it where `external_url` is https, and others after it where a session needs
    several. Two providers on one host take two names."""

    @field_validator("secret")
    @classmethod
    def _long_enough(cls, secrets: tuple[Secret, ...]) -> tuple[Secret, ...]:
        if not 1 <= len(secrets) <= MOST_SECRETS:
            raise BadValue(f"these are {len(secrets)} secrets", f"give one, or up to {MOST_SECRETS} while they change")
        if any(len(secret.get_secret_value()) < MIN_SECRET for secret in secrets):
            raise BadValue(
                f"a secret for cookies has at least {MIN_SECRET} characters", "make one: openssl rand -hex 32"
            )
        return secrets


class OidcSession(PolicyConfig):
    """How long it lasts."""

    idle: Annotated[Duration, Field(ge=1)] = 3600.0
    """Without a request."""
    max: Annotated[Duration, Field(ge=1)] = 12 * 3600.0
    """Since the login, in any case."""


class Oidc(ClaimedUser):
    """Who the provider is, what the gateway is to it, and what becomes of a login."""

    discovery_url: KeyUrl
    """The description of the provider."""
    client_id: Annotated[str, Field(min_length=1, pattern=r"^[ -~]+$")]
    """What the provider knows the gateway as. ID tokens must be for it."""
    client_secret: Secret | None = None
    """What the provider and the gateway both know; none for a public client."""
    client_auth: ClientAuth | None = None
    """How the secret is shown: in `Authorization` (`basic`), or in the form (`post`); `basic` unless given, and `none`
    where there is no secret."""
    external_url: Origin
    """Scheme, host and port by which browsers reach the gateway."""
    callback: Path = "/oidc/callback"
    """The path at which they come back from a login. Two providers on one host take two."""
    logout: Path = "/oidc/logout"
    """The path that ends a session."""
    after_logout: Path = "/"
    """The path to which they are led then. Where that wants a session, the next login begins."""
    cookie: Annotated[OidcCookie, Shorthand("secret")]
    """What browsers keep, or only the secret that it is encrypted by."""
    session: OidcSession = OidcSession()
    """How long a session lasts."""
    scope: Texts = ("profile", "email")
    """What is asked for, beside `openid`."""
    extra: Mapping[str, str] = {}
    """Further parameters of a login, such as `prompt: login` or `acr_values`."""
    relay: Relay = "none"
    """Which token the service is shown as `Authorization: Bearer`. Where the provider gives no refresh token, the
    session ends with it."""
    ca: FilePath | None = None
    """A file with the authorities that must have signed the provider's certificate; those of the system otherwise."""
    issuer: Texts = ()
    """Who the provider must be (`iss`), where that cannot be seen by `discovery_url`."""
    algorithms: Annotated[tuple[Algorithm, ...], OneOrMany()] = ()
    """The only ways in which ID tokens may be signed, where not all that the provider's keys are for."""
    leeway: Duration = 60.0
    """By how much the clocks of provider and gateway may differ."""

    @field_validator("scopes")
    @classmethod
    def _claims(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not _OF_SCOPE.isdisjoint(names):
            raise BadValue("scopes names the claim that has the scopes", "write what is asked for as scope")
        return names

    @field_validator("extra")
    @classmethod
    def _not_ours(cls, extra: Mapping[str, str]) -> Mapping[str, str]:
        for name in extra:
            if name in _OURS:
                raise BadValue(f"{name} is for the gateway to say", "leave it out")
        return extra

    @model_validator(mode="after")
    def _consistent(self) -> Oidc:
        if self.client_secret is None and self.client_auth not in (None, "none"):
            raise BadValue(f"client_auth is {self.client_auth}, and there is no secret", "give it as client_secret")
        if self.client_secret is not None and self.client_auth == "none":
            raise BadValue("client_auth is none, and there is a client_secret", "leave one of them out")
        if len({self.callback, self.logout, self.after_logout}) < 3:
            raise BadValue("callback, logout and after_logout are not three paths", "give each its own")
        if self.session.idle > self.session.max:
            raise BadValue("idle is longer than max", "give session a max that is longer")
        return self


class OidcPolicy(Authenticator[Oidc], name="oidc", stages=(Stage.AUTHENTICATE,)):
    """Looks for a session, and leads to a login."""

    @classmethod
    def own_urls(cls, config: Oidc) -> Sequence[str]:
        """Return where browsers come back to, and where they end their session."""
        return config.external_url + config.callback, config.external_url + config.logout

    def setup(self, env: Env) -> None:
        """Find out about the provider, and have sessions at hand."""
        config = self.config
        secret = config.client_secret.get_secret_value() if config.client_secret is not None else ""
        auth = config.client_auth or ("basic" if secret else "none")
        secrets = tuple(each.get_secret_value() for each in config.cookie.secret)
        issuers = frozenset(config.issuer) or issuers_of(config.discovery_url, "oidc")
        party = PartySettings(
            Registration(config.client_id, secret, auth),
            " ".join(dict.fromkeys(("openid", *config.scope))),
            config.extra,
            LoginPaths(config.external_url, config.callback, config.logout, config.after_logout),
            ProviderSettings(config.discovery_url, config.ca, issuers, frozenset(config.algorithms), config.leeway),
            SessionSettings(config.cookie.name, secrets, SessionLifetime(config.session.idle, config.session.max)),
            config.relay,
            lambda claims: config.user_of(claims, "oidc"),
        )
        known = settings_print(config, secret.encode(), *(each.encode() for each in secrets))
        self._party = RelyingParty(party, env, known)
        self._challenge = f'Cookie realm="{config.external_url}"'

    def answer(self, request: Request) -> Awaitable[Response] | None:
        """Answer a browser that comes back from a login, and a logout."""
        return self._party.answer(request)

    def identify(self, request: Request) -> Found | Awaitable[Found]:
        """Return whose session it is."""
        return self._party.identify(request)

    def invite(self, request: Request) -> Response | None:
        """Lead a browser to a login."""
        return self._party.begin(request)

    def response(self, request: Request, response: Response) -> Response:
        """Have the session go on."""
        return self._party.keep(request, response)

    def conceal(self, request: Request) -> None:
        """Take the session from the request."""
        self._party.conceal(request)

    def challenge(self, refusal: Refusal | None) -> str:
        """Return a challenge that no browser asks its user for."""
        return self._challenge
