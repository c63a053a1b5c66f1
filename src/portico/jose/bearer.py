"""Where a token stands in a request, and who its claims say it is from: what all policies that take tokens share."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final
from urllib.parse import unquote, unquote_plus

from pydantic import Field

from portico.config.forms import OneOrMany
from portico.config.values import Size
from portico.http.message import Request
from portico.http.user import User
from portico.jose.compact import NotTaken
from portico.jose.rules import claim_at, invalid, words_at
from portico.policy.authenticator import AuthenticatorConfig, Refusal

Texts = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], OneOrMany()]

TWICE: Final = invalid("Authorization stands twice")
"""A request has several of what may be there once."""
_DESCRIPTIONS: Final = {"invalid-token": "The token is not valid here", "token-expired": "The token has expired"}


class ClaimedUser(AuthenticatorConfig):
    """Which claims say who a user is. A claim within others is written with dots: `realm_access.roles`."""

    user: str = "sub"
    """The claim that is the user's name; a token without it is not taken."""
    roles: Texts = ("roles",)
    """The claim that has the roles: the first of these that is there."""
    scopes: Texts = ("scope", "scp")
    """The claim that has the scopes."""
    permissions: Texts = ("permissions",)
    """The claim that has the permissions."""
    groups: Texts = ("groups",)
    """The claim that has the groups."""

    def user_of(self, claims: Mapping[str, Any], kind: str) -> User:
        """Return who claims that are to be trusted speak of; raise NotTaken where they do not say it."""
        name = claim_at(claims, self.user)
        if isinstance(name, int) and not isinstance(name, bool):
            name = str(name)
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise NotTaken(f"its claim {self.user} is no name")
        return User(
            name,
            roles=words_at(claims, self.roles),
            scopes=words_at(claims, self.scopes),
            claims=MappingProxyType(dict(claims)),
            permissions=words_at(claims, self.permissions),
            groups=words_at(claims, self.groups),
            kind=kind,
        )


class BearerConfig(ClaimedUser):
    """Where a token stands in a request (RFC 6750 section 2), and who its claims say it is from."""

    cookie: Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", examples=["access_token"])] | None = None
    """A cookie that may have the token."""
    query: Annotated[str, Field(min_length=1, examples=["access_token"])] | None = None
    """A query parameter that may have the token; it will be in the logs of others."""
    max_size: Size = 8192
    """The most bytes of a token."""
    realm: Annotated[str, Field(pattern=r"^[ !#-\[\]-~]+$")] = "api"
    """What the challenge of a 401 calls the things behind it."""

    def token_in(self, request: Request) -> bytes | Refusal | None:
        """Return the first token that is there, or a refusal where it is not clear which that is."""
        shown = request.headers.get(b"authorization")
        if shown is not None:
            if stands_twice(request):
                return TWICE
            token = bearer_token(shown)
            if token is not None:
                return token
        return self.token_elsewhere(request)

    def token_elsewhere(self, request: Request) -> bytes | None:
        """Return the token that is not in `Authorization`: that of the cookie, or of the query."""
        if self.cookie is not None:
            wanted = self.cookie.encode() + b"="
            for line in request.headers.get_all(b"cookie"):
                for part in line.split(b";"):
                    pair = part.strip(b" \t")
                    if pair.startswith(wanted):
                        return pair[len(wanted) :].strip(b'"')
        if self.query is not None and request.query is not None:
            for item in request.query.split("&"):
                name, _, value = item.partition("=")
                if unquote_plus(name) == self.query:
                    return unquote(value).encode("utf-8", "replace")  # no token has a space, and `+` is none
        return None

    def challenge(self, refusal: Refusal | None) -> str:
        """Return the challenge (RFC 6750 section 3)."""
        if refusal is None:
            return f'Bearer realm="{self.realm}"'
        description = _DESCRIPTIONS.get(refusal.type, refusal.title)
        return f'Bearer realm="{self.realm}", error="{refusal.error}", error_description="{description}"'


def stands_twice(request: Request) -> bool:
    """Return whether a request has `Authorization` several times."""
    headers = request.headers
    return len(headers.index) != len(headers.pairs) and len(headers.get_all(b"authorization")) > 1


def bearer_token(shown: bytes) -> bytes | None:
    """Return the token of an `Authorization`, or None where it is of another scheme (RFC 6750 section 2.1)."""
    scheme, _, token = shown.partition(b" ")
    return token.strip(b" ") if scheme.lower() == b"bearer" else None
