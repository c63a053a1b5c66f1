from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from portico.http.message import Handler, Request, Response
from portico.policy.base import Policy, PolicyConfig, Stage
from portico.policy.chain import assemble, merge


class Use(NamedTuple):
    name: str
    off: bool = False
    tag: str = ""


def chain(*scopes: Sequence[tuple[Use, Stage]]) -> list[tuple[str, str]]:
    """Return the names of the chain, each with its scope."""
    named = zip(("global", "service", "route"), scopes, strict=False)
    return [(scoped.use.name, scoped.scope) for scoped in merge(named)]


def test_nothing_makes_an_empty_chain() -> None:
    assert chain() == []
    assert chain([], [], []) == []


def test_stages_go_before_scopes_and_scopes_before_order() -> None:
    assert chain(
        [(Use("g-limit"), Stage.LIMIT), (Use("g-observe"), Stage.OBSERVE)],
        [(Use("s-observe"), Stage.OBSERVE), (Use("s-limit"), Stage.LIMIT)],
        [(Use("r2"), Stage.OBSERVE), (Use("r1"), Stage.OBSERVE), (Use("r-guard"), Stage.GUARD)],
    ) == [
        ("g-observe", "global"),
        ("s-observe", "service"),
        ("r2", "route"),
        ("r1", "route"),
        ("r-guard", "route"),
        ("g-limit", "global"),
        ("s-limit", "service"),
    ]


def test_a_narrower_scope_replaces_and_stands_where_it_says() -> None:
    assert chain(
        [(Use("a"), Stage.OBSERVE), (Use("b"), Stage.OBSERVE)],
        [(Use("a"), Stage.LIMIT)],
        [(Use("c"), Stage.GUARD)],
    ) == [("b", "global"), ("c", "route"), ("a", "service")]
    assert chain([(Use("a"), Stage.GUARD), (Use("b"), Stage.GUARD)], [], [(Use("a"), Stage.GUARD)]) == [
        ("b", "global"),
        ("a", "route"),
    ]


def test_off_removes_what_wider_scopes_have() -> None:
    everywhere = [(Use("a"), Stage.GUARD), (Use("b"), Stage.GUARD)]
    assert chain(everywhere, [], [(Use("a", off=True), Stage.OBSERVE)]) == [("b", "global")]
    assert chain(everywhere, [(Use("a"), Stage.GUARD)], [(Use("a", off=True), Stage.OBSERVE)]) == [("b", "global")]


def test_what_is_off_may_be_on_again_in_a_narrower_scope() -> None:
    assert chain([(Use("a"), Stage.GUARD)], [(Use("a", off=True), Stage.OBSERVE)], [(Use("a"), Stage.GUARD)]) == [
        ("a", "route")
    ]


def test_off_of_what_is_not_there_is_nothing() -> None:
    assert chain([], [], [(Use("a", off=True), Stage.OBSERVE)]) == []


def test_two_names_stand_twice() -> None:
    assert chain([(Use("per-ip"), Stage.LIMIT)], [], [(Use("per-key"), Stage.LIMIT)]) == [
        ("per-ip", "global"),
        ("per-key", "route"),
    ]


USES = st.lists(st.tuples(st.builds(Use, st.sampled_from("abcd"), st.booleans()), st.sampled_from(Stage)), max_size=5)


@given(st.lists(USES, min_size=3, max_size=3))
def test_the_merge_is_the_one_that_the_design_describes(scopes: list[list[tuple[Use, Stage]]]) -> None:
    last: dict[str, tuple[Stage, int, int, bool]] = {}
    for rank, uses in enumerate(scopes):
        for position, (use, stage) in enumerate(uses):
            last[use.name] = (stage, rank, position, use.off)
    expected = sorted((stage, rank, position, name) for name, (stage, rank, position, off) in last.items() if not off)
    merged = merge(zip(("global", "service", "route"), scopes, strict=True))
    assert [scoped.use.name for scoped in merged] == [name for *_, name in expected]
    assert [scoped.stage for scoped in merged] == [stage for stage, *_ in expected]


class Tag(PolicyConfig):
    name: str
    """What is written down."""


def tagging(log: list[str], names: Iterable[str]) -> list[Policy[Tag]]:
    class Tagging(Policy[Tag]):
        def request(self, request: Request) -> Response | None:
            log.append(f">{self.config.name}")
            return Response(403) if request.path == f"/{self.config.name}" else None

        def response(self, request: Request, response: Response) -> Response:
            log.append(f"<{self.config.name}")
            return response

    return [Tagging(Tag(name=name)) for name in names]


def failed(request: Request, error: Exception) -> Response:
    raise AssertionError from error


def ending(log: list[str]) -> Handler:
    async def end(_: Request) -> Response:
        log.append("end")
        return Response(200)

    return end


def run(handler: Handler, path: str = "/") -> int:
    async def main() -> int:
        return (await handler(Request("GET", path))).status

    return asyncio.run(main())


def test_the_first_policy_is_the_outermost() -> None:
    log: list[str] = []
    assert run(assemble(tagging(log, "abc"), ending(log), failed)) == 200
    assert log == [">a", ">b", ">c", "end", "<c", "<b", "<a"]


def test_an_early_answer_goes_back_through_those_before_it() -> None:
    log: list[str] = []
    handler = assemble(tagging(log, "abc"), ending(log), failed)
    assert run(handler, "/b") == 403
    assert log == [">a", ">b", "<a"]
    log.clear()
    assert run(handler) == 200  # a chain serves one request as well as the next
    assert "end" in log


def test_without_policies_the_endpoint_is_the_chain() -> None:
    log: list[str] = []
    end = ending(log)
    assert assemble([], end, failed) is end
