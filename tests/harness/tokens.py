"""Tokens of every kind, keys for them, and a provider that publishes keys in a time that a test has in its hand."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import warnings
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from portico.jose.mint import encode, sign
from portico.plugin import USER, Authenticator, Handler, Headers, Request, Response, RouteInfo, User
from portico.policies.jwt import JwtPolicy
from portico.policy.authentication import Authentication, Part
from portico.testing.clock import START, FakeTimeLoop

A = TypeVar("A", bound=Authenticator[Any])
T = TypeVar("T")

NOW = 1_800_000_000
"""The time of day when a test begins."""
SECRET = "a secret of sixty-four bytes, as long as the hash of HS512 needs."
CLAIMS = {"sub": "ada", "exp": NOW + 600}


@functools.cache
def key(kind: str) -> Key:
    """Return a private key: `RSA`, `RSA-1024`, `P-256`, `P-384`, `P-521`, `Ed25519` or `secret`."""
    if kind.startswith("RSA"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return RSAKey.generate_key(int(kind[4:] or 2048))
    if kind.startswith("P-") or kind == "secp256k1":
        return ECKey.generate_key(kind)  # type: ignore[arg-type]
    return OctKey.import_key(SECRET) if kind == "secret" else OKPKey.generate_key(kind)  # type: ignore[arg-type]


KINDS = {
    "secret": ("HS256", "HS384", "HS512"),
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "P-256": ("ES256",),
    "P-384": ("ES384",),
    "P-521": ("ES512",),
    "Ed25519": ("EdDSA", "Ed25519"),
}
"""The algorithms that each kind of key is for."""


def public(key: Key, **members: Any) -> dict[str, Any]:
    """Return the JWK of a key's public half."""
    if isinstance(key, OctKey):
        return {"kty": "oct", "k": encode(key.raw_value), **members}
    return {**key.as_dict(private=False), "kid": key.thumbprint(), **members}


def token(claims: dict[str, Any] = CLAIMS, kind: str = "secret", **header: Any) -> str:
    """Return a signed token."""
    return sign(claims, key(kind), **header)


def raw(header: str | bytes, payload: str | bytes, kind: str = "secret", algorithm: str = "HS256") -> str:
    """Return a token of a header and a payload that are written as they are, properly signed."""
    parts = [encode(part.encode() if isinstance(part, str) else part) for part in (header, payload)]
    signed = ".".join(parts)
    signature = JWSRegistry.algorithms[algorithm].sign(signed.encode(), key(kind))
    return f"{signed}.{encode(signature)}"


class World:
    """What a policy is set up in: a worker's time, and hosts that are asked by URL."""

    logger = logging.getLogger("portico.route.test")
    route = RouteInfo("test", ("/**",))

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.hosts: dict[str, Callable[[Request], Response] | Response | dict[str, Any]] = {}
        """What is answered at a URL; nothing is a connection that is refused."""
        self.slow = 0.0
        self.jump = 0.0
        self.tasks: list[asyncio.Task[None]] = []
        self.shared: dict[tuple[object, ...], Any] = {}
        self._handlers: dict[str, Handler] = {}

    def clock(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        try:
            return NOW + self.jump + self.clock() - START
        except RuntimeError:
            return NOW + self.jump

    def web(self, url: str, ca: str | None = None) -> Handler:
        origin = "/".join(url.split("/")[:3])

        async def answer(request: Request) -> Response:
            asked = origin + request.target
            self.asked.append(asked)
            await asyncio.sleep(self.slow)
            host = self.hosts.get(asked)
            if host is None:
                return Response.problem(502, "upstream-refused")
            if isinstance(host, dict):
                return Response(200, None, json.dumps(host).encode())
            return host(request) if callable(host) else host

        return self._handlers.setdefault(origin, answer)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(work, name=name))

    def share(self, key: tuple[object, ...], make: Callable[[], Any]) -> Any:
        if key not in self.shared:
            self.shared[key] = make()
        return self.shared[key]

    def reloaded(self) -> World:
        """Return the world as another configuration has it: other connections and work, the same time and leases."""
        other = World()
        other.asked, other.hosts, other.shared, other.slow = self.asked, self.hosts, self.shared, self.slow
        return other

    def close(self) -> None:
        for task in self.tasks:
            task.cancel()

    def policy(self, **settings: Any) -> JwtPolicy:
        return self.made(JwtPolicy, **settings)

    def made(self, kind: type[A], **settings: Any) -> A:
        policy = kind(kind.config_class.model_validate(settings))
        policy.setup(self)  # type: ignore[arg-type]
        return policy


class Verdict:
    """What became of one request."""

    def __init__(self, response: Response, user: User | None) -> None:
        self.status = response.status
        self.user = user
        problem = response.problem_value
        self.type = "" if problem is None else problem.type
        self.title = "" if problem is None else problem.title
        self.challenges = [value.decode() for value in response.headers.get_all(b"www-authenticate")]


async def show(policy: Authenticator[Any], *headers: tuple[str, str], query: str | None = None) -> Verdict:
    """Show a policy a request."""
    fields = Headers((name.encode(), value.encode("latin-1")) for name, value in headers)
    request = Request("GET", "/", query, headers=fields)

    async def passed(_: Request) -> Response:
        return Response(204)

    response = await Authentication([Part(policy, None)]).handle(request, passed)
    return Verdict(response, request.get(USER))


async def bearer(policy: Authenticator[Any], token: str) -> Verdict:
    return await show(policy, ("Authorization", f"Bearer {token}"))


def in_time(main: Callable[[World], Coroutine[Any, Any, T]]) -> T:
    """Run an async function in a world, in which waiting takes no time."""
    world = World()

    async def whole() -> T:
        try:
            return await main(world)
        finally:
            world.close()

    with asyncio.Runner(loop_factory=FakeTimeLoop) as runner:
        return runner.run(whole())
