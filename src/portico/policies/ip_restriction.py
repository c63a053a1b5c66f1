"""Let only certain addresses in, or keep certain addresses out.

```yaml
trusted_proxies: [10.0.0.0/8]
policies:
  - ip-restriction: {deny: [198.51.100.0/24, "2001:db8:bad::/48"]}
routes:
  - path: /admin/**
    service: admin
    policies:
      - ip-restriction: {allow: [192.0.2.0/24, "2001:db8::/32"], deny: [192.0.2.66]}
        name: office
  - {path: /metrics-of-shop, service: admin, policies: [{ip-restriction: 127.0.0.1}]}
```

The address is the client's own: behind the file's `trusted_proxies`, the one that they say. Where `allow` is there, all
others are refused; what `deny` has is refused in any case, whatever `allow` says. An IPv4 address that is written as an
IPv6 one, as `::ffff:192.0.2.1`, is the IPv4 address, in the lists as in requests; so `::/0` is every address but those.
A client without an address, on a Unix socket, is on no list: `allow` refuses it, and `deny` alone lets it pass.

A list of the route replaces that of the file, unless one of them has a `name` of its own.
"""

from __future__ import annotations

import functools
import ipaddress
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Final

from pydantic import Field, model_validator

from portico.plugin import BadValue, Cidr, ConfigError, Env, OneOrMany, Policy, PolicyConfig, Request, Response, Stage

_REMEMBERED: Final = 4096
"""Addresses whose verdict is kept: most requests come from one that has just been here."""
_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")


class IpRestriction(PolicyConfig):
    """Whom to let in."""

    allow: Annotated[tuple[Cidr, ...], OneOrMany()] = ()
    """The addresses and networks that may; where there are none, all may that are not denied."""
    deny: Annotated[tuple[Cidr, ...], OneOrMany()] = ()
    """The addresses and networks that may not, even if they are allowed as well."""
    status: Annotated[int, Field(ge=400, le=499)] = 403
    """The status of the answer to who may not."""

    @model_validator(mode="after")
    def _something(self) -> IpRestriction:
        if not self.allow and not self.deny:
            raise BadValue("this keeps nobody out", "give it allow or deny, as in allow: [10.0.0.0/8]")
        return self


class Ranges:
    """Addresses of one version as ranges that are sorted, and neither overlap nor touch: a search takes log n steps."""

    __slots__ = ("_ends", "_starts")

    def __init__(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Take ranges in any order, each with its last address."""
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in sorted(ranges):
            if self._ends and start <= self._ends[-1] + 1:
                self._ends[-1] = max(self._ends[-1], end)
            else:
                self._starts.append(start)
                self._ends.append(end)

    def end_of(self, address: int) -> int:
        """Return the last address of the range that has this one, or -1 where none has it."""
        place = bisect_right(self._starts, address) - 1
        return self._ends[place] if place >= 0 and address <= self._ends[place] else -1


class Networks:
    """Networks of both versions."""

    __slots__ = ("_by_version",)

    def __init__(self, networks: Iterable[Cidr]) -> None:
        found: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
        for network in map(_plain, networks):
            found[network.version].append((int(network.network_address), int(network.broadcast_address)))
        self._by_version = {version: Ranges(ranges) for version, ranges in found.items()}

    def has(self, version: int, address: int) -> bool:
        """Return whether an address is in one of them."""
        return self._by_version[version].end_of(address) >= 0

    def cover(self, network: Cidr) -> bool:
        """Return whether every address of `network` is in one of them."""
        network = _plain(network)
        end = self._by_version[network.version].end_of(int(network.network_address))
        return end >= int(network.broadcast_address)


def _plain(network: Cidr) -> Cidr:
    """Return the IPv4 network that an IPv4-mapped one is (RFC 4291 section 2.5.5.2), and any other as it is."""
    if network.version == 6 and network.subnet_of(_MAPPED):
        low = int(network.network_address) & 0xFFFFFFFF
        return ipaddress.IPv4Network((low, network.prefixlen - 96))
    return network


def lets_pass(allowed: Networks | None, denied: Networks, text: str) -> bool:
    """Return whether an address may pass; without `allowed`, all may that are not denied."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:  # it has none, or none that anyone could list
        return allowed is None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    version, number = address.version, int(address)
    return not denied.has(version, number) and (allowed is None or allowed.has(version, number))


class IpRestrictionPolicy(Policy[IpRestriction], name="ip-restriction", stages=(Stage.GUARD, Stage.AUTHORIZE)):
    """Looks where a request comes from."""

    def setup(self, env: Env) -> None:
        """Sort the lists."""
        denied = Networks(self.config.deny)
        for network in self.config.allow:
            if denied.cover(network):
                hint = "take it from one of the lists; with allow, all others are refused without being denied"
                raise ConfigError(f"ip-restriction: {network} is allowed in vain, as deny has all of it; {hint}")
        allowed = Networks(self.config.allow) if self.config.allow else None
        judge = functools.partial(lets_pass, allowed, denied)  # without self: nothing here is a cycle
        self._lets_pass = functools.lru_cache(_REMEMBERED)(judge)

    def request(self, request: Request) -> Response | None:
        """Refuse who may not."""
        client = request.client
        if self._lets_pass("" if client is None else client.address):
            return None
        response = Response.problem(403, "address-not-allowed", detail="Requests from this address are refused.")
        assert response.problem_value is not None
        response.status = self.config.status
        response.problem_value = replace(response.problem_value, status=self.config.status)
        return response
