"""A chain does what the law of a policy says, one `handle` within the other, whatever its policies do.

What one of them raises is an answer for those around it, as if each stood in a `guarded` of its own.
"""

# ruff: noqa: A002 - `next` is the field's word

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from portico.http.message import Handler, Request, Response
from portico.policy.base import Policy, PolicyConfig
from portico.policy.chain import Conditional, Failed, assemble


class Wrong(Exception):
    pass


class Fatal(BaseException):
    pass


Deed = Literal["nothing", "answer", "wrong", "cancel", "fatal"]
DEEDS: st.SearchStrategy[Deed] = st.sampled_from(
    ("nothing", "nothing", "nothing", "answer", "wrong", "cancel", "fatal")
)
ERRORS: dict[Deed, type[BaseException]] = {"wrong": Wrong, "cancel": asyncio.CancelledError, "fatal": Fatal}


Kind = Literal["neither", "request", "response", "both", "handle", "catches", "twice", "waits", "by instance"]


@dataclass(frozen=True)
class Plan:
    """What one policy of a chain is like."""

    kind: Kind
    request: Deed = "nothing"
    response: Deed = "nothing"
    condition: Literal["none", "holds", "not", "first", "wrong"] = "none"


PLANS = st.builds(
    Plan,
    st.sampled_from(
        ("neither", "request", "response", "both", "both", "handle", "catches", "twice", "waits", "by instance")
    ),
    DEEDS,
    DEEDS,
    st.sampled_from(("none", "none", "none", "holds", "not", "first", "wrong")),
)


@dataclass
class World:
    """Where a chain is run: what happened, in order, and what its end does."""

    end: Deed = "nothing"
    log: list[object] = field(default_factory=list)
    raised: list[str] = field(default_factory=list)
    """What was raised that has to become an answer."""
    failures: list[str] = field(default_factory=list)
    """What became one."""

    def fail(self, deed: Deed, who: str) -> None:
        """Raise what a deed stands for, if anything."""
        if deed == "wrong":
            self.raised.append(who)
        if deed in ERRORS:
            raise ERRORS[deed](who)

    def failed(self, request: Request, error: Exception) -> Response:
        """Answer what was raised."""
        self.log.append(("failed", str(error)))
        self.failures.append(str(error))
        return Response(500)

    def do(self, who: str, deed: Deed, answer: Response | None = None) -> Response | None:
        """Write down who was called, with what, and do it."""
        self.log.append((who, None if answer is None else answer.status))
        self.fail(deed, who)
        if deed == "answer":
            return Response(200 + int(who.split()[1]))
        return answer

    async def endpoint(self, request: Request) -> Response:
        self.log.append("end")
        await asyncio.sleep(0)
        self.fail(self.end, "end")
        return Response(200)


def policy_of(plan: Plan, number: int, world: World) -> Policy[PolicyConfig]:
    class Asks(Policy[PolicyConfig]):
        def request(self, request: Request) -> Response | None:
            return world.do(f"request {number}", plan.request)

    class Answers(Policy[PolicyConfig]):
        def response(self, request: Request, response: Response) -> Response:
            answer = world.do(f"response {number}", plan.response, response)
            assert answer is not None
            return answer

    class Both(Asks, Answers):
        pass

    class Handles(Both):
        async def handle(self, request: Request, next: Handler) -> Response:
            world.log.append(f"handle {number}")
            return await super().handle(request, next)

    class Catches(Both):
        async def handle(self, request: Request, next: Handler) -> Response:
            try:
                return await next(request)
            except (Wrong, asyncio.CancelledError) as error:
                world.log.append(f"{number} catches {error}")
                if plan.request == "answer":
                    return Response(299)
                raise
            finally:
                world.log.append(f"{number} is through")

    class Twice(Policy[PolicyConfig]):
        async def handle(self, request: Request, next: Handler) -> Response:
            first = await next(request)
            world.log.append(f"{number} saw {first.status}")
            return await next(request)

    class Waits(Both):
        async def handle(self, request: Request, next: Handler) -> Response:
            await asyncio.sleep(0)
            async with asyncio.timeout(None):
                return await super().handle(request, next)

    kinds: dict[str, type[Policy[PolicyConfig]]] = {
        "neither": Policy,
        "by instance": Policy,
        "request": Asks,
        "response": Answers,
        "both": Both,
        "handle": Handles,
        "catches": Catches,
        "twice": Twice,
        "waits": Waits,
    }
    policy = kinds[plan.kind](PolicyConfig())
    if plan.kind == "by instance":
        vars(policy)["request"] = lambda request: world.do(f"request {number}", plan.request)
    return policy


def conditional_of(plan: Plan, number: int, world: World) -> Policy[PolicyConfig] | Conditional:
    policy = policy_of(plan, number, world)
    if plan.condition == "none":
        return policy
    asked: list[bool] = []

    def holds(request: Request) -> bool:
        world.log.append(f"condition {number}")
        if plan.condition == "wrong":
            world.fail("wrong", f"condition {number}")
        asked.append(True)
        return plan.condition == "holds" or (plan.condition == "first" and len(asked) == 1)

    return Conditional(policy, holds)


def guarded(inner: Handler, failed: Failed) -> Handler:
    """Return `inner`, from which nothing comes but answers and what ends a task."""

    async def handle(request: Request) -> Response:
        try:
            return await inner(request)
        except Exception as error:  # noqa: BLE001 - as in a chain
            return failed(request, error)

    return handle


def nested(policies: Sequence[Policy[Any] | Conditional], endpoint: Handler, failed: Failed) -> Handler:
    """Return what `assemble` should be the same as."""

    async def conditional(request: Request, item: Conditional, next: Handler) -> Response:
        through = guarded(functools.partial(item.policy.handle, next=next), failed)
        return await (through(request) if item.holds(request) else next(request))

    handler = guarded(endpoint, failed)
    for item in reversed(policies):
        if isinstance(item, Conditional):
            handler = functools.partial(conditional, item=item, next=handler)
        else:
            handler = functools.partial(item.handle, next=handler)
        handler = guarded(handler, failed)
    return handler


Together = Callable[[Sequence[Policy[Any] | Conditional], Handler, Failed], Handler]


def lived(plans: Sequence[Plan], end: Deed, cancel_after: int | None, together: Together) -> World:
    """Return a world in which a chain was asked twice; the first task is cancelled after so many steps."""
    world = World(end)
    policies = [conditional_of(plan, number, world) for number, plan in enumerate(plans)]
    chain = guarded(together(policies, world.endpoint, world.failed), world.failed)  # the edge of a route

    async def call() -> Response:
        return await chain(Request("GET", "/"))

    async def once(steps: int | None) -> None:
        task = asyncio.get_running_loop().create_task(call())
        try:
            for _ in range(steps or 0):
                await asyncio.sleep(0)
            if steps is not None:
                world.log.append(("cancelled", task.cancel()))
            answer = await task
        except BaseException as error:  # noqa: BLE001 - all of them are compared
            world.log.append((type(error), str(error)))
        else:
            world.log.append(("answer", answer.status))

    async def main() -> None:
        await once(cancel_after)
        await once(None)

    asyncio.run(main())
    return world


@given(st.lists(PLANS, max_size=6), DEEDS, st.none() | st.integers(0, 4))
@settings(max_examples=400)
@example([Plan("both"), Plan("both", "answer"), Plan("both")], "nothing", None)
@example([Plan("both"), Plan("both", response="wrong"), Plan("both")], "nothing", None)
@example([Plan("both"), Plan("response", response="answer"), Plan("request", "wrong")], "nothing", None)
@example([Plan("both"), Plan("both", condition="not"), Plan("both", "answer", condition="first")], "nothing", None)
@example([Plan("catches"), Plan("both"), Plan("both", "cancel")], "nothing", None)
@example([Plan("catches"), Plan("both"), Plan("both")], "nothing", 1)
@example([Plan("twice"), Plan("both", condition="first"), Plan("neither", condition="wrong")], "nothing", None)
@example([Plan("both"), Plan("handle"), Plan("handle", condition="holds"), Plan("handle")], "wrong", None)
@example([Plan("response"), Plan("response", response="wrong"), Plan("response", response="wrong")], "wrong", None)
def test_a_chain_is_its_policies_one_within_the_other(plans: list[Plan], end: Deed, cancel_after: int | None) -> None:
    world = lived(plans, end, cancel_after, assemble)
    assert world.log == lived(plans, end, cancel_after, nested).log
    assert world.failures == world.raised
    assert not any(isinstance(entry, tuple) and entry[0] is Wrong for entry in world.log)


Raiser = Literal["request", "response", "handle", "condition", "endpoint"]


@pytest.mark.parametrize("raiser", get_args(Raiser))
@pytest.mark.parametrize("between", [[], ["both"], ["handle"], ["waits", "handle"], ["handle", "both", "handle"]])
@pytest.mark.parametrize("outer", ["catches", "both"])
def test_what_raises_is_an_answer_for_who_is_further_out(raiser: Raiser, between: list[Kind], outer: Kind) -> None:
    plans = {
        "request": Plan("request", request="wrong"),
        "response": Plan("response", response="wrong"),
        "handle": Plan("handle", response="wrong"),
        "condition": Plan("handle", condition="wrong"),
        "endpoint": Plan("neither"),
    }
    around = [Plan(outer), *map(Plan, between), plans[raiser]]
    world = lived(around, "wrong" if raiser == "endpoint" else "nothing", None, assemble)
    assert len(world.failures) == 2  # it was asked twice
    assert not [entry for entry in world.log if "catches" in str(entry)]
    seen = [("response 0", 500), ("answer", 500)] if outer == "both" else ["0 is through", ("answer", 500)]
    assert world.log[-2:] == seen
