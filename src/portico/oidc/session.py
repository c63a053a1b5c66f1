"""Sessions: what a cookie says of who has logged in, and what a worker remembers of them."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Mapping
from enum import Enum
from hashlib import sha256
from typing import Any, Final, Generic, NamedTuple, TypeAlias, TypeVar

import orjson

from portico.http.user import User
from portico.jose.compact import NotTaken, decode, json_object
from portico.oidc.cookies import Shown
from portico.oidc.seal import Seal

REMEMBERED: Final = 2048
"""Sessions that a worker has at hand, of which at least half are those used last."""
LINES: Final = 1024
"""Values of `Cookie` that a worker knows the session of."""
RENEWALS: Final = 1024
"""Sessions of which a worker knows that their tokens were renewed; browsers may still show the old ones."""
LOGOUTS: Final = 1024
"""Logouts that a worker has in mind, so that nothing which was under way meanwhile brings their sessions back."""
_PURPOSE: Final = b"session"
_ROTATED_AFTER: Final = 0.1
"""The part of the idle time after which a cookie is made anew; so a session may end by so much too early."""
_LEAD: Final = 60.0
"""Seconds before tokens end, at most, that new ones are asked for; less for those that live shortly."""

V = TypeVar("V")


class Session(NamedTuple):
    """Who has logged in, with the tokens that are of use yet. Times are seconds since 1970."""

    user: User
    id_token: str
    access_token: str
    """Empty unless services are to be shown it."""
    refresh_token: str
    """Empty where the provider gives none."""
    begun: float
    """When they logged in."""
    issued: float
    """When this cookie was made."""
    expires: float
    """When the tokens end; 0 where the session does not depend on that."""
    renew_at: float
    """When to ask for new ones; 0 for never. Not in the cookie: workers differ in it, so that they do not all ask."""
    fresh_until: float
    """When it is to be looked at again. Not in the cookie either."""

    def is_to_be_renewed(self, now: float) -> bool:
        """Return whether its tokens end soon, and there may be others."""
        return self.renew_at != 0 and now >= self.renew_at

    def __repr__(self) -> str:
        return f"<Session {self.user.name!r}>"


class Present(NamedTuple):
    """What is known of one request."""

    shown: Shown
    session: Session | None


class SessionLifetime(NamedTuple):
    """How long sessions last, in seconds."""

    idle: float
    """Without a request."""
    total: float
    """Since the login."""

    def is_over(self, session: Session, now: float) -> bool:
        """Return whether a session has ended, whatever its tokens are good for."""
        return now >= session.issued + self.idle or now >= session.begun + self.total

    def rotation(self, issued: float) -> float:
        """Return when a cookie is to be made anew, with another time of issue."""
        return issued + self.idle * _ROTATED_AFTER

    def left(self, session: Session, now: float) -> float:
        """Return for how many seconds a browser need keep a cookie that is made now."""
        return max(1.0, min(self.idle, session.begun + self.total - now))


class Lost(Enum):
    """Why there are no new tokens."""

    ENDED = 1
    """The provider gives none for the old ones any more."""
    UNAVAILABLE = 2
    """The provider could not be asked."""


Renewal: TypeAlias = Session | Lost


class Asking(NamedTuple):
    """New tokens are asked for."""

    renewal: asyncio.Future[Renewal]
    until: float
    """When there has to be an answer, of the worker's clock; without one, whoever has asked is gone with its
    configuration."""


class LastUsed(Generic[V]):
    """What was used of late. When the young half is full, it becomes the old one, and the old one is dropped."""

    __slots__ = ("_half", "_old", "_young")

    def __init__(self, capacity: int) -> None:
        self._half = max(1, capacity // 2)
        self._young: dict[bytes, V] = {}
        self._old: dict[bytes, V] = {}

    def get(self, key: bytes) -> V | None:
        """Return what is known by that name."""
        value = self._young.get(key)
        if value is None:
            value = self._old.pop(key, None)
            if value is not None:
                self.put(key, value)
        return value

    def put(self, key: bytes, value: V) -> None:
        """Know it."""
        if len(self._young) >= self._half:
            self._old, self._young = self._young, {}
        self._young[key] = value

    def __len__(self) -> int:
        return len(self._young) + len(self._old)


class Sessions:
    """Makes cookies of sessions, and the other way round; what a worker knows of them outlives a reload."""

    def __init__(
        self,
        seal: Seal,
        lifetime: SessionLifetime,
        user_of: Callable[[Mapping[str, Any]], User],
        lot: Callable[[], float] = random.random,
    ) -> None:
        """`lot` draws a number from 0 to 1."""
        self._seal = seal
        self.lifetime = lifetime
        self._user_of = user_of
        self._lot = lot
        self._known: LastUsed[Session] = LastUsed(REMEMBERED)
        self.lines: LastUsed[Present] = LastUsed(LINES)
        """Sessions by the whole `Cookie` that they were shown in, so that most requests need no closer look at it."""
        self.renewals: LastUsed[Renewal] = LastUsed(RENEWALS)
        """What became of sessions whose tokens were renewed, by `key_of` them."""
        self._ended: LastUsed[bool] = LastUsed(LOGOUTS)
        self.under_way: dict[bytes, Asking] = {}
        """The same where nothing has become of it yet."""
        self.ask_again = float("-inf")
        """When the provider may be asked again, of the worker's clock."""

    def recall(self, text: bytes) -> Session | None:
        """Return the session that a cookie's text says, or None where it is no good."""
        key = sha256(text).digest()
        known = self._known.get(key)
        if known is None:
            known = self._opened(text)
            if known is not None:
                self._known.put(key, known)
        return known

    def newest(self, session: Session) -> Session:
        """Return the session that has come of one by renewals, as far as this worker knows."""
        while True:
            known = self.renewals.get(key_of(session))
            if not isinstance(known, Session) or known.issued <= session.issued:
                return session
            session = known

    def end(self, session: Session) -> None:
        """Have nothing come any more of a session, nor of those that have come of the same login."""
        self._ended.put(_login_of(session), True)

    def has_ended(self, session: Session) -> bool:
        """Return whether there was a logout, as far as this worker knows."""
        return self._ended.get(_login_of(session)) is not None

    def _opened(self, text: bytes) -> Session | None:
        content = self._seal.open(_PURPOSE, text)
        if content is None:
            return None
        id_token, access_token, refresh_token, begun, issued, expires = orjson.loads(content)
        try:
            return self.made(id_token, access_token, refresh_token, begun, issued, expires)
        except NotTaken:  # the claim that is a name is another one by now
            return None

    def made(
        self, id_token: str, access_token: str, refresh_token: str, begun: float, issued: float, expires: float
    ) -> Session:
        """Return a session with tokens that were verified; raise NotTaken where they do not say whose it is."""
        user = self._user_of(claims_of(id_token))
        renew_at = 0.0
        if refresh_token and expires:
            renew_at = expires - min(_LEAD, (expires - issued) / 4) * (0.5 + self._lot() / 2)
        ends = (begun + self.lifetime.total, renew_at or math.inf, expires or math.inf)
        fresh_until = min(self.lifetime.rotation(issued), *ends)
        return Session(user, id_token, access_token, refresh_token, begun, issued, expires, renew_at, fresh_until)

    def rotated(self, session: Session, now: float) -> Session:
        """Return the same session with another time of issue."""
        return self.made(
            session.id_token, session.access_token, session.refresh_token, session.begun, now, session.expires
        )

    def text_of(self, session: Session) -> bytes:
        """Return the text of a cookie."""
        return self._seal.seal(_PURPOSE, orjson.dumps(session[1:7]))

    def close(self) -> None:
        """Forget all of them."""
        self._known, self.lines, self.renewals = LastUsed(REMEMBERED), LastUsed(LINES), LastUsed(RENEWALS)
        self._ended = LastUsed(LOGOUTS)


def key_of(session: Session) -> bytes:
    """Return what a session's tokens are known by; the same refresh token may be good several times."""
    return sha256(f"{session.expires} {session.refresh_token}".encode()).digest()


def _login_of(session: Session) -> bytes:
    return sha256(f"{session.begun} {session.user.name}".encode()).digest()


def claims_of(id_token: str) -> Mapping[str, Any]:
    """Return what a verified token says."""
    return json_object(decode(id_token.encode()).payload, "payload")
