"""`portico explain`: what becomes of one request, and why, without sending anything."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from portico.config.addresses import DEFAULT_PORTS
from portico.config.schema import Config
from portico.errors import PorticoError, RequestError
from portico.http.headers import Headers
from portico.http.message import Client, Request, Response
from portico.http.target import EncodedSlashes, parse_host, parse_target
from portico.net.server_stream import REFUSED_METHODS
from portico.observe.exchange import Exchange
from portico.routing.explain import Verdict, explain
from portico.runtime.compile import Compiled
from portico.runtime.listeners import trust
from portico.runtime.loading import Loaded, compiled
from portico.runtime.runtime import Route
from portico.upstream.mirror import Mirror
from portico.upstream.split import Part, Split, Why
from portico.upstream.stand_in import Asked, stand_in
from portico.wire import h1

_HELD = {True: "in its place", False: "skipped", None: "not asked, as the answer came before"}
"""What a policy's condition has decided."""
_SIGNED = re.compile(r"\b(eyJ[\w-]+\.[\w-]+)\.[\w-]+")
"""A token with its signature, which alone makes it good for anything: it is not shown."""
SHOWN = 20
"""Routes that are listed even where their path has nothing to do with the request's."""


class BadRequest(PorticoError):
    """The request that was asked about is none that the gateway would take; the message says why."""


security = logging.getLogger("portico.security")


@dataclass(frozen=True)
class Sent:
    """What a service would be sent."""

    url: str
    head: bytes


def explain_request(loaded: Loaded, method: str, url: str, headers: Sequence[str], address: str) -> dict[str, Any]:
    """Return what becomes of a request, as plain data; raise BadRequest where it is none."""
    assert loaded.config is not None
    request = _request(method, url, headers, address, loaded.config)
    return asyncio.run(_explain(loaded, request))


async def _explain(loaded: Loaded, request: Request) -> dict[str, Any]:
    assert loaded.config is not None
    async with asyncio.TaskGroup() as tasks:
        with compiled(loaded.config, loaded.registry, tasks) as result, _nobody_has_called():
            return await _outcome(result, request)


@contextmanager
def _nobody_has_called() -> Iterator[None]:
    """Have the log of who was refused tell nothing of a request that only looks."""
    before, security.disabled = security.disabled, True
    try:
        yield
    finally:
        security.disabled = before


async def _outcome(result: Compiled, request: Request) -> dict[str, Any]:
    explanation = explain(result.entries, request)
    route = result.runtime.route_of(request)
    sent = _record(result)
    splits, mirrors = _choices(result), _copies(result)
    verdicts = _verdicts(route)
    response = await route.handle(request)
    return {
        "request": {"method": request.method, "host": request.host, "path": request.path, "query": request.query},
        "candidates": [_candidate(each) for each in sorted(explanation.verdicts, key=lambda each: not each.near)],
        "route": {"name": route.name, "origin": route.origin, "captures": request.captures},
        "chain": [
            {
                "policy": scoped.use.name,
                "kind": scoped.use.kind,
                "stage": scoped.stage.name.lower(),
                "scope": scoped.scope,
                "origin": scoped.use.origin,
                "when": scoped.use.when,
                "held": verdicts.get(scoped.use.name),
            }
            for scoped in route.policies
        ],
        "endpoint": route.endpoint.describe(),
        "splits": splits,
        "mirrors": mirrors,
        "upstream": [{"url": each.url, "head": _SIGNED.sub(r"\1.***", each.head.decode("latin-1"))} for each in sent],
        "answer": None if sent else _answer(response),
    }


def _record(result: Compiled) -> list[Sent]:
    """Have every target, also of what is no service, note what it would be sent, and answer nothing but 200."""
    sent: list[Sent] = []

    async def note(asked: Asked) -> Response:
        target = asked.target
        sent.append(Sent(f"{target.scheme}://{target.address}{asked.path}", asked.head()))
        return Response(200)

    for service in (*result.runtime.services.values(), *result.life.web.services.values()):
        stand_in(service, note)
    return sent


def _choices(result: Compiled) -> list[dict[str, Any]]:
    """Have every split note which of its parts it has chosen, and why."""
    choices: list[dict[str, Any]] = []

    def note(split: Split, chosen: Part, why: Why) -> None:
        parts = [{"service": part.to.name, "weight": part.weight, "chosen": part is chosen} for part in split.parts]
        choices.append({"service": split.name, "why": why.value, "parts": parts})

    for split in result.splits:
        split.on_choice = note
    return choices


def _copies(result: Compiled) -> list[dict[str, Any]]:
    """Have every mirror note that it would make copies, and make none."""
    copies: list[dict[str, Any]] = []

    def note(mirror: Mirror) -> None:
        copies.append({"service": mirror.name, "to": mirror.to, "share": mirror.share})

    for mirror in result.mirrors:
        mirror.instead = note
    return copies


def _verdicts(route: Route) -> dict[str, bool]:
    """Have every condition of the route note whether it held; one that was not asked notes nothing."""
    verdicts: dict[str, bool] = {}

    def noting(name: str, holds: Callable[[Request], bool]) -> Callable[[Request], bool]:
        def note(request: Request) -> bool:
            verdicts[name] = holds(request)
            return verdicts[name]

        return note

    for name, conditional in route.conditionals.items():
        conditional.holds = noting(name, conditional.holds)
    return verdicts


def _candidate(verdict: Verdict[Route]) -> dict[str, Any]:
    route = verdict.entry.payload
    return {
        "route": route.name,
        "origin": route.origin,
        "won": verdict.won,
        "near": verdict.near,
        "reason": verdict.reason,
    }


def _answer(response: Response) -> dict[str, Any]:
    return {
        "status": response.status,
        "headers": [f"{name.decode('latin-1')}: {value.decode('latin-1')}" for name, value in response.headers],
        "body": (response.body.whole or b"").decode("utf-8", "replace"),
    }


def _request(method: str, url: str, headers: Sequence[str], address: str, config: Config) -> Request:
    """Return the request that a client would have sent; raise BadRequest where the gateway would not take it."""
    if re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9A-Z]+", method) is None:
        raise BadRequest(f"{method!r} is not a method")
    try:
        ip_address(address)
    except ValueError:
        raise BadRequest(f"--from takes an IP address, not {address!r}") from None
    if method in REFUSED_METHODS:
        raise BadRequest(f"the gateway would answer 405: {method} is not served here")
    fields = Headers()
    try:
        parts = urlsplit(
            url if "://" in url else f"http://{url}" if not url.startswith("/") else f"http://localhost{url}"
        )
        if parts.scheme not in DEFAULT_PORTS:
            raise BadRequest(f"a URL of http or https is needed, not of {parts.scheme}")
        fields.add(b"Host", parts.netloc.rpartition("@")[2].encode())
        for header in headers:
            name, colon, value = header.partition(":")
            if not colon:
                raise BadRequest(f"-H takes NAME: VALUE, not {header!r}")
            if name.lower() == "host":
                fields.remove(b"host")
            fields.add(name.strip().encode(), value.strip().encode())
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        path, query, _ = parse_target(target.encode(), method, EncodedSlashes(config.path.encoded_slashes))
        host, _ = parse_host(fields.get(b"host") or b"")
    except RequestError as error:
        raise BadRequest(f"the gateway would answer {error.status}: {error.detail}") from None
    except ValueError as error:
        raise BadRequest(str(error)) from None
    port = parts.port or (url.startswith("/") and config.listen[0].address.port) or DEFAULT_PORTS[parts.scheme]
    believed = trust(config)
    first = config.listen[0]
    scheme = "https" if url.startswith("/") and first.tls is not None else parts.scheme
    client = Client(address, 0, port, scheme, believed.style)
    if believed.includes(address):
        client = believed.client_behind(client, believed.said(fields))
    request = Request(method, path, query, fields, host=host, client=client, exchange=Exchange(0.0))
    request.upgrade = h1.upgrade(fields)
    return request


def as_text(outcome: dict[str, Any]) -> str:
    """Return what becomes of a request, for people."""
    request = outcome["request"]
    query = "" if request["query"] is None else f"?{request['query']}"
    lines = [f"{request['method']} {request['path']}{query} for host {request['host']}", "", "Candidates:"]
    candidates = outcome["candidates"]
    shown = [each for each in candidates if each["near"] or len(candidates) <= SHOWN]
    width = max((len(each["route"]) for each in shown), default=0)
    for each in shown:
        mark = "->" if each["won"] else "  "
        lines.append(f"  {mark} {each['route']:<{width}}  {each['reason']}  ({each['origin']})")
    if len(shown) < len(candidates):
        lines.append(f"     and {len(candidates) - len(shown)} routes for other hosts and paths")
    route = outcome["route"]
    lines += ["", f"Route: {route['name']} ({route['origin']})"]
    lines += [f"  {{{name}}} = {value}" for name, value in route["captures"].items()]
    lines += ["", "Chain, outermost first:"]
    for number, each in enumerate(outcome["chain"], 1):
        name = each["policy"] if each["policy"] == each["kind"] else f"{each['policy']} ({each['kind']})"
        lines.append(f"  {number}. {name}  [{each['stage']}]  {each['scope']}: {each['origin']}")
        if each["when"] is not None:
            lines.append(f"     {_HELD[each['held']]}: when {' '.join(each['when'].split())}")
    lines.append(f"  {len(outcome['chain']) + 1}. {outcome['endpoint']}")
    for each in outcome["splits"]:
        lines += ["", f"Split {each['service']}:"]
        for part in each["parts"]:
            why = f", {each['why']}" if part["chosen"] else ""
            lines.append(f"  {'->' if part['chosen'] else '  '} {part['service']}  weight {part['weight']}{why}")
    for each in outcome["mirrors"]:
        lines += [
            "",
            f"Mirror: {100 * each['share']:g} % of the requests to {each['service']} go to {each['to']} as well",
        ]
    for each in outcome["upstream"]:
        lines += ["", f"Sends to {each['url']}:"]
        lines += [f"  {line}" for line in each["head"].rstrip("\r\n").split("\r\n")]
    if outcome["answer"] is not None:
        answer = outcome["answer"]
        lines += ["", f"Answers {answer['status']} without a service:"]
        lines += [f"  {header}" for header in answer["headers"]]
        if answer["body"]:
            lines += ["", *(f"  {line}" for line in answer["body"].splitlines())]
    return "\n".join(lines) + "\n"
