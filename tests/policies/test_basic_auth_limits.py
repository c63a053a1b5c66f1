"""How many wrong passwords there may be, from where and for whom; and who is not held up by those of others."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from pydantic import ValidationError

from portico.plugin import Client, Failures, Recent, Refusal, StoreUnavailable, User, origin_of
from portico.policies import basic_auth
from portico.policies.basic_auth import (
    MOST_OF_ONE,
    MOST_WAITING,
    BasicAuth,
    Passwords,
)
from portico.state.holders import Held
from portico.state.memory import MemorySpace, MemoryStore
from portico.testing import Gateway
from tests.harness.loop import run
from tests.harness.passwords import QUICK, Counting, World, basic

HERE, THERE, ELSEWHERE = "192.0.2.1", "192.0.2.2", "192.0.2.3"


class Quick(Counting):
    """Compares nothing: the right passwords are known."""

    def counted(self, hash_: str, password: bytes) -> bool:
        self.compared.append(password.decode())
        return password in (b"swordfish", b"hunter2")


def world_of(passwords: Passwords | None = None, **settings: Any) -> World:
    return World(passwords=passwords or Quick(), **settings)


def compared(world: World) -> list[str]:
    assert isinstance(world.passwords, Quick)
    return world.passwords.compared


async def tries(world: World, name: str, password: str, *, times: int = 1, address: str = HERE) -> str:
    """Return what becomes of the last of some tries."""
    found: User | Refusal | None = None
    for _ in range(times):
        found = await world.found(basic(f"{name}:{password}"), address=address)
    return "let in" if isinstance(found, User) else str(found.status if isinstance(found, Refusal) else None)


def test_an_address_may_not_try_for_ever() -> None:
    async def main() -> None:
        world = world_of()
        for number in range(10):
            assert await tries(world, f"name-{number}", "x") == "401"
        world.now += 59.5
        refused = await world.found(basic("bob:hunter2"), address=HERE)
        assert isinstance(refused, Refusal)
        assert (refused.status, refused.type, refused.retry_after) == (429, "too-many-attempts", 1)
        assert await tries(world, "eve", "x", times=100) == "429"
        assert len(compared(world)) == 10
        assert await tries(world, "bob", "hunter2", address=THERE) == "let in"
        world.now += 0.5
        assert await tries(world, "bob", "hunter2") == "let in"
        world.passwords.close()

    run(main)


@pytest.mark.parametrize("name", ["ada", "nobody-of-this-name", "keys-only"])
def test_a_name_may_not_be_tried_for_ever(name: str) -> None:
    async def main() -> None:
        world = world_of()
        for number in range(10):
            assert await tries(world, name, f"x{number}", address=f"198.51.100.{number}") == "401"
        assert await tries(world, name, "x", address=THERE) == "429"  # whether there is somebody of this name or not
        assert await tries(world, name, "swordfish", address=THERE) == "429"
        assert len(compared(world)) == 10
        assert await tries(world, "bob", "hunter2", address=THERE) == "let in"
        world.now += 60
        assert await tries(world, name, "swordfish", address=THERE) == ("let in" if name == "ada" else "401")
        world.passwords.close()

    run(main)


def test_the_one_whose_name_is_tried_is_not_locked_out() -> None:
    async def main() -> None:
        world = world_of(remember="5m")
        assert await tries(world, "ada", "swordfish") == "let in"
        for number in range(20):
            await tries(world, "ada", "x", address=f"198.51.100.{number}")
        assert await tries(world, "ada", "swordfish", address=THERE) == "let in"  # it is remembered
        assert await tries(world, "ada", "swordfish", times=50) == "let in"
        world.now += 301
        for number in range(20):
            await tries(world, "ada", "x", address=f"198.51.100.{number}")
        assert await tries(world, "ada", "swordfish", address=THERE) == "429"  # nor was it right from there before
        assert await tries(world, "ada", "swordfish") == "let in"
        world.now += 86401
        for number in range(20):
            await tries(world, "ada", "x", address=f"198.51.100.{number}")
        assert await tries(world, "ada", "swordfish") == "429"
        world.passwords.close()

    run(main)


def test_others_at_the_same_address_hold_up_nobody_who_was_there_before() -> None:
    async def main() -> None:
        world = world_of(remember="0s")
        assert await tries(world, "ada", "swordfish") == "let in"
        assert await tries(world, "eve", "x", times=30) == "429"
        assert await tries(world, "bob", "hunter2") == "429"
        assert await tries(world, "ada", "swordfish", times=30) == "let in"
        assert await tries(world, "ada", "x", times=10) == "401"  # but they are judged there by their own
        assert await tries(world, "ada", "swordfish") == "429"
        world.passwords.close()

    run(main)


@pytest.mark.parametrize("was_there", [False, True])
def test_who_is_refused_cannot_find_out_what_is_remembered(was_there: bool) -> None:
    async def main() -> None:
        world = world_of()
        assert await tries(world, "ada", "swordfish", address=HERE if was_there else THERE) == "let in"
        assert await tries(world, "ada", "x", times=10) == "401"
        assert await tries(world, "ada", "swordfish") == "429"
        for number in range(10):  # nor where only the name has had too many
            await tries(world, "ada", "y", address=f"198.51.100.{number}")
        assert await tries(world, "ada", "z", times=10, address=ELSEWHERE) == "429"
        assert await tries(world, "ada", "swordfish", address=ELSEWHERE) == "429"
        world.passwords.close()

    run(main)


def test_a_refusal_counts_for_no_name() -> None:
    async def main() -> None:
        world = world_of()
        await tries(world, "eve", "x", times=10)
        assert await tries(world, "ada", "x", times=50) == "429"
        assert await tries(world, "ada", "swordfish", address=THERE) == "let in"
        world.passwords.close()

    run(main)


def test_what_is_right_does_not_count_and_does_not_make_up_for_what_is_wrong() -> None:
    async def main() -> None:
        world = world_of(remember="0s")
        for _ in range(9):
            assert await tries(world, "eve", "x") == "401"
            assert await tries(world, "bob", "hunter2", times=3) == "let in"
        assert await tries(world, "eve", "x") == "401"
        assert await tries(world, "eve", "x") == "429"
        world.passwords.close()

    run(main)


def test_many_at_once_are_not_one() -> None:
    async def main() -> None:
        world = world_of(failures=3)
        at_once = [world.found(basic(f"ada:{number}"), address=f"198.51.100.{number}") for number in range(20)]
        found = await asyncio.gather(*at_once)
        statuses = sorted(each.status for each in found if isinstance(each, Refusal))
        assert statuses == [401] * 3 + [429] * 17
        world.now += 60
        same = [world.found(basic("bob:hunter2"), address=HERE) for _ in range(20)]
        assert all(isinstance(each, User) for each in await asyncio.gather(*same))
        world.passwords.close()

    run(main)


def test_without_a_limit_and_with_another() -> None:
    async def main() -> None:
        world = world_of(failures="off")
        assert await tries(world, "ada", "x", times=30) == "401"
        world = world_of(failures=1, within="1h")
        assert await tries(world, "ada", "x") == "401"
        world.now += 3599
        assert await tries(world, "ada", "swordfish") == "429"
        world.passwords.close()

    run(main)


def test_a_unix_socket_has_no_address() -> None:
    async def main() -> None:
        world = world_of()
        for number in range(30):
            assert await tries(world, f"name-{number}", "x", address="") == "401"
        assert await tries(world, "ada", "x", times=11, address="") == "429"
        world.passwords.close()

    run(main)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
    ],
)
def test_what_is_one_address(one: str, other: str, same: bool) -> None:
    first, second = (origin_of(Client(each, 1, 80, "http")) for each in (one, other))
    assert (first == second) is same
    assert first
    assert origin_of(None) == origin_of(Client("", 0, 80, "http")) == b""


class Slow(Passwords):
    """Compares nothing until it may."""

    def __init__(self) -> None:
        super().__init__(self.compare)
        self.may = threading.Event()

    def compare(self, _: str, password: bytes) -> bool:
        self.may.wait(10)
        return password == b"swordfish"


def test_one_address_cannot_have_all_who_compare() -> None:
    async def main() -> None:
        passwords = Slow()
        world = world_of(passwords, failures="off")
        async with asyncio.TaskGroup() as tasks:
            strangers = [
                tasks.create_task(world.found(basic(f"eve:{number}"), address=f"2001:db8::{number:x}"))
                for number in range(MOST_WAITING)
            ]
            await asyncio.sleep(0)
            others = [
                tasks.create_task(world.found(basic("ada:swordfish"), address=f"198.51.100.{number}"))
                for number in range(5)
            ]
            await asyncio.sleep(0)
            done = [each.result() for each in strangers if each.done()]
            assert len(done) == MOST_WAITING - MOST_OF_ONE
            assert all(isinstance(each, Refusal) and (each.status, each.retry_after) == (503, 1) for each in done)
            assert not any(each.done() for each in others)
            passwords.may.set()
        assert all(isinstance(each.result(), User) for each in others)
        assert [await tries(world, "eve", str(number)) for number in range(9)] == ["401"] * 9  # places are free again
        passwords.close()

    run(main)


def test_nobody_waits_for_what_is_closed() -> None:
    async def main() -> None:
        passwords = Slow()
        world = world_of(passwords)
        waiting = [
            asyncio.ensure_future(world.found(basic(f"ada:{number}"), address=f"198.51.100.{number}"))  # noqa: TID251
            for number in range(5)
        ]
        await asyncio.sleep(0)
        passwords.close()
        found = await asyncio.gather(*waiting)  # those that were begun as well as those that were not
        assert [each.status for each in found if isinstance(each, Refusal)] == [503] * 5
        assert await tries(world, "ada", "swordfish") == "503"
        passwords.may.set()
        await asyncio.sleep(0.01)  # what was begun comes to its end, and nobody minds

    run(main)


def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(basic_auth, "LONGEST_WAIT", 0.0)

    async def main() -> None:
        passwords = Slow()
        world = world_of(passwords)
        assert await tries(world, "ada", "swordfish") == "503"
        passwords.may.set()
        passwords.close()

    run(main)


def test_whoever_leaves_while_waiting_is_cancelled() -> None:
    async def main() -> None:
        passwords = Slow()
        world = world_of(passwords)
        leaves, stays = (asyncio.ensure_future(world.found(basic("ada:swordfish"), address=HERE)) for _ in range(2))  # noqa: TID251
        await asyncio.sleep(0)
        leaves.cancel()
        passwords.may.set()
        with pytest.raises(asyncio.CancelledError):
            await leaves
        assert isinstance(await stays, User)
        passwords.close()

    run(main)


def test_a_comparison_that_fails_is_told_to_whoever_waits() -> None:
    async def main() -> None:
        def fails(_: str, password: bytes) -> bool:
            raise MemoryError

        passwords = Passwords(fails)
        with pytest.raises(MemoryError):
            await tries(world_of(passwords), "ada", "swordfish")
        assert await tries(world_of(Quick()), "ada", "swordfish") == "let in"
        passwords.close()

    run(main)


def workers(**settings: Any) -> tuple[World, World]:
    """Return two workers of one machine."""
    one = world_of(**settings)
    return one, world_of(store=one.store, **settings)


def test_who_leaves_before_the_store_has_answered_has_tried_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        world = world_of(failures=1)

        async def never() -> Held:
            await asyncio.Event().wait()
            raise AssertionError("it has been")

        with monkeypatch.context() as patch:
            patch.setattr(world.store.volatile, "hold", lambda *_: never())
            leaves = asyncio.ensure_future(world.found(basic("ada:swordfish"), address=HERE))  # noqa: TID251
            await asyncio.sleep(0)
            leaves.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaves
        assert await tries(world, "ada", "swordfish") == "let in"
        end(world)

    run(main)


def end(*worlds: World) -> None:
    for each in worlds:
        each.passwords.close()


def test_workers_count_together() -> None:
    async def main() -> None:
        one, other = workers()
        for number in range(5):
            assert await tries(one, f"name-{number}", "x") == "401"
            assert await tries(other, "ada", f"x{number}", address=f"198.51.100.{number}") == "401"
            one.now = other.now = one.now + 1
        for number in range(5):
            assert await tries(other, f"name-{number}", "y") == "401"
            assert await tries(one, "ada", f"y{number}", address=f"198.51.100.{number + 5}") == "401"
        refused = await one.found(basic("bob:hunter2"), address=HERE)
        assert isinstance(refused, Refusal)
        assert (refused.status, refused.retry_after) == (429, 55)
        for world in (one, other):
            assert await tries(world, "bob", "hunter2") == "429"
            assert await tries(world, "ada", "swordfish", address=THERE) == "429"
        assert len(compared(one)) + len(compared(other)) == 20
        one.now = other.now = one.now + 55
        assert await tries(one, "bob", "hunter2") == "let in"
        assert await tries(one, "ada", "swordfish", address=THERE) == "let in"
        end(one, other)

    run(main)


def test_what_is_right_counts_for_no_worker() -> None:
    async def main() -> None:
        one, other = workers(remember="0s", failures=3)
        for _ in range(10):
            assert await tries(one, "bob", "hunter2") == "let in"
            assert await tries(other, "ada", "swordfish") == "let in"
        assert await tries(one, "eve", "x", times=3) == "401"
        assert await tries(other, "eve", "x") == "429"
        end(one, other)

    run(main)


def test_many_at_once_over_all_workers_are_not_one() -> None:
    async def main() -> None:
        one, other = workers(failures=3)
        at_once = [
            (one, other)[number % 2].found(basic(f"ada:{number}"), address=f"198.51.100.{number}")
            for number in range(20)
        ]
        found = await asyncio.gather(*at_once)
        assert sorted(each.status for each in found if isinstance(each, Refusal)) == [401] * 3 + [429] * 17
        end(one, other)

    run(main)


@pytest.mark.parametrize("refused_before", [False, True])
def test_who_was_there_before_is_known_to_all_workers(refused_before: bool) -> None:
    async def main() -> None:
        one, other = workers()
        assert await tries(one, "ada", "swordfish") == "let in"
        for number in range(20):
            await tries(one, "ada", "x", address=f"198.51.100.{number}")
        if refused_before:  # so that the other one has been told of it
            assert await tries(other, "ada", "x", address=THERE) == "429"
        assert await tries(other, "ada", "swordfish", address=THERE) == "429"
        assert await tries(other, "ada", "swordfish") == "let in"
        other.now = one.now = one.now + 301  # nothing is remembered any more
        assert await tries(one, "eve", "x", times=20) == "429"
        assert await tries(other, "bob", "hunter2") == "429"
        assert await tries(other, "ada", "swordfish") == "let in"
        end(one, other)

    run(main)


def test_who_is_refused_by_one_worker_cannot_try_what_another_remembers() -> None:
    async def main() -> None:
        one, other = workers()
        assert await tries(other, "ada", "swordfish", address=THERE) == "let in"
        assert await tries(one, "eve", "x", times=10) == "401"
        assert await tries(other, "ada", "x") == "429"
        assert await tries(other, "ada", "swordfish") == "429"
        end(one, other)

    run(main)


def test_each_counts_for_itself_without_a_store_or_where_the_file_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def down(*_: object) -> None:
        raise StoreUnavailable("it is down")

    async def each_for_itself(one: World, other: World) -> None:
        for world in (one, other):
            assert await tries(world, "eve", "x", times=10) == "401"
            assert await tries(world, "eve", "x") == "429"
        end(one, other)

    async def main() -> None:
        await each_for_itself(*workers(shared=False))
        assert "store" not in caplog.text
        for name in ("hold", "get", "put"):
            monkeypatch.setattr(MemorySpace, name, down)
        await each_for_itself(*workers())
        assert "wrong passwords cannot be counted together: it is down; each worker does" in caplog.text

    run(main)


class LaterSpace(MemorySpace):
    """A store that takes its time."""

    def __init__(self) -> None:
        super().__init__()
        self.may = asyncio.Event()

    async def hold(self, *said: Any) -> Held:  # type: ignore[override]
        await self.may.wait()
        return super().hold(*said)


@pytest.mark.parametrize("how", ["leaves", "closed"])
def test_what_comes_while_the_store_is_asked(how: str) -> None:
    async def main() -> None:
        store = MemoryStore()
        store.volatile = space = LaterSpace()
        world = world_of(store=store)
        async with asyncio.TaskGroup() as tasks:
            first, second = (tasks.create_task(world.found(basic("ada:swordfish"), address=HERE)) for _ in range(2))
            await asyncio.sleep(0)
            if how == "leaves":
                first.cancel()
            else:
                world.passwords.close()
                space.may.set()
        found = [each.result() for each in (first, second) if not each.cancelled()]
        assert [each.status for each in found if isinstance(each, Refusal)] == [503] * len(found)
        assert len(found) == (1 if how == "leaves" else 2)
        space.may.set()
        assert await tries(world, "ada", "swordfish") == ("let in" if how == "leaves" else "503")
        world.passwords.close()

    run(main)


def test_what_is_counted_is_bounded() -> None:
    failures, recent = Failures(3), Recent(3)
    for number in range(10):
        failures.add(b"%d" % number, float(number), 60.0)
        recent.note(b"%d" % number, float(number))
        assert len(failures) == min(number + 1, 3)
    assert [failures.left(b"%d" % number, 1, 10.0) for number in (6, 7, 9)] == [0.0, 57.0, 59.0]
    assert [recent.was(b"%d" % number, 0.0) for number in (6, 7, 9)] == [False, True, True]
    failures.take_back(b"9")
    failures.take_back(b"9")
    assert failures.left(b"9", 1, 10.0) == 0.0
    assert not failures.none_at(68.0)
    assert failures.none_at(69.0)
    failures.exhaust(b"7", 5, 99.0)
    failures.exhaust(b"10", 5, 99.0)
    assert len(failures) == 3
    assert [failures.left(key, 5, 69.0) for key in (b"7", b"10", b"8")] == [30.0, 30.0, 0.0]
    assert not failures.none_at(98.0)


def test_what_is_answered() -> None:
    hashed = QUICK.hash("swordfish")
    text = f"""
consumers: {{ada: {{password: '{hashed}'}}}}
routes: [{{path: /, respond: in, policies: [{{basic-auth: {{failures: 2, within: 30s}}}}]}}]
"""
    with Gateway(text=text) as gateway:
        for _ in range(2):
            assert gateway.get("/", headers={"Authorization": basic("ada:x")}).status == 401
        answer = gateway.get("/", headers={"Authorization": basic("ada:swordfish")})
        assert (answer.status, answer.headers["retry-after"]) == (429, "30")
        assert "www-authenticate" not in answer.headers
        gateway.clock.advance(30)
        assert gateway.get("/", headers={"Authorization": basic("ada:swordfish")}).text == "in"


@pytest.mark.parametrize(
    "settings", [{"failures": 0}, {"failures": 1001}, {"failures": "none"}, {"within": "0s"}, {"within": "2d"}]
)
def test_bad_settings(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        BasicAuth.model_validate(settings)
