"""A client stays at the target of its first request, by a cookie that only the gateway can make."""

from __future__ import annotations

import hmac
import math
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from typing import Final

from portico.config.balance import Sticky as StickyConfig
from portico.http.message import Request
from portico.upstream.balance.balancer import Balancer, Make
from portico.upstream.target import Target

_BYTES: Final = 18
"""How much of the HMAC a cookie has: 144 bits, which are 24 letters without padding."""

_MOST: Final = 8
"""Cookies of that name in one header that are looked at: a client that sends more has no good reason."""


class Cookies:
    """The cookies of one service: a value for each target, and how it is set."""

    __slots__ = ("_attributes", "_known", "_secret", "_service", "prefix")

    def __init__(self, config: StickyConfig, service: str) -> None:
        self.prefix = config.cookie.encode("ascii") + b"="
        self._secret = config.secret.get_secret_value().encode()
        self._service = service.encode()
        self._known: dict[str, bytes] = {}
        age = b"" if config.max_age is None else b"; Max-Age=%d" % math.ceil(config.max_age)
        self._attributes = age + b"; Path=/; HttpOnly; SameSite=Lax"

    def values(self, targets: Sequence[Target]) -> dict[bytes, Target]:
        """Return each target by the value that names it: an HMAC, so it can be neither guessed nor read."""
        known: dict[str, bytes] = {}
        values: dict[bytes, Target] = {}
        for target in targets:
            value = known[target.address] = self._known.get(target.address) or self._value(target.address)
            values[value] = target
        self._known = known
        return values

    def line(self, value: bytes, secure: bool) -> bytes:
        """Return the Set-Cookie for a value; `secure` where the client speaks TLS."""
        return self.prefix + value + self._attributes + (b"; Secure" if secure else b"")

    def _value(self, address: str) -> bytes:
        digest = hmac.digest(self._secret, self._service + b"\0" + address.encode(), "sha256")
        return urlsafe_b64encode(digest[:_BYTES])


class Sticky(Balancer):
    """Sends a client to the target that its cookie names; another balancer picks where it names none of these."""

    __slots__ = ("_cookies", "_inner", "_named", "_prefix", "_values")

    def __init__(self, targets: Sequence[Target], cookies: Cookies, inner: Balancer) -> None:
        super().__init__(targets)
        self.looks_on = True
        self.wants_latency = inner.wants_latency
        self._inner = inner
        self._cookies = cookies
        self._prefix = cookies.prefix
        self._named = cookies.values(targets)
        self._values = {target: value for value, target in self._named.items()}

    def pick(self, request: Request) -> Target:
        """Return the target that the client's cookie names, or any."""
        target = self._of(request)
        return self._inner.pick(request) if target is None else target

    def other(self, request: Request, tried: Sequence[Target]) -> Target | None:
        """Return the target that the cookie names, or any, that is not among `tried`."""
        target = self._of(request)
        return self._inner.other(request, tried) if target is None or target in tried else target

    def mark(self, request: Request, target: Target) -> bytes | None:
        """Return the Set-Cookie that names `target`, unless the client's cookie does."""
        value = self._values.get(target)
        if value is None or self._of(request) is target:
            return None
        return self._cookies.line(value, request.client is not None and request.client.scheme == "https")

    def _of(self, request: Request) -> Target | None:
        """Return the first target that a cookie names; there may be several, of other paths, of old or forged."""
        line = request.headers.index.get(b"cookie")
        if line is None:
            return None
        target = self._in(line)
        if target is None:
            for line in request.headers.get_all(b"cookie")[1:]:
                target = self._in(line)
                if target is not None:
                    break
        return target

    def _in(self, line: bytes) -> Target | None:
        """Return the first target that is named in a Cookie header (RFC 6265 section 4.2.1)."""
        prefix = self._prefix
        at = line.find(prefix)
        for _ in range(_MOST):
            if at < 0:
                break
            begin = at + len(prefix)
            end = line.find(b";", begin)
            if end < 0:
                end = len(line)
            target = self._named.get(line[begin:end].strip())
            if target is not None and line[line.rfind(b";", 0, at) + 1 : at].strip() == b"":
                return target
            at = line.find(prefix, end)
        return None


def sticky(config: StickyConfig, service: str, make: Make) -> Make:
    """Return what makes balancers that keep a client at its target, and otherwise are those of `make`."""
    cookies = Cookies(config, service)
    return lambda targets: Sticky(targets, cookies, make(targets))
