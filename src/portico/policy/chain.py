"""From the policies that a file lists to the one Handler that a route runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

from portico.http.message import Handler, Request, Response
from portico.policy.authentication import Authentication
from portico.policy.base import Policy, Stage

_Ask: TypeAlias = Callable[[Request], Response | None]
_Answer: TypeAlias = Callable[[Request, Response], Response]

Failed: TypeAlias = Callable[[Request, Exception], Response]
"""Makes the answer to a request of what was raised over it, and tells the log where that is due."""


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
        """Asked when the policy's turn comes: once for each request, and once more ahead of those that authenticate
        where it answers some requests itself."""

    def asked(self, request: Request) -> bool:
        """Ask it, whatever has been put in its place by who looks at what it says."""
        return self.holds(request)

    def choice(self, through: Handler, past: Handler) -> Handler:
        """Return a Handler that leads through the policy, or past it."""

        def choose(request: Request) -> Awaitable[Response]:
            return through(request) if self.holds(request) else past(request)

        return choose


def assemble(
    policies: Sequence[Policy[Any] | Conditional | Authentication], endpoint: Handler, failed: Failed
) -> Handler:
    """Return `endpoint` with `policies` around it, the first outermost.

    They are called as they would be if each `handle` were given the next one. Neighbours that keep the `handle` of
    Policy share one coroutine, since a coroutine for each costs more than most of them do.

    What one of them, a condition or the endpoint raises is, for the policies further out, the answer that `failed`
    makes of it. What the outermost raises may come out of the chain, where there is nobody left to see the answer.
    """
    handler = endpoint
    plain: list[Policy[Any]] = []
    for item in reversed(policies):
        policy = item.policy if isinstance(item, Conditional) else item
        keeps = isinstance(policy, Policy) and _keeps(policy, "handle")
        if isinstance(policy, Policy) and keeps and policy is item:
            plain.append(policy)
            continue
        inner = _fused(plain[::-1], handler, failed)
        plain = []
        if keeps:
            through = _fused([policy], inner, failed)
        else:
            sees_answers = not isinstance(item, Authentication) or item.sees_answers
            safe = _guarded(inner, failed) if inner is handler and sees_answers else inner
            through = _leading(policy.handle, safe)
        handler = item.choice(through, inner) if isinstance(item, Conditional) else through
    return _fused(plain[::-1], handler, failed)


def _leading(handle: Callable[[Request, Handler], Awaitable[Response]], inner: Handler) -> Handler:
    """Return `handle` with what it leads to; compiled, it costs a fifth of what a functools.partial does."""

    def through(request: Request) -> Awaitable[Response]:
        return handle(request, inner)

    return through


def _keeps(policy: Policy[Any], method: str) -> bool:
    """Whether a policy has a method as Policy defines it."""
    return getattr(getattr(policy, method), "__func__", None) is getattr(Policy, method)


def _guarded(inner: Handler, failed: Failed) -> Handler:
    """Return `inner`, with an answer where it raises; it costs a coroutine, which `_fused` has anyway."""

    async def handle(request: Request) -> Response:
        try:
            return await inner(request)
        except Exception as error:  # noqa: BLE001 - whatever it is, policies further out see an answer
            return failed(request, error)

    return handle


def _fused(policies: Sequence[Policy[Any]], inner: Handler, failed: Failed) -> Handler:
    """Return `inner` with policies around it, the first outermost, that all keep the `handle` of Policy.

    Only what they override is called: who overrides nothing costs nothing, and where none overrides anything it is
    `inner` itself. Otherwise nothing comes out of it but answers, and what ends the request's task.
    """
    answers: tuple[_Answer, ...] = ()
    asks: list[tuple[_Ask, tuple[_Answer, ...]]] = []
    names: dict[_Ask, str] = {}
    for policy in policies:
        if not _keeps(policy, "request"):
            ask = policy.request
            names[ask] = policy.called
            asks.append((ask, answers))  # an early answer goes out through those before this one
        if not _keeps(policy, "response"):
            answers = (policy.response, *answers)
    if not asks and not answers:
        return inner

    async def handle(request: Request) -> Response:
        before = answers
        try:
            for ask, before in asks:  # noqa: B007 - needed after it: those that an answer goes out through
                early = ask(request)
                if early is not None:
                    response = early
                    if request.exchange is not None:
                        request.exchange.stopped_by = names[ask]
                    break
            else:
                before = answers
                response = await inner(request)
        except Exception as error:  # noqa: BLE001 - whatever it is, policies further out see an answer
            response = failed(request, error)
        for answer in before:
            try:
                response = answer(request, response)
            except Exception as error:  # noqa: BLE001 - as above; it costs nothing where nobody raises
                response = failed(request, error)
        return response

    return handle
