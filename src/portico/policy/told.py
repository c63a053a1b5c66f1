"""What an answer to a question about a request tells in its headers."""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType
from typing import Final, TypeAlias

from portico.config.values import HeaderName
from portico.http.headers import Headers
from portico.http.user import User
from portico.policy.base import PolicyConfig
from portico.policy.verdicts import NoVerdict

MOST_TOLD: Final = 16 * 1024
"""Bytes of the headers of an answer that are used."""

OF_THE_WAY: Final = frozenset(
    (
        b"forwarded",
        b"via",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-method",
        b"x-forwarded-port",
        b"x-forwarded-proto",
        b"x-forwarded-uri",
        b"x-original-uri",
        b"x-real-ip",
    )
)
"""Headers that tell whose a request is and how it came; a client has no say in them."""

Fields: TypeAlias = tuple[tuple[bytes, bytes], ...]


class Identity(PolicyConfig):
    """Which headers of an answer tell who it is; those of lists have commas between the words."""

    name: HeaderName
    """The name, by which policies, conditions and logs know them."""
    roles: HeaderName | None = None
    """The roles."""
    groups: HeaderName | None = None
    """The groups."""
    scopes: HeaderName | None = None
    """The scopes; spaces part them as well."""
    permissions: HeaderName | None = None
    """The permissions."""
    claims: dict[str, HeaderName] = {}  # noqa: RUF012 - pydantic copies it
    """What else is told, by the name that it has as a claim."""

    @property
    def names(self) -> list[str]:
        """The names of all headers."""
        own = (self.name, self.roles, self.groups, self.scopes, self.permissions)
        return [name for name in (*own, *self.claims.values()) if name is not None]

    def user_of(self, headers: Headers, kind: str) -> User | None:
        """Return who it is, or None where no name is told; raise NoVerdict where it is not clear."""
        name = text_told(headers, self.name)
        if not name:
            return None
        if not name.isprintable():
            raise NoVerdict("the name that it answers is none")
        claims = {claim: text_told(headers, header) for claim, header in self.claims.items()}
        return User(
            name,
            roles=words_told(headers, self.roles),
            scopes=words_told(headers, self.scopes, " "),
            claims=MappingProxyType({claim: text for claim, text in claims.items() if text}),
            permissions=words_told(headers, self.permissions),
            groups=words_told(headers, self.groups),
            kind=kind,
        )


def fields_told(fields: Iterable[tuple[bytes, bytes]]) -> Fields:
    """Return header fields that may be passed on; raise NoVerdict where they may not."""
    pairs = tuple(fields)
    if sum(len(name) + len(value) for name, value in pairs) > MOST_TOLD:
        raise NoVerdict(f"the headers that it answers have more than {MOST_TOLD} bytes")
    try:
        Headers(pairs)
    except ValueError as error:
        raise NoVerdict(str(error)) from None
    return pairs


def text_told(headers: Headers, name: str) -> str:
    """Return what a header says, which stands there once."""
    values = headers.get_all(name.lower().encode("ascii"))
    if len(values) > 1:
        raise NoVerdict(f"it answers {name} more than once")
    return _decoded(values[0] if values else b"")


def words_told(headers: Headers, name: str | None, also: str = ",") -> frozenset[str]:
    """Return the words of a header, with commas between them, and what `also` parts them."""
    if name is None:
        return frozenset()
    text = ",".join(map(_decoded, headers.get_all(name.lower().encode("ascii")))).replace(also, ",")
    return frozenset(word.strip() for word in text.split(",") if word.strip())


def _decoded(value: bytes) -> str:
    if len(value) > MOST_TOLD:
        raise NoVerdict(f"the headers that it answers have more than {MOST_TOLD} bytes")
    try:
        return value.decode().strip()
    except UnicodeDecodeError:
        return value.decode("latin-1").strip()
