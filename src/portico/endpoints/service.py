"""Send the request to a service.

```yaml
services:
  orders: {url: "http://127.0.0.1:9002"}
routes:
  - {path: /api/v1/orders/**, service: orders}
  - {path: /shop/orders/**, service: orders, strip_prefix: /shop/orders}
  - {path: /payments/**, service: orders, rewrite: /v1/payments/**}
  - {path: "/u/{id}/cart", service: orders, rewrite: "/carts/{{ captures.id }}", timeout: 2s}
```

The service is sent the method, the normalised path, the query and the headers as they came, but for those that belong
to one connection (RFC 9110 section 7.6.1); `Host` is the target's own, and what `forwarded` chooses (`X-Forwarded-For`,
`-Proto`, `-Host` and `-Port` unless told otherwise) tells of the client. Request and response bodies stream. A client
may change to one of the service's `upgrades`, such as a WebSocket, on its connection.

Where the path loses a `strip_prefix`, or a `rewrite` that ends in `/**` changes what it begins with, the service knows
nothing of the paths that clients use. So its answers are changed back: `Location`, `Content-Location`, `Refresh`, and
the `Path` of each `Set-Cookie`. A redirect of `orders` above to `/7` leads the client to `/shop/orders/7`; one to
`http://127.0.0.1:9002/7`, the target's own address, to the same path at the scheme and host that the client used.
What leads elsewhere stays as it is, and so does a cookie whose name begins with `__Host-`, which has to have the path
`/`. A cookie for `/` becomes one for the prefix, so that no other service gets it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from itertools import takewhile
from operator import eq
from typing import Final, Literal, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from portico.plugin import (
    ConfigError,
    Duration,
    Endpoint,
    Env,
    Handler,
    PolicyConfig,
    Request,
    RequestError,
    Response,
    RouteInfo,
    ServiceName,
    Template,
)


class Service(PolicyConfig):
    """Where the request goes and what changes on the way."""

    service: ServiceName
    """The name of a service of the file, or the address of one that is not worth a name (`host:port`)."""
    strip_prefix: str | None = None
    """A prefix of the path, in whole segments, that the service does not see."""
    rewrite: str | None = None
    """The path that the service sees instead. A trailing `/**` stands for what the route's trailing `/**` or `/*`
    matched, `{{ captures.NAME }}` for a capture."""
    preserve_host: bool = False
    """Send the `Host` that the client asked for, not the target's own."""
    timeout: Duration | None = None
    """Seconds for the whole exchange with the service, tries included; the service's own `timeout.total` where left
    out."""
    rewrite_redirects: Literal["on", "off"] = "on"
    """Change paths in answers back to what clients use, where `strip_prefix` or `rewrite` has changed that of the
    request: redirects, and the paths of cookies."""


class ServiceEndpoint(Endpoint[Service], name="service"):
    """Sends the request to a service."""

    def setup(self, env: Env) -> None:
        """Look the service up and compile the rewriting of the path, there and back."""
        config = self.config
        self._service = env.service(config.service)
        self._clock = env.clock
        rewriting = _path_rewriter(config, env.route)
        self._path = None if rewriting is None else rewriting.path
        self._way_back: WayBack | None = None
        if rewriting is not None and rewriting.mount is not None and config.rewrite_redirects == "on":
            self._way_back = WayBack(config.service, env.urls, rewriting.mount)

    def handler(self) -> Handler:
        """Return the service's own Handler where nothing changes on the way."""
        config = self.config
        if self._way_back is not None:
            return self.handle
        plain = self._path is None and not config.preserve_host and config.timeout is None
        return self._service if plain else self._send

    async def handle(self, request: Request) -> Response:
        """Send the request on, and change the paths in the answer back."""
        outbound = self._outbound(request)
        response = await self._service(outbound)
        if self._way_back is not None and not _WITH_PATHS.isdisjoint(response.headers.index):
            self._way_back.take(request, outbound.authority, response)
        return response

    def _send(self, request: Request) -> Awaitable[Response]:
        return self._service(self._outbound(request))

    def _outbound(self, request: Request) -> Request:
        outbound = request.derive(self._path(request) if self._path is not None else request.path)
        if self.config.preserve_host:
            outbound.authority = request.headers.get(b"host")
        if self.config.timeout is not None:
            deadline = self._clock() + self.config.timeout
            outbound.deadline = deadline if request.deadline is None else min(deadline, request.deadline)
        return outbound

    def describe(self) -> str:
        """Return one line for `portico explain`."""
        return f"service {self.config.service}"


class Mount(NamedTuple):
    """What the path of a request begins with at the service, and here; either may be empty."""

    there: str
    here: str


class _Rewriting(NamedTuple):
    """How the path of a request changes."""

    path: Callable[[Request], str]
    """The path that the service sees."""
    mount: Callable[[Request], Mount | None] | None = None
    """What was changed at its beginning, where that is all that changes; None for a request of which nothing was."""


_WITH_PATHS: Final = frozenset((b"location", b"content-location", b"refresh", b"set-cookie"))
_REFERENCES: Final = (b"Location", b"Content-Location")

_SOUND: Final = re.compile(rb"[^\x00-\x20\x7f\\]+")
_REFERENCE: Final = re.compile(rb"(?:([A-Za-z][A-Za-z0-9+.-]*):)?(?://([^/?#]*))?([^?#]*)(.*)")
_REFRESH: Final = re.compile(
    rb"""(\s*[0-9]+(?:\.[0-9]*)?\s*[;,]\s*(?:url\s*=\s*)?(['"]?))(.*?)(\2\s*)""", re.IGNORECASE
)
_DOTS: Final = re.compile(rb"/(?:\.|%2e){1,2}(?:/|\Z)", re.IGNORECASE)
_DEFAULT_PORTS: Final = {b"http": b":80", b"https": b":443"}


class WayBack:
    """Changes the paths in a service's answers to those that clients use (as nginx's `proxy_redirect` and
    `proxy_cookie_path` do)."""

    __slots__ = ("_mount", "_places", "_service", "_urls")

    def __init__(
        self, service: str, urls: Callable[[str], tuple[str, ...]], mount: Callable[[Request], Mount | None]
    ) -> None:
        """`urls` tells where a service is at the moment; requests go below their path."""
        self._service = service
        self._urls = urls
        self._mount = mount
        self._places: dict[str, _Place] = {}

    def take(self, request: Request, sent_host: bytes | None, response: Response) -> None:
        """Change the answer to `request`; `sent_host` is the Host that the service was sent, if not its own."""
        mount = self._mount(request)
        if mount is None:
            return
        place = self._place(request)
        way = _Way(request, mount, place.base, place.own, sent_host)
        headers = response.headers
        for name in _REFERENCES:
            values = headers.get_all(name.lower())
            if len(values) == 1 and (changed := way.reference(values[0])) != values[0]:
                headers.set(name, changed)
        refresh = headers.get(b"refresh")
        if refresh is not None and (match := _REFRESH.fullmatch(refresh)) is not None:
            headers.set(b"Refresh", match[1] + way.reference(match[3]) + match[4])
        cookies = headers.get_all(b"set-cookie")
        changed_cookies = [way.cookie(cookie) for cookie in cookies]
        if changed_cookies != cookies:
            headers.remove(b"set-cookie")
            for cookie in changed_cookies:
                headers.add(b"Set-Cookie", cookie)

    def _place(self, request: Request) -> _Place:
        """Return where the service is that has answered: a part of a split, or a fallback, is one of its own."""
        exchange = request.exchange
        name = self._service if exchange is None else exchange.service or self._service
        urls = self._urls(self._service), self._urls(name)
        place = self._places.get(name)
        if place is None or place.urls[0] is not urls[0] or place.urls[1] is not urls[1]:
            base = urlsplit(urls[1][0]).path if urls[1] else ""
            parts = [urlsplit(url) for each in urls for url in each]
            own = frozenset(_authority(part.scheme.encode(), part.netloc.encode("ascii")) for part in parts)
            place = self._places[name] = _Place(urls, base, own)
        return place


class _Place(NamedTuple):
    """Where a service is."""

    urls: tuple[tuple[str, ...], tuple[str, ...]]
    """What it was made of: the URLs of the service that was asked, and of the one that has answered."""
    base: str
    """The path that requests go below."""
    own: frozenset[bytes]
    """All authorities of both."""


class _Way:
    """The way back for one answer."""

    __slots__ = ("_at_mount", "_here", "_host", "_own", "_scheme", "_sent", "_there")

    def __init__(
        self, request: Request, mount: Mount, base: str, own: frozenset[bytes], sent_host: bytes | None
    ) -> None:
        host, client = request.headers.get(b"host"), request.client
        self._there = (base + mount.there).encode("ascii")
        self._here = mount.here.encode("ascii")
        # The service has seen a slash more than the client, from which what is relative goes another way.
        self._at_mount = not mount.there and request.path == mount.here
        self._scheme = b"http" if client is None else client.scheme.encode("ascii")
        self._host = (host if client is None else client.asked(host)) or b""
        self._own = own
        self._sent = b"" if sent_host is None else _authority(self._scheme, sent_host)

    def reference(self, value: bytes) -> bytes:
        """Return a URI reference (RFC 3986 section 4.1) as the client has to see it."""
        match = _REFERENCE.fullmatch(value) if _SOUND.fullmatch(value) is not None else None
        if match is None:
            return value
        scheme, authority, path, rest = match.groups()
        if authority is None:
            return value if scheme is not None or not path else self._path(path) + rest
        scheme_name = self._scheme if scheme is None else scheme.lower()
        named = _authority(scheme_name, authority)
        if scheme_name not in _DEFAULT_PORTS or (named not in self._own and named != self._sent) or not named:
            return value
        moved = self.moved(path or b"/")
        if moved is None:
            return value
        at = self._host and (b"//" if scheme is None else self._scheme + b"://") + self._host
        return at + moved + rest

    def _path(self, path: bytes) -> bytes:
        """Return the path, which is not empty, of a reference without an authority."""
        if path.startswith(b"/"):
            moved = self.moved(path)
            return path if moved is None else moved
        return self._here + b"/" + path if self._at_mount and not path.startswith(b".") else path

    def moved(self, path: bytes) -> bytes | None:
        """Return where a path of the service is for the client; None where it is out of reach, or nobody can tell."""
        there = self._there
        if _DOTS.search(path) is not None or not (path == there or path.startswith(there + b"/")):
            return None
        moved = self._here + path[len(there) :] or b"/"
        return None if moved.startswith(b"//") else moved  # that would be another host

    def cookie(self, value: bytes) -> bytes:
        """Return a Set-Cookie value whose Path is the client's (RFC 6265 section 4.1)."""
        pair, *attributes = value.split(b";")
        if pair.lstrip().lower().startswith(b"__host-"):
            return value
        return b";".join([pair, *map(self._attribute, attributes)])

    def _attribute(self, attribute: bytes) -> bytes:
        name, equals, value = attribute.partition(b"=")
        path = value.strip()
        if name.strip().lower() != b"path" or not path.startswith(b"/") or _SOUND.fullmatch(path) is None:
            return attribute
        moved = self.moved(path)
        if moved is None:
            return attribute
        if path == b"/" and self._here:
            moved = self._here  # with a slash at its end it would not be sent for the prefix itself
        return name + equals + value.replace(path, moved, 1)


def _authority(scheme: bytes, authority: bytes) -> bytes:
    """Return an authority in lower case, without the port that its scheme implies."""
    return authority.lower().removesuffix(_DEFAULT_PORTS.get(scheme, b""))


def _path_rewriter(config: Service, route: RouteInfo) -> _Rewriting | None:
    """Compile `strip_prefix` or `rewrite`; None where there is neither."""
    if config.rewrite is not None:
        if config.strip_prefix is not None:
            raise ConfigError("strip_prefix and rewrite exclude each other; write the whole change as rewrite")
        return _rewriter(config.rewrite, route)
    if config.strip_prefix is None:
        return None
    if not config.strip_prefix.startswith("/"):
        raise ConfigError(f"strip_prefix must begin with a slash: {config.strip_prefix!r}")
    prefix = quote(config.strip_prefix.rstrip("/"), safe="/%!$&'()*+,;=:@")  # as a request's path has it
    if not prefix:
        raise ConfigError("strip_prefix of a slash alone takes nothing away; leave it out")
    beginnings = [_beginning(path) for path in route.paths]
    if not any(_lie_on_one_line(_segments(prefix), beginning) for beginning in beginnings):
        begin = " or ".join(dict.fromkeys(f"/{'/'.join(beginning)}" for beginning in beginnings))
        raise ConfigError(f"no path of the route begins with strip_prefix {prefix}; they begin with {begin}")
    mount = Mount("", prefix)
    below = f"{prefix}/"
    return _Rewriting(
        lambda request: strip(request.path, prefix),
        lambda request: mount if request.path == prefix or request.path.startswith(below) else None,
    )


def strip(path: str, prefix: str) -> str:
    """Return `path` without `prefix`, where that ends at a segment's end; otherwise `path` as it is."""
    if path == prefix:
        return "/"
    if path.startswith(prefix) and path[len(prefix)] == "/":
        return path[len(prefix) :]
    return path


def _segments(path: str) -> list[str]:
    return [unquote(segment) for segment in path.split("/")[1:]]


def _beginning(path: str) -> list[str]:
    """Return the segments of a path pattern up to the first that is not literal; a regular expression has none."""
    return list(takewhile(lambda segment: not set(segment) & set("*{"), _segments(path)))


def _lie_on_one_line(one: list[str], other: list[str]) -> bool:
    """Return whether one of two paths begins with the other."""
    return all(map(eq, one, other))


def _rewriter(rewrite: str, route: RouteInfo) -> _Rewriting:
    if not rewrite.startswith("/"):
        raise ConfigError(f"rewrite must begin with a slash: {rewrite!r}")
    with_rest = rewrite.endswith("/**")
    try:
        template = Template(
            rewrite[:-3] if with_rest else rewrite,
            lambda value: quote(value, safe="!$&'()*+,;=:@"),
            in_url=True,
            literal=lambda text: quote(text, safe="/%!$&'()*+,;=:@"),
        )
    except ValueError as error:
        raise ConfigError(f"rewrite: {error}") from None
    route.check_captures(template.captures)
    if not with_rest:
        return _Rewriting(lambda request: _without_dots(template.fill(request)))
    depths = {_depth_of_rest(path) for path in route.paths}
    if len(depths) != 1 or None in depths:
        raise ConfigError("rewrite ends with /** but not every path of the route ends with /** or /* at the same depth")
    depth = depths.pop()
    assert depth is not None

    def with_the_rest(request: Request) -> str:
        parts = request.path.split("/", depth + 1)
        rest = "/" + parts[depth + 1] if len(parts) > depth + 1 else ""
        return _without_dots(template.fill(request)) + rest or "/"

    def mount(request: Request) -> Mount:
        return Mount(_without_dots(template.fill(request)), "/".join(request.path.split("/")[: depth + 1]))

    return _Rewriting(with_the_rest, mount)


def _without_dots(path: str) -> str:
    """Return `path`, unless what the client sent has made dot segments in it: they would lead elsewhere."""
    if "/." in path and any(segment in (".", "..") for segment in path.split("/")):
        raise RequestError("The path that this request would come to has dot segments.")
    return path


def _depth_of_rest(path: str) -> int | None:
    """Return how many segments stand before a pattern's trailing wildcard, or None where it has none."""
    for ending in ("/**", "/*"):
        if path.endswith(ending) and not path.startswith("~"):
            return path.removesuffix(ending).count("/")
    return None
