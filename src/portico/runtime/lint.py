"""What is legal in a configuration, and probably not meant."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from portico.config.addresses import is_everyone, is_of_this_machine, parse_url
from portico.config.findings import Findings, place_of
from portico.config.nearest import did_you_mean
from portico.config.policy_use import PolicyUse
from portico.config.schema import Config
from portico.config.schema import Route as RouteConfig
from portico.config.services import led_to
from portico.config.upstream import Service
from portico.http.headers import Headers
from portico.http.message import Request
from portico.net.pem import KeyPair
from portico.net.server_stream import REFUSED_METHODS
from portico.net.tls import remarks_on
from portico.policy.authenticator import AuthenticatorConfig
from portico.policy.base import Stage
from portico.policy.registry import Registry
from portico.routing.entry import Entry
from portico.routing.shadow import find_shadows
from portico.runtime.chains import BUILT_IN, stage_of
from portico.runtime.compile import Compiled
from portico.runtime.runtime import Route

METHODS: Final = frozenset(
    (
        *("ACL", "BIND", "CHECKOUT", "COPY", "DELETE", "GET", "HEAD", "LINK", "LOCK", "M-SEARCH", "MERGE"),
        *("MKACTIVITY", "MKCALENDAR", "MKCOL", "MOVE", "NOTIFY", "OPTIONS", "PATCH", "POST", "PROPFIND", "PROPPATCH"),
        *("PURGE", "PUT", "QUERY", "REBIND", "REPORT", "SEARCH", "SOURCE", "SUBSCRIBE", "UNBIND"),
        *("UNLINK", "UNLOCK", "UNSUBSCRIBE"),
    )
)
"""The methods that reach a route: those of the HTTP parser, without those that the server refuses."""


def lint(config: Config, compiled: Compiled, registry: Registry, findings: Findings) -> None:
    """Add a warning for whatever is odd."""
    _shadowed_routes(compiled.entries, findings)
    _unused_services(config, compiled.used_services, findings)
    _policies_that_are_gone_around(config, registry, findings)
    _no_timeouts(config, findings)
    _looks_that_overtake(config, findings)
    _open_routes(config, compiled.entries, registry, findings)
    _ways_to_policies(compiled, registry, findings)
    _keys_that_anyone_can_change(config, findings)
    _nonces_that_are_taken_again(config, findings)
    _certificates_that_nobody_asks_for(config, registry, findings)
    _sessions_that_anyone_can_read(config, findings)
    _remarks_of_policies(config, registry, findings)
    _strange_methods(config, findings)
    _unverified_services(config, findings)
    _clients_who_say_who_they_are(config, findings)
    _certificates(config, compiled, findings)
    _redirects_to_themselves(config, findings)


def _shadowed_routes(entries: Sequence[Entry[Route]], findings: Findings) -> None:
    for shadow in find_shadows(entries):
        route, other = shadow.candidate.payload, shadow.by.payload
        if route.origin == BUILT_IN:
            continue
        message = (
            f"route {route.name} can never match {shadow.candidate.path}: {other.name} ({other.origin}) goes first"
        )
        hint = "put it above the other one, or ask more of a request there"
        findings.warning(place_of(route.origin), message, hint)


def _unused_services(config: Config, used: frozenset[str], findings: Findings) -> None:
    asked = led_to(config.services, used)
    for name, service in config.services.items():
        if name not in asked:
            findings.warning(place_of(service.origin), f"no route uses service {name}", "remove it, or add a route")


def _policies_that_are_gone_around(config: Config, registry: Registry, findings: Findings) -> None:
    """Warn of a service that asks who is calling, where another one leads to it without doing so."""
    for name, service in config.services.items():
        for other in service.others:
            target = config.services.get(other)
            kinds = () if target is None else target.policies
            asking = next((use for use in kinds if not use.off and registry.policies[use.kind].of_callers), None)
            if asking is not None and all(use.name != asking.name for use in service.policies):
                message = f"what comes to service {other} by {name} is not asked for its {asking.name}"
                hint = f"give {name}, or the routes to it, the policy as well"
                findings.warning(place_of(service.origin), message, hint)


def _no_timeouts(config: Config, findings: Findings) -> None:
    for name, service in config.services.items():
        timeout = service.timeout
        if timeout.total is None and None in (timeout.connect, timeout.first_byte, timeout.idle):
            message = f"service {name} may keep a request waiting for ever"
            findings.warning(
                place_of(service.origin), message, "give it timeout: {total: 60s}, or switch none of them off"
            )


def _looks_that_overtake(config: Config, findings: Findings) -> None:
    for name, service in config.services.items():
        check = service.health
        if check is not None and check.timeout > check.interval:
            message = f"a look at a target of service {name} may take longer than the time to the next one"
            hint = f"give its health a timeout of at most {check.interval:g}s"
            findings.warning(place_of(service.origin), message, hint)


def _open_routes(config: Config, entries: Sequence[Entry[Route]], registry: Registry, findings: Findings) -> None:
    """Warn of a route to a service that asks nobody who they are, where others do, and that does not say so itself."""
    to_services = [entry for entry in entries if entry.payload.endpoint.name == "service"]
    protected = [(entry.payload, name) for entry in to_services if (name := _authentication(entry.payload, registry))]
    for entry in to_services:
        route = entry.payload
        meant = any(use.off for use in config.routes[entry.order].policies) or _says_so(route, registry)
        if meant or _authentication(route, registry):
            continue
        if next(_asking(route, registry), None) is not None:
            message = f"whoever calls route {route.name} chooses whether it asks who is calling: by what they send"
            hint = "give one of its policies no `when`; or add anonymous, where this is meant, or authorize"
            findings.warning(place_of(route.origin), message, hint)
        elif protected:
            other, policy = protected[0]
            message = f"route {route.name} is open to everyone, while {other.name} asks who is calling"
            hint = f"add the policy; or, where this is meant, have it in a wider scope and write `- {policy}: off` here"
            findings.warning(place_of(route.origin), message, hint)


_URLS_OF_KEYS: Final = ("jwks_url", "discovery_url")

_CHOSEN: Final = re.compile(r"\b(?:headers|query|cookies)\b")
"""What of a condition the client has in its hand, and can leave out."""


def _asking(route: Route, registry: Registry) -> Iterator[PolicyUse]:
    """Yield the policies that ask who is calling."""
    for scoped in route.policies:
        policy = registry.policies[scoped.use.kind]
        if scoped.stage is Stage.AUTHENTICATE and not getattr(policy, "takes_nobody", False):
            yield scoped.use


def _authentication(route: Route, registry: Registry) -> str:
    """Return the name of the policy that asks who is calling, whatever they send; empty where there is none."""
    asking = _asking(route, registry)
    return next((use.name for use in asking if use.when is None or _CHOSEN.search(use.when) is None), "")


def _says_so(route: Route, registry: Registry) -> bool:
    """Return whether a policy welcomes those without credentials, or looks at who they are itself."""
    return any(
        getattr(registry.policies[scoped.use.kind], "takes_nobody", False)
        or (scoped.use.kind == "authorize" and scoped.use.when is None)
        for scoped in route.policies
    )


def _ways_to_policies(compiled: Compiled, registry: Registry, findings: Findings) -> None:
    """Warn of a policy that answers something itself, and is not there where that leads."""
    told: set[tuple[str, str]] = set()
    for route in (entry.payload for entry in compiled.entries):
        for use in (scoped.use for scoped in route.policies):
            for text in registry.policies[use.kind].own_urls(use.config):
                harm, hint = _not_answered(compiled, use, text)
                if harm and (use.origin, text) not in told:
                    told.add((use.origin, text))
                    message = f"{text} is for {use.kind} of route {route.name}, and {harm}"
                    findings.warning(place_of(use.origin), message, hint)


def _not_answered(compiled: Compiled, use: PolicyUse, text: str) -> tuple[str, str]:
    """Return why a policy does not answer a URL of its own, and how to mend it; empty where it does."""
    url = parse_url(text)
    asked = Request("GET", url.path, headers=Headers(_OF_BROWSERS), host=url.host)
    led = compiled.runtime.route_of(asked)
    there = next((scoped.use for scoped in led.policies if scoped.use.config == use.config), None)
    if there is None:
        hint = f"have {url.path} among the route's paths, or give the whole file the policy"
        return f"leads to {_named(led)}, without it", hint
    conditional = led.conditionals.get(there.name)
    if conditional is None or conditional.asked(asked):
        return "", ""
    return "its condition does not hold there", f"have its `when` hold for the path {url.path} as well"


_OF_BROWSERS: Final = ((b"Accept", b"text/html"), (b"Sec-Fetch-Mode", b"navigate"))
"""What a browser sends that asks for a page."""


def _named(route: Route) -> str:
    return "no route" if route.origin == BUILT_IN else f"route {route.name}"


def _uses(config: Config) -> Iterator[PolicyUse]:
    """Yield the policies of the file, wherever they are written."""
    scopes: list[Config | Service | RouteConfig] = [config, *config.services.values(), *config.routes]
    for scope in scopes:
        yield from scope.policies


def _keys_that_anyone_can_change(config: Config, findings: Findings) -> None:
    """Warn of what is asked over plain http, beyond this machine, for whom to believe."""
    for use in _uses(config):
        believed = ("url", *_URLS_OF_KEYS) if isinstance(use.config, AuthenticatorConfig) else _URLS_OF_KEYS
        for name in believed:
            url = getattr(use.config, name, None)
            if isinstance(url, str) and url.startswith("http:") and not is_of_this_machine(url):
                message = f"whoever is on the way can change what {use.kind} gets from its {name}, and be anyone then"
                findings.warning(place_of(use.origin), message, "write https://")


def _nonces_that_are_taken_again(config: Config, findings: Findings) -> None:
    """Warn of nonces that are to be used once, where each of several workers would take them."""
    for use in _uses(config) if config.workers != 1 else ():
        if getattr(use.config, "nonce", None) == "required" and not getattr(use.config, "shares", True):
            message = f"each worker takes a nonce of {use.kind} once, and there may be several workers"
            findings.warning(place_of(use.origin), message, "leave shared out, where no request may be taken twice")


def _certificates_that_nobody_asks_for(config: Config, registry: Registry, findings: Findings) -> None:
    """Warn of what looks for the certificates of clients, where no client is asked for one."""
    if any(listener.tls is not None and listener.tls.client_certificates != "off" for listener in config.listen):
        return
    for use in _uses(config):
        if not use.off and registry.policies[use.kind].of_certificates:
            message = f"no listener asks clients for a certificate, so {use.name} finds none"
            findings.warning(place_of(use.origin), message, "give the tls of a listener a client_ca")


def _sessions_that_anyone_can_read(config: Config, findings: Findings) -> None:
    """Warn of cookies that go over plain http, beyond this machine."""
    for use in _uses(config):
        url = getattr(use.config, "external_url", None)
        if isinstance(url, str) and url.startswith("http:") and not is_of_this_machine(url):
            message = f"whoever is on the way can take the session that {use.kind} gives a browser at {url}"
            findings.warning(place_of(use.origin), message, "write https://")


def _remarks_of_policies(config: Config, registry: Registry, findings: Findings) -> None:
    """Add what policies themselves have to say of their settings."""
    for use in _uses(config):
        if not use.off:
            for message, hint in registry.policies[use.kind].remarks(use.config, stage_of(use, registry)):
                findings.warning(place_of(use.origin), message, hint)


def _strange_methods(config: Config, findings: Findings) -> None:
    for route in config.routes:
        for method in route.methods:
            if method not in METHODS:
                status = 405 if method in REFUSED_METHODS else 501
                message = f"route {route.name} never sees the method {method}, which the gateway answers {status}"
                findings.warning(place_of(route.origin), message, did_you_mean(method, METHODS) or "leave it out")


def _unverified_services(config: Config, findings: Findings) -> None:
    for name, service in config.services.items():
        if service.tls is not None and not service.tls.verify:
            message = f"whoever is on the way to service {name} can read and change everything, as verify is false"
            hint = "give its tls a ca that signed its certificate, or a server_name; verify: false is for tests"
            findings.warning(place_of(service.origin), message, hint)


def _clients_who_say_who_they_are(config: Config, findings: Findings) -> None:
    """Warn of a listener that believes the PROXY protocol of everyone, unless only this machine can reach it."""
    for listener in config.listen:
        if any(is_everyone(network) for network in listener.proxy_protocol or ()) and not listener.address.is_loopback:
            message = f"everyone who connects to {listener.address} can say who they are"
            hint = "name the load balancers, as in proxy_protocol: [10.0.0.0/8]"
            findings.warning(place_of(listener.origin), message, hint)


def _certificates(config: Config, compiled: Compiled, findings: Findings) -> None:
    """Warn of certificates that the other side refuses, or soon will, and of such as are never shown."""
    for listener, entrance in zip(config.listen, compiled.runtime.entrances, strict=True):
        for remark in entrance.tls.remarks() if entrance.tls is not None else ():
            findings.warning(place_of(listener.origin), *remark)
    for service in config.services.values():
        pair = service.tls.pair if service.tls is not None else None
        for remark in remarks_on(KeyPair(*pair) if pair is not None else None):
            findings.warning(place_of(service.origin), *remark)


def _redirects_to_themselves(config: Config, findings: Findings) -> None:
    """Warn of a redirect to where it comes from, unless there may be a proxy that speaks TLS at the same port."""
    for listener in config.listen:
        if listener.redirect_https == listener.address.port and not config.trusted_proxies:
            message = f"{listener.address} redirects to its own port {listener.redirect_https}, without an end"
            findings.warning(place_of(listener.origin), message, "name the port where https is spoken")
