"""Fuzzes what a client reads: `python -m fuzz.h1_response -max_total_time=60 -rss_limit_mb=2048`."""

from __future__ import annotations

import atheris

with atheris.instrument_imports(include=["portico.wire", "portico.http"]):
    from fuzz.checks import check_response
    from fuzz.engine import run
    from tests.wire.rows import RESPONSES

METHODS = ("GET", "HEAD", "POST")


def target(data: bytes) -> None:
    """Take the last three bytes for the request's method and where to cut, the others for what a service answers."""
    if len(data) > 3:
        method, first, second = METHODS[data[-3] % len(METHODS)], data[-2], data[-1]
        check_response(data[:-3], method, [[first], [first, first + 1 + second]])


def main() -> None:
    """Run the fuzzer."""
    run(
        "h1_response",
        target,
        (
            row.data + bytes((METHODS.index(row.method), len(row.data) // 2 % 256, 3))
            for row in RESPONSES
            if row.method in METHODS
        ),
    )


if __name__ == "__main__":
    main()
