"""Cookies of the gateway's own (RFC 6265): read from a request, taken from it, and set again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from portico.http.headers import Headers

MOST_PARTS: Final = 4
"""Cookies that a session may take."""
PART: Final = 3900
"""Bytes of a cookie with its name, of which browsers keep 4096."""
MOST_LOGINS: Final = 5
"""Logins of one browser that may be under way."""


class TooLarge(Exception):
    """A session does not go into the cookies that it may have."""


class Shown(NamedTuple):
    """The gateway's own cookies of a request."""

    session: bytes
    """The whole text of the session; empty where there is none."""
    parts: frozenset[bytes]
    """The names of its cookies, also of such as are left over of another session."""
    logins: dict[bytes, bytes]
    """The texts of logins that are under way, by the names of their cookies."""
    others: bytes
    """The cookies that are for the service; empty where there are none."""

    def __repr__(self) -> str:
        return f"<Shown {sorted(self.parts)}>"


class Cookies:
    """The cookies of one policy: a session in one or several, and one for each login that is under way.

    Where they go by TLS alone, browsers take them only from this very host, and by TLS (`__Host-`).
    """

    __slots__ = ("_attributes", "_login", "_own", "_session")

    def __init__(self, name: str, *, secure: bool) -> None:
        start = f"__Host-{name}" if secure else name
        self._session = start.encode()
        self._login = self._session + b"-login-"
        self._own = re.compile(rb"%s(?:\.[1-9]|-login-[A-Za-z0-9_-]{8})?=" % re.escape(self._session)).match
        self._attributes = b"; Path=/; HttpOnly; SameSite=Lax" + (b"; Secure" if secure else b"")

    def may_be_in(self, line: bytes) -> bool:
        """Return whether one of them may be in a `Cookie`, without a closer look."""
        return self._session in line

    def of(self, headers: Headers) -> Shown | None:
        """Return what a request has of them; None where there is nothing."""
        own: dict[bytes, bytes] = {}
        others: list[bytes] = []
        for pair in _pairs(headers):
            if self._own(pair) is None:
                others.append(pair)
            else:
                name, _, value = pair.partition(b"=")
                own.setdefault(name, value)
        if not own:
            return None
        logins = {name: own.pop(name) for name in list(own) if name.startswith(self._login)}
        return Shown(self._joined(own), frozenset(own), logins, b"; ".join(others))

    def _joined(self, own: dict[bytes, bytes]) -> bytes:
        """Return the text that the parts of a session come to: the first begins with the number of those after it."""
        first = own.get(self._session, b"")
        count = first[:1]
        if not count.isdigit() or int(count) >= MOST_PARTS:
            return b""
        parts = [first[1:]]
        for number in range(1, int(count) + 1):
            part = own.get(self._part(number))
            if part is None:
                return b""
            parts.append(part)
        return b"".join(parts)

    def _part(self, number: int) -> bytes:
        return self._session if number == 0 else b"%s.%d" % (self._session, number)

    def keep(self, text: bytes, age: float, before: Iterable[bytes] = ()) -> list[bytes]:
        """Return what sets a session; `before` are the names of the cookies that there are. Raises TooLarge."""
        room = PART - len(self._part(MOST_PARTS)) - 2
        parts = [text[at : at + room] for at in range(0, len(text), room)]
        if len(parts) > MOST_PARTS:
            raise TooLarge(f"the session would have {len(text)} bytes, and may have {room * MOST_PARTS}")
        parts[0] = b"%d%s" % (len(parts) - 1, parts[0])
        names = [self._part(number) for number in range(len(parts))]
        lines = [self._line(name, part, age) for name, part in zip(names, parts, strict=True)]
        return lines + [self.drop(name) for name in before if name not in names]

    def login(self, state: str, text: bytes, age: float) -> bytes:
        """Return what sets the cookie of a login."""
        return self._line(self.login_name(state), text, age)

    def login_name(self, state: str) -> bytes:
        """Return the name of a login's cookie."""
        return self._login + state[:8].encode()

    def drop(self, name: bytes) -> bytes:
        """Return what removes a cookie."""
        return self._line(name, b"", 0)

    def _line(self, name: bytes, value: bytes, age: float) -> bytes:
        return b"%s=%s; Max-Age=%d%s" % (name, value, int(age), self._attributes)


def hide(headers: Headers, shown: Shown) -> None:
    """Take from a request the cookies that it has shown."""
    headers.remove(b"cookie")
    if shown.others:
        headers.put_parsed(b"Cookie", shown.others)


def _pairs(headers: Headers) -> Iterator[bytes]:
    for line in headers.get_all(b"cookie"):
        for pair in line.split(b";"):
            text = pair.strip(b" \t")
            if text:
                yield text
