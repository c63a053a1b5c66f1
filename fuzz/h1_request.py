"""Fuzzes what a server reads: `python -m fuzz.h1_request -max_total_time=60 -rss_limit_mb=2048`."""

from __future__ import annotations

import atheris

with atheris.instrument_imports(include=["portico.wire", "portico.http"]):
    from fuzz.checks import check_request
    from fuzz.engine import run
    from tests.wire.rows import REQUESTS


def target(data: bytes) -> None:
    """Take the last two bytes for where to cut, and the others for what a client sends."""
    if len(data) > 2:
        first, second = data[-2], data[-1]
        check_request(data[:-2], [[first], [first, first + 1 + second]])


def main() -> None:
    """Run the fuzzer."""
    run("h1_request", target, (row.data + bytes((len(row.data) // 2 % 256, 3)) for row in REQUESTS))


if __name__ == "__main__":
    main()
