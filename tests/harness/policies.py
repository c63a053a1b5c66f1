"""One policy by itself: set up as a route has it, and asked without a gateway."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, TypeVar, cast

from portico.plugin import Client, Env, Headers, Policy, Request, Response, RouteInfo

P = TypeVar("P", bound=Policy[Any])


def policy_of(kind: type[P], takes: tuple[str, ...] = (), /, **settings: object) -> P:
    """Return a policy that is ready, on a route that takes these methods."""
    policy = kind(kind.config_class.model_validate(settings))
    policy.setup(cast(Env, SimpleNamespace(route=RouteInfo("r", ("/**",), {}, takes))))
    return policy


def request_of(
    method: str = "GET", *headers: tuple[str, str], client: Client | None = None, host: str = "api.example"
) -> Request:
    fields = Headers((name.encode(), value.encode("latin-1")) for name, value in headers)
    return Request(method, "/x", headers=fields, host=host, client=client)


class Asked:
    """What became of a request: the answer, and whether the service was asked."""

    def __init__(self, policy: Policy[Any], request: Request, service: Response | None = None) -> None:
        self.reached = False

        async def next_(_: Request) -> Response:
            self.reached = True
            return Response(200) if service is None else service

        self.response = asyncio.run(policy.handle(request, next_))

    @property
    def problem(self) -> tuple[int, str]:
        """The status and the type of the problem that the answer is."""
        problem = self.response.problem_value
        assert problem is not None
        assert problem.status == self.response.status
        return problem.status, problem.type

    def values(self, prefix: str) -> dict[str, str]:
        """Return the headers that begin so, which must not stand twice."""
        found = [(name.decode().lower(), value.decode("latin-1")) for name, value in self.response.headers]
        chosen = [(name, value) for name, value in found if name.startswith(prefix)]
        assert len(dict(chosen)) == len(chosen), chosen
        return dict(chosen)


def is_freed_by_counting(make: Callable[[], Policy[Any]]) -> bool:
    """Return whether a policy that was asked and dropped is gone without a search for cycles."""
    gc.collect()
    gc.disable()
    try:
        policy = make()
        Asked(policy, request_of("GET", ("Origin", "https://x.a.example")))
        left = weakref.ref(policy)
        del policy
        return left() is None
    finally:
        gc.enable()
