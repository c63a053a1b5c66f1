"""What requests are sent to."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from portico.config.addresses import HttpUrl
from portico.config.balance import Balance, Discover, HealthCheck, Outliers, Target
from portico.config.errors import Errors
from portico.config.forms import NotInFile, Off, OneOrMany, Shorthand, is_off
from portico.config.part import Part
from portico.config.policy_use import Policies
from portico.config.resilience import (
    Breaker,
    Concurrency,
    Fallback,
    Hedge,
    Keepalive,
    Mirror,
    Retry,
    Split,
    Timeout,
)
from portico.config.tls import ServiceTls
from portico.config.values import BadValue, Count, Upgrade


def _not_off(value: object) -> object:
    if is_off(value):
        raise BadValue("this does not say which", "write {connect: off, first_byte: off, idle: off, total: off}")
    return value


_OF_A_SPLIT = {"split", "targets", "policies", "errors", "mirror", "origin"}
"""What a service can have that divides its requests among others."""


class Service(Part):
    """What requests are sent to. A text stands for its `url`."""

    url: HttpUrl | None = None
    """Where it is: `http(s)://host[:port][/path]`; requests go below the path. Either this, or one of the next
    three."""
    discover: Discover | None = None
    """Where its targets are found out while the gateway runs."""
    split: Annotated[Split, Shorthand("to")] | None = None
    """The services among which its requests are divided."""
    targets: Annotated[tuple[Annotated[Target, Shorthand("address")], ...], Field(validate_default=True)] = ()
    """The places where it runs: `host:port`, or a mapping of `address`, `weight` and more."""
    balance: Annotated[Balance, Shorthand("algorithm")] = Balance()
    """Which of its targets gets the next request."""
    health: Annotated[Annotated[HealthCheck, Shorthand("path")] | None, Off()] = None
    """How it is found out whether a target is well; not at all unless given."""
    outliers: Annotated[Outliers | None, Off()] = Outliers()
    """When a target is taken out for a while by what its answers were like; `off` for never."""
    retry: Annotated[Annotated[Retry, Shorthand("attempts")] | None, Off()] = None
    """When a request is sent again that the service may have seen; never unless given."""
    hedge: Annotated[Annotated[Hedge, Shorthand("after")] | None, Off()] = None
    """When a request is sent to a second target as well; never unless given."""
    breaker: Annotated[Annotated[Breaker, Shorthand("failures")] | None, Off()] = None
    """When the service is not asked any more for a while; never unless given."""
    fallback: Annotated[Annotated[Fallback, Shorthand("service")] | None, Off()] = None
    """What is answered where the service cannot be asked; the problem unless given."""
    concurrency: Annotated[Annotated[Concurrency, Shorthand("limit")] | None, Off()] = None
    """How many requests each worker may have under way at the service; any number unless given."""
    mirror: Annotated[Annotated[Mirror, Shorthand("service")] | None, Off()] = None
    """A service that gets a copy of requests."""
    tls: ServiceTls | None = None
    """How TLS is spoken with the targets that are `https`. Unless given their certificates are verified with the
    authorities of the system."""
    timeout: Annotated[Timeout, Shorthand("total"), BeforeValidator(_not_off)] = Timeout()
    """How long it may take; a single duration is `total`."""
    max_connections: Count = 1024
    """How many connections each worker may have to each target, those of WebSockets included; requests beyond that are
    answered 503."""
    keepalive: Annotated[Keepalive | None, Off()] = Keepalive()
    """How long connections are kept for the next request; `off` makes a new one each time."""
    upgrades: Annotated[Annotated[tuple[Upgrade, ...], OneOrMany()] | None, Off()] = ("websocket",)
    """The protocols that a client may change to on its connection (`Upgrade`), which then belongs to it and the service
    alone; `off` for none. What is not listed is not asked for, and the service answers as to any other request."""
    policies: Policies = ()
    """Policies around the routes to this service; not around what comes to it by another one's split, fallback or
    mirror."""
    errors: Annotated[Errors, Shorthand("shape")] | None = None
    """How problems of its routes are written, where that is not as the file has it."""
    origin: Annotated[str, NotInFile()] = ""
    """Where it is written: `file:line:column`."""

    @property
    def base_path(self) -> str:
        """The path of its URL, which all requests go below."""
        return self.url.path if self.url is not None else ""

    @property
    def others(self) -> tuple[str, ...]:
        """The services that its requests may go on to."""
        parts = () if self.split is None else self.split.to
        further = [each.service for each in (self.fallback, self.mirror) if each is not None and each.service]
        return (*(part.service for part in parts), *further)

    @field_validator("targets")
    @classmethod
    def _one_way_to_say_where(cls, targets: tuple[Target, ...], info: ValidationInfo) -> tuple[Target, ...]:
        """Make the URL the one target, so that whoever reads a Service has one thing to look at."""
        if "url" not in info.data:  # it is wrong, and that was said
            return targets
        url, others = info.data["url"], [key for key in ("discover", "split") if info.data.get(key) is not None]
        if len(others) > 1 or (others and (url is not None or targets)):
            raise BadValue(f"the service has {others[0]} as well", "keep one of url, targets, discover and split")
        if others:
            return ()
        if url is None:
            if not targets:
                raise BadValue("nothing says where it is", "give it a url: http://host:port, or targets: [host:port]")
            if len({str(target) for target in targets}) < len(targets):
                raise BadValue("a target stands there twice", "keep one, and give it a larger weight")
            return targets
        only = (Target(address=url._replace(path="")),)
        if targets not in ((), only):
            raise BadValue("the service has a url as well", "keep one of them")
        return only

    @model_validator(mode="after")
    def _a_split_has_no_targets(self) -> Service:
        if self.split is not None:
            given = self.model_fields_set - _OF_A_SPLIT
            if given:
                key = min(given)
                raise BadValue(
                    f"a service that is divided has no use for {key}", f"give {key} to the services it names"
                )
        return self

    @field_validator("tls")
    @classmethod
    def _where_tls_is_spoken(cls, tls: ServiceTls | None, info: ValidationInfo) -> ServiceTls | None:
        targets: tuple[Target, ...] = info.data.get("targets", ())
        discover: Discover | None = info.data.get("discover")
        if tls is not None and discover is not None and not discover.may_speak_tls:
            said = "scheme: https" if discover.dns is None else f"dns: {discover.dns._replace(scheme='https')}"
            raise BadValue("TLS is spoken to none of the service's targets", f"write {said}, or leave tls out")
        if tls is not None and targets and all(target.scheme == "http" for target in targets):
            first = targets[0].address
            secure = first._replace(scheme="https", port=443 if first.port == 80 else first.port)
            raise BadValue("TLS is spoken to none of the service's targets", f"write {secure}, or leave tls out")
        return tls
