"""From the policies that a file lists to the one Handler that a route runs."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

from portico.http.message import Handler, Request, Response
from portico.policy.base import Policy, Stage

_Ask: TypeAlias = Callable[[Request], Response | None]
_Answer: TypeAlias = Callable[[Request, Response], Response]


class Scoped(NamedTuple):
    """One policy of one scope, with the stage it will stand in."""

    use: Any
    scope: str
    stage: Stage


def merge(scopes: Iterable[tuple[str, Sequence[tuple[Any, Stage]]]]) -> list[Scoped]:
    """Return the chain, outermost first: the stable merge by stage of the scopes, which come widest first.

    A name at a narrower scope replaces the wider one, and stands where its own scope has it; `off` removes it.
    """
    chain: dict[str, Scoped] = {}
    for scope, uses in scopes:
        for use, stage in uses:
            chain.pop(use.name, None)
            if not use.off:
                chain[use.name] = Scoped(use, scope, stage)
    return sorted(chain.values(), key=lambda scoped: scoped.stage)


class Conditional:
    """A policy that is there for some requests only; the others go past it, on the way in and on the way out."""

    __slots__ = ("holds", "policy")

    def __init__(self, policy: Policy[Any], holds: Callable[[Request], bool]) -> None:
        self.policy = policy
        self.holds = holds
        """Asked once for each request, when the policy's turn comes."""

    def around(self, inner: Handler) -> Handler:
        """Return a Handler that leads through the policy to `inner`, or past it."""
        through = assemble([self.policy], inner)

        def choose(request: Request) -> Awaitable[Response]:
            return through(request) if self.holds(request) else inner(request)

        return choose


def assemble(policies: Sequence[Policy[Any] | Conditional], endpoint: Handler) -> Handler:
    """Return `endpoint` with `policies` around it, the first outermost.

    They are called as they would be if each `handle` were given the next one. Neighbours that keep the `handle` of
    Policy share one coroutine, since a coroutine for each costs more than most of them do.
    """
    handler = endpoint
    plain: list[Policy[Any]] = []
    for policy in reversed(policies):
        if isinstance(policy, Policy) and _keeps(policy, "handle"):
            plain.append(policy)
            continue
        handler = _fused(plain[::-1], handler)
        plain = []
        if isinstance(policy, Conditional):
            handler = policy.around(handler)
        else:
            handler = functools.partial(policy.handle, next=handler)
    return _fused(plain[::-1], handler)


def _keeps(policy: Policy[Any], method: str) -> bool:
    """Whether a policy has a method as Policy defines it."""
    return getattr(getattr(policy, method), "__func__", None) is getattr(Policy, method)


def _fused(policies: Sequence[Policy[Any]], inner: Handler) -> Handler:
    """Return `inner` with policies around it, the first outermost, that all keep the `handle` of Policy.

    Only what they override is called: who overrides nothing costs nothing.
    """
    answers: tuple[_Answer, ...] = ()
    asks: list[tuple[_Ask, tuple[_Answer, ...]]] = []
    for policy in policies:
        if not _keeps(policy, "request"):
            asks.append((policy.request, answers))  # an early answer goes out through those before this one
        if not _keeps(policy, "response"):
            answers = (policy.response, *answers)
    if not asks and not answers:
        return inner

    async def handle(request: Request) -> Response:
        for ask, before in asks:
            early = ask(request)
            if early is not None:
                for answer in before:
                    early = answer(request, early)
                return early
        response = await inner(request)
        for answer in answers:
            response = answer(request, response)
        return response

    return handle
