"""From a token to a user, and the memory that most requests are answered from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from hashlib import blake2b
from typing import Any, Final, Protocol, TypeAlias

from portico.http.message import Request
from portico.http.user import User
from portico.jose.bearer import TWICE, bearer_token, stands_twice
from portico.jose.compact import Compact, NotTaken, decode, json_object
from portico.jose.keys import KeySet
from portico.jose.rules import EXPIRED, UNAVAILABLE, Expired, TokenRules, invalid
from portico.policy.authenticator import Found

REMEMBERED: Final = 4096
"""Tokens that are remembered, of which at least half are those used last."""

UserOf: TypeAlias = Callable[[Mapping[str, Any]], User]
"""Makes a user of the claims of a verified token; raises NotTaken where they do not say who it is."""
_Entry: TypeAlias = tuple[User, float, float, KeySet]


def _digest(shown: bytes) -> bytes:
    """Return what a token is remembered by. It is not of OpenSSL, which takes longer to begin with it than to end."""
    return blake2b(shown, digest_size=32).digest()


class Keys(Protocol):
    """Where keys come from."""

    @property
    def current(self) -> KeySet | None:
        """The keys as they are now; another object as soon as one of them is another. None while none are known."""
        ...

    def renewed(self) -> Awaitable[None] | None:
        """Have the keys looked at again, and return what ends when they were, or after a while; None if not now."""
        ...


class FixedKeys:
    """Keys that are known at load."""

    __slots__ = ("current",)

    def __init__(self, keys: KeySet) -> None:
        self.current: KeySet | None = keys

    def renewed(self) -> None:
        """There are no others."""


class TokenVerifier:
    """Verifies tokens by some keys and some rules.

    A verified one is remembered by its digest, for as long as it is good and the keys are the same. What was used least
    of late is forgotten first: when the young half is full, it becomes the old one, and the old one is dropped.
    """

    __slots__ = ("_half", "_keys", "_now", "_old", "_rules", "_user_of", "_young")

    def __init__(
        self, keys: Keys, rules: TokenRules, user_of: UserOf, now: Callable[[], float], capacity: int = REMEMBERED
    ) -> None:
        self._keys = keys
        self._rules = rules
        self._user_of = user_of
        self._now = now
        self._half = max(1, capacity // 2)
        self._young: dict[bytes, _Entry] = {}
        self._old: dict[bytes, _Entry] = {}

    def recall(self, shown: bytes) -> User | None:
        """Return who has shown this before, if it is still good."""
        key = _digest(shown)
        entry = self._young.get(key)
        if entry is None:
            entry = self._old.pop(key, None)
            if entry is None:
                return None
            self._remember(key, entry)
        user, since, until, keys = entry
        if keys is self._keys.current and since <= self._now() < until:
            return user
        return None

    def verify(self, token: bytes, shown: bytes) -> Found | Awaitable[Found]:
        """Return whose token it is, or why it is not taken; `shown` is what `recall` will be asked."""
        if len(token) > self._rules.max_size:
            return invalid("it is too large")
        try:
            compact = decode(token)
            if self._rules.algorithms and compact.algorithm not in self._rules.algorithms:
                return invalid("its algorithm is not allowed")
            found = self._found(compact, shown)
            if found is not None:
                return found
            # What it says itself is trusted where it speaks against it: nobody waits for keys that can do no good,
            # nor for those of one issuer with a token of another.
            self._rules.window(json_object(compact.payload, "payload"), self._now())
        except NotTaken as error:
            return invalid(str(error))
        renewed = self._keys.renewed()
        return self._unknown() if renewed is None else self._later(renewed, compact, shown)

    async def _later(self, renewed: Awaitable[None], compact: Compact, shown: bytes) -> Found:
        """Try again with the keys that will be known then."""
        await renewed
        try:
            return self._found(compact, shown) or self._unknown()
        except NotTaken as error:
            return invalid(str(error))

    def _unknown(self) -> Found:
        return UNAVAILABLE if self._keys.current is None else invalid("no key that is known has signed it")

    def _found(self, compact: Compact, shown: bytes) -> Found:
        """Return what becomes of a token, or None where its key is not known; raise NotTaken."""
        keys = self._keys.current
        good = None if keys is None else keys.check(compact)
        if keys is None or good is None:
            return None
        if not good:
            return invalid("its signature is wrong")
        claims = json_object(compact.payload, "payload")
        try:
            since, until = self._rules.window(claims, self._now())
        except Expired:
            return EXPIRED
        user = self._user_of(claims)
        self._remember(_digest(shown), (user, since, until, keys))
        return user

    def _remember(self, key: bytes, entry: _Entry) -> None:
        if len(self._young) >= self._half:
            self._old, self._young = self._young, {}
        self._young[key] = entry

    def close(self) -> None:
        """Forget all of them."""
        self._young, self._old = {}, {}


class BearerReader:
    """Finds out whose token a request has, by what is remembered where that is possible.

    It is apart from the policy so that it can be compiled: what is interpreted costs most where little of it runs.
    """

    __slots__ = ("_elsewhere", "_recall", "_verify")

    def __init__(self, verifier: TokenVerifier, elsewhere: Callable[[Request], bytes | None]) -> None:
        """`elsewhere` finds the token of a request that does not have it in `Authorization`."""
        self._recall = verifier.recall
        self._verify = verifier.verify
        self._elsewhere = elsewhere

    def identify(self, request: Request) -> Found | Awaitable[Found]:
        """Return whose token it is."""
        headers = request.headers
        shown = headers.index.get(b"authorization")
        if shown is not None:
            if len(headers.index) != len(headers.pairs) and stands_twice(request):
                return TWICE
            known = self._recall(shown)
            if known is not None:
                return known
            token = bearer_token(shown)
            if token is not None:
                return self._verify(token, shown)
        token = self._elsewhere(request)
        if token is None:
            return None
        return self._recall(token) or self._verify(token, token)
