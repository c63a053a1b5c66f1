"""The PROXY protocol: what a balancer says of a connection's client, ahead of everything the client says itself.

Version 1 is a line of text, version 2 is binary; the first byte tells them apart. Sections named here are those of
haproxy's proxy-protocol.txt (2020/03/05).

A header decides whose address everything later goes by. So it is read by the letter, and where the text leaves it to
the receiver, a connection whose client has no IP address and TCP port is refused rather than taken for the balancer's
own. (Section 2.2 lets a receiver fall back to UNSPEC for the families that it does not know, and reject UNSPEC.)
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from portico.errors import MalformedProxyHeader

MAX_LINE: Final = 107
"""Bytes of a version 1 header, its CRLF included (section 2.1)."""

MAX_TLVS: Final = 4096
"""Bytes of a version 2 header behind its addresses. The specification has no limit but the 65 535 of its length field;
this holds a client's certificate, the longest thing that balancers are known to send."""

_FIXED: Final = 16
_LONGEST_ADDRESSES: Final = 216

MAX_HEADER: Final = _FIXED + _LONGEST_ADDRESSES + MAX_TLVS
"""Bytes of any header: what so many bytes do not make whole is refused."""

_TEXT: Final = b"PROXY "
_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"

_LOCAL: Final = 0x20
_PROXY: Final = 0x21
_UNSPEC: Final = 0x0
_UNIX: Final = 0x3
_DATAGRAM: Final = 0x2
_TCP4: Final = 0x11
_TCP6: Final = 0x21

_AUTHORITY: Final = 0x02
_CRC32C: Final = 0x03
_SSL: Final = 0x20
_ONCE: Final = {_AUTHORITY: "PP2_TYPE_AUTHORITY", _CRC32C: "PP2_TYPE_CRC32C", _SSL: "PP2_TYPE_SSL"}
"""TLVs that are read here; of two, nobody could say which one holds."""

_CLIENT_SSL: Final = 0x01


class ProxyHeader:
    """What a balancer said of the connection that it relays."""

    __slots__ = ("authority", "destination", "destination_port", "local", "source", "source_port", "tls")

    def __init__(
        self,
        source: str = "",
        source_port: int = 0,
        destination: str = "",
        destination_port: int = 0,
        *,
        local: bool = False,
        tls: bool = False,
        authority: str = "",
    ) -> None:
        self.source = source
        """The client's IP address in canonical text (RFC 5952); an IPv4 address mapped into IPv6 stands as IPv4."""
        self.source_port = source_port
        self.destination = destination
        """The address that the client connected to, written as `source` is."""
        self.destination_port = destination_port
        self.local = local
        """True where nothing is said of a client, such as for a health check: the connection's own addresses hold,
        and those here are empty."""
        self.tls = tls
        """True where the client spoke TLS to the balancer (PP2_CLIENT_SSL, section 2.2.6)."""
        self.authority = authority
        """The host name that the client asked for, in TLS its SNI, as it came (section 2.2.2); "" where none was
        told."""


def read_proxy_header(data: bytes) -> tuple[ProxyHeader, int] | None:
    """Return the header that a connection begins with and its length in bytes, or None where more has to come.

    Raises MalformedProxyHeader as soon as nothing that could follow would make a header of it: at the first byte that
    does not fit in version 1 and in the fixed part of version 2, at the end of a value in a TLV of version 2.
    """
    if data[: len(_SIGNATURE)] == _SIGNATURE[: len(data)]:
        return _read_binary(data)
    if data[: len(_TEXT)] == _TEXT[: len(data)]:
        return _read_text(data)
    raise MalformedProxyHeader(f"the connection begins with {data[:16]!r}, which is no PROXY protocol header")


# Version 1 (section 2.1).


class _Form:
    """How a field is written, and what may be behind a beginning of one that is right so far."""

    __slots__ = ("accepts", "name", "tails")

    def __init__(self, name: str, accepts: Callable[[bytes], bool], tails: tuple[bytes, ...]) -> None:
        self.name = name
        self.accepts = accepts
        self.tails = tails

    def check(self, field: bytes) -> None:
        """Raise where this is no such field."""
        if not self.accepts(field):
            raise MalformedProxyHeader(f"version 1: {field!r} is no {self.name}")

    def check_begun(self, field: bytes) -> None:
        """Raise where this cannot become such a field, whatever follows."""
        if not any(self.accepts(field + tail) for tail in self.tails):
            raise MalformedProxyHeader(f"version 1: {field!r} begins no {self.name}")


_FAMILIES: Final = (b"TCP4", b"TCP6", b"UNKNOWN")
_PORT: Final = re.compile(rb"0|[1-9][0-9]{0,4}")
# 39 is the longest form in section 2.1. A dot is not in its grammar, but is how inet_ntop writes a mapped address.
_IPV6: Final = re.compile(rb"[0-9A-Fa-f:.]{2,39}")


def _is_family(field: bytes) -> bool:
    return field in _FAMILIES


def _is_ipv4(field: bytes) -> bool:
    try:
        IPv4Address(field.decode("ascii"))
    except ValueError:
        return False
    return True


def _is_ipv6(field: bytes) -> bool:
    if _IPV6.fullmatch(field) is None:
        return False
    try:
        IPv6Address(field.decode("ascii"))
    except ValueError:
        return False
    return True


def _is_port(field: bytes) -> bool:
    return _PORT.fullmatch(field) is not None and int(field) <= 0xFFFF


def _zeros(separator: bytes, most: int) -> tuple[bytes, ...]:
    """Return what makes a number, or the end of one, and up to so many more numbers."""
    return tuple(first + (separator + b"0") * count for count in range(most + 1) for first in (b"", b"0"))


_FAMILY_FORM: Final = _Form(
    "family that is TCP4, TCP6 or UNKNOWN",
    _is_family,
    tuple({family[at:] for family in _FAMILIES for at in range(len(family) + 1)}),
)
_IPV4_FORM: Final = _Form("IPv4 address", _is_ipv4, _zeros(b".", 3))
_IPV6_FORM: Final = _Form("IPv6 address", _is_ipv6, (b":", b"::", *_zeros(b":", 7), *_zeros(b".", 3)))
_PORT_FORM: Final = _Form("port", _is_port, (b"", b"0"))


def _read_text(data: bytes) -> tuple[ProxyHeader, int] | None:
    end = data.find(b"\r\n", 0, MAX_LINE)
    if end >= 0:
        return _read_line(data[:end]), end + 2
    line = data[:MAX_LINE]
    # A CR can only be the line's end: what is before it is then judged as a whole line, and is none without the LF.
    text = line.removesuffix(b"\r")
    if len(text) > MAX_LINE - 2:
        raise MalformedProxyHeader(f"version 1: the line is longer than {MAX_LINE} bytes")
    if len(text) < len(line):
        _read_line(text)
    else:
        _check_begun_line(line)
    return None


def _read_line(line: bytes) -> ProxyHeader:
    """Read a whole line without its CRLF."""
    fields = _split(line)
    forms = _forms(fields[0])
    for field, form in zip(fields, forms, strict=False):
        form.check(field)
    if fields[0] == b"UNKNOWN":
        return ProxyHeader(local=True)  # whatever follows must be ignored
    if len(fields) != len(forms):
        raise MalformedProxyHeader(f"version 1: the line has not {len(forms)} fields behind PROXY but {len(fields)}")
    source, destination = fields[1].decode("ascii"), fields[2].decode("ascii")
    if fields[0] == b"TCP6":
        source, destination = _canonical(IPv6Address(source)), _canonical(IPv6Address(destination))
    return ProxyHeader(source, int(fields[3]), destination, int(fields[4]))


def _check_begun_line(line: bytes) -> None:
    """Raise where no line begins so."""
    fields = _split(line)
    begun = fields.pop()
    forms = _forms(fields[0]) if fields else (_FAMILY_FORM,)
    for field, form in zip(fields, forms, strict=False):
        form.check(field)
    if fields and fields[0] == b"UNKNOWN":
        return
    if len(fields) >= len(forms):
        raise MalformedProxyHeader("version 1: the line goes on behind its destination port")
    forms[len(fields)].check_begun(begun)


def _split(line: bytes) -> list[bytes]:
    if b"\r" in line or b"\n" in line:
        raise MalformedProxyHeader("version 1: a CR or LF stands alone")
    return line[len(_TEXT) :].split(b" ")


def _forms(family: bytes) -> tuple[_Form, ...]:
    """Return the forms of a line's fields behind PROXY."""
    if family == b"TCP4":
        return _FAMILY_FORM, _IPV4_FORM, _IPV4_FORM, _PORT_FORM, _PORT_FORM
    if family == b"TCP6":
        return _FAMILY_FORM, _IPV6_FORM, _IPV6_FORM, _PORT_FORM, _PORT_FORM
    return (_FAMILY_FORM,)


# Version 2 (section 2.2).


def _read_binary(data: bytes) -> tuple[ProxyHeader, int] | None:
    size = len(data)
    if size > 12:
        _check_command(data[12])
    if size < 14:
        return None
    # What LOCAL and UNSPEC say of addresses is to be ignored, and where TLVs begin nobody knows without.
    addresses = _address_length(data[13]) if data[12] == _PROXY else 0
    limit = (addresses or _LONGEST_ADDRESSES) + MAX_TLVS
    if size > 14 and data[14] << 8 > limit:
        raise MalformedProxyHeader(f"version 2: more than {limit} bytes behind the fixed part")
    if size < _FIXED:
        return None
    end = _FIXED + _check_length(data[14] << 8 | data[15], addresses, limit)
    if addresses:
        tlvs = _read_tlvs(data, _FIXED + addresses, end)
        if size >= end:
            return _read_block(data[:end], addresses, tlvs), end
    elif size >= end:
        return ProxyHeader(local=True), end
    return None


def _check_command(byte: int) -> None:
    if byte >> 4 != 2:
        raise MalformedProxyHeader(f"version {byte >> 4} in a binary header, which can only be 2")
    if byte not in (_LOCAL, _PROXY):
        raise MalformedProxyHeader(f"version 2: the command {byte & 0xF} is neither LOCAL nor PROXY")


def _address_length(byte: int) -> int:
    """Return how many bytes the addresses of a connection have, 0 where they are not told."""
    if byte == _TCP4:
        return 12
    if byte == _TCP6:
        return 36
    family, transport = byte >> 4, byte & 0xF
    if transport == _DATAGRAM and family <= _UNIX:
        raise MalformedProxyHeader("version 2: the relayed traffic is datagrams (UDP), and this is a connection")
    if family == _UNIX and transport < _DATAGRAM:
        raise MalformedProxyHeader("version 2: the client is on a Unix socket, so it has no IP address")
    if family == _UNSPEC and transport < _DATAGRAM:
        return 0
    raise MalformedProxyHeader(f"version 2: {byte:#04x} is no family and transport that we know")


def _check_length(length: int, addresses: int, limit: int) -> int:
    if length < addresses:
        raise MalformedProxyHeader(f"version 2: {length} bytes are too few for two addresses and ports")
    if length > limit:
        raise MalformedProxyHeader(f"version 2: {length} bytes behind the fixed part, more than {limit}")
    return length


def _read_tlvs(data: bytes, at: int, end: int) -> list[tuple[int, int, int]]:
    """Return type, begin and end of the values between two places that have come, each within its place."""
    found: list[tuple[int, int, int]] = []
    while at < end:
        if end - at < 3:
            raise MalformedProxyHeader("version 2: a TLV is cut off in its type or length")
        if len(data) < at + 3:
            break
        value = at + 3
        at = value + (data[at + 1] << 8 | data[at + 2])
        if at > end:
            raise MalformedProxyHeader(f"version 2: a TLV of type {data[value - 3]:#04x} is longer than what is left")
        found.append((data[value - 3], value, at))
    return found


def _read_block(header: bytes, addresses: int, tlvs: list[tuple[int, int, int]]) -> ProxyHeader:
    """Read a whole header that tells addresses."""
    ports = _FIXED + addresses - 4
    middle = (_FIXED + ports) // 2
    ends = header[_FIXED:middle], header[middle:ports]
    if addresses == 12:
        source, destination = str(IPv4Address(ends[0])), str(IPv4Address(ends[1]))
    else:
        source, destination = _canonical(IPv6Address(ends[0])), _canonical(IPv6Address(ends[1]))
    found = ProxyHeader(
        source, header[ports] << 8 | header[ports + 1], destination, header[ports + 2] << 8 | header[ports + 3]
    )
    seen: set[int] = set()
    for kind, begin, end in tlvs:
        if kind not in _ONCE:
            continue
        if kind in seen:
            raise MalformedProxyHeader(f"version 2: {_ONCE[kind]} is repeated")
        seen.add(kind)
        if kind == _AUTHORITY:
            found.authority = _read_authority(header[begin:end])
        elif kind == _SSL:
            found.tls = _read_ssl(header, begin, end)
        else:
            _check_sum(header, begin, end)
    return found


def _read_authority(value: bytes) -> str:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedProxyHeader("version 2: PP2_TYPE_AUTHORITY is not UTF-8") from error
    if not text.isprintable():
        raise MalformedProxyHeader("version 2: PP2_TYPE_AUTHORITY holds what cannot stand in a host name")
    return text


def _read_ssl(header: bytes, begin: int, end: int) -> bool:
    """Return whether the client spoke TLS: a byte of flags, four that judge its certificate, further TLVs."""
    if end - begin < 5:
        raise MalformedProxyHeader("version 2: PP2_TYPE_SSL is too short")
    _read_tlvs(header, begin + 5, end)
    return header[begin] & _CLIENT_SSL != 0


def _check_sum(header: bytes, begin: int, end: int) -> None:
    """Raise unless the checksum of the header, its own four bytes taken for zeros, is what it says (section 2.2.3)."""
    if end - begin != 4:
        raise MalformedProxyHeader("version 2: PP2_TYPE_CRC32C has not 4 bytes")
    if crc32c(header[:begin] + bytes(4) + header[end:]) != int.from_bytes(header[begin:end], "big"):
        raise MalformedProxyHeader("version 2: the checksum is wrong")


def _canonical(address: IPv6Address) -> str:
    # A balancer that listens on a dual-stack socket sees IPv4 clients so; rules and logs go by their IPv4 address.
    mapped = address.ipv4_mapped
    return str(address) if mapped is None else str(mapped)


def _crc_table() -> list[int]:
    table: list[int] = []
    for value in range(256):
        crc = value
        for _ in range(8):
            crc = crc >> 1 ^ 0x82F63B78 if crc & 1 else crc >> 1
        table.append(crc)
    return table


_CRC: Final = _crc_table()


def crc32c(data: bytes) -> int:
    """Return the CRC32c of bytes (RFC 9260 appendix A, the successor of the specification's RFC 4960)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
