"""What an authorization server says of tokens that only it can read (RFC 7662), and where it is asked."""

from __future__ import annotations

import asyncio
import base64
import logging
import math
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote_plus

from portico.http.message import Handler, Request
from portico.http.user import User
from portico.jose.bearer import BearerConfig
from portico.jose.compact import NotTaken, json_object
from portico.jose.provider import NotPublished, described
from portico.jose.rules import EXPIRED, Expired, TokenRules, invalid
from portico.policy.authenticator import Refusal
from portico.policy.base import Env
from portico.policy.verdicts import NoVerdict

logger = logging.getLogger("portico.jose")

LOOK_AGAIN: Final = 10.0
"""Seconds until a description that is old, and could not be had anew, is looked for again."""
_RETRY: Final = 1.0
"""Seconds until one is looked for again while none is known."""
_TOKEN: Final = re.compile(rb"[A-Za-z0-9\-._~+/]+=*")
_BEARERS: Final = ("bearer", "access_token")
"""Types of tokens (RFC 6749 section 7.1) that are good for whoever has them; not those that are bound to a key, nor
such as only get others."""

UserOf = Callable[[Mapping[str, Any]], User]


class Taken(NamedTuple):
    """A token is active."""

    user: User
    until: float
    """The time of day at which it expires."""


def token_of(config: BearerConfig, request: Request) -> bytes | Refusal | None:
    """Return the token that a request has, if it may be one (RFC 6750 section 2.1); nobody is asked about others."""
    token = config.token_in(request)
    if not isinstance(token, bytes):
        return token
    if len(token) > config.max_size:
        return invalid("it is too large")
    return token if _TOKEN.fullmatch(token) is not None else invalid("it has characters that no token has")


def basic_credentials(client: str, secret: str) -> bytes:
    """Return the `Authorization` of a client, with each half encoded as in a form first (RFC 6749 section 2.3.1)."""
    return b"Basic " + base64.b64encode(f"{quote_plus(client)}:{quote_plus(secret)}".encode("ascii"))


def said_of_token(content: bytes, rules: TokenRules, user_of: UserOf, now: float) -> Taken | Refusal:
    """Return what an answer says of a token (RFC 7662 section 2.2); raise NoVerdict where that is nothing."""
    try:
        said = json_object(content, "answer")
    except NotTaken as error:
        raise NoVerdict(f"it answers what is of no use: {error}") from None
    active = said.get("active")
    if active is False:
        return invalid("it is not active")
    if active is not True:
        raise NoVerdict("it does not answer whether a token is active")
    claims = {name: value for name, value in said.items() if value is not None}
    kind = claims.get("token_type", "bearer")
    if not isinstance(kind, str) or kind.lower() not in _BEARERS:
        return invalid("it is of a type that is not for its bearer")
    try:
        rules.window(claims, now)
        return Taken(user_of(claims), float(claims.get("exp", math.inf)))
    except Expired:
        return EXPIRED
    except NotTaken as error:
        return invalid(str(error))


class DescribedEndpoint:
    """The URL of an endpoint, as a provider describes itself. It is looked for ahead of need, and kept while the
    description cannot be had."""

    def __init__(
        self, url: str, member: str, issuers: Collection[str], ca: str | None, clock: Callable[[], float]
    ) -> None:
        self._document = url
        self._member = member
        self._issuers = issuers
        self._ca = ca
        self._clock = clock
        self._found: str | None = None
        self._due = -math.inf
        self._trouble = ""
        self._looking = asyncio.Lock()
        self._served: Handler | None = None

    def serve(self, env: Env) -> None:
        """Begin to look for it. Raises ConfigError where nobody can be asked."""
        handler = env.web(self._document.partition("?")[0], self._ca)
        if handler != self._served:  # otherwise another route of this configuration has begun it
            self._served = handler
            env.spawn(self._look(env), "description of a provider")

    async def url(self, env: Env) -> str:
        """Return the URL; raise NoVerdict where it is not known."""
        if self._found is None:
            await self._look(env)
        elif self._clock() >= self._due:
            self._due = self._clock() + LOOK_AGAIN
            env.spawn(self._renew(env), "description of a provider")
        if self._found is None:
            raise NoVerdict(self._trouble)
        return self._found

    async def _look(self, env: Env) -> None:
        async with self._looking:
            if self._clock() >= self._due:
                await self._renew(env)

    async def _renew(self, env: Env) -> None:
        try:
            self._found, age = await described(env, self._document, self._ca, self._issuers, self._member)
        except NotPublished as error:
            age = _RETRY if self._found is None else LOOK_AGAIN
            if str(error) != self._trouble:
                self._trouble = str(error)
                logger.warning("the %s of a provider could not be found: %s", self._member, self._trouble)
        else:
            self._trouble = ""
        self._due = self._clock() + age

    def close(self) -> None:
        """Nothing is held."""
