"""Let in who signs their requests (HTTP Message Signatures, RFC 9421), with a shared secret or a key of their own.

```yaml
services: {orders: "http://127.0.0.1:9002"}
routes:
  - path: /orders/**
    service: orders
    policies:
      - hmac-auth:
          keys:
            billing: {secret: "${BILLING_SECRET:-billing-has-a-secret-of-32-bytes}", roles: [machine]}
            partner-2027:
              user: partner
              jwk: {kty: OKP, crv: Ed25519, x: 56kaW8i-_Ix6Z0hJhT5YVQ8PE1VPnO-FqfRCzKQ-yow}
  - path: /hooks/**
    service: orders
    policies:
      - hmac-auth:
          keys: {provider: {secret: "base64:VaWZrjc8DWcuPs3FI3FsmX/AyttmgEQM1BhKT7GsJMs5LxX9/xOje3Wd+g0Operg"}}
          components: ["@method", "@target-uri", content-type]
          tag: hooks
          nonce: required
          max_age: 1m
          leeway: 10s
```

A request is signed by the fields `Signature-Input` and `Signature`. The key, which `keyid` names, decides by which
algorithm: a secret takes `hmac-sha256`, Ed25519 takes `ed25519`, an elliptic curve the algorithm of its curve, and RSA
takes `rsa-pss-sha512` unless `algorithm` is `rsa-v1_5-sha256`. An `alg` that differs is refused.

What must be covered at least is said by `components`. The target is that which the client has sent; host and scheme are
what it asked for, by the word of a trusted proxy where there is one. `@target-uri` is as good as `@scheme`,
`@authority`, `@path` and `@query`, and all but the first of these are as good as `@target-uri`; `@request-target` is as
good as `@path` and `@query`. Fields can be covered with `sf`, `key` and `bs`, and single parameters of the query by
`@query-param`; a member of a field (`key`) does not count as the field, nor a parameter as the query. What is covered
has to be there, and may be covered once. Fields are those that come to this policy: let `headers` and `decompress`
stand behind it. What many services read as a field that is covered, such as `X_Role` beside `X-Role`, is taken away.

Where there is content, `content-digest` must be covered as well (RFC 9530, `sha-256` or `sha-512`), unless `content` is
`off`. Once the signature has proved to be right, and not before, content is read, up to `max_body`, and passed on when
all of it is what was signed.

A signature says when it was `created`, and is good for `max_age`. One that was sent can be sent again by whoever has
seen it until then, unless it has a `nonce`, which is taken once. Each worker remembers the nonces that it has seen, up
to `max_nonces` for each key, which take 200 bytes each; beyond them the answer is 503 until the oldest ones have
expired.

With `shared`, a nonce that no worker has seen is looked up in the store as well, and used up there, so that all workers
together take it once; with a Redis, all machines. That takes some 70 µs of a worker on one machine, and a way there and
back with a Redis. It is so unless given where a nonce is `required`, as that is asked for to have no request taken
twice; a nonce that is there by a client's own choice is taken once by each worker, and asks nothing of the store.
While the store does not answer, no request with a nonce is let in (503), or with `on_store_failure: local` each worker
goes by what it has seen. A store that is full, or was emptied, has forgotten some nonces.

Without a signature the answer is 401 with `Accept-Signature`, which says how to sign. The log `portico.security` says
why a signature is not taken.
"""

from __future__ import annotations

import asyncio
import binascii
import hmac
import os
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, PrivateAttr, field_validator, model_validator

from portico.plugin import (
    DERIVED_COMPONENTS,
    NO_ANSWER,
    Authenticator,
    AuthenticatorConfig,
    BadValue,
    ConfigError,
    ContentDigest,
    Duration,
    Env,
    FilePath,
    Found,
    HeaderBlock,
    KeySet,
    Nonces,
    NoncesFull,
    NotSigned,
    OneOrMany,
    PolicyConfig,
    Refusal,
    Request,
    RequestTimeout,
    Secret,
    SharedNonces,
    SignatureAlgorithm,
    SignatureKey,
    SignatureRules,
    SignatureVerifier,
    Signed,
    Size,
    Stage,
    StoreUnavailable,
    Trouble,
    UnusableKey,
    User,
    invitation_to_sign,
)

_REPLAYED: Final = Refusal("signature-replayed", "Signature already used", "its nonce was used before")
"""The signature was right, and a request with its nonce has been taken already."""
_MISMATCH: Final = Refusal("content-digest-mismatch", "Content does not match its digest")
"""The signature was right, and the content is not what was signed."""
_FULL: Final = Refusal("authentication-busy", "Authentication is busy", "too many nonces are remembered", status=503)
_UNKNOWN: Final = NO_ANSWER._replace(reason="the store does not say whether its nonce was used", retry_after=1)
_BY_DIGEST: Final = os.urandom(32)
"""What keys are told apart by where their nonces are shared; nobody can guess a secret by its digest."""
_SOURCES: Final = ("secret", "public_key_file", "jwk")
_BASE64: Final = "base64:"


def _check_secret(secret: Secret) -> Secret:
    _secret_of(secret)
    return secret


def _secret_of(secret: Secret) -> bytes:
    text = secret.get_secret_value()
    if not text.startswith(_BASE64):
        return text.encode()
    try:
        return binascii.a2b_base64(text.removeprefix(_BASE64), strict_mode=True)
    except ValueError:
        raise BadValue("what follows base64: is not base64", "write it with padding, and on one line") from None


def _check_component(name: str) -> str:
    lower = name.lower()
    if lower.startswith("@") and lower not in DERIVED_COMPONENTS:
        known = ", ".join(sorted(DERIVED_COMPONENTS))
        raise BadValue(f"{name} cannot be asked for", f"write the name of a header, or one of {known}")
    if lower in ("signature", "signature-input"):
        raise BadValue(f"no signature covers {lower}, of which it is a part", "leave it out")
    return lower


Component = Annotated[
    str, AfterValidator(_check_component), Field(pattern=r"^(@[A-Za-z-]+|[!#$%&'*+.^_`|~0-9A-Za-z-]+)$")
]


class Signer(PolicyConfig):
    """Who signs, and what verifies it: one of `secret`, `public_key_file` and `jwk`."""

    _content: bytes = PrivateAttr(b"")

    secret: Annotated[Secret, AfterValidator(_check_secret)] | None = None
    """What the client and the gateway both know, of 32 bytes or more; after `base64:` it is that of any bytes."""
    public_key_file: FilePath | None = None
    """A file with the client's public key, or its certificate, as PEM."""
    jwk: Mapping[str, Any] | None = None
    """The client's public key as a JWK (RFC 7517)."""
    algorithm: SignatureAlgorithm | None = None
    """The only way in which it may sign, where its key is for several: which of RSA's."""
    user: Annotated[str, Field(min_length=1)] | None = None
    """What policies, conditions and logs call it; the key's id unless given."""
    roles: Annotated[frozenset[str], OneOrMany()] = frozenset()
    """What it is, for `authorize`."""

    @model_validator(mode="after")
    def _one_source(self) -> Signer:
        given = [name for name in _SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            what = f"the key is in {' and in '.join(given)}" if given else "there is no key"
            raise BadValue(what, f"give one of {', '.join(_SOURCES)}")
        if self.jwk is not None and (self.jwk.get("kty") == "oct" or "d" in self.jwk):
            hint = "give a secret as secret, and of another key the public half"
            raise BadValue("jwk is a secret or a private key", hint)
        if self.user is not None and not (self.user.isprintable() and self.user.strip()):
            raise BadValue(f"{self.user!r} cannot be the name of a user")
        if self.public_key_file is not None:
            self._content = Path(self.public_key_file).read_bytes()
        return self

    @property
    def material(self) -> bytes:
        """What the key is made of."""
        return repr((self.secret and _secret_of(self.secret), self._content, self.jwk)).encode()

    def key(self) -> SignatureKey:
        """Return the key; raise UnusableKey."""
        if self.secret is not None:
            keys = KeySet.of_secret(_secret_of(self.secret))
        elif self.jwk is not None:
            keys = KeySet.of_jwks([self.jwk])
        else:
            keys = KeySet.of_pem(self._content)
        return SignatureKey.of(keys, self.algorithm)


class HmacAuth(AuthenticatorConfig):
    """Whose signatures are taken, and what they must cover and say."""

    keys: Annotated[dict[str, Signer], Field(min_length=1)]
    """The keys by their ids, which signatures name as `keyid`."""
    components: Annotated[tuple[Component, ...], OneOrMany(), Field(min_length=1)] = ("@method", "@target-uri")
    """What a signature must cover at least: the names of headers, and what RFC 9421 derives from a request."""
    content: bool = True
    """Whether content must be covered where there is some, by `content-digest`; otherwise it is not looked at."""
    max_body: Size = 1024 * 1024
    """The most bytes of content, which is held until it has proved to be what was signed; more is answered 413."""
    body_timeout: Annotated[Duration, Field(gt=0)] = 30.0
    """How long it may take to come."""
    max_age: Annotated[Duration, Field(gt=0)] = 300.0
    """How long after it was `created` a signature is good."""
    leeway: Duration = 60.0
    """By how much the clocks of client and gateway may differ."""
    expires: Literal["required", "optional"] = "optional"
    """Whether a signature must say when it expires, which counts where it is earlier."""
    nonce: Literal["required", "optional", "off"] = "optional"
    """Whether a signature must have a nonce, and whether one that it has is taken only once."""
    max_nonces: Annotated[int, Field(ge=1, le=10_000_000)] = 100_000
    """The most nonces that each worker remembers of each key."""
    shared: bool | None = None
    """Whether all workers together take a nonce once, by the store, and not each of them; unless given, where a nonce
    is `required`."""
    on_store_failure: Literal["deny", "local"] = "deny"
    """What becomes of a request with a nonce while the store does not answer: it is refused, or each worker goes by
    what it has seen itself."""
    tag: Annotated[str, Field(min_length=1, pattern=r"^[ -~]+$")] | None = None
    """What a signature must say that it is for; others are passed over."""
    label: Annotated[str, Field(pattern=r"^[a-z*][a-z0-9_.*-]*$")] | None = None
    """What the signature must be called; others are passed over. Unless given, any that is good will do."""
    realm: Annotated[str, Field(pattern=r"^[ !#-\[\]-~]+$")] = "api"
    """What `WWW-Authenticate` calls all that signatures are for."""

    @field_validator("keys")
    @classmethod
    def _ids(cls, keys: dict[str, Signer]) -> dict[str, Signer]:
        for key_id in keys:
            if not (key_id.isascii() and key_id.isprintable() and 0 < len(key_id) <= 256):
                raise BadValue(f"{key_id[:64]!r} cannot be the id of a key", "give it up to 256 characters of ASCII")
        return keys

    @model_validator(mode="after")
    def _content_is_looked_at(self) -> HmacAuth:
        if not self.content and "content-digest" in self.components:
            raise BadValue("content-digest is to be covered, and content is off", "leave one of them out")
        if self.shared and self.nonce == "off":
            raise BadValue("shared is of nonces, and nonce is off", "leave one of them out")
        return self

    @property
    def shares(self) -> bool:
        """Whether all workers together take a nonce once."""
        return self.nonce == "required" if self.shared is None else self.shared


class HmacAuthPolicy(Authenticator[HmacAuth], name="hmac-auth", stages=(Stage.AUTHENTICATE,)):
    """Verifies signatures."""

    def setup(self, env: Env) -> None:
        """Read the keys."""
        config = self.config
        rules = SignatureRules(
            components=frozenset(config.components),
            content=config.content,
            max_age=config.max_age,
            leeway=config.leeway,
            expires=config.expires == "required",
            nonce=config.nonce == "required",
            tag=config.tag,
            label=config.label,
        )
        keys, self._users, self._nonces = {}, dict[str, User](), dict[str, Nonces]()
        self._shared: dict[str, SharedNonces] = {}
        for key_id, signer in config.keys.items():
            try:
                keys[key_id] = signer.key()
            except UnusableKey as error:
                raise ConfigError(f"hmac-auth: the key {key_id}: {error}") from None
            self._users[key_id] = User(signer.user or key_id, signer.roles, kind=self.name)
            said = hmac.digest(_BY_DIGEST, f"{key_id} ".encode() + signer.material, "sha256")
            self._nonces[key_id] = env.share(("hmac-auth", said), Nonces)
            if config.shares:
                self._shared[key_id] = SharedNonces(env.store.volatile, key_id, signer.material)
        end = "those with a nonce are refused" if config.on_store_failure == "deny" else "each worker knows its own"
        self._trouble = Trouble(env.logger, env.clock, "nonces cannot be looked up", end)
        self._now = env.wall
        self._verify = SignatureVerifier(keys, rules, env.wall).verify
        self._challenge = f'Signature realm="{config.realm}"'
        self._invitation = invitation_to_sign(rules, content=False)
        self._invitation_with_content = invitation_to_sign(rules, content=config.content)

    def identify(self, request: Request) -> Found | Awaitable[Found]:
        """Return who has signed the request."""
        signed = self._verify(request)
        if not isinstance(signed, Signed):
            return signed
        signed.take_unsigned(request)
        if self.config.content and signed.content:
            return self._with_content(request, signed)
        return self._new(signed)

    async def _with_content(self, request: Request, signed: Signed) -> Found:
        """Hold the content until it has proved to be what was signed.

        What comes too slowly, or is too much, is raised: what was read of it is gone, whoever else would let it pass.
        """
        try:
            digest = ContentDigest(request.headers)
        except NotSigned as error:
            return _MISMATCH._replace(reason=str(error))
        try:
            async with asyncio.timeout(self.config.body_timeout):
                content = await request.body.read(self.config.max_body)
        except TimeoutError:
            raise RequestTimeout("the content did not come in time") from None
        if not await digest.matches(content):
            return _MISMATCH
        found = self._new(signed)
        return await found if isinstance(found, Awaitable) else found

    def _new(self, signed: Signed) -> Found | Awaitable[Found]:
        """Return who it is, unless the request was taken before; this is the last look, so that no other uses it up."""
        if signed.nonce is not None and self.config.nonce != "off":
            nonces = self._nonces[signed.key_id]
            try:
                if not nonces.use(signed.nonce, signed.until, self._now(), self.config.max_nonces):
                    return _REPLAYED
            except NoncesFull:
                return _FULL
            shared = self._shared.get(signed.key_id)
            if shared is not None:
                return self._nowhere_else(signed, signed.nonce, nonces, shared)
        return self._users[signed.key_id]

    async def _nowhere_else(self, signed: Signed, nonce: str, nonces: Nonces, shared: SharedNonces) -> Found:
        """Return who it is, unless another worker has taken the request."""
        left = signed.until - self._now() + self.config.leeway  # the clock of another machine may be behind
        try:
            new = await shared.use(nonce, left)
        except StoreUnavailable as error:
            self._trouble.tell(str(error))
            if self.config.on_store_failure == "deny":
                nonces.give_back(nonce)  # so that the same request is taken once the store answers
                return _UNKNOWN
            new = True
        return self._users[signed.key_id] if new else _REPLAYED

    def challenge(self, refusal: Refusal | None) -> str:
        """Return the challenge."""
        return self._challenge

    def challenge_headers(self, request: Request) -> HeaderBlock:
        """Return what says how to sign (RFC 9421 section 5.1)."""
        return self._invitation if request.body.whole == b"" else self._invitation_with_content
