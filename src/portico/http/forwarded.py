"""Who sent a request, through which proxies, and how a service is told.

Only what a trusted proxy says of its client is believed (as nginx's `set_real_ip_from`, and Traefik's
`trustedIPs`, have it); what anyone else claims is replaced. The chain of addresses is walked from its right end, since
only there a trusted hand has written; the client is the first address that is not a trusted proxy's.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from portico.http.headers import Headers

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_HOPS: Final = 32
"""Proxies between the client and the gateway that are looked at."""

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_HOST: Final = re.compile(rb"[A-Za-z0-9._-]{1,253}(?::(\d{1,5}))?|\[[0-9A-Fa-f:.]{2,45}\](?::(\d{1,5}))?")
_ELEMENT: Final = re.compile(
    rb"\s*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)="
    rb'("(?:[^"\\]|\\.)*"|[!#$%&\'*+\-.^_`|~0-9A-Za-z]+)\s*(;|,|$)'
)
_FORWARDED: Final = b"forwarded"
_FOR: Final = b"x-forwarded-for"
_PROTO: Final = b"x-forwarded-proto"
_SAID: Final = (_FOR, _PROTO, b"x-forwarded-host", b"x-forwarded-port", _FORWARDED)


class Style:
    """How services are told of clients: by X-Forwarded-*, by Forwarded (RFC 7239), or both; `via` is the name that
    Via has for the gateway (RFC 9110 section 7.6.3), or empty."""

    __slots__ = ("forwarded", "via", "x_forwarded")

    def __init__(self, x_forwarded: bool, forwarded: bool, via: str) -> None:
        self.x_forwarded = x_forwarded
        self.forwarded = forwarded
        self.via = via

    def same_as(self, other: Style) -> bool:
        """Return whether `other` tells services the same."""
        mine, others = (self.x_forwarded, self.forwarded, self.via), (other.x_forwarded, other.forwarded, other.via)
        return mine == others


PLAIN: Final = Style(True, False, "portico")


class Encryption:
    """What TLS says of a client: version, cipher suite, and the name that it asked for (SNI), if any.

    `certificate` is its certificate in DER, and `subject` what is in it as `ssl.SSLSocket.getpeercert` has it; both are
    None where it has shown none. A certificate that is there has been verified against the listener's `client_ca`.
    """

    __slots__ = ("certificate", "cipher", "server_name", "subject", "version")

    def __init__(
        self,
        version: str,
        cipher: str,
        server_name: str,
        certificate: bytes | None = None,
        subject: Mapping[str, Any] | None = None,
    ) -> None:
        self.version = version
        self.cipher = cipher
        self.server_name = server_name
        self.certificate = certificate
        self.subject = subject


class Client:
    """Who sent a request, and through which door: one object for each connection, or for each client behind a proxy.

    `address` is an IP address without brackets; for a Unix socket it is empty and `port` is 0. `scheme` is "http" or
    "https". `peer` is the address that the connection came from: the client's own, or that of a proxy, or "unknown".
    `encryption` is None unless the client itself speaks TLS with the gateway.
    """

    __slots__ = (
        "_chain",
        "_for_host",
        "_host",
        "_style",
        "_told",
        "address",
        "encryption",
        "local_port",
        "minor",
        "peer",
        "port",
        "scheme",
    )

    def __init__(
        self,
        address: str,
        port: int,
        local_port: int,
        scheme: str,
        style: Style = PLAIN,
        minor: int = 1,
        peer: str = "",
        chain: Sequence[str] = (),
        host: bytes = b"",
    ) -> None:
        """`chain` are the addresses from the client to the last proxy, `host` what the first proxy was asked for."""
        self.address = address
        self.port = port
        self.local_port = local_port
        self.scheme = scheme
        self.peer = peer or address
        self.encryption: Encryption | None = None
        self._style = style
        self.minor = minor
        self._chain = tuple(chain) or (address,)
        self._host = host
        self._for_host: bytes | None = None
        self._told = self._tell(None)

    def forwarded(self, host: bytes | None) -> list[bytes]:
        """Return the header lines that tell a service of this client, and of the `host` that it asked for."""
        if host != self._for_host:
            self._for_host = host
            self._told = self._tell(host)
        return self._told

    def asked(self, host: bytes | None) -> bytes | None:
        """Return the host, with its port, that the client asked for: `host`, unless a trusted proxy knows better."""
        return self._host or host

    def came_by(self, minor: int) -> None:
        """Have services told that the next request came by HTTP/1.`minor`."""
        self.minor = minor
        self._told = self._tell(self._for_host)

    def _tell(self, host: bytes | None) -> list[bytes]:
        asked = self.asked(host)
        lines: list[bytes] = []
        if self._style.x_forwarded:
            chain = ", ".join(self._chain)
            lines.append(
                f"X-Forwarded-For: {chain}\r\nX-Forwarded-Proto: {self.scheme}\r\n"
                f"X-Forwarded-Port: {self.local_port}".encode("ascii")
            )
            if asked is not None:
                lines.append(b"X-Forwarded-Host: " + asked)
        if self._style.forwarded:
            elements = [f"for={_node(address)}".encode("ascii") for address in self._chain]
            elements[0] += f";proto={self.scheme}".encode("ascii")
            if asked is not None and _HOST.fullmatch(asked) is not None:
                elements[0] += b';host="' + asked + b'"'
            lines.append(b"Forwarded: " + b", ".join(elements))
        if self._style.via:
            lines.append(f"Via: 1.{self.minor} {self._style.via}".encode("ascii"))
        return lines


class Trust:
    """The proxies that are believed, and how to tell services of clients."""

    __slots__ = ("networks", "style")

    def __init__(self, networks: Sequence[Network] = (), style: Style = PLAIN) -> None:
        self.networks = tuple(networks)
        self.style = style

    def same_as(self, other: Trust) -> bool:
        """Return whether `other` believes the same proxies, and tells services the same."""
        return self.networks == other.networks and self.style.same_as(other.style)

    def includes(self, address: str) -> bool:
        """Return whether `address` is a trusted proxy's."""
        if not self.networks:
            return False
        known = _address(address)
        return known is not None and any(known in network for network in self.networks)

    def said(self, headers: Headers) -> tuple[bytes, ...]:
        """Return what a proxy says in `headers`, by which the client behind it is known again."""
        return tuple([b", ".join(headers.get_all(name)) for name in _SAID])

    def client_behind(self, proxy: Client, said: tuple[bytes, ...]) -> Client:
        """Return the client for whom `proxy`, which is trusted, has sent a request that said so."""
        if self.style.x_forwarded:
            hops, protos, hosts, ports = _split(said[0]), _split(said[1]), _split(said[2]), _split(said[3])
        else:
            hops, protos, hosts = _read_forwarded(said[4])
            ports = []
        chain = [proxy.peer]
        port = 0
        at = len(hops)
        while at > 0 and self.includes(chain[0]) and len(chain) < MAX_HOPS:
            node = _parse_node(hops[at - 1])
            if node is None:
                break
            at -= 1
            chain.insert(0, node[0])
            port = node[1]
        count = len(hops)
        proto, asked, told_port = _said_at(protos, at, count), _said_at(hosts, at, count), _said_at(ports, at, count)
        known = proto.lower() in (b"http", b"https")
        scheme = proto.lower().decode("ascii") if known else proxy.scheme
        match = _HOST.fullmatch(asked)
        digits = b"" if match is None else match[1] or match[2] or b""
        if match is None or (digits and not _port(digits)):
            asked, digits = b"", b""
        local_port = _port(told_port)
        if not local_port:
            local_port = (_port(digits) or _DEFAULT_PORTS[scheme]) if known else proxy.local_port
        if len(chain) > 1:
            return Client(chain[0], port, local_port, scheme, self.style, 1, proxy.peer, chain, asked)
        return Client(proxy.address, proxy.port, local_port, scheme, self.style, 1, proxy.peer, chain, asked)


def _split(value: bytes) -> list[bytes]:
    return [part.strip() for part in value.split(b",")] if value else []


def _said_at(values: list[bytes], at: int, count: int) -> bytes:
    """Return what the proxy next to the client said: at its own place where each proxy added to the list, or last."""
    if len(values) == count and at < count:
        return values[at]
    return values[-1] if values else b""


def _node(address: str) -> str:
    """Return an address as RFC 7239 section 6 writes it."""
    return f'"[{address}]"' if ":" in address else address or "unknown"


def _parse_node(text: bytes) -> tuple[str, int] | None:
    """Return address and port (or 0) of `192.0.2.7`, `192.0.2.7:80`, `2001:db8::1` or `[2001:db8::1]:80`."""
    host, port = text.decode("latin-1"), ""
    if host.startswith("["):
        host, _, port = host[1:].partition("]")
        port = port.removeprefix(":")
    elif host.count(":") == 1:
        host, _, port = host.partition(":")
    address = _address(host)
    return None if address is None else (str(address).partition("%")[0], _port(port.encode("latin-1")))


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return an IP address, an IPv4 address mapped into IPv6 as the former; None where `text` is none."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _port(digits: bytes) -> int:
    """Return the number of a TCP port; 0 where it is none."""
    number = int(digits) if digits.isdigit() and len(digits) <= 5 else 0
    return number if number < 65536 else 0


def _read_forwarded(value: bytes) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """Return the nodes, the schemes and the hosts of a Forwarded field, one of each for each element (RFC 7239).

    Where something is not well formed, it and all to its left is not believed.
    """
    elements: list[dict[bytes, bytes]] = [{}]
    at = 0
    while at < len(value):
        match = _ELEMENT.match(value, at)
        if match is None:
            comma = value.find(b",", at)
            if comma < 0:
                return [], [], []
            elements = [{}]
            at = comma + 1
            continue
        name, text = match[1].lower(), match[2]
        if text.startswith(b'"'):
            text = re.sub(rb"\\(.)", rb"\1", text[1:-1])
        elements[-1].setdefault(name, text)
        if match[3] == b",":
            elements.append({})
        at = match.end()
    return (
        [element.get(b"for", b"") for element in elements],
        [element.get(b"proto", b"") for element in elements],
        [element.get(b"host", b"") for element in elements],
    )
