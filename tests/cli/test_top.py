"""What `portico top` makes of two looks at the metrics."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import pytest

from portico.cli.top import OTHER_SCREEN, THIS_SCREEN, quantile, read_metrics, rows_of, screen, watch
from tests.harness.golden import check_golden

GOLDEN = Path(__file__).parent / "golden"


def metrics(times: int) -> str:
    """Return what is counted after so many rounds."""
    series = [("/orders/{id}", "orders", 97, 2, 1), ("/a", "", 10, 0, 0), ("none", "", 0, 3, 0)]
    lines = ["# HELP http_requests_total Requests.", "# TYPE http_requests_total counter"]
    for path, service, well, refused, failed in series:
        for status, count in (("200", well), ("404", refused), ("503", failed)):
            labels = f'endpoint="{path}",method="GET",service="{service}",status="{status}"'
            lines.append(f"http_requests_total{{{labels}}} {count * times}")
        total = well + refused + failed
        for bound, share in (("0.01", 0.5), ("0.1", 0.9), ("1.0", 1.0), ("+Inf", 1.0)):
            labels = f'endpoint="{path}",method="GET",service="{service}",le="{bound}"'
            lines.append(f"http_request_duration_seconds_bucket{{{labels}}} {round(total * share) * times}")
    lines += ["http_active_connections 12", "portico_requests_in_flight 3", 'portico_breaker_state{service="orders"} 2']
    return "\n".join(lines)


def target(address: str, **given: Any) -> dict[str, Any]:
    return {"address": address, "reachable": True, "ejected_by": 0, "connections": 4, **given}


STATUS: dict[str, Any] = {
    "version": "1.0", "file": "portico.yaml", "revision": 3,
    "processes": [{"name": "agent", "state": "serving"}, {"name": "worker 0", "state": "serving"},
                  {"name": "worker 1", "state": "draining"}],
    "services": {"orders": [target("10.0.0.7:80", health="healthy"), target("10.0.0.8:80", reachable=False),
                            target("10.0.0.9:80", ejected_by=1)]},
    "breakers": {"orders": {"state": "open"}},
}  # fmt: skip


def test_routes_and_services_are_shown() -> None:
    shown = screen(read_metrics(metrics(1), 10.0), read_metrics(metrics(5), 12.0), STATUS, 100, 40)
    check_golden(GOLDEN / "top.txt", shown + "\n")


def test_it_fits_where_it_is_shown() -> None:
    before, now = read_metrics(metrics(1), 10.0), read_metrics(metrics(5), 12.0)
    for width, height in ((20, 5), (40, 10), (100, 12), (10, 1)):
        lines = screen(before, now, STATUS, width, height).splitlines()
        assert len(lines) <= height
        assert max(map(len, lines)) <= width


def test_only_what_is_new_counts() -> None:
    assert rows_of(read_metrics(metrics(3), 1.0), read_metrics(metrics(3), 2.0)) == []
    first, *_ = rows_of(read_metrics("", 1.0), read_metrics(metrics(1), 3.0))
    assert (first.path, first.service, first.rate) == ("/orders/{id}", "orders", 50.0)
    assert (round(first.refused, 3), round(first.failed, 3)) == (0.02, 0.01)


def test_where_counters_begin_anew_nothing_is_negative() -> None:
    assert rows_of(read_metrics(metrics(5), 1.0), read_metrics(metrics(1), 2.0)) == []


@pytest.mark.parametrize(
    ("buckets", "share", "expected"),
    [
        ([], 0.5, None),
        ([(1.0, 0.0), (float("inf"), 0.0)], 0.5, None),
        ([(1.0, 10.0), (float("inf"), 10.0)], 0.5, 0.5),
        ([(1.0, 10.0), (2.0, 20.0), (float("inf"), 20.0)], 0.75, 1.5),
        ([(1.0, 10.0), (float("inf"), 20.0)], 0.99, 1.0),
        ([(1.0, 0.0), (2.0, 10.0), (float("inf"), 10.0)], 0.5, 1.5),
    ],
)
def test_a_quantile_is_found_in_its_bucket(
    buckets: list[tuple[float, float]], share: float, expected: float | None
) -> None:
    assert quantile(buckets, share) == expected


def test_a_quantile_is_within_a_bucket_of_the_truth() -> None:
    rng = random.Random(3)
    bounds = [0.005 * 1.5**n for n in range(20)]
    took = sorted(rng.expovariate(20) for _ in range(2000))
    buckets = [(bound, float(sum(each <= bound for each in took))) for bound in bounds]
    found = quantile([*buckets, (float("inf"), 2000.0)], 0.95)
    assert found is not None
    true = took[1900]
    assert max(bound for bound in (0.0, *bounds) if bound < true) <= found <= min(b for b in bounds if b >= true)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_terminal_is_left_as_it_was() -> None:
    out = Terminal()
    turns = iter((True, True))

    def wait() -> bool:
        if next(turns, None) is None:
            raise KeyboardInterrupt
        return True

    with pytest.raises(KeyboardInterrupt):
        watch(lambda: (metrics(1), STATUS), wait, out, lambda: 1.0)
    shown = out.getvalue()
    assert shown.startswith(OTHER_SCREEN)
    assert shown.endswith(THIS_SCREEN)
    assert shown.count("portico 1.0") == 2


def test_elsewhere_it_is_plain_text() -> None:
    out = io.StringIO()
    turns = iter((True, False))
    watch(lambda: (metrics(1), STATUS), lambda: next(turns), out, lambda: 1.0)
    assert "\x1b" not in out.getvalue()
