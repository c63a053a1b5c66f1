"""Targets by DNS: the addresses of a name, or what its SRV records (RFC 2782) lead to."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final, Literal

import dns.asyncresolver
import dns.exception
import dns.message
import dns.nameserver
import dns.rdatatype
import dns.resolver

from portico.config.addresses import Url
from portico.config.balance import Discover, NamedTarget, Target
from portico.upstream.discovery import Discovery, DiscoveryFailed, Found

LIFETIME: Final = 5.0
"""Seconds in which a question has to be answered, however often it is asked."""

QUESTIONS_AT_ONCE: Final = 8
"""How many of the hosts that SRV records lead to are asked for at the same time."""

HOSTS: Final = Path("/etc/hosts")

Ip = IPv4Address | IPv6Address


@dataclass(frozen=True)
class _Hosts:
    """The addresses of one name, and for how many seconds they hold."""

    addresses: tuple[Ip, ...]
    ttl: float


class _Asking:
    """Asks the DNS server of a `discover`, or those of the system."""

    def __init__(self, discover: Discover) -> None:
        self._server = discover.resolver
        self._shortest = discover.interval
        self._longest = max(discover.max_interval, discover.interval)

    def again_in(self, ttl: float) -> float:
        """Return when to ask again what holds for `ttl` seconds."""
        return min(max(ttl, self._shortest), self._longest)

    async def resolver(self) -> dns.asyncresolver.Resolver:
        """Return what asks; made for each look, since the system's servers may be others by then."""
        if self._server is None:
            try:
                made = await asyncio.to_thread(dns.asyncresolver.Resolver)
            except dns.exception.DNSException as error:
                raise DiscoveryFailed(f"the system names no DNS server: {error}") from error
            made.use_search_by_default = True
        else:
            made = dns.asyncresolver.Resolver(configure=False)
            made.nameservers = [await self._nameserver(self._server)]
        made.lifetime = LIFETIME
        made.use_edns(0, 0, 1232)  # as much as comes in one piece everywhere; what is more comes by TCP
        return made

    @staticmethod
    async def _nameserver(server: Url) -> dns.nameserver.Nameserver:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(server.host, server.port, type=socket.SOCK_DGRAM)
        except OSError as error:
            raise DiscoveryFailed(f"the DNS server {server.host} has no address: {error.strerror}") from error
        return dns.nameserver.Do53Nameserver(str(found[0][4][0]), server.port)

    async def hosts(self, name: str, resolver: dns.asyncresolver.Resolver) -> _Hosts:
        """Return the addresses of `name`; raise DiscoveryFailed where it has none."""
        if self._server is None and (written := await asyncio.to_thread(_written, name)):
            return _Hosts(written, 0.0)
        async with asyncio.TaskGroup() as group:
            four = group.create_task(_addresses(resolver, name, "A"))
            six = group.create_task(_addresses(resolver, name, "AAAA"))
        v4, v6 = four.result(), six.result()
        if isinstance(v4, DiscoveryFailed):
            raise v4
        if isinstance(v6, DiscoveryFailed):  # there are servers that answer so where a name has no such address
            if not v4.addresses:
                raise v6
            v6 = _Hosts((), v4.ttl)
        if not v4.addresses and not v6.addresses:
            raise DiscoveryFailed(f"{name} has no addresses")
        return _Hosts((*v4.addresses, *v6.addresses), min(v4.ttl, v6.ttl))


class Addresses(Discovery):
    """Each address of a name is a target."""

    def __init__(self, discover: Discover) -> None:
        assert discover.dns is not None
        self._url = discover.dns
        self._asking = _Asking(discover)

    async def look(self) -> Found:
        """Return the addresses of the name."""
        url = self._url
        literal = _literal(url.host)
        if literal is not None:
            return Found((Target(address=url),), self._asking.again_in(float("inf")))
        hosts = await self._asking.hosts(url.host, await self._asking.resolver())
        name = url.host.rstrip(".")
        found = (_target(url.scheme, address, url.port, name) for address in _ordered(hosts.addresses))
        return Found(tuple(found), self._asking.again_in(hosts.ttl))


class Services(Discovery):
    """Each address of each host that SRV records name is a target: with the record's port, weight and priority."""

    def __init__(self, discover: Discover) -> None:
        assert discover.srv is not None
        self._name = discover.srv
        self._scheme: Literal["http", "https"] = discover.scheme
        self._asking = _Asking(discover)

    async def look(self) -> Found:
        """Return where the records lead."""
        resolver = await self._asking.resolver()
        answer = await _ask(resolver, self._name, "SRV")
        if isinstance(answer, DiscoveryFailed):
            raise answer
        records = sorted(
            (record.priority, record.target.to_text(omit_final_dot=True).lower(), record.port, record.weight)
            for record in answer.rrset or ()
            if record.port and record.target.to_text() != "."  # "not at all", RFC 2782 says
        )
        if not records:
            raise DiscoveryFailed(f"{self._name} has no SRV records that lead anywhere")
        hosts = _told_with(answer.response)
        gate = asyncio.Semaphore(QUESTIONS_AT_ONCE)

        async def asked(name: str) -> _Hosts | DiscoveryFailed:
            async with gate:
                try:
                    return await self._asking.hosts(name, resolver)
                except DiscoveryFailed as failed:
                    return failed

        async with asyncio.TaskGroup() as group:
            missing = dict.fromkeys(name for _, name, _, _ in records if name not in hosts)
            tasks = {name: group.create_task(asked(name)) for name in missing}
        ttl = float(answer.chaining_result.minimum_ttl)
        for name, task in tasks.items():
            result = task.result()
            if isinstance(result, DiscoveryFailed):  # a set without it would look as if it had gone
                raise result
            hosts[name] = result
        ttl = min(ttl, *(hosts[name].ttl for _, name, _, _ in records))
        targets = (
            _target(self._scheme, address, port, name, max(weight, 1), priority)
            for priority, name, port, weight in records
            for address in _ordered(hosts[name].addresses)
        )
        return Found(tuple(_merged(targets)), self._asking.again_in(ttl))


def _target(
    scheme: Literal["http", "https"], address: Ip, port: int, name: str, weight: int = 1, priority: int = 0
) -> Target:
    return NamedTarget(address=Url(scheme, str(address), port), weight=weight, priority=priority, name=name)


def _merged(targets: Iterable[Target]) -> Iterator[Target]:
    """Yield each address once: with the weights of its first priority together."""
    by_address: dict[str, Target] = {}
    for target in targets:
        known = by_address.setdefault(str(target), target)
        if known is not target and known.priority == target.priority:
            by_address[str(target)] = known.model_copy(update={"weight": known.weight + target.weight})
    yield from by_address.values()


async def _ask(resolver: dns.asyncresolver.Resolver, name: str, kind: str) -> dns.resolver.Answer | DiscoveryFailed:
    """Return the answer, which may be that there is nothing of that kind; or why there is none."""
    try:
        return await resolver.resolve(name, kind, raise_on_no_answer=False)
    except dns.resolver.NXDOMAIN:
        return DiscoveryFailed(f"{name} does not exist (NXDOMAIN)")
    except dns.resolver.NoNameservers as error:
        return DiscoveryFailed(f"the DNS servers refuse to answer for {name}: {_refusal(error)}")
    except dns.exception.Timeout:
        return DiscoveryFailed(f"no DNS server has answered for {name} within {LIFETIME:g} s")
    except (dns.exception.DNSException, OSError) as error:
        return DiscoveryFailed(f"DNS cannot be asked for {name}: {error}")


def _refusal(error: dns.resolver.NoNameservers) -> str:
    """Say how the servers have answered, such as `SERVFAIL`."""
    reasons = dict.fromkeys(str(each[3]) for each in error.kwargs.get("errors", ()))
    return ", ".join(reason.removeprefix("Server answered ") for reason in reasons) or "no reason given"


async def _addresses(resolver: dns.asyncresolver.Resolver, name: str, kind: str) -> _Hosts | DiscoveryFailed:
    answer = await _ask(resolver, name, kind)
    if isinstance(answer, DiscoveryFailed):
        return answer
    return _Hosts(
        tuple(ip_address(record.address) for record in answer.rrset or ()), float(answer.chaining_result.minimum_ttl)
    )


def _told_with(response: dns.message.Message) -> dict[str, _Hosts]:
    """Return the addresses that a server has told beside its answer, to spare a question."""
    hosts: dict[str, _Hosts] = {}
    for found in response.additional:
        if found.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA):
            name = found.name.to_text(omit_final_dot=True).lower()
            known = hosts.get(name, _Hosts((), float("inf")))
            more = tuple(ip_address(record.address) for record in found)
            hosts[name] = _Hosts((*known.addresses, *more), min(known.ttl, float(found.ttl)))
    return hosts


def _ordered(addresses: Iterable[Ip]) -> list[Ip]:
    return sorted(set(addresses), key=lambda address: (address.version, int(address)))


def _literal(host: str) -> Ip | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _written(name: str) -> tuple[Ip, ...]:
    """Return the addresses of `name` in the system's file of hosts, which goes before DNS."""
    try:
        lines = HOSTS.read_text(errors="replace").splitlines()
    except OSError:
        return ()
    rows = (line.partition("#")[0].split() for line in lines)
    wanted = name.lower().rstrip(".")
    found = (_literal(row[0]) for row in rows if wanted in map(str.lower, row[1:]))
    return tuple(address for address in found if address is not None)
