"""How many looks there are at the same time."""

from __future__ import annotations

import asyncio

from portico.agent.gates import MOST, OWN, Gate, Gates
from tests.harness.loop import run, turns


async def enter(gate: Gate, entered: list[Gate]) -> None:
    async with gate:
        entered.append(gate)
        await asyncio.Event().wait()


def test_services_that_are_silent_leave_room_for_others() -> None:
    async def main() -> None:
        gates = Gates(100)
        silent, other = [gates.gate() for _ in range(8)], gates.gate()
        entered: list[Gate] = []
        async with asyncio.TaskGroup() as tasks:
            looks = [tasks.create_task(enter(gate, entered)) for gate in silent for _ in range(200)]
            await turns()
            assert entered.count(silent[0]) == MOST
            looks += [tasks.create_task(enter(other, entered)) for _ in range(2 * OWN)]
            await turns()
            assert entered.count(other) == OWN
            for each in looks:
                each.cancel()

    run(main)


def test_a_turn_goes_to_the_next_and_none_is_lost() -> None:
    async def main() -> None:
        gates = Gates(0)
        gate = gates.gate()
        entered: list[Gate] = []
        async with asyncio.TaskGroup() as tasks:
            looks = [tasks.create_task(enter(gate, entered)) for _ in range(OWN + 3)]
            await turns()
            assert len(entered) == OWN
            looks[OWN].cancel()  # one that waits
            looks[0].cancel()
            await turns()
            assert len(entered) == OWN + 1
            looks[1].cancel()
            looks[OWN + 2].cancel()
            await turns()
            for each in looks:
                each.cancel()
            await turns()
            async with gate:
                pass

    run(main)
