"""What is made of the board for those who scrape."""

from __future__ import annotations

import asyncio
import os

from prometheus_client.parser import text_string_to_metric_families

from portico.observe.metrics import METRICS
from portico.runtime.scrape import exposition, nothing_to_scrape, scrape
from portico.state.board import AGENT, Board, Vital, Word
from tests.state.test_board import a_board

Samples = dict[tuple[str, ...], float]


def scraped(board: Board) -> Samples:
    text = "".join(exposition(board, openmetrics=False))
    return {
        (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_counters_of_all_processes_are_one() -> None:
    with a_board() as board:
        board.segment(1).counter('hits_total{a="x"}').add(1)
        board.segment(2).counter('hits_total{a="x"}').add(10)
        board.segment(2).counter('hits_total{a="y"}').add(100)
        board.fold(2)
        board.segment(2).counter('hits_total{a="x"}').add(1000)
        found = scraped(board)
        assert found["hits_total", "a=x"] == 1011
        assert found["hits_total", "a=y"] == 100


def test_gauges_are_put_together_as_each_says_and_end_with_their_process() -> None:
    with a_board() as board:
        for number, value in ((1, 3), (2, 5)):
            segment = board.segment(number)
            segment.gauge('portico_upstream_connections{service="a"}').write(value)
            segment.gauge('portico_breaker_state{service="a"}').write(number)
            segment.gauge('portico_tls_certificate_expiry_timestamp_seconds{file="c"}').write(value)
            segment.gauge('portico_breaker_state{service="not written"}')
        found = scraped(board)
        assert found["portico_upstream_connections", "service=a"] == 8
        assert found["portico_breaker_state", "service=a"] == 2
        assert found["portico_tls_certificate_expiry_timestamp_seconds", "file=c"] == 3
        assert ("portico_breaker_state", "service=not written") not in found
        board.fold(2)
        assert scraped(board)["portico_upstream_connections", "service=a"] == 3


def test_what_was_counted_by_other_bounds_is_put_into_those_of_now() -> None:
    name = "portico_upstream_request_duration_seconds"
    with a_board() as board:
        old = board.segment(1).histogram(f'{name}{{service="a"}}', [0.5, 2.0, 8.0], 10**9)
        for value in (0.25, 1.0, 4.0, 16.0):
            old.observe(value)
        board.fold(1)
        new = board.segment(1).histogram(f'{name}{{service="a"}}', [1.0, 4.0], 10**9)
        new.observe(3.0)
        assert {key: value for key, value in scraped(board).items() if key[0].startswith(name)} == {
            (f"{name}_bucket", "le=1.0", "service=a"): 1,
            (f"{name}_bucket", "le=4.0", "service=a"): 3,
            (f"{name}_bucket", "le=+Inf", "service=a"): 5,
            (f"{name}_count", "service=a"): 5,
            (f"{name}_sum", "service=a"): 24.25,
        }


def test_processes_tell_how_they_are() -> None:
    with a_board() as board:
        board.set_word(Word.CONFIG, 7)
        for number in (AGENT, 1):
            segment = board.segment(number)
            segment.begin(os.getpid(), 10**9)
            segment[Vital.LAG] = 2_000_000
            segment[Vital.CONNECTIONS] = 4
            segment[Vital.IN_FLIGHT] = 3
            segment[Vital.REVISION] = 7
        found = scraped(board)
        assert found["http_active_connections",] == 4  # the agent's are no clients
        assert found["portico_requests_in_flight",] == 3
        assert found["portico_config_revision",] == 7
        assert found["portico_worker_config_revision", "process=worker 0"] == 7
        assert ("portico_worker_config_revision", "process=agent") not in found
        assert found["portico_loop_lag_seconds", "process=agent"] == 0.002
        assert found["portico_process_resident_memory_bytes", "process=worker 0"] > 10**6
        assert found["portico_process_cpu_seconds_total", "process=worker 0"] > 0
        assert not [key for key in found if "process=worker 1" in key]


def test_families_come_in_their_order_and_those_of_plugins_last() -> None:
    with a_board() as board:
        segment = board.segment(1)
        for name in ("zebras_total", "apples_total", "portico_store_failures_total", "http_requests_total"):
            segment.counter(name)
        text = "".join(exposition(board, openmetrics=False))
        families = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
        own = [name for name in families if name in METRICS]
        assert families == [*own, "apples_total", "zebras_total"]
        assert own == [name for name in METRICS if name in own]


def test_a_scrape_of_many_series_lets_others_have_the_loop() -> None:
    async def main() -> None:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        with a_board() as board:
            for number in range(2000):
                board.segment(1).counter(f'hits_total{{n="{number}"}}')
            async with asyncio.TaskGroup() as tasks:
                beside = tasks.create_task(other())
                source = scrape(board)(False)
                content = b""
                pieces = 0
                while piece := await source.read():
                    content += piece
                    pieces += 1
                beside.cancel()
            assert content.count(b"\nhits_total{") == 2000
            assert turns > 2
            assert pieces >= 1
            assert await source.read() == b""

    asyncio.run(main())


def test_a_scrape_that_is_given_up_ends() -> None:
    async def main() -> None:
        with a_board() as board:
            source = scrape(board)(True)
            source.close()
            assert await source.read() == b""
        assert await nothing_to_scrape(True).read() == b"# EOF\n"

    asyncio.run(main())
