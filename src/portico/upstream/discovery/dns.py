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
import dns.nameserver
import dns.resolver

from portico.config.addresses import Url, is_host_name
from portico.config.balance import MAX_TARGETS, Discover, NamedTarget, Target
from portico.net.pem import Stamp, stamp
from portico.upstream.discovery import LOOK_LIMIT, Discovery, DiscoveryFailed, Found

LIFETIME: Final = 5.0
"""Seconds in which a question has to be answered, however often it is asked."""

QUESTIONS_AT_ONCE: Final = 8
"""How many of the hosts that SRV records lead to are asked for at the same time."""

MAX_HOSTS: Final = 1000
"""The most hosts that SRV records may lead to: each of them is asked for."""

HOSTS: Final = Path("/etc/hosts")

Ip = IPv4Address | IPv6Address


class _Absent(DiscoveryFailed):
    """There is no such name, or it has no addresses: that is an answer."""


class _Refused(DiscoveryFailed):
    """A server has answered that it does not answer."""


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
        self._written = _Written()
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
        if self._server is None and (written := await asyncio.to_thread(self._written.of, name)):
            return _Hosts(written, 0.0)
        async with asyncio.TaskGroup() as group:
            four = group.create_task(_addresses(resolver, name, "A"))
            six = group.create_task(_addresses(resolver, name, "AAAA"))
        v4, v6 = four.result(), six.result()
        if isinstance(v4, DiscoveryFailed):
            raise v4
        if isinstance(v6, DiscoveryFailed):
            # There are servers that refuse where a name has no such address; but no answer says nothing.
            if not isinstance(v6, _Absent | _Refused) or not v4.addresses:
                raise v6
            v6 = _Hosts((), v4.ttl)
        if not v4.addresses and not v6.addresses:
            raise _Absent(f"{name} has no addresses")
        return _Hosts((*v4.addresses, *v6.addresses), min(v4.ttl, v6.ttl))


class Addresses(Discovery):
    """Each address of a name is a target."""

    longest = LOOK_LIMIT

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
        _check_count(len(hosts.addresses))
        name = url.host.rstrip(".")
        found = (_target(url.scheme, address, url.port, name) for address in _ordered(hosts.addresses))
        return Found(tuple(found), self._asking.again_in(hosts.ttl))


class Services(Discovery):
    """Each address of each host that SRV records name is a target: with the record's port, weight and priority.

    A host that does not exist is left out; where one could not be asked for, a set without it would look as if it had
    gone, so the look fails.
    """

    longest = LOOK_LIMIT

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
        hosts, skipped = await self._hosts(dict.fromkeys(name for _, name, _, _ in records), resolver)
        if not hosts:
            raise DiscoveryFailed(skipped[0])
        records = [record for record in records if record[1] in hosts]
        _check_count(sum(len(hosts[name].addresses) for _, name, _, _ in records))
        ttl = min(float(answer.chaining_result.minimum_ttl), *(each.ttl for each in hosts.values()))
        targets = (
            _target(self._scheme, address, port, name, max(weight, 1), priority)
            for priority, name, port, weight in records
            for address in _ordered(hosts[name].addresses)
        )
        return Found(tuple(_merged(targets)), self._asking.again_in(ttl), "; ".join(skipped))

    async def _hosts(
        self, names: Iterable[str], resolver: dns.asyncresolver.Resolver
    ) -> tuple[dict[str, _Hosts], list[str]]:
        """Return the hosts of these names, and why there are others of which there are none. Raises DiscoveryFailed."""
        gate = asyncio.Semaphore(QUESTIONS_AT_ONCE)

        async def asked(name: str) -> _Hosts | DiscoveryFailed:
            if not is_host_name(name):
                return _Absent(f"{name!r} is no name of a host")
            async with gate:
                try:
                    return await self._asking.hosts(name, resolver)
                except DiscoveryFailed as failed:
                    return failed

        wanted = list(names)
        if len(wanted) > MAX_HOSTS:
            raise DiscoveryFailed(f"{len(wanted)} hosts are more than {MAX_HOSTS}")
        async with asyncio.TaskGroup() as group:
            tasks = {name: group.create_task(asked(name)) for name in wanted}
        hosts: dict[str, _Hosts] = {}
        skipped: list[str] = []
        for name, task in tasks.items():
            result = task.result()
            if isinstance(result, _Absent):
                skipped.append(str(result))
            elif isinstance(result, DiscoveryFailed):
                raise result
            else:
                hosts[name] = result
        return hosts, skipped


def _check_count(targets: int) -> None:
    if targets > MAX_TARGETS:
        raise DiscoveryFailed(f"{targets} targets are more than {MAX_TARGETS}")


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
        return _Absent(f"{name} does not exist (NXDOMAIN)")
    except dns.resolver.NoNameservers as error:
        errors = error.kwargs.get("errors", ())
        refused = _Refused if errors and all(each[4] is not None for each in errors) else DiscoveryFailed
        return refused(f"the DNS servers refuse to answer for {name}: {_refusal(error)}")
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
    found = tuple(ip_address(record.address) for record in answer.rrset or ())
    return _Hosts(tuple(filter(_is_somewhere, found)), float(answer.chaining_result.minimum_ttl))


def _is_somewhere(address: Ip) -> bool:
    """Whether there can be a target at that address."""
    return not (address.is_unspecified or address.is_multicast)


def _ordered(addresses: Iterable[Ip]) -> list[Ip]:
    return sorted(set(addresses), key=lambda address: (address.version, int(address)))


def _literal(host: str) -> Ip | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


class _Written:
    """The system's file of hosts, which goes before DNS."""

    def __init__(self) -> None:
        self._stamp: Stamp = None
        self._hosts: dict[str, tuple[Ip, ...]] = {}

    def of(self, name: str) -> tuple[Ip, ...]:
        """Return the addresses of `name` there."""
        now = stamp(str(HOSTS))
        if now != self._stamp:
            self._hosts = _read_hosts()
            self._stamp = now
        return self._hosts.get(name.lower().rstrip("."), ())


def _read_hosts() -> dict[str, tuple[Ip, ...]]:
    try:
        lines = HOSTS.read_text(errors="replace").splitlines()
    except OSError:
        return {}
    hosts: dict[str, tuple[Ip, ...]] = {}
    for line in lines:
        row = line.partition("#")[0].split()
        address = _literal(row[0]) if row else None
        if address is not None and _is_somewhere(address):
            for name in {each.lower() for each in row[1:]}:
                hosts[name] = (*hosts.get(name, ()), address)
    return hosts
