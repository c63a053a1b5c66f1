from __future__ import annotations

import ipaddress
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from portico.http.forwarded import MAX_HOPS, Client, Style, Trust
from portico.http.headers import Headers

PROXIES = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")]
X_FORWARDED = Style(True, False, "")
FORWARDED = Style(False, True, "")
BOTH = Style(True, True, "portico")


def trust(style: Style = X_FORWARDED) -> Trust:
    return Trust(PROXIES, style)


def behind(headers: dict[str, str], style: Style = X_FORWARDED, peer: str = "10.0.0.1") -> Client:
    """Return the client for whom a proxy, which speaks http with port 8000, has sent a request with `headers`."""
    believing = trust(style)
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    return believing.client_behind(Client(peer, 5000, 8000, "http", style), believing.said(Headers(pairs)))


def told(client: Client, host: bytes | None = b"gate.example") -> dict[str, str]:
    """Return the header lines that a service gets, by name."""
    lines = b"\r\n".join(client.forwarded(host)).decode("ascii").split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines)
    assert len(fields) == len(lines)
    return fields


@pytest.mark.parametrize(
    ("address", "trusted"),
    {
        "10.1.2.3": True,
        "::ffff:10.1.2.3": True,
        "fd00::1": True,
        "11.0.0.1": False,
        "::ffff:11.0.0.1": False,
        "2001:db8::1": False,
        "": False,
        "unknown": False,
        "10.1.2.3.4": False,
        "010.0.0.1": False,
        "10.0.0.1 ": False,
    }.items(),
)
def test_whom_is_believed(address: str, trusted: bool) -> None:
    assert trust().includes(address) is trusted


def test_nobody_is_believed_unless_named() -> None:
    assert not Trust().includes("127.0.0.1")


@pytest.mark.parametrize(
    ("chain", "address", "port", "passed_on"),
    [
        ("203.0.113.7", "203.0.113.7", 0, "203.0.113.7, 10.0.0.1"),
        ("203.0.113.7:4711", "203.0.113.7", 4711, "203.0.113.7, 10.0.0.1"),
        ("2001:db8::7", "2001:db8::7", 0, "2001:db8::7, 10.0.0.1"),
        ("2001:DB8:0::7", "2001:db8::7", 0, "2001:db8::7, 10.0.0.1"),
        ("[2001:db8::7]", "2001:db8::7", 0, "2001:db8::7, 10.0.0.1"),
        ("[2001:db8::7]:4711", "2001:db8::7", 4711, "2001:db8::7, 10.0.0.1"),
        ("::ffff:203.0.113.7", "203.0.113.7", 0, "203.0.113.7, 10.0.0.1"),
        ("fe80::1%eth0", "fe80::1", 0, "fe80::1, 10.0.0.1"),
        (" 203.0.113.7 ", "203.0.113.7", 0, "203.0.113.7, 10.0.0.1"),
        # Through proxies: the client is the first from the right that is none.
        ("203.0.113.7, 10.0.0.9", "203.0.113.7", 0, "203.0.113.7, 10.0.0.9, 10.0.0.1"),
        ("203.0.113.7,10.0.0.9,fd00::9", "203.0.113.7", 0, "203.0.113.7, 10.0.0.9, fd00::9, 10.0.0.1"),
        ("203.0.113.7, ::ffff:10.0.0.9", "203.0.113.7", 0, "203.0.113.7, 10.0.0.9, 10.0.0.1"),
        # What stands to the left of the client, it has made up.
        ("6.6.6.6, 203.0.113.7", "203.0.113.7", 0, "203.0.113.7, 10.0.0.1"),
        ("6.6.6.6, 10.0.0.9, 203.0.113.7, 10.0.0.9", "203.0.113.7", 0, "203.0.113.7, 10.0.0.9, 10.0.0.1"),
        ("10.0.0.8, 203.0.113.7, 10.0.0.9", "203.0.113.7", 0, "203.0.113.7, 10.0.0.9, 10.0.0.1"),
        # A proxy that asks for itself.
        ("10.0.0.9", "10.0.0.9", 0, "10.0.0.9, 10.0.0.1"),
        # What is no address ends the chain: who is beyond it is not known.
        ("unknown", "10.0.0.1", 5000, "10.0.0.1"),
        ("6.6.6.6, unknown", "10.0.0.1", 5000, "10.0.0.1"),
        ("6.6.6.6, unknown, 10.0.0.9", "10.0.0.9", 0, "10.0.0.9, 10.0.0.1"),
        ("6.6.6.6, , 10.0.0.9", "10.0.0.9", 0, "10.0.0.9, 10.0.0.1"),
        ("203.0.113.7,", "10.0.0.1", 5000, "10.0.0.1"),
        (",", "10.0.0.1", 5000, "10.0.0.1"),
        ("203.0.113.256", "10.0.0.1", 5000, "10.0.0.1"),
        ("203.0.113.07", "10.0.0.1", 5000, "10.0.0.1"),
        ("localhost", "10.0.0.1", 5000, "10.0.0.1"),
        ("_hidden", "10.0.0.1", 5000, "10.0.0.1"),
        ("203.0.113.7\xe9", "10.0.0.1", 5000, "10.0.0.1"),
        ("\xb2.0.0.1", "10.0.0.1", 5000, "10.0.0.1"),
        # A port that is none.
        ("203.0.113.7:http", "203.0.113.7", 0, "203.0.113.7, 10.0.0.1"),
        ("203.0.113.7:999999", "203.0.113.7", 0, "203.0.113.7, 10.0.0.1"),
        ("203.0.113.7:65536", "203.0.113.7", 0, "203.0.113.7, 10.0.0.1"),
        ("203.0.113.7:\xb2", "203.0.113.7", 0, "203.0.113.7, 10.0.0.1"),
        ("203.0.113.7:-1", "203.0.113.7", 0, "203.0.113.7, 10.0.0.1"),
    ],
)
@pytest.mark.parametrize("style", [X_FORWARDED, FORWARDED], ids=["x-forwarded", "forwarded"])
def test_the_client_is_the_last_that_is_no_proxy(
    chain: str, address: str, port: int, passed_on: str, style: Style
) -> None:
    if style is X_FORWARDED:
        client = behind({"X-Forwarded-For": chain})
        assert told(client)["X-Forwarded-For"] == passed_on
    else:
        client = behind({"Forwarded": ", ".join(f'for="{node}"' for node in map(str.strip, chain.split(",")))}, style)
        nodes = [f'for="[{node}]"' if ":" in node else f"for={node}" for node in passed_on.split(", ")]
        nodes[0] += ';proto=http;host="gate.example"'
        assert told(client) == {"Forwarded": ", ".join(nodes)}
    assert (client.address, client.port, client.peer) == (address, port, "10.0.0.1")


def test_chains_have_a_limit() -> None:
    client = behind({"X-Forwarded-For": ", ".join(f"10.0.0.{number}" for number in range(200))})
    chain = told(client)["X-Forwarded-For"].split(", ")
    assert len(chain) == MAX_HOPS
    assert chain[-2:] == ["10.0.0.199", "10.0.0.1"]


@pytest.mark.parametrize(
    ("headers", "proto", "host", "port"),
    [
        ({}, "http", "gate.example", "8000"),
        ({"X-Forwarded-Proto": "https"}, "https", "gate.example", "443"),
        ({"X-Forwarded-Proto": "HTTPS"}, "https", "gate.example", "443"),
        ({"X-Forwarded-Proto": "http"}, "http", "gate.example", "80"),
        ({"X-Forwarded-Proto": "https", "X-Forwarded-Host": "shop.example:8443"}, "https", "shop.example:8443", "8443"),
        ({"X-Forwarded-Proto": "https", "X-Forwarded-Host": "[::1]"}, "https", "[::1]", "443"),
        ({"X-Forwarded-Proto": "https", "X-Forwarded-Host": "[::1]:8443"}, "https", "[::1]:8443", "8443"),
        ({"X-Forwarded-Proto": "https", "X-Forwarded-Port": "9443"}, "https", "gate.example", "9443"),
        ({"X-Forwarded-Host": "shop.example"}, "http", "shop.example", "8000"),
        ({"X-Forwarded-Port": "9000"}, "http", "gate.example", "9000"),
        # Said by several proxies: what the one next to the client said counts, which is at the client's own place.
        (
            {
                "X-Forwarded-For": "203.0.113.7, 10.0.0.9",
                "X-Forwarded-Proto": "https, http",
                "X-Forwarded-Host": "outer.example, inner.example",
                "X-Forwarded-Port": "443, 80",
            },
            "https",
            "outer.example",
            "443",
        ),
        # The client's own claims are to the left of that.
        (
            {
                "X-Forwarded-For": "6.6.6.6, 203.0.113.7",
                "X-Forwarded-Proto": "https, http",
                "X-Forwarded-Host": "evil.example, shop.example",
                "X-Forwarded-Port": "443, 80",
            },
            "http",
            "shop.example",
            "80",
        ),
        # Where they are not as many as the addresses: the last, which is a proxy's.
        ({"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https, http"}, "http", "gate.example", "80"),
        ({"X-Forwarded-For": "203.0.113.7, 10.0.0.9", "X-Forwarded-Proto": "https"}, "https", "gate.example", "443"),
        # What is none of it is not believed.
        ({"X-Forwarded-Proto": "gopher"}, "http", "gate.example", "8000"),
        ({"X-Forwarded-Proto": "wss"}, "http", "gate.example", "8000"),
        ({"X-Forwarded-Host": "a b"}, "http", "gate.example", "8000"),
        ({"X-Forwarded-Host": 'a"b'}, "http", "gate.example", "8000"),
        ({"X-Forwarded-Host": "a/../b"}, "http", "gate.example", "8000"),
        ({"X-Forwarded-Host": "a@b"}, "http", "gate.example", "8000"),
        ({"X-Forwarded-Host": "m\xfcnchen.example"}, "http", "gate.example", "8000"),
        ({"X-Forwarded-Port": "x"}, "http", "gate.example", "8000"),
        ({"X-Forwarded-Port": "123456"}, "http", "gate.example", "8000"),
        ({"X-Forwarded-Port": "-1"}, "http", "gate.example", "8000"),
        ({"X-Forwarded-Port": "65536"}, "http", "gate.example", "8000"),
        ({"X-Forwarded-Port": "0"}, "http", "gate.example", "8000"),
        ({"X-Forwarded-Proto": "https", "X-Forwarded-Host": "shop.example:65536"}, "https", "gate.example", "443"),
    ],
)
def test_what_the_client_asked_for(headers: dict[str, str], proto: str, host: str, port: str) -> None:
    client = behind(headers)
    fields = told(client)
    assert (fields["X-Forwarded-Proto"], fields["X-Forwarded-Host"], fields["X-Forwarded-Port"]) == (proto, host, port)
    assert (client.scheme, client.local_port) == (proto, int(port))


@pytest.mark.parametrize(
    ("value", "address", "proto", "host"),
    [
        ("for=203.0.113.7;proto=https;host=shop.example", "203.0.113.7", "https", "shop.example"),
        ('For="203.0.113.7";PROTO=https;Host="shop.example:8443"', "203.0.113.7", "https", "shop.example:8443"),
        ('for="[2001:db8::7]:4711";by=10.0.0.1', "2001:db8::7", "http", "gate.example"),
        ("for=203.0.113.7;proto=https, for=10.0.0.9;proto=http", "203.0.113.7", "https", "gate.example"),
        ("for=6.6.6.6;host=evil.example, for=203.0.113.7;host=shop.example", "203.0.113.7", "http", "shop.example"),
        ('for="203.0.113.7";host="a, b"', "203.0.113.7", "http", "gate.example"),
        ('for="\\203.0.113.7"', "203.0.113.7", "http", "gate.example"),
        ("for=203.0.113.7 ; proto=https", "203.0.113.7", "https", "gate.example"),
        ("for=unknown;proto=https", "10.0.0.1", "https", "gate.example"),
        ("proto=https", "10.0.0.1", "https", "gate.example"),
        # Extensions, whose names are tokens, say nothing here (RFC 7239 section 5.5).
        ("for=203.0.113.7;x-id=7;proto=https", "203.0.113.7", "https", "gate.example"),
        ("a_b=c;for=203.0.113.7", "203.0.113.7", "http", "gate.example"),
        ('for=203.0.113.7, for=10.0.0.9;2!="x;for=6.6.6.6"', "203.0.113.7", "http", "gate.example"),
        ("for=6.6.6.6, x(id=7, for=10.0.0.9", "10.0.0.9", "http", "gate.example"),
        # Said twice: the first counts.
        ("for=203.0.113.7;for=6.6.6.6", "203.0.113.7", "http", "gate.example"),
        # What is not well formed, and everything to its left, is not believed.
        ("for=6.6.6.6, for=[2001:db8::7]", "10.0.0.1", "http", "gate.example"),
        ("for=6.6.6.6, =x, for=203.0.113.7", "203.0.113.7", "http", "gate.example"),
        ("for=6.6.6.6, nonsense, for=10.0.0.9", "10.0.0.9", "http", "gate.example"),
        ('for=6.6.6.6;host="', "10.0.0.1", "http", "gate.example"),
        ('for="6.6.6.6', "10.0.0.1", "http", "gate.example"),
        ("for 203.0.113.7", "10.0.0.1", "http", "gate.example"),
        (";;;", "10.0.0.1", "http", "gate.example"),
    ],
)
def test_forwarded_is_read_as_rfc_7239_has_it(value: str, address: str, proto: str, host: str) -> None:
    client = behind({"Forwarded": value}, FORWARDED)
    assert client.address == address
    assert f';proto={proto};host="{host}"' in told(client)["Forwarded"]


def test_with_both_the_x_headers_are_believed() -> None:
    headers = {"X-Forwarded-For": "203.0.113.7", "Forwarded": "for=6.6.6.6;proto=https"}
    fields = told(behind(headers, BOTH))
    assert fields == {
        "X-Forwarded-For": "203.0.113.7, 10.0.0.1",
        "X-Forwarded-Proto": "http",
        "X-Forwarded-Port": "8000",
        "X-Forwarded-Host": "gate.example",
        "Forwarded": 'for=203.0.113.7;proto=http;host="gate.example", for=10.0.0.1',
        "Via": "1.1 portico",
    }


@pytest.mark.parametrize(("style", "other"), [(X_FORWARDED, "Forwarded"), (FORWARDED, "X-Forwarded-For")])
def test_what_is_not_spoken_is_not_believed(style: Style, other: str) -> None:
    client = behind({other: "for=6.6.6.6" if other == "Forwarded" else "6.6.6.6"}, style)
    assert client.address == "10.0.0.1"


@pytest.mark.parametrize(
    ("client", "host", "fields"),
    [
        (
            Client("203.0.113.7", 4711, 443, "https", BOTH, 0),
            b"shop.example",
            {
                "X-Forwarded-For": "203.0.113.7",
                "X-Forwarded-Proto": "https",
                "X-Forwarded-Port": "443",
                "X-Forwarded-Host": "shop.example",
                "Forwarded": 'for=203.0.113.7;proto=https;host="shop.example"',
                "Via": "1.0 portico",
            },
        ),
        (
            Client("2001:db8::7", 4711, 80, "http", FORWARDED),
            b"[::1]:80",
            {"Forwarded": 'for="[2001:db8::7]";proto=http;host="[::1]:80"'},
        ),
        (Client("", 0, 0, "http", FORWARDED), None, {"Forwarded": "for=unknown;proto=http"}),
        (Client("203.0.113.7", 1, 80, "http", Style(False, False, "gate-1")), b"a", {"Via": "1.1 gate-1"}),
    ],
)
def test_what_services_are_told(client: Client, host: bytes | None, fields: dict[str, str]) -> None:
    assert told(client, host) == fields


def test_nothing_may_be_told() -> None:
    assert Client("203.0.113.7", 1, 80, "http", Style(False, False, "")).forwarded(b"a") == []


def test_each_host_is_told_as_it_is() -> None:
    client = Client("203.0.113.7", 1, 80, "http", X_FORWARDED)
    for host in (b"a", b"b", None, b"a"):
        assert told(client, host).get("X-Forwarded-Host", "").encode() == (host or b"")


def test_what_proxies_say_is_kept_apart() -> None:
    """Their words are what a client is known again by: two that differ must never look the same."""
    one = trust().said(Headers([(b"X-Forwarded-For", b"a"), (b"X-Forwarded-For", b"b"), (b"X-Forwarded-Port", b"1")]))
    assert one == (b"a, b", b"", b"", b"1", b"")
    assert not any(trust().said(Headers([(b"X-Real-IP", b"a")])))


NASTY = st.lists(
    st.one_of(
        st.sampled_from([
            b"203.0.113.7", b"10.0.0.9", b"[2001:db8::7]:80", b"::1%\xff", b"unknown", b",", b", ", b";", b"=", b'"',
            b"\\", b"for=", b'for="', b"proto=https", b"host=", b"https", b"evil.example", b"\r\nX: y", b"\0", b"\xff",
            b":", b"[", b"]", b"%", b" ", b"\t", b"99999", b"\xb2", b"1.2.3.4:\xb9",
        ]),
        st.binary(max_size=8),
    ),
    max_size=12,
).map(b"".join)  # fmt: skip
SAFE = re.compile(rb"[A-Za-z0-9-]+: [\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
ADDRESS = r"(?:[0-9.]{7,15}|[0-9a-f:.]{2,45})"
CHAIN = re.compile(rf"{ADDRESS}(?:, {ADDRESS})*")
NODE = r'for=(?:[0-9.]{7,15}|"\[[0-9a-f:.]{2,45}\]")'
FORWARDED_VALUE = re.compile(rf'{NODE};proto=https?(?:;host="[A-Za-z0-9._:\[\]-]+")?(?:, {NODE})*')
HOST = re.compile(r"[A-Za-z0-9._:\[\]-]+")


@settings(max_examples=500)
@given(st.tuples(NASTY, NASTY, NASTY, NASTY, NASTY), st.sampled_from([X_FORWARDED, FORWARDED, BOTH]))
@example((b"::1%\r\nX: y", b"https\r\n", b"a\r\nX: y", b"1\r\n", b'for="::1%\r\nX: y"'), BOTH)
@example((b"", b"", b"", b"", b'for="::1%\\\xff";host="a\\"b"'), FORWARDED)
def test_nothing_a_proxy_says_gets_into_the_lines_unread(said: tuple[bytes, ...], style: Style) -> None:
    client = trust(style).client_behind(Client("10.0.0.1", 5000, 8000, "http", style), said)
    ipaddress.ip_address(client.address)
    assert client.scheme in ("http", "https")
    assert 0 <= client.port < 65536
    assert 0 < client.local_port < 65536
    lines = b"\r\n".join(client.forwarded(b"gate.example")).split(b"\r\n")
    assert all(SAFE.fullmatch(line) for line in lines)
    shapes = {
        "X-Forwarded-For": CHAIN, "X-Forwarded-Proto": re.compile("https?"), "X-Forwarded-Port": re.compile(r"\d{1,5}"),
        "X-Forwarded-Host": HOST, "Forwarded": FORWARDED_VALUE, "Via": re.compile(r"1\.[01] portico"),
    }  # fmt: skip
    fields = told(client)
    assert fields.keys() <= shapes.keys()
    for name, value in fields.items():
        assert shapes[name].fullmatch(value), (name, value)


ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).filter(
    lambda address: not trust().includes(str(address))
)


@settings(max_examples=500)
@given(ADDRESSES, NASTY, st.sampled_from([X_FORWARDED, FORWARDED]))
@example(ipaddress.ip_address("203.0.113.7"), b'for="', FORWARDED)
@example(ipaddress.ip_address("2001:db8::7"), b'for="', FORWARDED)
@example(ipaddress.ip_address("2001:db8::7"), b'for="\\', FORWARDED)
def test_a_client_cannot_change_who_its_proxy_says_it_is(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, claim: bytes, style: Style
) -> None:
    """Whatever it claims, a quote that it leaves open included: a proxy appends to that."""
    node = f'for="[{address}]"' if style is FORWARDED and address.version == 6 else f"for={address}"
    said = [b""] * 5
    at, added = (0, str(address)) if style is X_FORWARDED else (4, node)
    said[at] = (claim + b", " if claim else b"") + added.encode()
    client = trust(style).client_behind(Client("10.0.0.1", 5000, 8000, "http", style), tuple(said))
    mapped = getattr(address, "ipv4_mapped", None)
    assert client.address == str(mapped or address)
