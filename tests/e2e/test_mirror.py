"""Copies of requests, sent by a real worker to a service that never answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.harness.gateway import DEADLINE, Call, Gateway, Service, curl, wait_for
from tests.harness.worker import Worker, get, snapshot_of


@contextmanager
def hanging() -> Iterator[Service]:
    """Return a service that answers nobody before the block is over."""
    over = threading.Event()

    def hang(call: Call) -> None:
        call.note(b"".join(call.read_body()))
        over.wait(DEADLINE)
        call.close_connection = True

    with Service(hang, "shadow") as service:
        try:
            yield service
        finally:
            over.set()


def config_of(orders: Service, shadow: Service) -> str:
    return f"""
services:
  orders: {{url: "http://127.0.0.1:{orders.port}", mirror: {{service: shadow, timeout: 1h}}}}
  shadow: {{url: "http://127.0.0.1:{shadow.port}"}}
routes: [{{path: /**, service: orders}}]
"""


def test_clients_do_not_wait_for_a_mirror_and_neither_does_the_end(tmp_path: Path) -> None:
    with hanging() as shadow, Service() as orders:
        with Gateway(tmp_path, config_of(orders, shadow)) as gateway:
            for number in range(20):
                assert curl("-d", f"body {number}", f"{gateway.url}/a/{number}").status == 200
            streamed = ("-H", "Transfer-Encoding: chunked", "-d", "a" * 30_000)
            assert curl(*streamed, f"{gateway.url}/streamed").status == 200
            wait_for(lambda: len(shadow.seen) == 21, "the copies")
            sent, copied = ({seen.target: seen.body for seen in each.seen} for each in (orders, shadow))
            assert sent == copied
        assert gateway.popen.returncode == 0  # though the copies could go on for an hour


def test_a_configuration_that_is_served_no_more_ends_its_copies(tmp_path: Path) -> None:
    with (
        hanging() as shadow,
        Service() as orders,
        Worker(tmp_path, snapshot_of(tmp_path, config_of(orders, shadow))) as worker,
    ):
        before = worker.report()["tasks"]
        get(worker.port, "/a")
        wait_for(lambda: shadow.seen, "the copy")
        assert worker.report()["tasks"] == before + 1
        worker.swap(snapshot_of(tmp_path, f"services: {{orders: 'http://127.0.0.1:{orders.port}'}}"))
        worker.settled()
        wait_for(lambda: worker.report()["tasks"] == before, "the copy to end")
