"""Whom limits count: what tells callers apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from portico.config.forms import OneOrMany
from portico.config.nearest import did_you_mean
from portico.config.values import BadValue
from portico.http.message import Request
from portico.http.user import identity_of, known_user
from portico.policy.attempts import origin_of
from portico.policy.base import Env
from portico.policy.condition import Condition, ConditionError, Expression

MOST_PARTS: Final = 8
"""Of a key."""

_DIGEST: Final = 20
"""Bytes that stand for what an expression says."""

_Read = Callable[[Request], bytes]


def _address(request: Request) -> bytes:
    return b"a" + origin_of(request.client)


def _user(request: Request) -> bytes:
    """Return which consumer it is, by whatever credential; or the user, of whoever knows them; or the address, also
    where a user stands for all who have shown nothing."""
    user = known_user(request)
    if user is None:
        return b"a" + origin_of(request.client)
    if user.consumer:
        return b"c" + user.consumer.encode("utf-8", "surrogatepass")
    return b"u" + identity_of(user)


def _everyone(request: Request) -> bytes:
    return b"*"


_NAMED: Final[dict[str, _Read]] = {"user": _user, "address": _address, "everyone": _everyone}
_FORMS: Final = "write user, address, everyone, or an expression such as headers['x-tenant']"


def _part(text: str) -> str:
    if text not in _NAMED:
        try:
            Expression(text)
        except ConditionError as error:
            hint = did_you_mean(text, _NAMED) or ("" if text.isidentifier() else error.hint)
            raise BadValue(str(error), hint or _FORMS) from None
    return text


KeyParts = Annotated[
    tuple[Annotated[str, AfterValidator(_part), Field(examples=["user", "address", "headers['x-tenant']"])], ...],
    OneOrMany(),
    Field(min_length=1, max_length=MOST_PARTS),
]
"""In what callers differ: `user`, `address`, `everyone`, or expressions that are texts."""


class CallerKey:
    """What a caller is counted under.

    `user` is the consumer, whatever it has proved itself by; else the user, told from those of the same name whom
    another policy knows; else the address, also of whom `anonymous` has let in. `address` is the client's, in IPv6 the
    network of 64 bits. `everyone` is the same for all. Any other part is an expression; where that is empty for a
    request, the address stands for it, so that nobody escapes a limit by leaving something out. What it says is in the
    key as a digest, which is of one length, and tells nobody a token.
    """

    __slots__ = ("_expressions", "_reads", "of")

    def __init__(self, parts: Sequence[str]) -> None:
        self._expressions = [Expression(part) for part in parts if part not in _NAMED]
        self._reads = tuple(_NAMED.get(part) or _reader(Expression(part)) for part in parts)
        self.of: _Read = self._reads[0] if len(parts) == 1 else self._joined
        """Return the key of who has sent a request."""

    def check_captures(self, env: Env, *others: Condition) -> None:
        """Raise ConditionError where it, or one of `others`, speaks of a capture that a path of the route has not.

        What stands around many routes may speak of those that only some of them have; only a route's own may not.
        """
        if env.place.startswith("route:"):
            for expression in (*self._expressions, *others):
                expression.check_paths(env.route.captures)

    def _joined(self, request: Request) -> bytes:
        parts = [read(request) for read in self._reads]
        return b"".join([b"%d:%s" % (len(part), part) for part in parts])  # no value can pass for two


def _reader(expression: Expression) -> _Read:
    read = expression.read

    def part(request: Request) -> bytes:
        text = read(request)
        if not text:
            return _address(request)
        # a token or a key may be what is read, and would stand in the store for others to find
        return b"x" + blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST).digest()

    return part
