"""Let in who shows a signed token (JWT, RFC 7519) of an issuer that is trusted.

```yaml
services: {orders: "http://127.0.0.1:9002"}
policies:
  - jwt: {discovery_url: "https://issuer.example/.well-known/openid-configuration", audience: portico}
routes:
  - {path: /orders/**, service: orders}
  - path: /machines/**
    service: orders
    policies:
      - jwt:
          jwks_url: https://machines.example/jwks.json
          issuer: https://machines.example
          audience: [portico, orders]
          algorithms: ES256
          roles: realm_access.roles
  - {path: /public/**, service: orders, policies: [{jwt: off}]}
```

Where the keys are is said by one of `discovery_url`, `jwks_url`, `jwks_file`, `public_key_file`, `keys` and `secret`.
The key decides by which algorithm a token is signed, and never the token: one of RSA takes RS256 to RS512 and PS256 to
PS512, one of an elliptic curve takes the algorithm of its curve, Ed25519 takes EdDSA, and a secret takes HS256 (HS384
and HS512 where it has 48 and 64 bytes). A JWK that names its `alg` takes that one. Unsigned tokens are never taken, nor
keys of RSA below 2048 bits, nor tokens that bring a key with them (`jwk`, `jku`, `x5c`, `x5u`), or have extensions
(`crit`).

Keys at a URL are fetched when the gateway starts, and again before they are old: by `Cache-Control: max-age` between a
minute and a day, otherwise every 10 minutes. A token of a key that is not known has them fetched at once, at most every
10 seconds. While the provider is down the keys that are known go on serving. Before any are known, a request waits up
to 2 seconds and is then answered 503. Redirects are not followed.

A token is looked for in `Authorization: Bearer`, then in `cookie`, then in `query`, where those are named; the first
that is there counts. Without one the answer is 401 with the title `Missing authentication`; with one that is no good it
is `Invalid token`, and with one that was good `Token expired`. The log `portico.security` says more.

Who it is from is then known to policies, conditions and logs further in: `user` is the claim that is their name, and
roles, scopes, permissions and groups are lists of texts, or a text with spaces between them. A claim within others is
written with dots: `realm_access.roles`; one whose own name has these dots, as `https://shop.example/roles` has, comes
first. A verified token is remembered until it expires, or the keys change; so none is
taken once its key is gone.

`portico token` makes tokens to try this with.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import PrivateAttr, model_validator

from portico.plugin import (
    Algorithm,
    Authenticator,
    BadValue,
    BearerConfig,
    BearerReader,
    ConfigError,
    Duration,
    Env,
    FilePath,
    FixedKeys,
    Found,
    Keys,
    KeySet,
    KeyUrl,
    OneOrMany,
    ProviderKeys,
    Refusal,
    Request,
    Secret,
    SecretMembers,
    Stage,
    Texts,
    TokenRules,
    TokenVerifier,
    UnusableKey,
    issuers_of,
    settings_print,
)

_SOURCES: Final = ("discovery_url", "jwks_url", "jwks_file", "public_key_file", "keys", "secret")
_PRIVATE: Final = frozenset(("d", "p", "q", "dp", "dq", "qi", "oth", "k"))
"""The members of a JWK that nobody else may know (RFC 7518 section 6)."""
_Jwk = Annotated[Mapping[str, Any], SecretMembers(_PRIVATE)]


class Jwt(BearerConfig):
    """Whose tokens are taken."""

    _content: bytes = PrivateAttr(b"")

    discovery_url: KeyUrl | None = None
    """The description of an OpenID Connect provider, which says where its keys are; its issuer is checked."""
    jwks_url: KeyUrl | None = None
    """Where the provider publishes its keys, a JWKS (RFC 7517)."""
    jwks_file: FilePath | None = None
    """A file with keys, a JWKS."""
    public_key_file: FilePath | None = None
    """A file with one public key, or a certificate, as PEM."""
    keys: tuple[_Jwk, ...] | None = None
    """Public keys, each a JWK: what a JWKS has as `keys`."""
    secret: Secret | None = None
    """What the issuer and the gateway both know, of 32 bytes or more; better `${file:...}` than in the file itself."""
    ca: FilePath | None = None
    """A file with the authorities that must have signed the provider's certificate; those of the system otherwise."""
    issuer: Texts = ()
    """Who must have issued it (`iss`), one of these; where none is given, that of `discovery_url`, or anyone."""
    audience: Texts = ()
    """Whom it must be for (`aud`), one of these. Without one, a token for any other application of the issuer is taken
    as well."""
    algorithms: Annotated[tuple[Algorithm, ...], OneOrMany()] = ()
    """The only ways in which it may be signed, where not all that the keys are for."""
    leeway: Duration = 60.0
    """By how much the clocks of issuer and gateway may differ."""
    max_age: Duration | None = None
    """How long after it was issued (`iat`) it is taken at most, whatever it says itself."""
    claims_required: Texts = ("exp",)
    """Claims that must be there."""

    @model_validator(mode="after")
    def _one_source(self) -> Jwt:
        given = [name for name in _SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            what = f"the keys are in {' and in '.join(given)}" if given else "there are no keys"
            raise BadValue(what, f"give one of {', '.join(_SOURCES)}")
        if self.ca is not None and given[0] not in ("discovery_url", "jwks_url"):
            raise BadValue("there is a ca, and nobody is asked for keys", "leave it out")
        if any(key.get("kty") == "oct" or not _PRIVATE.isdisjoint(key) for key in self.keys or ()):
            hint = "give a secret as secret, and of other keys the public half"
            raise BadValue("keys has a secret or a private key in it", hint)
        file = self.jwks_file or self.public_key_file
        if file is not None:
            self._content = Path(file).read_bytes()
        return self

    @property
    def content(self) -> bytes:
        """What is in the file with the keys: another content is another configuration."""
        return self._content


class JwtPolicy(Authenticator[Jwt], name="jwt", stages=(Stage.AUTHENTICATE,)):
    """Verifies tokens."""

    def setup(self, env: Env) -> None:
        """Read the keys, or have them fetched."""
        config = self.config
        issuers = frozenset(config.issuer)
        if config.discovery_url is not None and not issuers:
            issuers = issuers_of(config.discovery_url, "jwt")
        keys, known = self._keys(env, issuers)
        rules = TokenRules(
            issuers=issuers,
            audiences=frozenset(config.audience),
            algorithms=frozenset(config.algorithms),
            required=config.claims_required,
            leeway=config.leeway,
            max_age=config.max_age,
            max_size=config.max_size,
        )
        verifier = env.share(
            ("jwt", settings_print(config, known)),
            lambda: TokenVerifier(keys, rules, lambda claims: config.user_of(claims, "jwt"), env.wall),
        )
        self._reader = BearerReader(verifier, config.token_elsewhere)

    def _keys(self, env: Env, issuers: frozenset[str]) -> tuple[Keys, bytes]:
        """Return where the keys come from, and what tells them from others that the settings alone do not."""
        config = self.config
        url = config.discovery_url or config.jwks_url
        if url is not None:
            return ProviderKeys.shared(env, url, config.ca, None if config.discovery_url is None else issuers), b""
        try:
            if config.secret is not None:
                known = config.secret.get_secret_value().encode()
                keys = KeySet.of_secret(config.secret.get_secret_value())
            elif config.keys is not None:
                known = b""
                keys = KeySet.of_jwks(config.keys)
            else:
                known = config.content
                keys = KeySet.of_json(known) if config.jwks_file is not None else KeySet.of_pem(known)
        except UnusableKey as error:
            raise ConfigError(f"jwt: {error}") from None
        if not keys.keys:
            raise ConfigError(f"jwt: no key verifies a token: {'; '.join(keys.unusable) or 'there is none'}")
        for problem in keys.unusable:
            env.logger.warning("jwt: left out %s", problem)
        if config.algorithms and keys.algorithms.isdisjoint(config.algorithms):
            able = ", ".join(sorted(keys.algorithms))
            raise ConfigError(f"jwt: none of the algorithms is one of the keys; they are for {able}")
        return FixedKeys(keys), known

    def identify(self, request: Request) -> Found | Awaitable[Found]:
        """Return whose token it is."""
        return self._reader.identify(request)

    def identifier(self) -> Callable[[Request], Found | Awaitable[Found]]:
        """Return what asks the reader without a detour."""
        return self._reader.identify

    def challenge(self, refusal: Refusal | None) -> str:
        """Return the challenge (RFC 6750 section 3)."""
        return self.config.challenge(refusal)
