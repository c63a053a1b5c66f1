"""What services are compiled into, and what of them outlives a reload."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from portico.config.source import TextSource
from portico.net.stream import Outbox
from portico.runtime.compile import Compiled, Surroundings, compile_config
from portico.runtime.loading import read_in, try_out
from portico.runtime.shared import Leases
from tests.harness.loop import run

SERVICES = """
services:
  a: {{targets: [127.0.0.1:1, 127.0.0.1:2, 127.0.0.1:3], {more}}}
routes: [{{path: /**, service: a}}]
"""


@asynccontextmanager
async def worker() -> AsyncIterator[Surroundings]:
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as tasks:
        yield Surroundings({}, Leases(), tasks, Outbox(loop), loop.time)  # type: ignore[arg-type]


def compiled(text: str, surroundings: Surroundings) -> Compiled:
    loaded = read_in(TextSource(text))
    assert loaded.config is not None, loaded.findings
    object.__setattr__(surroundings, "registry", loaded.registry)
    return compile_config(loaded.config, surroundings)


def test_what_is_known_of_targets_outlives_a_reload() -> None:
    async def main() -> None:
        async with worker() as surroundings:
            one = compiled(SERVICES.format(more="timeout: 5s"), surroundings).runtime
            dead = one.services["a"].targets[1]
            assert one.services["a"].roster.eject(dead, "refused")
            two = compiled(SERVICES.format(more="timeout: 6s"), surroundings).runtime
            one.close()
            roster = two.services["a"].roster
            assert roster.targets[1] is dead
            assert roster.balancer is not None
            assert dead not in roster.balancer.targets
            two.close()
            assert not len(surroundings.leases)

    run(main)


def test_a_verdict_is_forgotten_with_its_health_check() -> None:
    async def main() -> None:
        async with worker() as surroundings:
            one = compiled(SERVICES.format(more="health: /health"), surroundings).runtime
            roster = one.services["a"].roster
            roster.judge(roster.targets[0], well=False, since=1.0, why="status 503")
            two = compiled(SERVICES.format(more="timeout: 6s"), surroundings).runtime
            one.close()
            again = two.services["a"].roster
            assert again.balancer is not None
            assert set(again.balancer.targets) == set(again.targets)
            two.close()

    run(main)


def test_tls_that_cannot_be_used_is_a_mistake_before_any_target_is_known(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("garbage")
    file = tmp_path / "portico.yaml"
    file.write_text(
        "services: {a: {discover: {dns: 'https://a.internal'}, tls: {ca: ca.pem}}}\nroutes: [{path: /**, service: a}]\n"
    )
    tried = try_out(read_in(file))
    assert tried.config is None
    assert "ca.pem" in str(tried.findings[0])


def test_a_service_that_cannot_be_built_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with worker() as surroundings:
            monkeypatch.setattr("portico.runtime.services.balancing", None)
            with pytest.raises(TypeError):
                compiled(SERVICES.format(more="timeout: 5s"), surroundings)
            assert not len(surroundings.leases)

    run(main)


def test_room_is_the_same_after_a_reload_that_changes_it() -> None:
    async def main() -> None:
        async with worker() as surroundings:
            one = compiled(SERVICES.format(more="concurrency: 5"), surroundings).runtime
            held = len(surroundings.leases)
            two = compiled(SERVICES.format(more="concurrency: {limit: 4, queue: 2}"), surroundings).runtime
            assert len(surroundings.leases) == held
            one.close()
            two.close()

    run(main)
