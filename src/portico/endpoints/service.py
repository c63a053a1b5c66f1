"""Send the request to a service.

```yaml
services:
  orders: {url: "http://127.0.0.1:9002"}
routes:
  - {path: /api/v1/orders/**, service: orders}
  - {path: /shop/orders/**, service: orders, strip_prefix: /shop}
  - {path: /payments/**, service: orders, rewrite: /v1/payments/**}
  - {path: "/u/{id}/cart", service: orders, rewrite: "/carts/{{ captures.id }}", timeout: 2s}
```

The service is sent the method, the normalised path, the query and the headers as they came, but for those that belong
to one connection (RFC 9110 section 7.6.1); `Host` is the target's own, and what `forwarded` chooses (`X-Forwarded-For`,
`-Proto`, `-Host` and `-Port` unless told otherwise) tells of the client. Request and response bodies stream. A client
may change to one of the service's `upgrades`, such as a WebSocket, on its connection.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import takewhile
from operator import eq
from urllib.parse import quote, unquote

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


class ServiceEndpoint(Endpoint[Service], name="service"):
    """Sends the request to a service."""

    def setup(self, env: Env) -> None:
        """Look the service up and compile the rewriting of the path."""
        config = self.config
        self._service = env.service(config.service)
        self._clock = env.clock
        self._path = _path_rewriter(config, env.route)

    def handler(self) -> Handler:
        """Return the service's own Handler where nothing changes on the way."""
        config = self.config
        plain = self._path is None and not config.preserve_host and config.timeout is None
        return self._service if plain else self.handle

    def handle(self, request: Request) -> Awaitable[Response]:
        """Send the request on."""
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


def _path_rewriter(config: Service, route: RouteInfo) -> Callable[[Request], str] | None:
    """Compile `strip_prefix` or `rewrite` into a function from the request to the path that the service sees."""
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
    return lambda request: strip(request.path, prefix)


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


def _rewriter(rewrite: str, route: RouteInfo) -> Callable[[Request], str]:
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
        return lambda request: _without_dots(template.fill(request))
    depths = {_depth_of_rest(path) for path in route.paths}
    if len(depths) != 1 or None in depths:
        raise ConfigError("rewrite ends with /** but not every path of the route ends with /** or /* at the same depth")
    depth = depths.pop()
    assert depth is not None

    def with_the_rest(request: Request) -> str:
        parts = request.path.split("/", depth + 1)
        rest = "/" + parts[depth + 1] if len(parts) > depth + 1 else ""
        return _without_dots(template.fill(request)) + rest or "/"

    return with_the_rest


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
