from __future__ import annotations

import asyncio
import base64
import threading
from typing import Any

import argon2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from portico.config.consumers import DECOY, Consumer, Consumers
from portico.plugin import USER, Refusal, Request, User
from portico.policies.basic_auth import (
    LONGEST,
    MOST_REMEMBERED,
    MOST_WAITING,
    BasicAuth,
    Passwords,
    credentials_of,
    matches,
)
from tests.harness.loop import run
from tests.harness.passwords import KNOWN, LONG, QUICK, Counting, World, basic
from tests.harness.policies import request_of


def ask(*values: str) -> str:
    async def main() -> str:
        world = World()
        found = await world.found(*values)
        world.passwords.close()
        return found.name if isinstance(found, User) else found.type if isinstance(found, Refusal) else ""

    return run(main)


BAD = "invalid-credentials"
CASES = [
    ([], ""),
    ([basic("ada:swordfish")], "ada"),
    ([basic("ada:swordfish", "bASIC")], "ada"),
    ([basic("ada:swordfish", "Basic  ")], "ada"),
    ([basic("zoë:paß:wörd ")], "zoë"),
    ([basic("bob:hunter2")], "bob"),
    ([basic("empty:")], "empty"),
    (["Bearer abc"], ""),
    (["Basically"], ""),
    (["Bearer abc", "Digest x"], ""),
    ([basic("ada:swordfis")], BAD),
    ([basic("ada:swordfish ")], BAD),
    ([basic("Ada:swordfish")], BAD),
    ([basic("eve:swordfish")], BAD),
    ([basic("keys-only:")], BAD),
    ([basic("keys-only:x")], BAD),
    ([basic(f"long:{LONG}")], BAD),  # bcrypt would see no difference
    ([basic(f"long:{LONG[:72]}")], "long"),
    ([basic("zoë:paß:wörd ".encode("latin-1"))], BAD),
    ([basic("ada")], BAD),
    ([basic(":swordfish")], BAD),
    ([basic("")], BAD),
    (["Basic"], BAD),
    (["Basic YWRhOnN3b3JkZmlzaA"], BAD),  # without its padding
    (["Basic YWRhOnN3b3JkZmlzaA==x"], BAD),
    (["Basic YWRh OnN3b3JkZmlzaA=="], BAD),
    (["Basic ====", "x"], "duplicate-credentials"),
    (["Basic \xff\xfe"], BAD),
    ([basic(b"ada:\xff\xfe")], BAD),
    ([basic("ada:sword\0fish")], BAD),
    ([basic("ada\0:swordfish")], BAD),
    ([basic("ada:swordfish\n")], BAD),
    ([basic("ada:" + "x" * LONGEST)], BAD),
    ([basic("ada:" + "x" * 30000)], BAD),
    ([basic("ada:swordfish")] * 2, "duplicate-credentials"),
    (["Bearer abc", basic("ada:swordfish")], "duplicate-credentials"),
]


@pytest.mark.parametrize(("values", "expected"), CASES)
def test_who_it_is(values: list[str], expected: str) -> None:
    assert ask(*values) == expected


def test_the_user_and_the_answers() -> None:
    async def main() -> None:
        world = World(realm="the shop")
        assert await world.found(basic("ada:swordfish")) == User(
            "ada", frozenset("r"), kind="basic-auth", consumer="ada"
        )
        request = request_of()

        async def passed(request: Request) -> Any:
            raise AssertionError

        answer = await world.policy.handle(request, passed)
        assert answer.status == 401
        assert answer.headers.get_all(b"www-authenticate") == [b'Basic realm="the shop", charset="UTF-8"']
        wrong, nobody, none = [await world.found(basic(each)) for each in ("ada:x", "eve:x", "keys-only:x")]
        assert wrong == nobody == none  # nothing tells who there is
        world.passwords.close()

    run(main)


@pytest.mark.parametrize("hide", [True, False])
def test_the_service_is_not_sent_the_password(hide: bool) -> None:
    policy = World(hide=hide).policy
    for value, left in ((basic("ada:swordfish"), not hide), ("Bearer abc", True)):
        request = request_of("GET", ("Authorization", value))
        policy.conceal(request)
        assert (b"authorization" in request.headers) is left


def test_what_was_right_is_remembered_for_a_while() -> None:
    async def main() -> None:
        world = World(remember="10s")
        passwords = world.passwords
        assert isinstance(passwords, Counting)
        for now, count in ((0, 1), (9, 1), (10, 1), (11, 2), (21, 2), (22, 3)):
            world.now = 1000.0 + now
            assert isinstance(await world.found(basic("ada:swordfish")), User)
            assert len(passwords.compared) == count, now
        for count in (4, 5):
            assert isinstance(await world.found(basic("ada:wrong")), Refusal)
            assert len(passwords.compared) == count  # what was wrong is not
        assert b"swordfish" not in repr(vars(passwords)).encode()
        passwords.close()

    run(main)


def test_another_password_of_a_consumer_ends_the_old_one() -> None:
    async def main() -> None:
        passwords = Counting()
        before = World(passwords=passwords)
        assert isinstance(await before.found(basic("ada:swordfish")), User)
        after = World(Consumers([Consumer("ada", password=QUICK.hash("other"))]), passwords)
        assert isinstance(await after.found(basic("ada:swordfish")), Refusal)
        assert isinstance(await after.found(basic("ada:other")), User)
        gone = World(Consumers(), passwords)
        assert isinstance(await gone.found(basic("ada:other")), Refusal)
        passwords.close()

    run(main)


def test_an_unknown_user_is_compared_too() -> None:
    async def main() -> None:
        world = World()
        assert isinstance(world.passwords, Counting)
        for text in ("eve:swordfish", "keys-only:swordfish"):
            # even with the password of whose hash it is compared with
            assert isinstance(await world.found(basic(text)), Refusal)
        assert world.passwords.compared == [KNOWN.decoy] * 2
        world.passwords.close()

    run(main)


def test_what_only_looks_like_a_hash_is_that_of_no_password() -> None:
    for hash_ in ("$2b$04$" + "a" * 53, "$argon2id$v=19$m=8,t=1,p=1$aaaaaaaaaaa$aaaaaaaaaaaaaaaaa"):
        assert Consumers([Consumer("ada", password=hash_)]).decoy == hash_
        assert not matches(hash_, b"x")


def test_the_decoy_takes_its_time() -> None:
    assert not matches(DECOY, b"x")
    assert argon2.extract_parameters(DECOY) == argon2.profiles.RFC_9106_LOW_MEMORY


def test_too_many_at_once_are_refused_and_the_same_are_one() -> None:
    async def main() -> None:
        go = threading.Event()

        def slow(_: str, password: bytes) -> bool:
            go.wait(10)
            return password == b"right"

        passwords = Passwords(slow)
        world = World(passwords=passwords, failures="off")
        async with asyncio.TaskGroup() as tasks:
            same = [tasks.create_task(world.found(basic("ada:right"))) for _ in range(100)]
            others = [tasks.create_task(world.found(basic(f"ada:{i}"))) for i in range(MOST_WAITING + 10)]
            leaves = tasks.create_task(world.found(basic("ada:right")))
            await asyncio.sleep(0.01)
            leaves.cancel()
            await asyncio.sleep(0)
            busy = [each.result() for each in others if each.done()]
            assert len(busy) == 11
            assert all(isinstance(each, Refusal) and each.status == 503 for each in busy)
            go.set()
        assert all(isinstance(each.result(), User) for each in same)
        assert isinstance(await world.found(basic("ada:0")), Refusal)
        passwords.close()

    run(main)


def test_not_all_are_remembered() -> None:
    passwords = Passwords()
    for i in range(MOST_REMEMBERED + 5):
        passwords.remember(b"%d" % i, 5.0)
    assert [passwords.was_right(b"%d" % i, 5.0) for i in (4, 5, MOST_REMEMBERED + 4)] == [False, True, True]
    passwords.close()


@given(st.binary(max_size=60))
def test_whatever_is_sent_is_understood_or_malformed(data: bytes) -> None:
    credentials = credentials_of(b"Basic " + data)
    if credentials is not None:
        name, password = credentials
        assert base64.b64decode(data.strip(b" ")) == name.encode() + b":" + password


@given(
    st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters=":"), min_size=1, max_size=20),
    st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20),
)
def test_what_is_well_is_read(name: str, password: str) -> None:
    assert credentials_of(basic(f"{name}:{password}").encode()) == (name, password.encode())


def test_bad_settings() -> None:
    for settings in ({"realm": 'a"b'}, {"realm": "a\r\n"}, {"users": {}}, {"remember": "soon"}):
        with pytest.raises(ValidationError):
            BasicAuth.model_validate(settings)


def test_it_puts_the_user_into_the_request() -> None:
    async def main() -> None:
        world = World()
        request = request_of("GET", ("Authorization", basic("bob:hunter2")))

        async def passed(request: Request) -> Any:
            return request[USER].name, b"authorization" in request.headers

        assert await world.policy.handle(request, passed) == ("bob", False)
        world.passwords.close()

    run(main)
