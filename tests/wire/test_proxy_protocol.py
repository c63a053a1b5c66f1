from __future__ import annotations

import ipaddress
import shutil
import socket
import ssl
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from portico.errors import MalformedProxyHeader
from portico.wire.proxy_protocol import MAX_HEADER, MAX_LINE, MAX_TLVS, ProxyHeader, crc32c, read_proxy_header

Fields = tuple[str, int, str, int, bool, bool, str]

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
ADDRESSES_4 = bytes([192, 0, 2, 1, 198, 51, 100, 2]) + struct.pack(">HH", 56324, 443)
LOCAL: Fields = ("", 0, "", 0, True, False, "")
OVER_IPV4: Fields = ("192.0.2.1", 56324, "198.51.100.2", 443, False, False, "")
LONGEST = b" ".join([b"PROXY UNKNOWN", *[b":".join([b"ffff"] * 8)] * 2, b"65535 65535\r\n"])
"""The worst case of section 2.1."""


def fields(header: ProxyHeader) -> Fields:
    return (
        header.source,
        header.source_port,
        header.destination,
        header.destination_port,
        header.local,
        header.tls,
        header.authority,
    )


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack(">BH", kind, len(value)) + value


def v2(block: bytes, family: int = 0x11, command: int = 0x21, length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack(">BBH", command, family, len(block) if length is None else length) + block


def ipv6_block(source: str, destination: str, source_port: int, destination_port: int) -> bytes:
    packed = ipaddress.IPv6Address(source).packed + ipaddress.IPv6Address(destination).packed
    return packed + struct.pack(">HH", source_port, destination_port)


def with_sum(header: bytes, wrong: int = 0) -> bytes:
    """Fill in the checksum of a header that ends with a zeroed CRC32C TLV and, behind it, nothing or TLVs."""
    at = header.index(tlv(0x03, bytes(4))) + 3
    return header[:at] + struct.pack(">I", crc32c(header) ^ wrong) + header[at + 4 :]


SSL = tlv(0x20, bytes([0x01]) + bytes(4) + tlv(0x21, b"TLSv1.3") + tlv(0x23, b"TLS_AES_256_GCM_SHA384"))
NO_SSL = tlv(0x20, bytes([0x00]) + bytes(4))
UNVERIFIED = tlv(0x20, bytes([0x03]) + b"\x00\x00\x00\x01" + tlv(0x22, "Zoë".encode()))
SUM = tlv(0x03, bytes(4))

GOOD: dict[str, tuple[bytes, Fields]] = {
    "the specification's own": (
        b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
        ("192.168.0.1", 56324, "192.168.0.11", 443, False, False, ""),
    ),
    "longest IPv4": (
        b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
        ("255.255.255.255", 65535, "255.255.255.255", 65535, False, False, ""),
    ),
    "port 0": (b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", ("0.0.0.0", 0, "0.0.0.0", 0, False, False, "")),
    "IPv6": (b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n", ("2001:db8::1", 1, "::1", 2, False, False, "")),
    "IPv6 made canonical": (
        b"PROXY TCP6 2001:0DB8:0:0:0:0:0:00Ff 1:2:3:4:5:6:7:8 1 2\r\n",
        ("2001:db8::ff", 1, "1:2:3:4:5:6:7:8", 2, False, False, ""),
    ),
    "IPv4 mapped into IPv6": (
        b"PROXY TCP6 ::ffff:192.0.2.1 ::FFFF:c633:6402 1 2\r\n",
        ("192.0.2.1", 1, "198.51.100.2", 2, False, False, ""),
    ),
    "unknown": (b"PROXY UNKNOWN\r\n", LOCAL),
    "unknown and a space": (b"PROXY UNKNOWN \r\n", LOCAL),
    "unknown, ignoring the rest": (b"PROXY UNKNOWN what ever\x00\xff\r\n", LOCAL),
    "longest": (LONGEST, LOCAL),
    "v2 IPv4": (v2(ADDRESSES_4), OVER_IPV4),
    "v2 IPv6": (
        v2(ipv6_block("2001:db8::1", "::1", 1, 65535), 0x21),
        ("2001:db8::1", 1, "::1", 65535, False, False, ""),
    ),
    "v2 IPv4 mapped into IPv6": (
        v2(ipv6_block("::ffff:192.0.2.1", "::ffff:198.51.100.2", 56324, 443), 0x21),
        OVER_IPV4,
    ),
    "v2 LOCAL": (v2(b"", 0x00, 0x20), LOCAL),
    "v2 LOCAL with a block": (v2(ADDRESSES_4 + b"\xff", 0x11, 0x20), LOCAL),
    "v2 LOCAL of any family": (v2(b"", 0xFF, 0x20), LOCAL),
    "v2 UNSPEC": (v2(b"", 0x00), LOCAL),
    "v2 UNSPEC with a block": (v2(b"\x01" * 40, 0x00), LOCAL),
    "v2 UNSPEC stream": (v2(b"", 0x01), LOCAL),
    "v2 TLS": (v2(ADDRESSES_4 + SSL), (*OVER_IPV4[:5], True, "")),
    "v2 TLS, certificate not verified": (v2(ADDRESSES_4 + UNVERIFIED), (*OVER_IPV4[:5], True, "")),
    "v2 no TLS": (v2(ADDRESSES_4 + NO_SSL), OVER_IPV4),
    "v2 authority": (v2(ADDRESSES_4 + tlv(2, b"example.com")), (*OVER_IPV4[:6], "example.com")),
    "v2 authority in UTF-8": (v2(ADDRESSES_4 + tlv(2, "bücher.example".encode())), (*OVER_IPV4[:6], "bücher.example")),
    "v2 checksum": (with_sum(v2(ADDRESSES_4 + SUM)), OVER_IPV4),
    "v2 checksum among others": (
        with_sum(v2(ADDRESSES_4 + tlv(2, b"a.example") + SUM + SSL)),
        (*OVER_IPV4[:5], True, "a.example"),
    ),
    "v2 unknown TLVs": (v2(ADDRESSES_4 + tlv(1, b"h2") + tlv(4, b"") * 2 + tlv(0xEA, b"\x01vpce-0") * 2), OVER_IPV4),
    "v2 as long as may be": (v2(ADDRESSES_4 + tlv(4, bytes(MAX_TLVS - 3))), OVER_IPV4),
    "v2 UNSPEC as long as may be": (v2(bytes(MAX_TLVS + 216), 0x00), LOCAL),
}

BAD: dict[str, tuple[bytes, str]] = {
    "HTTP": (b"G", "begins with b'G'"),
    "HTTP behind an empty line": (b"\r\nG", "no PROXY protocol header"),
    "HTTP/2": (b"PRI", "no PROXY protocol header"),
    "an upper-case method": (b"PROXY/", "no PROXY protocol header"),
    "TLS": (b"\x16", "no PROXY protocol header"),
    "lower case": (b"p", "no PROXY protocol header"),
    "no fields": (b"PROXY\r", "no PROXY protocol header"),
    "two spaces": (b"PROXY  ", "b'' is no family"),
    "a tab": (b"PROXY\t", "no PROXY protocol header"),
    "UDP": (b"PROXY UD", "begins no family"),
    "TCP5": (b"PROXY TCP5", "begins no family"),
    "TCP alone": (b"PROXY TCP\r", "is no family"),
    "family in lower case": (b"PROXY t", "begins no family"),
    "unknown and more": (b"PROXY UNKNOWNS", "begins no family"),
    "unknown with a CR inside": (b"PROXY UNKNOWN a\rb", "stands alone"),
    "unknown with a LF": (b"PROXY UNKNOWN\n", "stands alone"),
    "a LF alone": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", "stands alone"),
    "a CR alone": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\rG", "stands alone"),
    "two CRs": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\r", "stands alone"),
    "IPv6 for TCP4": (b"PROXY TCP4 :", "begins no IPv4"),
    "IPv4 for TCP6": (b"PROXY TCP6 1.", "begins no IPv6"),
    "IPv4 as the destination of TCP6": (b"PROXY TCP6 ::1 1.", "begins no IPv6"),
    "a leading zero": (b"PROXY TCP4 192.168.01", "begins no IPv4"),
    "an octet too large": (b"PROXY TCP4 256", "begins no IPv4"),
    "an octet too many": (b"PROXY TCP4 1.2.3.4.", "begins no IPv4"),
    "an octet too few": (b"PROXY TCP4 1.2.3 ", "is no IPv4"),
    "a network": (b"PROXY TCP4 1.2.3.4/", "begins no IPv4"),
    "other digits": (b"PROXY TCP4 1.2.3.\xb2", "begins no IPv4"),
    "four hexadecimal digits and more": (b"PROXY TCP6 12345", "begins no IPv6"),
    "two double colons": (b"PROXY TCP6 1::2::", "begins no IPv6"),
    "nine groups": (b"PROXY TCP6 1:2:3:4:5:6:7:8:", "begins no IPv6"),
    "seven groups": (b"PROXY TCP6 1:2:3:4:5:6:7 ", "is no IPv6"),
    "brackets": (b"PROXY TCP6 [", "begins no IPv6"),
    "a zone": (b"PROXY TCP6 fe80::1%", "begins no IPv6"),
    "two spaces between addresses": (b"PROXY TCP4 1.2.3.4  ", "b'' is no IPv4"),
    "a port with a leading zero": (b"PROXY TCP4 1.2.3.4 1.2.3.4 01", "begins no port"),
    "a port too large": (b"PROXY TCP4 1.2.3.4 1.2.3.4 65536", "begins no port"),
    "a signed port": (b"PROXY TCP4 1.2.3.4 1.2.3.4 +", "begins no port"),
    "no port": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 \r", "b'' is no port"),
    "one port": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r", "not 5 fields behind PROXY but 4"),
    "a family alone": (b"PROXY TCP4\r", "not 5 fields behind PROXY but 1"),
    "a space at the end": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 ", "goes on"),
    "no end": (b"PROXY UNKNOWN" + b" " * 93, "longer than 107 bytes"),
    "one byte too long": (LONGEST[:-2] + b"5", "longer than 107 bytes"),
    "v2 signature broken": (SIGNATURE[:11] + b"\r", "no PROXY protocol header"),
    "v2 with version 1": (v2(b"", command=0x11)[:13], "version 1 in a binary header"),
    "v2 with version 3": (v2(b"", command=0x31)[:13], "version 3 in a binary header"),
    "v2 with an unknown command": (v2(b"", command=0x22)[:13], "command 2"),
    "v2 UDP over IPv4": (v2(ADDRESSES_4, 0x12)[:14], "datagrams"),
    "v2 UDP over IPv6": (v2(b"", 0x22)[:14], "datagrams"),
    "v2 UNSPEC datagrams": (v2(b"", 0x02)[:14], "datagrams"),
    "v2 Unix stream": (v2(bytes(216), 0x31)[:14], "Unix socket"),
    "v2 Unix datagrams": (v2(bytes(216), 0x32)[:14], "datagrams"),
    "v2 IPv4 over nothing": (v2(ADDRESSES_4, 0x10)[:14], "0x10"),
    "v2 unknown family": (v2(ADDRESSES_4, 0x41)[:14], "0x41"),
    "v2 unknown family, datagrams": (v2(ADDRESSES_4, 0x42)[:14], "0x42"),
    "v2 unknown transport": (v2(ADDRESSES_4, 0x13)[:14], "0x13"),
    "v2 too short for IPv4": (v2(b"", length=11), "too few"),
    "v2 IPv4's length for IPv6": (v2(b"", 0x21, length=35), "too few"),
    "v2 no block": (v2(b""), "too few"),
    "v2 too long by its high byte": (v2(b"", length=0xFFFF)[:15], "more than 4108"),
    "v2 too long by one": (v2(b"", length=12 + MAX_TLVS + 1), "more than 4108"),
    "v2 LOCAL too long": (v2(b"", 0, 0x20, length=216 + MAX_TLVS + 1), "more than 4312"),
    "v2 TLV without a length": (v2(b"", length=14), "cut off"),
    "v2 TLV cut off behind another": (v2(ADDRESSES_4 + tlv(4, b"abc")[:3], length=20), "cut off"),
    "v2 TLV too long": (v2(ADDRESSES_4 + b"\x04\x00\x02", length=16), "0x04 is longer"),
    "v2 authority not in UTF-8": (v2(ADDRESSES_4 + tlv(2, b"\xff")), "UTF-8"),
    "v2 authority with a line end": (v2(ADDRESSES_4 + tlv(2, b"a\r\nb")), "host name"),
    "v2 authority twice": (v2(ADDRESSES_4 + tlv(2, b"a") * 2), "PP2_TYPE_AUTHORITY is repeated"),
    "v2 SSL twice": (v2(ADDRESSES_4 + SSL * 2), "PP2_TYPE_SSL is repeated"),
    "v2 SSL too short": (v2(ADDRESSES_4 + tlv(0x20, bytes(4))), "PP2_TYPE_SSL is too short"),
    "v2 SSL with half a TLV": (v2(ADDRESSES_4 + tlv(0x20, bytes(7))), "cut off"),
    "v2 SSL with a TLV too long": (v2(ADDRESSES_4 + tlv(0x20, bytes(5) + b"\x21\x00\x01")), "0x21 is longer"),
    "v2 wrong checksum": (with_sum(v2(ADDRESSES_4 + SUM), wrong=1), "checksum is wrong"),
    "v2 checksum of another length": (v2(ADDRESSES_4 + tlv(3, bytes(5))), "4 bytes"),
    "v2 checksum twice": (with_sum(v2(ADDRESSES_4 + SUM + tlv(3, b"next"))), "PP2_TYPE_CRC32C is repeated"),
}
"""Each is refused at its last byte, and not before."""


@pytest.mark.parametrize("rest", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\r\n", b"\x16\x03\x01"], ids=repr)
@pytest.mark.parametrize(("data", "wanted"), GOOD.values(), ids=GOOD)
def test_headers_are_read_and_what_follows_is_left(data: bytes, wanted: Fields, rest: bytes) -> None:
    found = read_proxy_header(data + rest)
    assert found is not None
    assert (fields(found[0]), found[1]) == (wanted, len(data))


@pytest.mark.parametrize("data", [good for good, _ in GOOD.values()], ids=GOOD)
def test_every_beginning_waits_for_more(data: bytes) -> None:
    assert [read_proxy_header(data[:size]) for size in range(len(data))] == [None] * len(data)


@pytest.mark.parametrize(("data", "why"), BAD.values(), ids=BAD)
def test_what_is_no_header_is_refused_whatever_follows(data: bytes, why: str) -> None:
    for rest in (b"", b"\n", b"\r\n", b" 1.2.3.4 1 2\r\n", bytes(100)):
        with pytest.raises(MalformedProxyHeader, match=why if not rest else None):
            read_proxy_header(data + rest)


@pytest.mark.parametrize("data", [bad for bad, _ in BAD.values()], ids=BAD)
def test_what_is_no_header_is_refused_at_the_first_byte_that_shows_it(data: bytes) -> None:
    assert [read_proxy_header(data[:size]) for size in range(len(data))] == [None] * len(data)


def is_refused(data: bytes) -> bool:
    try:
        read_proxy_header(data)
    except MalformedProxyHeader:
        return True
    return False


def test_an_unfinished_header_is_never_longer_than_the_limit() -> None:
    assert max(len(good) for good, _ in GOOD.values()) == MAX_HEADER
    assert len(LONGEST) == MAX_LINE


def test_crc32c_is_that_of_rfc_3720() -> None:
    # Appendix B.4, and the check value of the catalogues.
    vectors = {bytes(32): 0x8A9136AA, b"\xff" * 32: 0x62A8AB43, bytes(range(32)): 0x46DD794E, b"123456789": 0xE3069283}
    assert {data: crc32c(data) for data in vectors} == vectors


ports = st.integers(0, 65535)
ipv6 = st.ip_addresses(v=6).filter(lambda address: address.ipv4_mapped is None)
ends = st.one_of(
    st.tuples(st.just("TCP4"), st.ip_addresses(v=4), st.ip_addresses(v=4), ports, ports),
    st.tuples(st.just("TCP6"), ipv6, ipv6, ports, ports),
)
texts = ends.map(lambda end: ("PROXY {} {} {} {} {}\r\n".format(*end)).encode())
tlvs = st.lists(st.tuples(st.integers(0, 255).filter(lambda kind: kind not in (2, 3, 32)), st.binary(max_size=40)))
names = st.text(st.characters(categories=["L", "N"], include_characters=".-"), min_size=1, max_size=60)


@st.composite
def binaries(draw: st.DrawFn) -> tuple[bytes, Fields]:
    """Version 2 headers in any order of TLVs, with a checksum or without, and what they say."""
    family, source, destination, source_port, destination_port = draw(ends)
    authority, tls, summed = draw(st.none() | names), draw(st.none() | st.booleans()), draw(st.booleans())
    extras = [tlv(kind, value) for kind, value in draw(tlvs)]
    if authority is not None:
        extras.append(tlv(2, authority.encode()))
    if tls is not None:
        extras.append(SSL if tls else NO_SSL)
    block = source.packed + destination.packed + struct.pack(">HH", source_port, destination_port)
    extras = draw(st.permutations(extras))
    at = draw(st.integers(0, len(extras)))
    head = block + b"".join(extras[:at])
    if summed:
        extras.insert(at, SUM)
    header = v2(block + b"".join(extras), 0x11 if family == "TCP4" else 0x21)
    if summed:
        at = 16 + len(head) + 3
        header = header[:at] + struct.pack(">I", crc32c(header)) + header[at + 4 :]
    said = (str(source), source_port, str(destination), destination_port, False, bool(tls), authority or "")
    return header, said


@given(ends, st.binary(max_size=20))
def test_a_line_says_what_was_written(end: tuple[object, ...], rest: bytes) -> None:
    family, source, destination, source_port, destination_port = end
    line = f"PROXY {family} {source} {destination} {source_port} {destination_port}\r\n".encode()
    found = read_proxy_header(line + rest)
    assert found is not None
    assert fields(found[0]) == (str(source), source_port, str(destination), destination_port, False, False, "")
    assert found[1] == len(line)


@given(binaries(), st.binary(max_size=20))
def test_a_binary_header_says_what_was_written(written: tuple[bytes, Fields], rest: bytes) -> None:
    header, said = written
    found = read_proxy_header(header + rest)
    assert found is not None
    assert (fields(found[0]), found[1]) == (said, len(header))


@given(st.binary(max_size=60), st.data())
def test_a_checksum_finds_every_changed_byte(padding: bytes, data: st.DataObject) -> None:
    header = with_sum(v2(ADDRESSES_4 + SUM + tlv(4, padding)))
    # Not in the fixed part, nor in the type of the checksum: without one, what is left is a header too.
    at = data.draw(st.integers(16, len(header) - 1).filter(lambda place: place != 16 + len(ADDRESSES_4)))
    changed = bytearray(header)
    changed[at] ^= data.draw(st.integers(1, 255))
    assert is_refused(bytes(changed))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Headers with pieces of them gone, doubled, or replaced."""
    data = draw(st.one_of(texts, binaries().map(lambda written: written[0]), st.sampled_from([LONGEST, SIGNATURE])))
    for _ in range(draw(st.integers(0, 3))):
        begin = draw(st.integers(0, len(data)))
        end = draw(st.integers(begin, min(len(data), begin + 6)))
        instead = draw(st.sampled_from([b"", b" ", b"\r", b"\n", b"0", b":", b".", data[begin:end] * 2]))
        data = data[:begin] + instead + data[end:]
    return data + draw(st.binary(max_size=4))


@given(st.one_of(damaged(), st.binary(max_size=200), st.binary(max_size=60).map(lambda rest: SIGNATURE + b"!" + rest)))
def test_byte_by_byte_is_as_at_once(data: bytes) -> None:
    waiting = 0
    while waiting <= len(data) and not is_refused(data[:waiting]) and read_proxy_header(data[:waiting]) is None:
        waiting += 1
    if waiting > len(data):
        return
    first = data[:waiting]
    for size in range(waiting, len(data) + 1):
        assert is_refused(data[:size]) == is_refused(first)
    if not is_refused(first):
        early, late = read_proxy_header(first), read_proxy_header(data)
        assert early is not None
        assert late is not None
        assert (fields(early[0]), early[1]) == (fields(late[0]), late[1]) == (fields(late[0]), waiting)


@given(damaged().filter(lambda data: data.startswith(b"PROXY ")), st.data())
def test_a_line_that_is_waited_for_can_still_become_one(line: bytes, data: st.DataObject) -> None:
    line = line[: data.draw(st.integers(6, len(line)))]
    if is_refused(line):
        return
    while read_proxy_header(line) is None:
        following = (line + bytes([byte]) for byte in b"\n\r 0:.TCP46UNKOW")
        line = next(longer for longer in following if not is_refused(longer))


@given(st.text("0123456789abcDEF:./% ", max_size=39))
def test_addresses_are_those_of_the_c_library(text: str) -> None:
    for name, family in (("TCP4", socket.AF_INET), ("TCP6", socket.AF_INET6)):
        try:
            socket.inet_pton(family, text)
        except OSError:
            known = False
        else:
            known = True
        assert is_refused(f"PROXY {name} {text} {text} 1 2\r\n".encode()) is not known


@given(st.ip_addresses(v=6), st.data())
def test_any_way_to_write_an_address_is_read_as_the_same(address: ipaddress.IPv6Address, data: st.DataObject) -> None:
    ways = [address.exploded, address.exploded.upper(), address.compressed, socket.inet_ntop(10, address.packed)]
    found = read_proxy_header(f"PROXY TCP6 {data.draw(st.sampled_from(ways))} ::1 1 2\r\n".encode())
    assert found is not None
    assert found[0].source == str(address.ipv4_mapped or address)


# A real balancer.


class Balancer:
    """haproxy between sockets of the test."""

    def __init__(self, port: int, service: socket.socket) -> None:
        self.port = port
        self.service = service

    def first_bytes(self) -> tuple[ProxyHeader, bytes]:
        """Return the header of the next connection that reaches the service, and what came with it behind."""
        connection, _ = self.service.accept()
        data = b""
        with connection:
            connection.settimeout(10)
            while (found := read_proxy_header(data)) is None:
                piece = connection.recv(4096)
                assert piece, f"closed behind {data!r}"
                data += piece
            return found[0], data[found[1] :]


HAPROXY = """
global
    maxconn 64
    nbthread 1
defaults
    mode tcp
    timeout connect 5s
    timeout client 20s
    timeout server 20s
listen front
    bind fd@{front} {bind}
    server service 127.0.0.1:{port} {server}
"""


@contextmanager
def haproxy(directory: Path, server: str, bind: str = "", family: int = socket.AF_INET) -> Iterator[Balancer]:
    program = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    if program is None:
        pytest.skip("haproxy is not installed (Debian's package haproxy)")
    with ExitStack() as stack:
        service = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        service.settimeout(10)
        # It listens before haproxy runs: a client that is early waits in its queue.
        front = stack.enter_context(socket.socket(family))
        front.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        front.listen()
        file = directory / "haproxy.cfg"
        text = HAPROXY.format(front=front.fileno(), bind=bind, port=service.getsockname()[1], server=server)
        file.write_text(text)
        process = subprocess.Popen(
            [program, "-db", "-q", "-f", str(file)], pass_fds=[front.fileno()], stdin=subprocess.DEVNULL
        )
        stack.callback(process.wait, 10)
        stack.callback(process.kill)
        yield Balancer(front.getsockname()[1], service)


VERSIONS = pytest.mark.parametrize("server", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c"])


@VERSIONS
@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_haproxy_tells_of_its_client(tmp_path: Path, server: str, family: int, host: str) -> None:
    with (
        haproxy(tmp_path, server, family=family) as balancer,
        socket.create_connection((host, balancer.port), 10) as client,
    ):
        client.sendall(b"GET / HTTP/1.1\r\n")
        header, rest = balancer.first_bytes()
        assert fields(header) == (host, client.getsockname()[1], host, balancer.port, False, False, "")
        assert b"GET / HTTP/1.1\r\n".startswith(rest)


@pytest.mark.parametrize("client", ["", "ssl,crc32c,", "ssl,cert-cn,ssl-cipher,cert-sig,cert-key,"])
def test_haproxy_tells_of_its_clients_tls(tmp_path: Path, client: str) -> None:
    authority = trustme.CA()
    authority.issue_cert("orders.example").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with (
        haproxy(
            tmp_path, f"send-proxy-v2 proxy-v2-options {client}authority", f"ssl crt {tmp_path / 'server.pem'}"
        ) as balancer,
        socket.create_connection(("127.0.0.1", balancer.port), 10) as plain,
        context.wrap_socket(plain, server_hostname="orders.example") as encrypted,
    ):
        header, _ = balancer.first_bytes()
        told = (
            "127.0.0.1",
            encrypted.getsockname()[1],
            "127.0.0.1",
            balancer.port,
            False,
            bool(client),
            "orders.example",
        )
        assert fields(header) == told


@pytest.mark.parametrize("server", ["send-proxy check inter 100ms", "send-proxy-v2 check inter 100ms"])
def test_haproxy_checks_the_health_of_its_service(tmp_path: Path, server: str) -> None:
    with haproxy(tmp_path, f"{server} check-send-proxy") as balancer:
        header, _ = balancer.first_bytes()
        assert header.local is ("v2" in server)
