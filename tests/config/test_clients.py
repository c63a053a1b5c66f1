"""What is believed of clients and told of them: the PROXY protocol, trusted proxies, forwarding; and their limits."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from portico.config.addresses import EVERYONE, Address
from portico.config.schema import Config, Forwarded, Limits
from tests.config.kinds import cases, config_of, findings_of, load, said_of


@pytest.mark.parametrize(
    ("given", "networks"),
    [
        ("true", EVERYONE),
        ("false", None),
        ("off", None),
        ("10.0.0.0/8", (ip_network("10.0.0.0/8"),)),
        ("[10.0.0.0/8, 'fd00::/8', 192.0.2.7]", tuple(map(ip_network, ("10.0.0.0/8", "fd00::/8", "192.0.2.7/32")))),
    ],
)
def test_who_speaks_the_proxy_protocol(given: str, networks: object) -> None:
    listen = config_of(f"listen: [{{address: ':80', proxy_protocol: {given}}}]").listen
    assert [listener.proxy_protocol for listener in listen] == [networks]


@pytest.mark.parametrize(
    ("given", "networks"),
    [
        ("10.0.0.0/8", [ip_network("10.0.0.0/8")]),
        ("[192.0.2.7, '::1']", [ip_network("192.0.2.7/32"), ip_network("::1/128")]),
        ("[]", []),
        ("", []),
    ],
)
def test_whom_is_believed(given: str, networks: list[object]) -> None:
    assert list(config_of(f"trusted_proxies: {given}").trusted_proxies) == networks


@pytest.mark.parametrize(
    ("given", "forwarded"),
    [
        ("forwarded", Forwarded(headers="forwarded")),
        ("both", Forwarded(headers="both")),
        ("{headers: x-forwarded}", Forwarded()),
        ("{via: edge-1.example.com}", Forwarded(via="edge-1.example.com")),
        ("{via: 7}", Forwarded(via="7")),
        ("{via: off, headers: both}", Forwarded(headers="both", via=None)),
        ("{via: false}", Forwarded(via=None)),
        ("", Forwarded(headers="x-forwarded", via="portico")),
    ],
)
def test_what_services_are_told(given: str, forwarded: Forwarded) -> None:
    assert config_of(f"forwarded: {given}").forwarded == forwarded


def test_new_limits_have_safe_defaults() -> None:
    limits = Config().limits
    assert (limits.handshake_timeout, limits.write_timeout, limits.tunnel_timeout) == (10.0, 30.0, 600.0)
    assert (limits.chunk_line, limits.trailers, limits.response_header_count) == (256, 8192, 1000)


def test_new_limits_can_be_given() -> None:
    text = (
        "limits: {handshake_timeout: 1s, write_timeout: 2m, tunnel_timeout: 1h, chunk_line: 1KiB, trailers: 1,"
        " response_header_count: 5}"
    )
    assert config_of(text).limits == Limits(
        handshake_timeout=1,
        write_timeout=120,
        tunnel_timeout=3600,
        chunk_line=1024,
        trailers=1,
        response_header_count=5,
    )


MISTAKES = """
listen: {address: ':80', proxy_protocol: []}
    42 proxy_protocol: expected 1 or more items, not 0
listen: {address: ':80', proxy_protocol: on}
    42 proxy_protocol: 'on' is not a network
    hint: write 10.0.0.0/8, fd00::/8 or 192.0.2.7
listen: {address: ':80', proxy_protocol: [10.0.0.1/8]}
    43 proxy_protocol: '10.0.0.1/8' is not a network
    hint: write 10.0.0.0/8
listen: {address: ':80', proxy_protocol: [[]]}
    43 proxy_protocol: expected a text, not a list
listen: {address: ':80', proxy_protocl: true}
    26 unknown key 'proxy_protocl' in listen
    hint: did you mean 'proxy_protocol'?
listen: {address: ':80', origin: here}
    26 unknown key 'origin' in listen
    hint: listen can have address, tls, proxy_protocol and redirect_https
listen: [{tls: }]
    10 listen needs 'address'
    hint: `host:port`, `[v6]:port`, or `:port` for every interface.
    16 tls: there is nothing here
    hint: give it a value, or leave the key out
listen: [{address: ":443", tls: {client_ca: }}]
    33 tls: nothing says which certificate is shown
    hint: write {certificate: server.crt, key: server.key}
    45 client_ca: there is nothing here
    hint: give it a value, or leave the key out
services: {chat: {url: "http://chat:1", upgrades: true}}
    51 upgrades: 'true' is not a protocol to upgrade to
    hint: write websocket, or leave it out
limits: {request_head: 10}
    24 request_head: expected 256 or more, not 10
trusted_proxies: [office]
    19 trusted_proxies: 'office' is not a network
    hint: write 10.0.0.0/8, fd00::/8 or 192.0.2.7
trusted_proxies: {a: b}
    18 trusted_proxies: expected a text, not a mapping
trusted_proxy: 10.0.0.0/8
    1 unknown key 'trusted_proxy' in the configuration
    hint: did you mean 'trusted_proxies'?
forwarded: off
    12 forwarded: expected 'x-forwarded', 'forwarded' or 'both', not 'off'
forwarded: {headers: x-forward}
    22 headers: expected 'x-forwarded', 'forwarded' or 'both', not 'x-forward'
    hint: did you mean 'x-forwarded'?
forwarded: {via: edge one}
    18 via: 'edge one' is not a token
    hint: write one word such as portico, without spaces or slashes
forwarded: {via: ''}
    18 via: '' is not a token
    hint: write one word such as portico, without spaces or slashes
forwarded: {header: both}
    13 unknown key 'header' in forwarded
    hint: did you mean 'headers'?
limits: {handshake_timeout: 0}
    29 handshake_timeout: expected more than 0, not 0
limits: {write_timeout: off}
    25 write_timeout: 'off' is not a duration
    hint: write 5s, 250ms, 1m30s, 2h or 1d; a bare number is seconds
limits: {tunnel_timeout: 0s}
    26 tunnel_timeout: expected more than 0, not '0s'
limits: {chunk_line: 1k}
    22 chunk_line: '1k' is not a size
    hint: write 64KiB, 10MiB, 5MB or 1GiB; a bare number is bytes
limits: {trailers: -1}
    20 trailers: -1 is not a size
    hint: write 64KiB, 10MiB, 5MB or 1GiB; a bare number is bytes
limits: {response_header_count: 0}
    33 response_header_count: expected 1 or more, not 0
limits: {write_timout: 5}
    10 unknown key 'write_timout' in limits
    hint: did you mean 'write_timeout'?
"""


@pytest.mark.parametrize(("text", "said"), cases(MISTAKES))
def test_what_is_said_about(text: str, said: list[str]) -> None:
    assert said_of(findings_of(text)) == said


@pytest.mark.parametrize("network", ["0.0.0.0/0", "::/0"])
def test_trusting_everyone_is_told_at_its_place(network: str) -> None:
    loaded = load(f"trusted_proxies:\n  - 10.0.0.0/8\n  - '{network}'\n")
    assert loaded.config is not None
    (finding,) = loaded.findings
    assert str(finding).startswith(f"portico.yaml:3:5: warning: with {network} trusted, everyone can say who they are")
    assert finding.hint == "name the networks of the proxies in front of the gateway"
    assert load(f"trusted_proxies: '{network}'").findings[0].column == 18


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("LocalHost", True)]
    + [(host, False) for host in ("", "0.0.0.0", "::", "10.0.0.1", "example.com", "localhost.example.com")],
)
def test_what_only_this_machine_can_reach(host: str, *, is_loopback: bool) -> None:
    assert Address(host, 80).is_loopback is is_loopback
