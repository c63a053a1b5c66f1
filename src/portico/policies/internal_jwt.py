"""Tell services who is asking by a token (JWT, RFC 7519) that the gateway signs itself.

```yaml
consumers:
  ada: {keys: "${ADA_KEY:-ada-has-a-long-key}", roles: [admin, staff], metadata: {email: ada@example.com}}
policies:
  - key-auth
  - internal-jwt: {key_file: keys/internal.pem, issuer: "https://gateway.example", audience: internal, claims: email}
routes:
  - {path: /orders/**, service: orders}
  - path: /invoices/**
    service: invoices
    policies:
      - internal-jwt:
          secret: "${INVOICES_SECRET:-a secret of thirty-two bytes or more}"
          issuer: https://gateway.example
          audience: invoices
          header: X-User-Token
          permissions: "off"
  - {path: /.well-known/jwks.json, jwks: keys/internal.pem}
```

Services need not believe headers then, nor care by which kind of credentials somebody is known: they verify one kind of
token, of one issuer. It says who it is from (`iss`), whom it is for (`aud`), when it was made and until when it is good
(`iat`, `exp`), the user's name (`sub`), and whatever else is given a claim here. What is empty is not said. Roles,
permissions and groups are lists in alphabetical order; scopes are a text with spaces between them (RFC 9068), from
which one is left out that has a space in it. Where users are known in more than one way, two may have the same name:
give `consumer` or `kind` a claim, and services can tell them apart.

The token of a private key names the key (`kid`), and the endpoint [jwks](../endpoints/jwks.md) publishes the public
half. A key of an elliptic curve (ES256, or EdDSA for Ed25519) signs several times as fast as one of RSA (RS256);
`portico token --new-key internal.pem` makes one. A secret (HS256) is for services that may sign such tokens themselves,
for everyone who can verify them can.

What a client sends under that header is taken away in all spellings, also where nobody is known, and no token is sent
then. That holds for the requests around which this policy stands; so it stands best around all of them, and without a
`when`. In `Authorization` the token replaces the client's own credentials, so a service that needs those is sent this
one in a header of its own.

Who is known by the same facts is sent the same token again, until half of its lifetime is over: a service has at least
the other half to take it. A role that is taken from a user is good for as long as the last token says. To change the
key, publish the next one, wait until all services have fetched it, and sign with it; publish the old one for as long as
its last token is good.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import orjson
from pydantic import AfterValidator, Field, PrivateAttr, model_validator

from portico.plugin import (
    USER,
    BadValue,
    ConfigError,
    Duration,
    Env,
    FilePath,
    HeaderName,
    Off,
    OneOrMany,
    Policy,
    PolicyConfig,
    Request,
    ReservedHeaders,
    Response,
    Secret,
    Stage,
    TokenSigner,
    UnusableKey,
    User,
    check_reservable,
)

REMEMBERED: Final = 4096
"""Tokens that are kept, of which at least half are those used last; and as many users for whom they are."""
_OF_EVERY_TOKEN: Final = ("iss", "sub", "aud", "iat", "exp", "nbf", "jti")
_BY_DIGEST: Final = os.urandom(32)
"""What settings are told apart by where they are shared; nobody can guess a secret by its digest."""

_Text = Annotated[str, Field(min_length=1)]
_Names = Annotated[tuple[_Text, ...], OneOrMany()]
_ClaimOrOff = Annotated[_Text | None, Off()]


class InternalJwt(PolicyConfig):
    """How tokens are signed, and what they say; what is `off` is not said."""

    _content: bytes = PrivateAttr(b"")

    key_file: FilePath | None = None
    """A file with the private key that signs, as PEM."""
    secret: Secret | None = None
    """What signs instead, and what services verify by, of 32 bytes or more; best out of `${file:...}`."""
    issuer: _Text
    """Who it is from (`iss`), such as the gateway's URL."""
    audience: Annotated[_Names, Field(min_length=1)]
    """Whom it is for (`aud`): services take no other. Where all take the same, each can show it to the others in the
    user's name."""
    lifetime: Annotated[Duration, Field(ge=2, le=86400)] = 60.0
    """For how long a token is good."""
    header: Annotated[HeaderName, AfterValidator(check_reservable)] = "Authorization"
    """The header that it is sent in, after `Bearer` in `Authorization`, and by itself in any other."""
    roles: _ClaimOrOff = "roles"
    """The claim that has the roles."""
    scopes: _ClaimOrOff = "scope"
    """The claim that has the scopes."""
    permissions: _ClaimOrOff = "permissions"
    """The claim that has the permissions."""
    groups: _ClaimOrOff = "groups"
    """The claim that has the groups."""
    consumer: _ClaimOrOff = None
    """The claim that says which of the file's consumers it is."""
    kind: _ClaimOrOff = None
    """The claim that says which policy has found it out, such as `jwt`."""
    claims: _Names = ()
    """Claims that are said again as they are, or what a consumer's `metadata` has, by name."""

    @property
    def names(self) -> list[str]:
        """The names of all claims that are said where they are known."""
        own = (self.roles, self.scopes, self.permissions, self.groups, self.consumer, self.kind)
        return [name for name in (*own, *self.claims) if name is not None]

    @model_validator(mode="after")
    def _signs_by_one_key(self) -> InternalJwt:
        if (self.key_file is None) == (self.secret is None):
            what = "there is nothing to sign with" if self.secret is None else "there are a key_file and a secret"
            raise BadValue(what, "give one of key_file and secret")
        seen = set(_OF_EVERY_TOKEN)
        for name in self.names:
            if name in _OF_EVERY_TOKEN:
                raise BadValue(f"the claim {name} is said of every token", "take another name")
            if name in seen:
                raise BadValue(f"the claim {name} stands twice", "give each a name of its own, or have one of them off")
            seen.add(name)
        if self.key_file is not None:
            self._content = Path(self.key_file).read_bytes()
        return self

    @property
    def content(self) -> bytes:
        """What is in the file with the key: another content is another configuration."""
        return self._content


class InternalJwtPolicy(Policy[InternalJwt], name="internal-jwt", stages=(Stage.TRANSFORM,)):
    """Sends tokens that say who is asking."""

    def setup(self, env: Env) -> None:
        """Read the key, and find the tokens that were signed by it."""
        config = self.config
        secret = "" if config.secret is None else config.secret.get_secret_value()
        try:
            signer = TokenSigner.of_secret(secret) if secret else TokenSigner.of_pem(config.content)
        except UnusableKey as error:
            raise ConfigError(f"internal-jwt: {error}") from None
        said = config.model_dump_json().encode() + b"\0" + secret.encode() + b"\0" + config.content
        key = ("internal-jwt", hmac.digest(_BY_DIGEST, said, "sha256"))
        self._of = env.share(key, lambda: Tokens(config, signer, env.wall)).of
        self._reserved = ReservedHeaders([config.header])
        self._header = config.header.encode("ascii")

    def request(self, request: Request) -> Response | None:
        """Take away what the client has sent, and say who it is."""
        self._reserved.take_from(request)
        user = request.get(USER)
        if user is not None:
            request.headers.put_parsed(self._header, self._of(user))
        return None


class _Kept(NamedTuple):
    """A token, as it is sent in the header, and from when and until when it may be sent again."""

    value: bytes
    since: float
    until: float
    user: User | None = None
    """Whose it is, where its key is the identity of that object, which must be nobody else's meanwhile."""


class _Memory:
    """Tokens by some key; when the young half is full it becomes the old one, and the old one is forgotten."""

    def __init__(self) -> None:
        self._young: dict[object, _Kept] = {}
        self._old: dict[object, _Kept] = {}

    def recall(self, key: object, now: float) -> _Kept | None:
        """Return a token that may be sent again."""
        kept = self._young.get(key)
        if kept is None:
            kept = self._old.pop(key, None)
            if kept is None:
                return None
            self.keep(key, kept)
        return kept if kept.since <= now < kept.until else None

    def keep(self, key: object, kept: _Kept) -> None:
        """Keep a token."""
        if len(self._young) >= REMEMBERED // 2:
            self._old, self._young = self._young, {}
        self._young[key] = kept

    def __len__(self) -> int:
        return len(self._young) + len(self._old)


class Tokens:
    """Makes tokens, and keeps them for a while: by the user's object, which is the same for each request of one whose
    own token is remembered, and by all that the token says, which is the same for each request of one consumer."""

    def __init__(self, config: InternalJwt, signer: TokenSigner, now: Callable[[], float]) -> None:
        self._facts = facts_of(config)
        audience = config.audience[0] if len(config.audience) == 1 else config.audience
        self._always = {"iss": config.issuer, "aud": audience}
        self._prefix = b"Bearer " if config.header.lower() == "authorization" else b""
        self._lifetime = int(config.lifetime)
        self._sign = signer.sign
        self._now = now
        self.by_user = _Memory()
        self.by_facts = _Memory()

    def of(self, user: User) -> bytes:
        """Return the value of the header that says who this is."""
        now = self._now()
        known = self.by_user.recall(id(user), now)
        if known is None:
            known = self._by_facts(user, now)._replace(user=user)
            self.by_user.keep(id(user), known)
        return known.value

    def _by_facts(self, user: User, now: float) -> _Kept:
        facts = self._facts(user)
        key = hashlib.sha256(orjson.dumps(facts)).digest()
        known = self.by_facts.recall(key, now)
        if known is None:
            issued = int(now)
            claims = {**self._always, "iat": issued, "exp": issued + self._lifetime, **facts}
            value = self._prefix + self._sign(claims).encode("ascii")
            known = _Kept(value, issued, issued + self._lifetime / 2)
            self.by_facts.keep(key, known)
        return known

    def close(self) -> None:
        """Forget all of them."""
        self.by_user, self.by_facts = _Memory(), _Memory()


def facts_of(config: InternalJwt) -> Callable[[User], dict[str, Any]]:
    """Return what gathers the facts of a user that a token says, without those that are empty."""
    own: list[tuple[str | None, Callable[[User], object]]] = [
        (config.roles, lambda user: sorted(user.roles)),
        (config.scopes, lambda user: " ".join(sorted(scope for scope in user.scopes if len(scope.split()) == 1))),
        (config.permissions, lambda user: sorted(user.permissions)),
        (config.groups, lambda user: sorted(user.groups)),
        (config.consumer, lambda user: user.consumer),
        (config.kind, lambda user: user.kind),
    ]
    parts = [(name, read) for name, read in own if name is not None]

    def facts(user: User) -> dict[str, Any]:
        said = {"sub": user.name} | {name: value for name, read in parts if (value := read(user))}
        return said | _said_again(user.claims, config.claims)

    return facts


def _said_again(claims: Mapping[str, object], names: tuple[str, ...]) -> dict[str, object]:
    """Return claims as they are, without those that JSON cannot have, such as a number beyond 64 bits."""
    again = {}
    for name in names:
        value = claims.get(name)
        try:
            orjson.dumps(value)
        except TypeError:
            continue
        if value is not None:
            again[name] = value
    return again
