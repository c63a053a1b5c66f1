"""Let pages of other origins use an API from a browser (CORS, as in the Fetch standard).

```yaml
policies:
  - cors: https://shop.example.com
routes:
  - path: /api/**
    methods: [GET, POST, PUT]
    service: api
    policies:
      - cors:
          origins: [https://shop.example.com, "https://*.example.org", "~https://pr-[0-9]+\\\\.preview\\\\.example\\\\.net"]
          headers: [Content-Type, Authorization, X-Request-Id]
          expose_headers: [ETag]
          credentials: true
          max_age: 2h
  - {path: /public/**, service: api, policies: [{cors: {origins: "*", headers: "*"}}]}
  - {path: /internal/**, service: api, policies: [cors: off]}
services:
  api: {url: "http://127.0.0.1:9002"}
```

A preflight is an OPTIONS request with `Origin` and `Access-Control-Request-Method`. It goes to the route of the request
that it asks about, and is answered there with 204, before anyone is asked who they are; the service does not see it,
and the route need not list OPTIONS. A header that a route asks for is taken to be there if the preflight announces it.

Every other answer, errors of the policies further in included, says whether the page may read it. What the service says
of this itself, in `Access-Control-*`, is replaced. Requests of programs that are not browsers pass as they are. An
answer to an origin that is not allowed says nothing, whereupon the browser keeps it from the page; but the service has
got the request, unless `refuse` is set. That a policy further out refuses, no page can read: have this one stand before
others of its stage, or in the stage `observe`.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from portico.plugin import (
    UNANSWERED_PREFLIGHT,
    BadValue,
    Duration,
    Env,
    HeaderBlock,
    HeaderName,
    Headers,
    Key,
    Method,
    OneOrMany,
    Policy,
    PolicyConfig,
    Request,
    Response,
    Stage,
)

Pair = tuple[bytes, bytes]

_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_ORIGIN: Final = re.compile(
    rf"([a-z][a-z0-9+.-]*)://(\*\.)?((?:{_LABEL}\.)*{_LABEL}\.?|\[[0-9a-f:.]+\])(?::([1-9]\d{{0,4}}))?", re.ASCII
)
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}
_HINT: Final = "write https://shop.example.com, https://*.example.com, '~' and a regular expression, null, or '*'"
_EXAMPLES: Final = ["https://shop.example.com", "https://*.example.com", "*"]
_STRANGER: Final = "https://stranger.invalid"
"""Nobody's origin (RFC 2606): a regular expression that takes it takes everyone."""


def check_origin(text: str) -> str:
    """Return what browsers may send as `Origin`, or a pattern of it; raise BadValue for what they never send."""
    if text in {"*", "null"}:
        return text
    if text.startswith("~"):
        try:
            re.compile(text[1:])
        except (re.error, OverflowError, RecursionError) as error:
            raise BadValue(f"{text[1:]!r} is not a regular expression: {error}", "'~' starts one") from None
        return text
    match = _ORIGIN.fullmatch(text)
    if match is None:
        raise BadValue(*_why_no_origin(text))
    scheme, wildcard, host, port = match.groups()
    if port is not None and port == _DEFAULT_PORTS.get(scheme):
        raise BadValue(f"{text!r} never comes: browsers leave out the usual port", f"write {text.rpartition(':')[0]}")
    if port is not None and int(port) > 65535:
        raise BadValue(f"{text!r} is not an origin: there is no port {port}", _HINT)
    if host.startswith("[") or host.rstrip(".").rpartition(".")[2].isdigit():
        _check_ip_address(text, host, bool(wildcard))
    return text


def _check_ip_address(text: str, host: str, wildcard: bool) -> None:
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        raise BadValue(f"{text!r} is not an origin: {host} is not an address", _HINT) from None
    if wildcard:
        raise BadValue(f"{text!r} is not an origin: an address has no subdomains", _HINT)
    written = f"[{address.compressed}]" if address.version == 6 else str(address)
    if written != host:
        raise BadValue(f"{text!r} never comes: browsers shorten addresses", f"write {text.replace(host, written)}")


def _why_no_origin(text: str) -> tuple[str, str]:
    """Return what is wrong with an origin, and how to mend it."""
    scheme, mark, rest = text.partition("://")
    if not mark:
        return f"{text!r} is not an origin: it has no scheme", f"write https://{text}" if text else _HINT
    if "@" in rest:
        return "an origin has no user and no password", _HINT
    host = re.split(r"[/?#]", rest)[0]
    if host != rest:
        return f"{text!r} is not an origin: it ends with the host or the port", f"write {scheme}://{host}"
    if text != text.lower():
        return f"{text!r} never comes: browsers write origins in lower case", f"write {text.lower()}"
    if not text.isascii():
        try:
            encoded = host.encode("idna").decode("ascii")
        except UnicodeError:
            return f"{text!r} is not an origin", _HINT
        return f"{text!r} never comes: browsers write such names in ASCII", f"write {scheme}://{encoded}"
    return f"{text!r} is not an origin", _HINT


def _check_method(method: str) -> str:
    if method in {"CONNECT", "TRACE", "TRACK"}:
        raise BadValue(f"no page can send {method}", "leave it out")
    return method


Origin = Annotated[
    str,
    AfterValidator(check_origin),
    BeforeValidator(lambda value: "null" if value is None else value),  # without quotes, null is YAML's own
    WithJsonSchema({"anyOf": [{"type": "string", "examples": _EXAMPLES}, {"type": "null"}]}),
]
"""An origin as browsers write it, or a pattern of it."""


class Cors(PolicyConfig):
    """Who may do what."""

    origins: Annotated[tuple[Origin, ...], Field(min_length=1), OneOrMany()]
    """The origins that may, such as `https://shop.example.com`.

    `https://*.example.com` is all below that domain, but not itself; `~` starts a regular expression that an origin
    must match as a whole; `null` is pages without an origin, such as local files and sandboxed frames; `*` is all."""
    methods: Annotated[tuple[Annotated[Method, AfterValidator(_check_method)], ...], OneOrMany()] = ()
    """The methods that may be used; `*` for all. Where none are given, those that the route takes, or for a route that
    takes any: GET, HEAD, POST, PUT, PATCH and DELETE. Browsers always let GET, HEAD and POST pass."""
    headers: Annotated[tuple[HeaderName, ...], OneOrMany()] = ("Content-Type", "Authorization")
    """The request headers that may be used, beside those that may always be; `*` for all but `Authorization`, which has
    to be named."""
    expose_headers: Annotated[tuple[HeaderName, ...], OneOrMany()] = ()
    """The response headers that pages may read, beside those that they always may; `*` for all."""
    credentials: bool = False
    """Whether cookies, client certificates and HTTP authentication may be used. Origins and exposed headers are then to
    be listed, as `*` means nothing to browsers; for methods and headers, what is asked for is repeated instead."""
    max_age: Duration = 600.0
    """How long browsers may remember the answer to a preflight; they have limits of their own, such as 2 hours."""
    private_network: bool = False
    """Whether pages of public sites may come in from the internet where the gateway is in a private network."""
    refuse: bool = False
    """Whether a request of an origin that is not allowed is answered 403, instead of being passed to the service. Pages
    of the gateway's own origin are always allowed."""

    @model_validator(mode="after")
    def _stars(self) -> Cors:
        for field in ("origins", "methods", "expose_headers"):
            values = getattr(self, field)
            if "*" in values and len(values) > 1:
                raise BadValue(f"'*' among the {field} stands for all of them", f"write {field}: '*'")
        if self.credentials:
            self._check_credentials()
        return self

    def _check_credentials(self) -> None:
        if "*" in self.origins:
            hint = "list the origins, as in https://*.example.com; or leave credentials out"
            raise BadValue("with credentials, no browser takes '*' for the origins", hint)
        if "*" in self.expose_headers:
            hint = "list the headers; or leave credentials out"
            raise BadValue("with credentials, no browser takes '*' for the exposed headers", hint)
        if "null" in self.origins:
            hint = "leave it out: any site can have the origin null, in a sandboxed frame; or leave credentials out"
            raise BadValue("with credentials, null would give every site what the user may see", hint)
        for origin in self.origins:
            if origin.startswith("~") and re.fullmatch(origin[1:], _STRANGER):
                hint = "have it name your domain; or leave credentials out"
                raise BadValue(f"with credentials, {origin} would give every site what the user may see", hint)


_ANY_METHOD: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_ALLOW_ORIGIN: Final = b"Access-Control-Allow-Origin"
_ALLOW_CREDENTIALS: Final = b"Access-Control-Allow-Credentials"
_ALLOW_METHODS: Final = b"Access-Control-Allow-Methods"
_ALLOW_HEADERS: Final = b"Access-Control-Allow-Headers"
_ALLOW_PRIVATE_NETWORK: Final = b"Access-Control-Allow-Private-Network"
_MAX_AGE: Final = b"Access-Control-Max-Age"
_EXPOSE_HEADERS: Final = b"Access-Control-Expose-Headers"
_OURS: Final = frozenset(
    name.lower()
    for name in (
        *(_ALLOW_ORIGIN, _ALLOW_CREDENTIALS, _ALLOW_METHODS, _ALLOW_HEADERS),
        *(_ALLOW_PRIVATE_NETWORK, _MAX_AGE, _EXPOSE_HEADERS),
    )
)
_BY_ORIGIN: Final = HeaderBlock([(b"Vary", b"Origin")])
_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_REMEMBERED: Final = 1024
"""Origins of which it is kept whether a pattern takes them."""
_LONGEST: Final = 320
"""More bytes than an origin of a scheme, a name of DNS and a port has: no regular expression is tried on more."""


class CorsPolicy(Policy[Cors], name="cors", stages=(Stage.GUARD, Stage.OBSERVE)):
    """Answers preflights, and says on all other answers who may read them."""

    answers_preflights = True

    def setup(self, env: Env) -> None:
        """Prepare the headers of each origin."""
        config = self.config
        self._granted: Key[HeaderBlock] = Key("cors")
        """What the answer to this request will say."""
        credentials = [(_ALLOW_CREDENTIALS, b"true")] if config.credentials else []
        exposed = [(_EXPOSE_HEADERS, _listed(config.expose_headers))] if config.expose_headers else []
        self._fixed = [*credentials, *exposed]
        self._fixed_of_preflight = [*credentials, (_MAX_AGE, b"%d" % config.max_age)]
        self._every_method = "*" in config.methods
        if not (self._every_method and config.credentials):
            methods = _listed(config.methods or env.route.methods or _ANY_METHOD)
            self._fixed_of_preflight.append((_ALLOW_METHODS, methods))
        self._everyone = _block(b"*", self._fixed) if "*" in config.origins else None
        self._known = {
            origin.encode(): _block(origin.encode(), self._fixed)
            for origin in config.origins
            if not origin.startswith("~") and "*" not in origin
        }
        patterns = [_pattern(origin) for origin in config.origins if origin.startswith("~") or "://*." in origin]
        self._by_pattern: Callable[[bytes], HeaderBlock | None] | None = None
        if patterns:
            match = functools.partial(_match, patterns, self._fixed)  # without self: nothing here is a cycle
            self._by_pattern = functools.lru_cache(_REMEMBERED)(match)
        self._header_names = frozenset(name.lower().encode() for name in config.headers)
        self._star_headers: bytes | None = None
        if "*" in config.headers and not config.credentials:
            self._star_headers = b"*, Authorization" if b"authorization" in self._header_names else b"*"
        by_origin = [] if self._everyone is not None else [b"Origin"]
        asked = [b"Access-Control-Request-Method", b"Access-Control-Request-Headers"]
        asked += [b"Access-Control-Request-Private-Network"] if config.private_network else []
        self._vary_of_preflight = b", ".join([*by_origin, *asked])

    def request(self, request: Request) -> Response | None:
        """Answer a preflight, and refuse whom the file says to refuse."""
        headers = request.headers
        origin = headers.get(b"origin")
        if origin is None or request.get(UNANSWERED_PREFLIGHT):
            return None
        granted = self._grant(origin)
        preflight = request.method == "OPTIONS" and b"access-control-request-method" in headers
        if granted is None and self.config.refuse and not _is_own(origin, request):
            response = Response.problem(403, "origin-not-allowed", detail="Pages of this origin may not use this.")
            response.headers.set(b"Vary", self._vary_of_preflight if preflight else b"Origin")
            return response
        if preflight:
            return self._answer(headers, None if granted is None else granted.pairs[0][1])
        if granted is not None:
            request[self._granted] = granted  # a policy further in may take Origin away
        return None

    def response(self, request: Request, response: Response) -> Response:
        """Say who may read the answer."""
        if response.status == 101 or request.get(UNANSWERED_PREFLIGHT):
            return response
        headers = response.headers
        if not _OURS.isdisjoint(headers.index):
            for name in _OURS:
                headers.remove(name)
        if self._everyone is not None:  # on every answer: a cache may give it to anyone
            headers.set_block(self._everyone)
            return response
        granted = request.get(self._granted)
        if granted is not None:
            headers.set_block(granted)
        _vary_by_origin(headers)
        return response

    def _grant(self, origin: bytes) -> HeaderBlock | None:
        """Return what an answer to `origin` says; None where it is not allowed."""
        if self._everyone is not None:
            return self._everyone
        known = self._known.get(origin)
        if known is None and self._by_pattern is not None and len(origin) <= _LONGEST:
            return self._by_pattern(origin)
        return known

    def _answer(self, asked: Headers, origin: bytes | None) -> Response:
        """Answer a preflight with what its origin may do; `origin` is None where that is nothing.

        Where it may do something else than it asks for, the browser can tell the developer what is missing.
        """
        response = Response(204)
        headers = response.headers
        headers.set(b"Vary", self._vary_of_preflight)
        if origin is None:
            return response
        headers.set(_ALLOW_ORIGIN, origin)
        for name, value in self._fixed_of_preflight:
            headers.set(name, value)
        if self._every_method and self.config.credentials:
            method = asked.get(b"access-control-request-method") or b""
            if _TOKEN.fullmatch(method) is not None:
                headers.set(_ALLOW_METHODS, method)
        names = self._star_headers or self._allowed(asked.get_all(b"access-control-request-headers"))
        if names:
            headers.set(_ALLOW_HEADERS, names)
        if self.config.private_network and asked.get(b"access-control-request-private-network") == b"true":
            headers.set(_ALLOW_PRIVATE_NETWORK, b"true")
        return response

    def _allowed(self, lines: Iterable[bytes]) -> bytes:
        """Return which of the names in `lines` are allowed, as they are written there, each once."""
        known, star = self._header_names, b"*" in self._header_names
        allowed: dict[bytes, bytes] = {}
        for name in (piece.strip(b" \t") for line in lines for piece in line.split(b",")):
            key = name.lower()
            if (key in known and key != b"*") or (star and key != b"authorization" and _TOKEN.fullmatch(name)):
                allowed.setdefault(key, name)
        return b", ".join(allowed.values())


def _block(origin: bytes, fixed: Sequence[Pair]) -> HeaderBlock:
    return HeaderBlock([(_ALLOW_ORIGIN, origin), *fixed])


def _match(patterns: Iterable[re.Pattern[str]], fixed: Sequence[Pair], origin: bytes) -> HeaderBlock | None:
    text = origin.decode("latin-1")
    return _block(origin, fixed) if any(pattern.fullmatch(text) for pattern in patterns) else None


def _listed(names: Iterable[str]) -> bytes:
    return ", ".join(dict.fromkeys(names)).encode("ascii")


def _pattern(origin: str) -> re.Pattern[str]:
    if origin.startswith("~"):
        return re.compile(origin[1:])
    scheme, _, domain = origin.partition("://*.")
    return re.compile(rf"{re.escape(scheme)}://(?:{_LABEL}\.)+{re.escape(domain)}")


def _is_own(origin: bytes, request: Request) -> bool:
    """Whether a page of the gateway's own origin sends the request: browsers name that too, with methods like POST."""
    if request.headers.get(b"sec-fetch-site") == b"same-origin":
        return True
    client = request.client
    if client is None:
        return False
    scheme = client.scheme
    asked = client.asked(request.headers.get(b"host"))  # a proxy in front may have changed Host
    host = request.host if asked is None else asked.decode("latin-1").lower()
    return origin.decode("latin-1") == f"{scheme}://{host.removesuffix(f':{_DEFAULT_PORTS[scheme]}')}"


def _vary_by_origin(headers: Headers) -> None:
    """Have caches keep the answers to different origins apart, or to none."""
    if b"vary" not in headers:
        headers.set_block(_BY_ORIGIN)
        return
    lines = headers.get_all(b"vary")
    names = {name.strip(b" \t").lower() for line in lines for name in line.split(b",")}
    if not names & {b"origin", b"*"}:
        headers.set(b"Vary", b", ".join([*lines, b"Origin"]))
