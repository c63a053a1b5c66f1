"""Tell services who is asking.

```yaml
consumers:
  ada: {keys: "${ADA_KEY:-ada-has-a-long-key}", roles: [admin, staff], metadata: {email: ada@example.com}}
policies: [key-auth, user-headers]
routes:
  - {path: /orders/**, service: orders}
  - path: /invoices/**
    service: invoices
    policies:
      - user-headers: {id: X-Customer, roles: off, permissions: X-May, claims: {email: X-User-Email}}
```

The service is sent `X-User-ID`, the user's name, and `X-User-Roles`, what they are, with commas between and in
alphabetical order; and whatever else is given a header here. What is empty is not sent. Of claims, texts, numbers,
truth values and lists of these are.

Nobody else can say so: these headers are taken from whatever a client sends, in all spellings (`x_user_id` is what many
services read as `X-User-ID`) and from the trailers after a body, also where nobody is known. That holds for the
requests around which this policy stands; so it stands best around all of them, and without a `when`.

In values, all but visible ASCII is percent-encoded as UTF-8, and so are `%` and `,`: no name and no role can pass for
two, or end a header. Services decode each value after they have split it at the commas. Someone named `Zoë` with the
roles `a` and `b,c` comes as `X-User-ID: Zo%C3%AB` and `X-User-Roles: a,b%2Cc`.

Where users are known in more than one way, two may have the same name, such as a consumer `ada` and somebody whose
token says `ada`: give `consumer` or `kind` a header, and services can tell them apart.

Services that others than the gateway can reach are better told by [internal-jwt](internal-jwt.md), which nobody else
can sign.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Final
from urllib.parse import quote

from pydantic import BeforeValidator, model_validator

from portico.plugin import (
    USER,
    BadValue,
    Env,
    HeaderName,
    Policy,
    PolicyConfig,
    Request,
    ReservedHeaders,
    Response,
    Stage,
    User,
    check_reservable,
)

MOST_BITS: Final = 64
"""Of a whole number; a larger one is not sent."""

_SAFE: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in "%,")
_IS_SAFE: Final = re.compile(f"[{re.escape(_SAFE)}]*").fullmatch


def _or_off(value: object) -> object:
    return None if value is False or value == "off" else value


HeaderOrOff = Annotated[HeaderName | None, BeforeValidator(_or_off)]


class UserHeaders(PolicyConfig):
    """What is told in which header; `off` where it is not."""

    id: HeaderOrOff = "X-User-ID"
    """The name of the user."""
    roles: HeaderOrOff = "X-User-Roles"
    """The roles."""
    groups: HeaderOrOff = None
    """The groups."""
    scopes: HeaderOrOff = None
    """The scopes."""
    permissions: HeaderOrOff = None
    """The permissions."""
    consumer: HeaderOrOff = None
    """Which of the file's consumers it is."""
    kind: HeaderOrOff = None
    """Which policy has found it out, such as `jwt`."""
    claims: dict[str, HeaderName] = {}  # noqa: RUF012 - pydantic copies it
    """Claims, or what a consumer's `metadata` has, by name, each with its header."""

    @property
    def names(self) -> list[str]:
        """The names of all headers."""
        own = (self.id, self.roles, self.groups, self.scopes, self.permissions, self.consumer, self.kind)
        return [name for name in (*own, *self.claims.values()) if name is not None]

    @model_validator(mode="after")
    def _names_of_their_own(self) -> UserHeaders:
        seen = set()
        for name in self.names:
            key = check_reservable(name).lower().replace("_", "-")
            if key in seen:
                raise BadValue(f"{name} stands twice", "give each a header of its own")
            seen.add(key)
        if not seen:
            raise BadValue("this tells services nothing", "give something a header")
        return self


class UserHeadersPolicy(Policy[UserHeaders], name="user-headers", stages=(Stage.TRANSFORM,)):
    """Sends headers that say who is asking."""

    def setup(self, env: Env) -> None:
        """Prepare the names."""
        config = self.config
        parts: list[tuple[str | None, Callable[[User], object]]] = [
            (config.id, lambda user: user.name),
            (config.roles, lambda user: user.roles),
            (config.groups, lambda user: user.groups),
            (config.scopes, lambda user: user.scopes),
            (config.permissions, lambda user: user.permissions),
            (config.consumer, lambda user: user.consumer),
            (config.kind, lambda user: user.kind),
        ]
        parts += [(header, _claim(name)) for name, header in config.claims.items()]
        self._parts = tuple((name.encode("ascii"), read) for name, read in parts if name is not None)
        self._reserved = ReservedHeaders(config.names)

    def request(self, request: Request) -> Response | None:
        """Take away what the client has sent, and say who it is."""
        self._reserved.take_from(request)
        user = request.get(USER)
        if user is not None:
            for name, read in self._parts:
                value = written(read(user))
                if value:
                    request.headers.put_parsed(name, value)
        return None


def _claim(name: str) -> Callable[[User], object]:
    return lambda user: user.claims.get(name)


def written(value: object) -> bytes:
    """Return a value as it stands in a header; nothing for what has no place there."""
    if isinstance(value, frozenset):
        return b",".join(_one(each) for each in sorted(value))
    if isinstance(value, list | tuple):
        return b",".join(filter(None, map(_one, value)))
    return _one(value)


def _one(value: object) -> bytes:
    if isinstance(value, str):
        text = value if _IS_SAFE(value) is not None else quote(value, safe=_SAFE, errors="surrogatepass")
        return text.encode("ascii")
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if isinstance(value, int):
        return b"%d" % value if value.bit_length() <= MOST_BITS else b""
    return repr(value).encode("ascii") if isinstance(value, float) else b""
