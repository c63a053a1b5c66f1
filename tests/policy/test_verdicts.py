from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from portico.plugin import AuthenticatorConfig, Memory, NoVerdict, Questions, Secret, Trouble, settings_print
from portico.policy.verdicts import MOST_REMEMBERED, MOST_UNDER_WAY, TELL_AGAIN
from portico.testing.clock import FakeTimeLoop

logger = logging.getLogger("portico.route.test")


def test_memory_is_bounded() -> None:
    memory: Memory[str] = Memory()
    for number in range(MOST_REMEMBERED + 5):
        memory.keep(b"%d" % number, "yes", 0.0, 1.0)
    assert len(memory) == MOST_REMEMBERED
    assert memory.recall(b"4", 0.5) is None
    assert memory.recall(b"5", 0.5) == "yes"
    assert memory.recall(b"5", 1.0) is None
    assert len(memory) == MOST_REMEMBERED - 1
    memory.forget(b"6")
    memory.forget(b"6")
    assert memory.recall(b"6", 0.5) is None
    memory.close()
    assert not len(memory)


def test_what_does_not_hold_is_not_kept_and_ends_what_did() -> None:
    memory: Memory[str] = Memory()
    memory.keep(b"a", "yes", 0.0, 10.0)
    memory.keep(b"a", "no", 1.0, 0.0)
    assert memory.recall(b"a", 1.0) is None
    assert not len(memory)


def test_what_is_kept_tells_nothing_of_the_question() -> None:
    one, other = Memory[str](), Memory[str]()
    assert one.print_of(b"token") == one.print_of(b"token") != other.print_of(b"token")
    assert one.print_of(("a", "b")) != one.print_of(("ab", ""))
    assert b"token" not in one.print_of(b"token")


class Settings(AuthenticatorConfig):
    url: str = ""
    secret: Secret | None = None


def test_settings_are_told_apart() -> None:
    same = settings_print(Settings(url="a"))
    assert same == settings_print(Settings(url="a", required=True))
    others = [settings_print(Settings(url="b")), settings_print(Settings(url="a"), b""), settings_print(Settings())]
    others += [settings_print(Settings(url="a"), each) for each in (b"x", b"y")]
    others += [settings_print(Settings(url="a"), b"x", b"y"), settings_print(Settings(url="a"), b"xy")]
    assert len({same, *others}) == 1 + len(others)


class Asking:
    """Someone who is asked, in a time that passes by itself."""

    def __init__(self) -> None:
        self.begun = 0
        self.ended: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(work, name=name))

    def questions(self, timeout: float = 10.0) -> Questions[str]:
        trouble = Trouble(logger, asyncio.get_running_loop().time, "no answers", "it is closed")
        return Questions(self, "test", timeout, trouble)  # type: ignore[arg-type]

    async def ask(self, takes: float = 1.0, error: Exception | None = None) -> str:
        self.begun += 1
        try:
            await asyncio.sleep(takes)
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        if error is not None:
            raise error
        self.ended.append("answered")
        return "yes"


def in_time(main: Callable[[Asking], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=FakeTimeLoop) as runner:
        runner.run(main(Asking()))


def test_the_same_at_once_is_one_question_and_no_longer() -> None:
    async def main(asking: Asking) -> None:
        questions = asking.questions()
        same = [questions.verdict(b"a", asking.ask) for _ in range(3)]
        assert await asyncio.gather(*same, questions.verdict(b"b", asking.ask)) == ["yes"] * 4
        assert (asking.begun, len(questions)) == (2, 0)
        assert await questions.verdict(b"a", asking.ask) == "yes"
        assert asking.begun == 3

    in_time(main)


def test_a_question_ends_with_the_last_who_waits_for_it() -> None:
    async def main(asking: Asking) -> None:
        questions = asking.questions()
        async with asyncio.TaskGroup() as tasks:
            first, second = (tasks.create_task(questions.verdict(b"a", asking.ask)) for _ in range(2))
            await asyncio.sleep(0.1)
            first.cancel()
            await asyncio.sleep(0.1)
            assert (asking.ended, len(questions)) == ([], 1)
            second.cancel()
            await asyncio.sleep(0.1)
            assert (asking.ended, len(questions)) == (["cancelled"], 0)
            third = tasks.create_task(questions.verdict(b"a", asking.ask))
        assert (third.result(), asking.begun) == ("yes", 2)
        assert all(task.done() for task in asking.tasks)

    in_time(main)


def test_who_leaves_at_once() -> None:
    async def main(asking: Asking) -> None:
        questions = asking.questions()
        leaving = asyncio.get_running_loop().create_task(questions.verdict(b"a", asking.ask))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait([leaving, *asking.tasks])
        assert (leaving.cancelled(), asking.ended, len(questions)) == (True, ["cancelled"], 0)

    in_time(main)


def test_no_answer_in_time(caplog: pytest.LogCaptureFixture) -> None:
    async def main(asking: Asking) -> None:
        questions, loop = asking.questions(timeout=2.0), asyncio.get_running_loop()
        before = loop.time()
        assert await questions.verdict(b"a", lambda: asking.ask(takes=60.0)) is None
        assert loop.time() < before + 2.1
        await asyncio.wait(asking.tasks)
        assert (asking.ended, len(questions)) == (["cancelled"], 0)
        assert await questions.verdict(b"a", lambda: asking.ask(takes=60.0)) is None
        await asyncio.sleep(TELL_AGAIN)
        assert await questions.verdict(b"a", lambda: asking.ask(takes=60.0)) is None

    in_time(main)
    assert caplog.messages == ["no answers: no answer in time; it is closed"] * 2


@pytest.mark.parametrize("error", [NoVerdict("it answers 500"), ZeroDivisionError()])
def test_what_fails_is_no_answer(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    async def main(asking: Asking) -> None:
        questions = asking.questions()
        assert await questions.verdict(b"a", lambda: asking.ask(error=error)) is None
        assert len(questions) == 0
        await asyncio.wait(asking.tasks)
        known = isinstance(error, NoVerdict)
        assert asking.tasks[0].exception() is (None if known else error)  # whoever owns the work is told of a mistake
        assert caplog.messages == (["no answers: it answers 500; it is closed"] if known else [])

    in_time(main)


def test_too_many_questions(caplog: pytest.LogCaptureFixture) -> None:
    async def main(asking: Asking) -> None:
        questions = asking.questions()
        async with asyncio.TaskGroup() as tasks:
            for number in range(MOST_UNDER_WAY):
                tasks.create_task(questions.verdict(b"%d" % number, asking.ask))
            await asyncio.sleep(0.1)
            assert await questions.verdict(b"one more", asking.ask) is None
            assert await questions.verdict(b"0", asking.ask) == "yes"
        assert asking.begun == MOST_UNDER_WAY

    in_time(main)
    assert caplog.messages == [f"no answers: {MOST_UNDER_WAY} questions are under way; it is closed"]
