from __future__ import annotations

import asyncio

from portico.http.message import Request, Response
from portico.upstream.stand_in import Asked, stand_in
from tests.harness.loop import run, turns
from tests.harness.targets import a_target
from tests.harness.upstream import service_of


def test_requests_that_are_being_answered_are_busy() -> None:
    async def main() -> None:
        gate = asyncio.Event()
        target = a_target("a:80")
        service = service_of([target])

        async def answer(asked: Asked) -> Response:
            await gate.wait()
            return Response(200) if asked.request.path == "/" else Response(500)

        stand_in(service, answer)
        async with asyncio.TaskGroup() as tasks:
            asking = [tasks.create_task(service.handle(Request("GET", path))) for path in ("/", "/x", "/")]
            await turns()
            assert target.pool.busy == 3
            asking[0].cancel()
            await turns()
            assert target.pool.busy == 2
            gate.set()
        assert [answered.result().status for answered in asking[1:]] == [500, 200]
        assert target.pool.busy == 0

    run(main)
