from __future__ import annotations

from portico.state.limits import FixedWindow, Limits
from portico.state.memory import MemorySpace
from tests.harness.loop import run
from tests.state.stores import Wall

LIMITS = Limits([FixedWindow(10, 10**7)])


def test_it_keeps_within_its_size_and_what_was_written_last() -> None:
    space = MemorySpace(Wall(), size=100_000)
    for number in range(5000):
        assert space.take(b"%d" % number, LIMITS).allowed
        space.take(b"often", LIMITS)
    assert 100 < len(space) < 500
    assert not space.take(b"often", LIMITS).allowed  # what refuses writes nothing, and yet it is there
    assert space.take(b"4999", LIMITS, 0).left == (9,)
    assert space.take(b"0", LIMITS, 0).left == (10,)


def test_what_is_larger_than_all_there_is_stands_alone() -> None:
    space = MemorySpace(Wall(), size=1000)

    async def main() -> None:
        await space.put(b"a", b"x", 60.0)
        await space.put(b"b", b"x" * 5000, 60.0)
        assert await space.get(b"a") is None
        assert await space.get(b"b") == b"x" * 5000
        await space.put(b"c", b"y", 60.0)
        assert await space.get(b"b") is None
        assert len(space) == 1

    run(main)
