"""Targets by DNS, asked of a server on loopback."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.rcode
import pytest

from portico.config.balance import Discover
from portico.upstream.discovery import DiscoveryFailed, Found
from portico.upstream.discovery import dns as by_dns
from portico.upstream.discovery.kinds import discovery_of
from tests.harness.dns import DnsServer
from tests.harness.gateway import DEADLINE
from tests.harness.loop import run
from tests.harness.tools import program


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with DnsServer() as server:
        yield server


def look(server: DnsServer, **values: Any) -> Found:
    discover = Discover.model_validate({"resolver": server.address, **values})
    return run(lambda: discovery_of(discover).look())


def addresses(found: Found) -> list[str]:
    return [str(target) for target in found.targets]


def why_not(server: DnsServer, **values: Any) -> str:
    with pytest.raises(DiscoveryFailed) as failed:
        look(server, **values)
    assert failed.value.again_in is None
    return str(failed.value)


def test_each_address_of_a_name_is_a_target_in_a_stable_order(server: DnsServer) -> None:
    server.set("a.test", "A", "127.0.0.10", "127.0.0.9", ttl=40)
    server.set("a.test", "AAAA", "::2", "::1", ttl=30)
    found = look(server, dns="a.test:80")
    assert addresses(found) == ["127.0.0.9:80", "127.0.0.10:80", "[::1]:80", "[::2]:80"]
    assert found.again_in == 30
    server.set("a.test", "A", "127.0.0.9", "127.0.0.10", "127.0.0.9")
    assert addresses(look(server, dns="a.test:80")) == addresses(found)
    assert {target.authority for target in found.targets} == {"a.test"}


def test_tls_goes_by_the_name(server: DnsServer) -> None:
    server.set("a.test", "A", "127.0.0.1")
    (target,) = look(server, dns="https://a.test.:8443").targets
    assert (target.scheme, target.host, target.server_name) == ("https", "127.0.0.1", "a.test")
    assert target.authority == "a.test:8443"


@pytest.mark.parametrize(("ttl", "again_in"), [(0, 2.0), (1, 2.0), (7, 7.0), (3600, 20.0)])
def test_it_is_asked_again_when_the_ttl_is_over_within_bounds(server: DnsServer, ttl: int, again_in: float) -> None:
    server.set("a.test", "A", "127.0.0.1", ttl=ttl)
    assert look(server, dns="a.test:80", interval=2, max_interval=20).again_in == again_in


def test_a_canonical_name_is_followed_with_its_ttl(server: DnsServer) -> None:
    server.set("a.test", "CNAME", "b.test.", ttl=5)
    server.set("b.test", "A", "127.0.0.1", ttl=50)
    found = look(server, dns="a.test:80")
    assert (addresses(found), found.again_in) == (["127.0.0.1:80"], 5)


def test_an_address_is_not_asked_for(server: DnsServer) -> None:
    found = look(server, dns="[::1]:80")
    assert (addresses(found), found.again_in, found.targets[0].authority) == (["[::1]:80"], 300, "[::1]")
    assert not server.asked


def test_what_is_too_long_for_udp_comes_by_tcp(server: DnsServer) -> None:
    server.set("a.test", "A", *(f"10.0.{number // 250}.{number % 250 + 1}" for number in range(500)))
    assert len(look(server, dns="a.test:80").targets) == 500
    assert server.asked["a.test", "A", "udp"] == server.asked["a.test", "A", "tcp"] == 1


def test_why_a_name_cannot_be_found_out(server: DnsServer) -> None:
    assert why_not(server, dns="a.test:80") == "a.test does not exist (NXDOMAIN)"
    server.set("a.test", "TXT", "x")
    assert why_not(server, dns="a.test:80") == "a.test has no addresses"
    server.failures["a.test"] = dns.rcode.SERVFAIL
    assert why_not(server, dns="a.test:80") == "the DNS servers refuse to answer for a.test: SERVFAIL"
    server.failures["a.test"] = dns.rcode.REFUSED
    assert why_not(server, srv="_http._tcp.a.test") == "_http._tcp.a.test does not exist (NXDOMAIN)"
    assert why_not(server, dns="a.test:80", resolver="nowhere.invalid:53").startswith(
        "the DNS server nowhere.invalid has no address: "
    )


def test_a_server_that_does_not_answer(server: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_dns, "LIFETIME", 0.2)
    server.failures["a.test"] = None
    assert why_not(server, dns="a.test:80") == "no DNS server has answered for a.test within 0.2 s"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        began = time.monotonic()
        assert "within 0.2 s" in why_not(server, dns="a.test:80", resolver=f"127.0.0.1:{silent.getsockname()[1]}")
        assert time.monotonic() - began < 5


def test_a_server_that_knows_no_aaaa_does_no_harm(server: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.set("a.test", "A", "127.0.0.1", ttl=9)
    answer = server._answer

    def fussy(data: bytes, way: str) -> Any:
        made = answer(data, way)
        if made is not None and made.question[0].rdtype == by_dns.dns.rdatatype.AAAA:
            made.set_rcode(dns.rcode.SERVFAIL)
        return made

    monkeypatch.setattr(server, "_answer", fussy)
    found = look(server, dns="a.test:80")
    assert (addresses(found), found.again_in) == (["127.0.0.1:80"], 9)


def test_srv_records_say_port_weight_and_priority(server: DnsServer) -> None:
    server.set(
        "_http._tcp.a.test", "SRV", "10 0 81 one.test.", "10 5 82 two.test.", "20 1 83 Three.test.", "5 1 0 x.", ttl=30
    )
    server.set("one.test", "A", "127.0.0.1", "127.0.0.2", ttl=20)
    server.set("two.test", "AAAA", "::1", ttl=25)
    server.set("three.test", "A", "127.0.0.3")
    found = look(server, srv="_http._tcp.a.test", scheme="https")
    assert [(str(each), each.weight, each.priority, each.server_name) for each in found.targets] == [
        ("127.0.0.1:81", 1, 10, "one.test"),
        ("127.0.0.2:81", 1, 10, "one.test"),
        ("[::1]:82", 5, 10, "two.test"),
        ("127.0.0.3:83", 1, 20, "three.test"),
    ]
    assert {each.scheme for each in found.targets} == {"https"}
    assert found.again_in == 20


def test_what_an_srv_answer_brings_along_is_asked_for_all_the_same(server: DnsServer) -> None:
    server.set("_http._tcp.a.test", "SRV", "1 1 81 one.test.", "1 1 82 two.test.")
    server.set("one.test", "A", "127.0.0.1", ttl=7)
    server.set("two.test", "A", "127.0.0.2")
    server.additional["_http._tcp.a.test", "SRV"] = [("one.test", "A")]
    found = look(server, srv="_http._tcp.a.test")
    server.set("one.test", "AAAA", "::1", ttl=7)
    found = look(server, srv="_http._tcp.a.test")
    assert (addresses(found), found.again_in) == (["127.0.0.1:81", "[::1]:81", "127.0.0.2:82"], 7)
    assert {name for name, _, _ in server.asked} == {"_http._tcp.a.test", "one.test", "two.test"}


def test_the_same_address_twice_is_one_target(server: DnsServer) -> None:
    server.set("_http._tcp.a.test", "SRV", "1 2 81 one.test.", "1 3 81 two.test.", "2 9 81 one.test.")
    server.set("one.test", "A", "127.0.0.1")
    server.set("two.test", "A", "127.0.0.1")
    found = look(server, srv="_http._tcp.a.test")
    assert [(str(each), each.weight, each.priority) for each in found.targets] == [("127.0.0.1:81", 5, 1)]


def test_why_srv_records_lead_nowhere(server: DnsServer) -> None:
    server.set("_http._tcp.a.test", "SRV", "0 0 0 .")
    assert why_not(server, srv="_http._tcp.a.test") == "_http._tcp.a.test has no SRV records that lead anywhere"
    server.set("_http._tcp.a.test", "SRV", "1 1 80 gone.test.")
    assert why_not(server, srv="_http._tcp.a.test") == "gone.test does not exist (NXDOMAIN)"


def test_a_host_that_does_not_exist_keeps_no_other_away(server: DnsServer) -> None:
    server.set("_http._tcp.a.test", "SRV", "1 1 80 one.test.", "1 1 80 gone.test.", "1 1 80 no\\032host.test.")
    server.set("one.test", "A", "127.0.0.1", "0.0.0.0", "224.0.0.1")
    found = look(server, srv="_http._tcp.a.test")
    assert addresses(found) == ["127.0.0.1:80"]
    assert "gone.test does not exist (NXDOMAIN)" in found.trouble
    assert "is no name of a host" in found.trouble
    server.failures["gone.test"] = dns.rcode.SERVFAIL
    assert why_not(server, srv="_http._tcp.a.test").endswith("gone.test: SERVFAIL")


def test_silence_about_one_kind_of_addresses_is_no_answer(server: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_dns, "LIFETIME", 0.2)
    server.set("a.test", "A", "127.0.0.1")
    answer = server._answer

    def silent(data: bytes, way: str) -> Any:
        made = answer(data, way)
        return None if made is None or made.question[0].rdtype == by_dns.dns.rdatatype.AAAA else made

    monkeypatch.setattr(server, "_answer", silent)
    assert "no DNS server has answered for a.test" in why_not(server, dns="a.test:80")


def test_more_than_a_service_can_have_is_refused(server: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_dns, "MAX_TARGETS", 2)
    monkeypatch.setattr(by_dns, "MAX_HOSTS", 3)
    server.set("a.test", "A", "127.0.0.1", "127.0.0.2", "127.0.0.3")
    assert why_not(server, dns="a.test:80") == "3 targets are more than 2"
    server.set("_http._tcp.a.test", "SRV", "1 1 80 a.test.")
    assert why_not(server, srv="_http._tcp.a.test") == "3 targets are more than 2"
    server.set("_http._tcp.a.test", "SRV", *(f"1 1 80 h{number}.test." for number in range(4)))
    assert why_not(server, srv="_http._tcp.a.test") == "4 hosts are more than 3"


def test_the_file_of_hosts_goes_before_the_dns_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("# none\n127.0.0.7 b A.test # of ours\n::7\tA.test\nbad a.test\n")
    monkeypatch.setattr(by_dns, "HOSTS", hosts)
    found = run(lambda: discovery_of(Discover.model_validate({"dns": "a.test:80"})).look())
    assert (addresses(found), found.again_in) == (["127.0.0.7:80", "[::7]:80"], 1.0)


def test_workers_do_without_dnspython() -> None:
    code = "import sys, portico.runtime.worker, portico.agent.agent; print([m for m in sys.modules if m == 'dns'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_dnsmasq_is_understood(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
    config = tmp_path / "dnsmasq.conf"
    config.write_text(
        f"port={port}\nlisten-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\nlocal-ttl=12\nuser=\n"
        "host-record=one.test,127.0.0.1,::1\nhost-record=two.test,127.0.0.2\nlocal=/test/\n"
        "srv-host=_http._tcp.a.test,one.test,81,1,3\nsrv-host=_http._tcp.a.test,two.test,82,2,0\n"
    )
    command = [program("dnsmasq"), "--keep-in-foreground", f"--conf-file={config}", "--log-facility=-"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as dnsmasq:
        try:
            assert dnsmasq.stderr is not None
            for line in dnsmasq.stderr:
                if "started" in line:
                    break
            at = {"resolver": f"127.0.0.1:{port}"}
            found = run(lambda: discovery_of(Discover.model_validate({"dns": "one.test:80", **at})).look())
            assert addresses(found) == ["127.0.0.1:80", "[::1]:80"]
            found = run(lambda: discovery_of(Discover.model_validate({"srv": "_http._tcp.a.test", **at})).look())
            assert [(str(each), each.weight, each.priority) for each in found.targets] == [
                ("127.0.0.1:81", 3, 1),
                ("[::1]:81", 3, 1),
                ("127.0.0.2:82", 1, 2),
            ]
            with pytest.raises(DiscoveryFailed, match=r"gone\.test does not exist"):
                run(lambda: discovery_of(Discover.model_validate({"dns": "gone.test:80", **at})).look())
        finally:
            dnsmasq.terminate()
            dnsmasq.wait(DEADLINE)
