"""Instances of a service die, stand still and come back under steady load, and clients do not notice."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.harness.backend import Backend
from tests.harness.gateway import Gateway, wait_for
from tests.harness.load import Load

CONFIG = """
services:
  orders:
    targets: [{targets}]
    health: {{path: /health, interval: 500ms, timeout: 500ms}}
    retry: {{attempts: 3, per_try: 1s}}
    breaker: {breaker}
    outliers: {{ejection: 2s}}
    timeout: {{connect: 1s, first_byte: 10s, total: 30s}}
routes:
  - {{path: /**, service: orders}}
"""


@pytest.fixture
def backends(tmp_path: Path) -> Iterator[list[Backend]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Backend(tmp_path, name)) for name in ("one", "two", "three")]


def gateway_for(backends: list[Backend], folder: Path, breaker: str = "{failures: 5, open_for: 30s}") -> Gateway:
    targets = ", ".join(each.address for each in backends)
    return Gateway(folder, CONFIG.format(targets=targets, breaker=breaker), workers=2)


def is_out(gateway: Gateway, backend: Backend) -> bool:
    """Whether the log has told that an instance is asked no more."""
    return re.search(rf"target {backend.address} is (out for|not well)", gateway.log()) is not None


def some_of_each(load: Load, count: int = 30) -> None:
    """Wait until every backend has answered so many more requests."""
    before = Counter(load.answers)
    wait_for(
        lambda: load.failures or all(load.answers[name] >= before[name] + count for name in (b"one", b"two", b"three")),
        "answers of every instance",
    )


@pytest.mark.timeout(300)
def test_no_get_notices(backends: list[Backend], tmp_path: Path) -> None:
    one, two, _ = backends
    with gateway_for(backends, tmp_path) as gateway:
        with Load(gateway.port, "/orders", kept=8, fresh=2) as load:
            load.some_more(500)
            one.kill()
            load.some_more(500)
            wait_for(lambda: is_out(gateway, one), "the log to tell of the dead one")
            two.pause()
            load.some_more(500)
            wait_for(lambda: is_out(gateway, two), "the log to tell of the paused one")
            two.go_on()
            one.start()
            some_of_each(load)
            load.some_more(500)
        assert not load.failures
        assert len(load.took) >= 2000
        assert load.quantile(1.0, 0.0, float("inf")) < 5.0
        log = gateway.log()
    for each in (one, two):
        assert re.search(rf"target {each.address} is (asked again|reachable again|well again)", log), log
    assert "the breaker is open" not in log
    print(f"\n{len(load.took)} requests, one SIGKILL, one SIGSTOP, no failure; {dict(load.answers)}")


@pytest.mark.timeout(300)
def test_no_post_is_sent_twice(backends: list[Backend], tmp_path: Path) -> None:
    one, two, _ = backends
    # Without a breaker, which would open: ten requests in a row are sent, and not answered.
    with gateway_for(backends, tmp_path, breaker="off") as gateway:
        with Load(gateway.port, "/orders", method="POST", kept=8, fresh=2) as load:
            load.some_more(500)
            one.kill()
            load.ended(500)
            two.pause()
            load.ended(500)
            two.go_on()
            one.start()
            load.ended(500)
        came = sum((each.requests() for each in backends), Counter[str]())
        ids = {key for key in came if key != "-"}
        assert max(came[key] for key in ids) == 1  # none was sent twice
        assert all("502" in failure or "504" in failure for failure in load.failures), load.failures
        # What failed was sent, and not answered: a client has one request at a time, and each instance failed once.
        assert len(load.failures) <= 2 * 10 + 10
    print(f"\n{len(load.took)} POSTs, {len(load.failures)} sent and not answered: {Counter(load.failures)}")
