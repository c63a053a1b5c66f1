"""What AWS API Gateway asks Lambda authorizers, in the format 2.0 of its HTTP APIs, and how their answers are read."""

from __future__ import annotations

import re
import ssl
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import unquote

from portico.http.headers import HOP_BY_HOP
from portico.http.message import Client, Request
from portico.http.user import User
from portico.policy.authenticator import Admitted, Refusal
from portico.policy.told import FORWARDED_HEADERS
from portico.policy.verdicts import NoVerdict

MOST_RESOURCES: Final = 256
"""Resources, and actions, that the statements of one policy may name."""
DENIED: Final = Refusal("forbidden", "Forbidden", "the authorizer denies it", status=403)
"""The authorizer has said no."""

_AS_IS: Final = "surrogateescape"
_STAGE: Final = "$default"
_INVOKE: Final = "execute-api:invoke"
_OF_STATEMENT: Final = {"Sid", "Effect", "Action", "Resource"}
_LEFT_OUT: Final = HOP_BY_HOP | FORWARDED_HEADERS | {b"cookie"}

UserOf: TypeAlias = Callable[[Mapping[str, Any]], User | Admitted]


class RouteArn(NamedTuple):
    """Where requests are asked about."""

    arn: str
    """What the ARN of each begins with: `arn:aws:execute-api:REGION:ACCOUNT:API/STAGE`."""
    route: str
    paths: tuple[str, ...]

    def of(self, request: Request) -> str:
        """Return the ARN of a request."""
        return f"{self.arn}/{request.method}{request.path}"

    def key(self, request: Request) -> str:
        """Return what stands for its route and its method."""
        return f"{request.method} {self.route}"

    def route_key(self, request: Request) -> str:
        """Return the same as AWS writes it, with the path of a route that has one."""
        return f"{request.method} {self.paths[0]}" if len(self.paths) == 1 else self.key(request)


def event_of(request: Request, place: RouteArn, identity: Sequence[str], now: float) -> dict[str, Any]:
    """Return what is asked about a request."""
    client = request.client
    parts = place.arn.split(":", 5)
    time = datetime.fromtimestamp(now, UTC)
    context = {
        "accountId": parts[4],
        "apiId": parts[5].partition("/")[0],
        "authentication": _certificate(client),
        "domainName": request.host,
        "domainPrefix": request.host.partition(".")[0],
        "http": {
            "method": request.method,
            "path": request.path,
            "protocol": f"HTTP/1.{1 if client is None else client.minor}",
            "sourceIp": "" if client is None else client.address,
            "userAgent": request.headers.text(b"user-agent") or "",
        },
        "requestId": request.headers.text(b"x-request-id") or str(uuid.uuid4()),
        "routeKey": place.route_key(request),
        "stage": _STAGE,
        "time": time.strftime("%d/%b/%Y:%H:%M:%S +0000"),
        "timeEpoch": int(now * 1000),
    }
    event: dict[str, Any] = {
        "version": "2.0",
        "type": "REQUEST",
        "routeArn": place.of(request),
        "identitySource": [_clean(value) for value in identity],
        "routeKey": place.route_key(request),
        "rawPath": request.path,
        "rawQueryString": request.query or "",
        "headers": _headers(request),
        "requestContext": context,
    }
    more: tuple[tuple[str, Any], ...] = (
        ("cookies", cookies_of(request)),
        ("queryStringParameters", _joined(parameters_of(request))),
        ("pathParameters", _joined(request.captures.items())),
    )
    return event | {name: value for name, value in more if value}


def cookies_of(request: Request) -> list[str]:
    """Return the cookies of a request, each with its name, which begins where browsers and services have it begin."""
    lines = request.headers.get_all(b"cookie")
    parts = [part.strip(" \t") for line in lines for part in line.decode("latin-1").split(";")]
    return [part for part in parts if part]


def parameters_of(request: Request) -> list[tuple[str, str]]:
    """Return the parameters of the query; what is not UTF-8 in them stays told apart (`surrogateescape`)."""
    pieces = (piece.partition("=") for piece in (request.query or "").split("&") if piece)
    pairs = ((name.replace("+", " "), value.replace("+", " ")) for name, _, value in pieces)
    return [(unquote(name, errors=_AS_IS), unquote(value, errors=_AS_IS)) for name, value in pairs]


def _headers(request: Request) -> dict[str, str]:
    """Return what the client has sent, but for what it has no say in, and what services are told of it."""
    sent = [(name.lower(), value) for name, value in request.headers.pairs]
    fields = [(name, value) for name, value in sent if name.replace(b"_", b"-") not in _LEFT_OUT]
    if request.client is not None:
        lines = b"\r\n".join(request.client.forwarded(request.headers.get(b"host"))).split(b"\r\n")
        told = (line.partition(b": ") for line in lines if line)
        fields += [(name.lower(), value) for name, _, value in told]
    return _joined((name.decode("latin-1"), value.decode("latin-1")) for name, value in fields)


def _joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the values by name, with commas between those of one name."""
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return {_clean(name): _clean(",".join(several)) for name, several in values.items()}


def _clean(text: str) -> str:
    """Return a text that JSON can have."""
    return text if text.isascii() else text.encode("utf-8", _AS_IS).decode("utf-8", "replace")


def _certificate(client: Client | None) -> dict[str, Any] | None:
    encryption = None if client is None else client.encryption
    if encryption is None or encryption.certificate is None:
        return None
    return {"clientCert": {"clientCertPem": ssl.DER_cert_to_PEM_cert(encryption.certificate)}}


class FixedVerdict(NamedTuple):
    """An answer for every request that has the same identity, route and method."""

    found: User | Admitted | Refusal | None

    def of(self, arn: str) -> User | Admitted | Refusal | None:
        """Return what it comes to for a request."""
        return self.found


class PolicyVerdict(NamedTuple):
    """An answer that is a policy, by which each request is judged."""

    found: User | Admitted
    allowed: tuple[str, ...]
    denied: tuple[str, ...]

    def of(self, arn: str) -> User | Admitted | Refusal:
        """Return what it comes to for a request: what is not allowed is denied, and so is what is both."""
        if any(fits(each, arn) for each in self.denied) or not any(fits(each, arn) for each in self.allowed):
            return DENIED
        return self.found


def read_simple(said: Mapping[str, Any], user_of: UserOf) -> FixedVerdict:
    """Return what a simple answer says; raise NoVerdict where it is none."""
    if said.get("isAuthorized") is False:
        return FixedVerdict(DENIED)
    if said.get("isAuthorized") is not True:
        raise NoVerdict("it does not answer whether isAuthorized")
    return FixedVerdict(user_of(_context(said)))


def read_iam(said: Mapping[str, Any], user_of: UserOf) -> PolicyVerdict:
    """Return what an answer with an IAM policy says; raise NoVerdict where it is none that is understood as a whole."""
    principal, document = said.get("principalId"), said.get("policyDocument")
    if not isinstance(principal, str) or not isinstance(document, dict):
        raise NoVerdict("it does not answer a principalId and a policyDocument")
    found = document.get("Statement")
    statements = found if isinstance(found, list) else [found]
    named: dict[str, list[str]] = {"Allow": [], "Deny": []}
    count = 0
    for statement in statements:
        if not isinstance(statement, dict) or not statement.keys() <= _OF_STATEMENT:
            raise NoVerdict("a Statement has something else than Sid, Effect, Action and Resource")
        effect, actions, resources = statement.get("Effect"), _texts(statement, "Action"), _texts(statement, "Resource")
        if effect not in ("Allow", "Deny"):
            raise NoVerdict("the Effect of a Statement is neither Allow nor Deny")
        count += len(actions) + len(resources)
        if count > MOST_RESOURCES:
            raise NoVerdict(f"its policyDocument names more than {MOST_RESOURCES} resources")
        if any(fits(action.lower(), _INVOKE) for action in actions):
            named[effect] += resources
    user = user_of({**_context(said), "principalId": principal})
    return PolicyVerdict(user, tuple(named["Allow"]), tuple(named["Deny"]))


def _context(said: Mapping[str, Any]) -> dict[str, Any]:
    context = said.get("context")
    if context is None:
        return {}
    if not isinstance(context, dict):
        raise NoVerdict("its context is no object")
    return context


def _texts(statement: Mapping[str, Any], name: str) -> list[str]:
    value = statement.get(name)
    texts: list[Any] = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise NoVerdict(f"the {name} of a Statement is neither a text nor a list of texts")
    return texts


def fits(pattern: str, text: str) -> bool:
    """Return whether a text is like a pattern, in which `*` is anything, and `?` any one character.

    The time it takes grows with their lengths, and not with what could be tried.
    """
    first, *rest = pattern.split("*")
    if not rest:
        return len(first) == len(text) and _find(first, text, 0, len(text)) == 0
    last = rest.pop()
    at, end = len(first), len(text) - len(last)
    if end < at or _find(first, text, 0, at) != 0 or _find(last, text, end, len(text)) != end:
        return False
    for part in rest:
        found = _find(part, text, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def _find(part: str, text: str, start: int, end: int) -> int:
    """Return the first place where a part without `*` is, or -1."""
    if "?" not in part:
        return text.find(part, start, end)
    found = re.compile(re.escape(part).replace(r"\?", "."), re.DOTALL).search(text, start, end)
    return -1 if found is None else found.start()
