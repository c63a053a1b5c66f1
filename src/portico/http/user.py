"""Who is asking, as far as that was found out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from portico.http.message import Key, Request


@dataclass(frozen=True, slots=True)
class User:
    """Who a request comes from, verified by a policy that authenticates."""

    name: str
    """What policies, conditions and logs call them; never empty.

    It is only as unique as whoever has given it made it: somebody whose token says `ada`, and a consumer `ada`, have
    the same name and are not the same. `kind` says which policy knows them, and `consumer` is empty for all who are
    none of the file's.
    """
    roles: frozenset[str] = frozenset()
    """What they are."""
    scopes: frozenset[str] = frozenset()
    """What they have allowed the client to do in their name (RFC 6749 section 3.3)."""
    claims: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    """What else is said of them, such as the claims of a token (RFC 7519 section 4): values as JSON has them."""
    permissions: frozenset[str] = frozenset()
    """What they may do, as whoever knows them says."""
    groups: frozenset[str] = frozenset()
    """Which groups they are in."""
    kind: str = ""
    """What has found it out: the name of a policy, such as `jwt`."""
    consumer: str = ""
    """Which of the configuration's consumers they are; empty where they are none of them."""

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a user needs a name; who has none is no User at all")


USER: Final[Key[User]] = Key("user")
"""Where a policy that authenticates puts the User; nothing is there while nobody is known."""

NOBODY: Final = "anonymous"
"""The kind of a user who stands for whoever has shown nothing."""


def known_user(request: Request) -> User | None:
    """Return the one who is asking, where somebody has found that out; one who stands for anyone is none."""
    user = request.get(USER)
    return None if user is None or user.kind == NOBODY else user


def speaks_for_a_user(request: Request) -> bool:
    """Whether a request is in a user's name: it has Authorization, or a policy has found out who it is from."""
    return b"authorization" in request.headers.index or (request.has_slots and known_user(request) is not None)


def identity_of(user: User) -> bytes:
    """Return what tells a user from all others: a name is only as unique as the policy that knows it, and that of a
    token as its issuer (RFC 7519 section 4.1.2)."""
    issuer = user.claims.get("iss", "")
    return f"{user.kind}\0{user.consumer}\0{issuer}\0{user.name}".encode("utf-8", "surrogatepass")
