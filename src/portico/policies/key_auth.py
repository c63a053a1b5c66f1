"""Know callers by an API key.

```yaml
consumers:
  ada: {keys: "${ADA_KEY:-ada-has-a-long-key}", roles: [admin]}
  mobile-app: {keys: [sha256:5c7f4aa0f9b1b6c6c3a7b4a2e1f0d9c8b7a69584736251403f2e1d0c9b8a7968]}
routes:
  - {path: /orders/**, service: orders, policies: [key-auth]}
  - path: /reports/**
    service: reports
    policies:
      - key-auth: {header: X-Reports-Key, query: api_key, realm: reports}
  - path: /hooks/**
    service: hooks
    policies:
      - key-auth: {keys: {billing: "${BILLING_KEY:-billing-has-a-long-key}"}, consumers: off}
```

Keys are those of [consumers](../configuration.md#consumers), of the file or of [a database](../../consumers.md), and
such of the policy's own, which tell no more than a name. What is kept of a key is its hash, by which it is looked up;
so how long it takes says nothing of the keys that there are. Where a database cannot say whose key it is, as when it is
locked, the answer is 503.

A request that has several keys is refused, whatever they are. Neither header nor parameter is passed to the service
unless `hide` is `off`. A key in a URL is soon in logs, histories and bookmarks: have `query` only where clients can
send no header.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Final
from urllib.parse import unquote_plus

from pydantic import Field, model_validator

from portico.plugin import (
    ApiKeys,
    Authenticator,
    AuthenticatorConfig,
    BadValue,
    ConsumerUsers,
    Credential,
    Env,
    Found,
    HeaderName,
    Refusal,
    Request,
    Stage,
    User,
    digest_of,
    spelled,
)

MOST_USERS: Final = 4096
"""Users that are kept at hand."""
_INVALID: Final = Refusal("invalid-api-key", "Invalid API key")
_EXPIRED: Final = _INVALID._replace(reason="API key expired")
_SEVERAL: Final = Refusal("duplicate-api-key", "Duplicate API key")


class KeyAuth(AuthenticatorConfig):
    """Where keys are looked for."""

    header: HeaderName = "X-API-Key"
    """The header that has the key."""
    query: Annotated[str, Field(min_length=1)] | None = None
    """The query parameter that may have it instead; none unless given."""
    hide: bool = True
    """Whether the service is sent the request without it."""
    realm: Annotated[str, Field(pattern=r"^[ !#-\[\]-~]*$")] = "api"
    """What `WWW-Authenticate` calls all that the keys are for."""
    keys: dict[str, ApiKeys] = {}  # noqa: RUF012 - pydantic copies it
    """Keys beside those of consumers, by the name of whose they are."""
    consumers: bool = True
    """Whether the keys of consumers are taken."""

    @model_validator(mode="after")
    def _each_key_once(self) -> KeyAuth:
        seen: dict[bytes, str] = {}
        for name, keys in self.keys.items():
            if not name or not name.isprintable():
                raise BadValue(f"{name!r} cannot be the name of a user")
            for key in keys:
                owner = seen.setdefault(key.record.digest, name)
                if owner != name:
                    raise BadValue(f"a key of {name} is one of {owner} as well", "give each a key of its own")
        if not seen and not self.consumers:
            raise BadValue("this takes no keys", "give it keys, or leave consumers on")
        return self


class KeyAuthPolicy(Authenticator[KeyAuth], name="key-auth", stages=(Stage.AUTHENTICATE,)):
    """Looks for a key, and for whose it is."""

    def setup(self, env: Env) -> None:
        """Take the keys."""
        config = self.config
        self._now: Callable[[], float] = env.wall
        self._own = {
            key.record.digest: (User(name, kind=self.name), key.record.expires)
            for name, keys in config.keys.items()
            for key in keys
        }
        self._consumers = env.consumers if config.consumers else None
        self._users = ConsumerUsers(self.name, MOST_USERS)
        self._header = config.header.lower().encode("ascii")
        self._is_header = frozenset((spelled(self._header),)).__contains__
        self._challenge = f'Key realm="{config.realm}"'

    def identify(self, request: Request) -> Found | Awaitable[Found]:
        """Return whose the key is."""
        headers = request.headers
        key = headers.index.get(self._header)
        if key is not None and len(headers.pairs) != len(headers.index) and len(headers.get_all(self._header)) > 1:
            return _SEVERAL
        if self.config.query is not None and request.query is not None:
            several = [value for name, value in _parameters(request.query) if name == self.config.query]
            if len(several) > (key is None):
                return _SEVERAL
            if several:
                key = several[0].encode("utf-8", "surrogateescape")
        if not key:
            return None
        digest = digest_of(key)
        own = self._own.get(digest)
        if own is not None:
            return own[0] if self._now() < own[1] else _EXPIRED
        if self._consumers is None:
            return _INVALID
        known = self._consumers.by_key(digest)
        if known is None or type(known) is Credential:
            return self._judged(known)
        return self._later(known)  # type: ignore[arg-type]

    async def _later(self, looking: Awaitable[Credential | None]) -> Found:
        return self._judged(await looking)

    def _judged(self, known: Credential | None) -> Found:
        """Return whose key it is."""
        if known is None:
            return _INVALID
        if self._now() >= known.expires:
            return _EXPIRED
        return self._users.of(known.consumer)

    def conceal(self, request: Request) -> None:
        """Take the key from the request."""
        if not self.config.hide:
            return
        request.headers.remove(self._header)
        request.body.refuse_trailers(self._is_header)
        name, query = self.config.query, request.query
        if name is not None and query is not None:
            kept = [piece for piece in query.split("&") if _name_of(piece) != name]
            if len(kept) <= query.count("&"):
                request.query = "&".join(kept) or None

    def challenge(self, refusal: Refusal | None) -> str:
        """Return the challenge."""
        return self._challenge


def _name_of(piece: str) -> str:
    name = piece.partition("=")[0]
    return unquote_plus(name) if "%" in name or "+" in name else name


def _parameters(query: str) -> list[tuple[str, str]]:
    return [
        (_name_of(piece), unquote_plus(piece.partition("=")[2], errors="surrogateescape")) for piece in query.split("&")
    ]
