from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from portico.plugin import Client, ConfigError
from portico.policies.ip_restriction import IpRestriction, IpRestrictionPolicy, Networks
from tests.harness.gateway import Gateway, curl, portico_here, problem_of
from tests.harness.policies import Asked, is_freed_by_counting, policy_of, request_of

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def passes(policy: IpRestrictionPolicy, address: str) -> bool:
    asked = Asked(policy, request_of(client=Client(address, 1, 80, "http")))
    assert asked.reached or asked.problem == (403, "address-not-allowed")
    return asked.reached


LISTS: list[tuple[dict[str, Any], str, bool]] = [
    ({"allow": ["10.0.0.0/8"]}, "10.0.0.0", True),
    ({"allow": ["10.0.0.0/8"]}, "10.255.255.255", True),
    ({"allow": ["10.0.0.0/8"]}, "11.0.0.0", False),
    ({"allow": ["10.0.0.0/8"]}, "9.255.255.255", False),
    ({"allow": ["10.0.0.0/8"]}, "::a00:1", False),
    ({"allow": "192.0.2.7"}, "192.0.2.7", True),
    ({"allow": "192.0.2.7"}, "192.0.2.8", False),
    ({"allow": ["192.0.2.7", "2001:db8::/32"]}, "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", True),
    ({"allow": ["192.0.2.7", "2001:db8::/32"]}, "2001:DB8:0:0::1", True),
    ({"allow": ["192.0.2.7", "2001:db8::/32"]}, "2001:db9::", False),
    ({"deny": ["192.0.2.0/24"]}, "192.0.2.1", False),
    ({"deny": ["192.0.2.0/24"]}, "192.0.3.1", True),
    ({"deny": ["192.0.2.0/24"]}, "2001:db8::1", True),
    # denying wins, whichever is narrower
    ({"allow": ["10.0.0.0/8"], "deny": ["10.1.0.0/16"]}, "10.1.2.3", False),
    ({"allow": ["10.0.0.0/8"], "deny": ["10.1.0.0/16"]}, "10.2.2.3", True),
    ({"allow": ["10.0.0.0/8"], "deny": ["10.1.0.0/16"]}, "12.0.0.1", False),
    # an IPv4 address that is written as an IPv6 one
    ({"allow": ["10.0.0.0/8"]}, "::ffff:10.1.2.3", True),
    ({"allow": ["10.0.0.0/8"]}, "::ffff:a01:203", True),
    ({"deny": ["10.0.0.0/8"]}, "::ffff:10.1.2.3", False),
    ({"allow": ["::ffff:10.0.0.0/104"]}, "10.1.2.3", True),
    ({"allow": ["::ffff:10.0.0.0/104"]}, "::ffff:10.1.2.3", True),
    ({"allow": ["::ffff:10.0.0.0/104"]}, "11.1.2.3", False),
    ({"allow": ["::/0"]}, "10.1.2.3", False),
    ({"allow": ["::/0"]}, "::ffff:10.1.2.3", False),
    ({"allow": ["::/0"]}, "fe80::1", True),
    ({"allow": ["0.0.0.0/0"]}, "255.255.255.255", True),
    ({"allow": ["fe80::/10"]}, "fe80::1%eth0", True),
    # clients without an address
    ({"allow": ["0.0.0.0/0", "::/0"]}, "", False),
    ({"deny": ["10.0.0.0/8"]}, "", True),
    ({"allow": ["10.0.0.0/8"]}, "unknown", False),
]


@pytest.mark.parametrize(("lists", "address", "expected"), LISTS)
def test_who_may_pass(lists: dict[str, Any], address: str, expected: bool) -> None:
    policy = policy_of(IpRestrictionPolicy, **lists)
    assert passes(policy, address) is expected
    assert passes(policy, address) is expected  # and again, from memory


def test_a_request_without_a_client_has_no_address() -> None:
    assert Asked(policy_of(IpRestrictionPolicy, deny=["10.0.0.0/8"]), request_of()).reached
    assert not Asked(policy_of(IpRestrictionPolicy, allow=["10.0.0.0/8"]), request_of()).reached


def test_the_status_can_be_chosen() -> None:
    asked = Asked(policy_of(IpRestrictionPolicy, allow="10.0.0.1", status=404), request_of())
    assert asked.problem == (404, "address-not-allowed")
    assert asked.response.problem_value is not None
    assert asked.response.problem_value.detail == "Requests from this address are refused."


def test_it_leaves_no_cycle() -> None:
    assert is_freed_by_counting(lambda: policy_of(IpRestrictionPolicy, deny="10.0.0.0/8"))


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "keeps nobody out; give it allow or deny"),
    ({"allow": [], "deny": []}, "keeps nobody out"),
    ({"allow": ["10.0.0.1/8"]}, "not a network; write 10.0.0.0/8"),
    ({"allow": ["10.0.0.0/33"]}, "not a network"),
    ({"deny": ["office.example"]}, "not a network"),
    ({"deny": [7]}, "string"),
    ({"allow": ["10.0.0.1"], "status": 200}, "greater than or equal to 400"),
    ({"allow": ["10.0.0.1"], "status": 500}, "less than or equal to 499"),
    ({"allow": ["10.0.0.1"], "denied": []}, "Extra inputs"),
]


@pytest.mark.parametrize(("lists", "message"), WRONG)
def test_bad_settings(lists: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        IpRestriction.model_validate(lists)
    assert any(message in error["msg"] for error in caught.value.errors()), caught.value


@pytest.mark.parametrize(
    ("allow", "deny"),
    [
        ("10.0.0.0/8", ["10.0.0.0/8"]),
        ("10.1.0.0/16", ["0.0.0.0/0"]),
        ("10.0.0.0/8", ["10.128.0.0/9", "10.0.0.0/9"]),  # the two of them together
        ("::ffff:10.1.0.0/112", ["10.0.0.0/8"]),
        ("2001:db8::1", ["2001:db8::/32"]),
    ],
)
def test_what_is_allowed_in_vain_is_an_error(allow: str, deny: list[str]) -> None:
    with pytest.raises(ConfigError, match="is allowed in vain, as deny has all of it; take it from one of the lists"):
        policy_of(IpRestrictionPolicy, allow=["192.0.2.0/24", allow], deny=deny)


# Against the standard library, which looks at one network after the other

CLOSE = [0, 1, 2**31, 2**32 - 1, 0xFFFF << 32, (0xFFFF << 32) + 5, 2**127, 2**128 - 1]


@st.composite
def networks(draw: st.DrawFn) -> Network:
    kind, bits = draw(st.sampled_from([(ipaddress.IPv4Network, 32), (ipaddress.IPv6Network, 128)]))
    number = draw(st.sampled_from(CLOSE) | st.integers(0, 2**bits - 1)) % 2**bits
    prefix = draw(st.integers(0, bits) | st.sampled_from([0, bits - 1, bits]))
    made: Network = kind((number, prefix), strict=False)
    return made


def plain(network: Network) -> Network:
    """Return an IPv4-mapped network as what it is, by its text."""
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(ipaddress.IPv6Network("::ffff:0:0/96")):
        return ipaddress.ip_network(f"{network.network_address.ipv4_mapped}/{network.prefixlen - 96}")
    return network


@settings(max_examples=400, deadline=None)
@given(st.lists(networks(), max_size=12), st.data())
@example([ipaddress.ip_network("0.0.0.0/1"), ipaddress.ip_network("128.0.0.0/1")], None)
def test_networks_have_what_ipaddress_says(listed: list[Network], data: st.DataObject | None) -> None:
    compiled = Networks(listed)
    edges = [
        edge + step
        for network in listed
        for edge in (int(network.network_address), int(network.broadcast_address))
        for step in (-1, 0, 1)
    ]
    drawn = data.draw(st.lists(st.integers(0, 2**128 - 1), max_size=4)) if data is not None else []
    for number in [*edges, *CLOSE, *drawn]:
        for kind, bits in ((ipaddress.IPv4Address, 32), (ipaddress.IPv6Address, 128)):
            address = kind(number % 2**bits)
            mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
            if mapped is None:  # the policy itself sees to the others
                expected = any(address in plain(network) for network in listed)
                assert compiled.has(address.version, int(address)) is expected
    for network in listed:
        assert compiled.cover(network)


addresses = st.builds(ipaddress.IPv4Address, st.integers(0, 2**32 - 1)) | st.builds(
    ipaddress.IPv6Address, st.integers(0, 2**128 - 1) | st.integers(0xFFFF << 32, (0xFFFF << 32) + 2**32 - 1)
)


@settings(max_examples=300, deadline=None)
@given(st.lists(networks(), max_size=6), st.lists(networks(), max_size=4), st.lists(addresses, max_size=6))
def test_the_policy_does_what_it_says(allow: list[Network], deny: list[Network], asked: list[Any]) -> None:
    try:
        policy = policy_of(IpRestrictionPolicy, allow=allow, deny=deny)
    except (ValidationError, ConfigError):
        return
    near = [network[place] for network in (*allow, *deny) for place in (0, -1)]
    for address in [*asked, *near]:
        meant = getattr(address, "ipv4_mapped", None) or address
        denied = any(meant in plain(network) for network in deny)
        allowed = not allow or any(meant in plain(network) for network in allow)
        assert passes(policy, str(address)) is (allowed and not denied)


class Counted(int):
    """An address that counts how often it is compared."""

    compared = 0

    def __lt__(self, other: int) -> bool:
        self.compared += 1
        return int(self) < other


def test_thousands_of_networks_take_a_few_steps() -> None:
    many = Networks(ipaddress.IPv4Network((number << 16, 24)) for number in range(65536))
    for number in range(0, 2**32, 2**32 // 500):
        address = Counted(number)
        assert many.has(4, address) is (number & 0xFF00 == 0)
        assert 1 <= address.compared <= 17


CONFIG = """
trusted_proxies: [127.0.0.1]
policies: [ip-restriction: {deny: 192.0.2.66}]
routes:
  - {path: /open, respond: open}
  - path: /office
    respond: office
    policies: [{ip-restriction: {allow: [192.0.2.0/24, "2001:db8::/32"]}, name: office}]
  - {path: /hidden, respond: hidden, policies: [{ip-restriction: {allow: 10.0.0.0/8, status: 404}}]}
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("addresses"), CONFIG) as gateway:
        yield gateway


def test_the_address_is_what_a_trusted_proxy_says(gateway: Gateway) -> None:
    def get(path: str, address: str) -> Any:
        return curl("-H", f"X-Forwarded-For: {address}", gateway.url + path)

    assert get("/open", "203.0.113.1").status == 200
    assert get("/office", "192.0.2.1").status == 200
    assert get("/office", "2001:db8::7").status == 200
    assert get("/office", "::ffff:192.0.2.1").status == 200
    problem_of(get("/office", "203.0.113.1"), 403, "address-not-allowed")
    for path in ("/open", "/office", "/nothing"):
        problem_of(get(path, "192.0.2.66"), 403, "address-not-allowed")
    problem_of(get("/hidden", "192.0.2.66"), 404, "address-not-allowed")
    problem_of(curl(f"{gateway.url}/office"), 403, "address-not-allowed")


def test_what_is_in_vain_is_told_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "portico.yaml"
    file.write_text("policies: [ip-restriction: {allow: 10.0.0.0/8, deny: 0.0.0.0/0}]\nroutes: [respond: a]\n")
    done = portico_here("check", str(file))
    assert done.code != 0
    assert "portico.yaml:1:12: ip-restriction: 10.0.0.0/8 is allowed in vain" in done.out + done.err
