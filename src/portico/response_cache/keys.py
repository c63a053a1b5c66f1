"""Where an answer is kept: under the URI that was asked for, and whatever else makes a difference.

What HTTP has for that, method, URI and Vary, is not all by which services answer. The host with its port, and the port
that a request came to, as they are told them, are parts of the place; requests with a header that has some of them take
another URI or method for what was asked for are none of the cache's business, since whoever sends one chooses what the
others would get (poisoning).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from portico.caching.key import CacheKey
from portico.http.headers import Headers, spelled
from portico.http.message import Request
from portico.http.user import identity_of, known_user

_MISLEADING: Final = frozenset(
    b"x-forwarded-prefix x-forwarded-path x-forwarded-uri x-forwarded-url x-forwarded-server x-forwarded-scheme"
    b" x-forwarded-ssl x-forwarded-method x-forwarded-port-override x-host x-original-host x-http-host-override"
    b" x-original-url x-original-uri x-rewrite-url x-rewrite-uri x-url-scheme x-script-name x-http-method"
    b" x-http-method-override x-method-override front-end-https".split()
)
"""Fields by which some services are told another URI, host, scheme or method than the request has."""
SPECIAL: Final = frozenset(
    b"if-none-match if-modified-since if-match if-unmodified-since range if-range cache-control pragma".split()
)
"""Fields by which a client says what it has, and what it takes from a cache."""
_VETTED: Final = 4096
"""Names of fields that are known not to be among these."""
_LONGEST_NAME: Final = 64
"""Bytes of a name that is remembered."""
_ORIGINS: Final = 1024
"""Hosts whose beginning of a place is kept at hand."""
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}


@dataclass(frozen=True, slots=True)
class KeySettings:
    """What makes a difference, and what of the query does not."""

    only: tuple[str, ...] | None = None
    without: tuple[str, ...] = ()
    in_order: bool = False
    headers: tuple[bytes, ...] = ()
    """Fields of requests, in lower case, each value of which is answered apart."""
    texts: tuple[str, ...] = ()
    """What else is read of a request, in words."""
    parts: tuple[Callable[[Request], str], ...] = ()
    """The same, compiled."""
    users: bool = False
    """Whether each user is answered apart."""


class Place(NamedTuple):
    """Where the answers for a request are kept."""

    uri: str
    """What stands for the URI: what is changed there is changed at each of its places."""
    text: str
    """The place itself."""

    @property
    def url(self) -> bytes:
        """The URL, as what is purged is named."""
        return self.uri.rpartition("\0GET ")[2].encode("utf-8", "surrogateescape")


class Places:
    """Finds the place of a request."""

    __slots__ = ("_beginnings", "_key", "_plain", "_settings", "apart", "scope")

    def __init__(self, settings: KeySettings, scope: str) -> None:
        """`scope` is of all that is kept by one policy."""
        self.scope = scope
        self._settings = settings
        self._key = CacheKey(settings.only, settings.without, in_order=settings.in_order)
        self._plain = settings.only is None and not settings.without and not settings.in_order
        self.apart = bool(settings.headers or settings.parts or settings.users)
        """Whether a URI may have several places."""
        self._beginnings: dict[tuple[bytes | None, str, int], tuple[str, str]] = {}

    def of(self, request: Request) -> Place:
        """Return the place of a request."""
        uri = self.uri_of(request, request.path, request.query)
        return Place(uri, f"{uri}\0{self._difference(request)}" if self.apart else uri)

    def text_of(self, request: Request) -> str:
        """Return the text of a request's place."""
        if self.apart:
            return self.of(request).text
        return self.uri_of(request, request.path, request.query)

    def uri_of(self, request: Request, path: str, query: str | None) -> str:
        """Return what stands for a URI of the same origin."""
        client, host = request.client, request.headers.index.get(b"host")
        if client is not None:
            host = client.asked(host)
        scheme, port = ("http", 0) if client is None else (client.scheme, client.local_port)
        known = self._beginnings.get((host, scheme, port))
        if known is None or known[0] != request.host:
            known = self._begin(request, host, scheme, port)
        if query is None:
            return known[1] + path
        if self._plain:
            return f"{known[1]}{path}?{query}"
        return known[1] + self._key.of_place(request, scheme, path, query)[len(f"GET {scheme}://{request.host}") :]

    def _begin(self, request: Request, asked: bytes | None, scheme: str, came_to: int) -> tuple[str, str]:
        """Return, and remember, what the text of a place begins with: all ahead of the path.

        Services are told which port a request came to, too (X-Forwarded-Port), and make URLs of it.
        """
        port = _port_of(request.host, asked, scheme)
        begin = f"{self.scope}\0{port}\0{came_to}\0{self._key.of_place(request, scheme, '', None)}"
        if len(self._beginnings) >= _ORIGINS:
            self._beginnings.clear()
        known = self._beginnings[asked, scheme, came_to] = request.host, begin
        return known

    def _difference(self, request: Request) -> str:
        """Return a digest of what is told apart; credentials among it are found in no store."""
        settings, headers = self._settings, request.headers
        digest = hashlib.blake2b(digest_size=16)
        for name in settings.headers:
            values = headers.get_all(name)
            digest.update(b"%d;" % len(values))
            for value in values:
                digest.update(b"%d:%b" % (len(value), value))
        for part in settings.parts:
            value = part(request).encode("utf-8", "surrogatepass")
            digest.update(b"%d:%b" % (len(value), value))
        if settings.users:
            user = known_user(request)
            if user is not None:
                whose = b"u" + identity_of(user)
            else:
                whose = b"a" + (headers.get(b"authorization") or b"")
            digest.update(whose)
        return digest.hexdigest()


def scheme_of(request: Request) -> str:
    """Return the scheme that a request came by."""
    return "http" if request.client is None else request.client.scheme


def digest_of(text: str) -> bytes:
    """Return the key of a place in the store: URLs, which may have secrets in them, are found in none."""
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=20).digest()


def _port_of(host: str, asked: bytes | None, scheme: str) -> str:
    """Return the host with its port, where a service is told of another than that the request is for `host`."""
    text = host if asked is None else asked.decode("latin-1").lower()
    return "" if text in (host, host + _DEFAULT_PORTS.get(scheme, "")) else text


class Vetting:
    """Finds requests that some services would take for other ones than they seem to be, and the plainest of all."""

    __slots__ = ("_keyed", "_plain", "_vetted")

    def __init__(self, keyed: tuple[bytes, ...]) -> None:
        """`keyed` are fields that are part of the key, and so mislead nobody."""
        self._keyed = frozenset(spelled(name) for name in keyed)
        self._vetted: set[bytes] = set()
        self._plain: set[bytes] = set()

    def plain(self, headers: Headers) -> bool:
        """Whether all fields are known neither to mislead nor to say what the client has, or would have from a cache;
        where they are not known, it is False too, until `passes` was asked."""
        block = headers.block
        if block is not None and block.mark is self._keyed:
            return True
        if not self._plain.issuperset(headers.index):
            return False
        if block is not None:
            block.mark = self._keyed
        return True

    def passes(self, headers: Headers) -> bool:
        """Whether no field of a request misleads."""
        return self._vetted.issuperset(headers.index) or self._vet(headers)

    def _vet(self, headers: Headers) -> bool:
        for name in headers.index:
            plain = spelled(name)
            if plain in _MISLEADING and plain not in self._keyed:
                return False
        if len(self._vetted) + len(headers.index) > _VETTED:
            self._vetted.clear()
            self._plain.clear()
        names = {name for name in headers.index if len(name) <= _LONGEST_NAME}
        self._vetted |= names
        self._plain |= names - SPECIAL
        return True
