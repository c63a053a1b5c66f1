"""Where to listen, where services are, and who is who: addresses, URLs and networks as values of a configuration."""

from __future__ import annotations

import ipaddress
import re
from contextlib import suppress
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema

from portico.config.values import BadValue, text_of

_HOST = r"(?!-)[A-Za-z0-9._-]{1,253}"
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_SERVER_NAME = rf"(?=.{{1,253}}$)(?:{_LABEL}\.)*(?!\d+$){_LABEL}"  # the last label of a name is never a number


DEFAULT_PORTS: Final = {"http": 80, "https": 443}
"""The ports of a URL that names none."""


class Address(NamedTuple):
    """Where to listen or to connect; an empty host is every interface."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect to it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Url(NamedTuple):
    """Where a service is: its address, whether to speak TLS there, and the path that all requests go below."""

    scheme: Literal["http", "https"]
    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        return f"{self.scheme}://{Address(self.host, self.port)}{self.path}"


Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_LISTEN_HINT = "write 127.0.0.1:8000, [::1]:8000, or :8000 for every interface"
_TARGET_HINT = "write orders:8080, 10.0.0.7:8080 or https://orders:8443"
_URL_HINT = "write http://orders:8080 or https://orders.example.com/api"


def parse_listen_address(value: object) -> Address:
    """Return what `127.0.0.1:8000`, `[::1]:8000` or `:8000` stand for; port 0 is any free port."""
    if isinstance(value, Address):
        return value
    text = text_of(value)
    address = split_address(text)
    if address is None or address.port > 65535:
        raise BadValue(f"{text!r} is not an address to listen on", _LISTEN_HINT)
    return address


def parse_target_address(value: object) -> Url:
    """Return what `orders:8080` or `https://orders:8443` stand for."""
    if isinstance(value, Url):
        return value
    text = text_of(value)
    if "://" in text:
        url = parse_url(text)
        if url.path:
            raise BadValue(
                f"{text!r} has a path, which a target cannot have", "give the service a url instead of targets"
            )
        return url
    address = split_address(text)
    if address is None or not address.host or not 0 < address.port < 65536:
        raise BadValue(f"{text!r} is not an address of a target", _TARGET_HINT)
    return Url("http", *address)


def parse_url(value: object) -> Url:
    """Return the parts of `http(s)://host[:port][/path]`."""
    if isinstance(value, Url):
        return value
    text = text_of(value)
    if re.fullmatch(r"[!-~]+", text) is None:  # urlsplit would drop line breaks
        raise BadValue(f"{text!r} is not a URL", _URL_HINT)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise BadValue(f"{text!r} is not a URL", _URL_HINT) from None
    if parts.scheme not in DEFAULT_PORTS or "://" not in text:
        hint = f"write http://{text}" if split_address(text) is not None else _URL_HINT
        raise BadValue(f"{text!r} is not a URL of http or https", hint)
    if "@" in parts.netloc:
        raise BadValue("a service's URL cannot have a user or a password", "set an Authorization header with a policy")
    if "?" in text or "#" in text:
        raise BadValue(f"{text!r} has a query or a fragment, which the URL of a service cannot have", _URL_HINT)
    host = parts.hostname or ""
    if not _is_host(host) or port == 0:
        raise BadValue(f"{text!r} is not a URL", _URL_HINT)
    scheme: Literal["http", "https"] = "https" if parts.scheme == "https" else "http"
    return Url(scheme, host, DEFAULT_PORTS[scheme] if port is None else port, parts.path.rstrip("/"))


def _check_origin(value: str) -> str:
    """Return the scheme, host and port of a URL that has nothing else, as browsers write them."""
    url = parse_url(value)
    if url.path:
        raise BadValue(f"{value!r} has a path", "write only scheme, host and port")
    host = f"[{url.host}]" if ":" in url.host else url.host
    return f"{url.scheme}://{host}" + ("" if url.port == DEFAULT_PORTS[url.scheme] else f":{url.port}")


def parse_network(value: object) -> Network:
    """Return the addresses that `10.0.0.0/8`, `fd00::/8` or a single address stand for."""
    if isinstance(value, Network):
        return value
    text = text_of(value)
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        hint = "write 10.0.0.0/8, fd00::/8 or 192.0.2.7"
    with suppress(ValueError):
        hint = f"write {ipaddress.ip_network(text, strict=False)}"
    raise BadValue(f"{text!r} is not a network", hint)


def _check_server_name(value: str) -> str:
    name = value.lower()
    if re.fullmatch(_SERVER_NAME, name) is None:
        raise BadValue(f"{value!r} is not the name of a server", "write orders.internal, without scheme, port or path")
    return name


def _check_srv_name(value: str) -> str:
    name = value.lower().rstrip(".")
    if len(name) > 253 or re.fullmatch(rf"_{_LABEL}\._(?:tcp|udp)(?:\.{_LABEL})+", name) is None:
        raise BadValue(f"{value!r} is no name of SRV records", "write _http._tcp.orders.internal")
    return name


def split_address(text: str) -> Address | None:
    """Return host and port of `host:port`, `[v6]:port` or `:port`."""
    host, colon, port = text.rpartition(":")
    if not colon or re.fullmatch(r"\d{1,5}", port, re.ASCII) is None:
        return None
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        return Address(host, int(port)) if ":" in host and _is_host(host) else None
    return Address(host, int(port)) if not host or (":" not in host and _is_host(host)) else None


def _is_host(host: str) -> bool:
    if ":" in host:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            return False
        return True
    return re.fullmatch(_HOST, host) is not None


def is_host_name(name: str) -> bool:
    """Whether `name` can be the name of a host."""
    return ":" not in name and _is_host(name)


def is_of_this_machine(url: str) -> bool:
    """Return whether a URL leads to this machine by a loopback address or its name (RFC 6761 section 6.3)."""
    host = parse_url(url.partition("?")[0]).host
    return host == "localhost" or host.endswith(".localhost") or Address(host, 0).is_loopback


def _as_text(schema: dict[str, Any], examples: list[str]) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", **schema, "examples": examples})


ListenAddress = Annotated[
    Address,
    PlainValidator(parse_listen_address),
    PlainSerializer(str),
    _as_text({}, ["127.0.0.1:8000", ":8000", "[::1]:8000"]),
]
"""Where to listen."""

TargetAddress = Annotated[
    Url,
    PlainValidator(parse_target_address),
    PlainSerializer(str),
    _as_text({}, ["orders:8080", "https://orders:8443"]),
]
"""Where a target is."""

HttpUrl = Annotated[
    Url,
    PlainValidator(parse_url),
    PlainSerializer(str),
    _as_text({"pattern": "^https?://"}, ["http://orders:8080/api"]),
]
"""Where a service is."""

Origin = Annotated[str, AfterValidator(_check_origin), Field(examples=["https://shop.example"])]
"""Where browsers reach the gateway: scheme, host, and a port where it is not the usual one (RFC 6454)."""

LOCAL_NETWORKS: Final[tuple[Network, ...]] = tuple(
    ipaddress.ip_network(network)
    for network in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7", "fe80::/10")
)
"""Loopback, private (RFC 1918, RFC 4193) and link-local (RFC 4291) addresses."""

Cidr = Annotated[Network, PlainValidator(parse_network), PlainSerializer(str), _as_text({}, ["10.0.0.0/8", "fd00::/8"])]
"""A range of addresses."""

EVERYONE: Final[tuple[Network, ...]] = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
"""Every address there is."""

SrvName = Annotated[str, AfterValidator(_check_srv_name), Field(examples=["_http._tcp.orders.internal"])]
"""The name of SRV records (RFC 2782), in lower case."""

ServerName = Annotated[str, AfterValidator(_check_server_name), Field(examples=["orders.internal"])]
"""The name of a server, in lower case, as in its certificate."""


def is_everyone(network: Network) -> bool:
    """Whether a network has every address of its kind."""
    return network.prefixlen == 0
