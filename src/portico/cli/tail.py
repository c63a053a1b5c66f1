"""What `portico tail` prints: a line for each request that ends, until it is told to stop."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from portico.cli.why import PLAIN, milliseconds, time_of

_RESET: Final = "\x1b[0m"
_DIM: Final = "\x1b[2m"
_COLOURS: Final = {0: "\x1b[31m", 2: "\x1b[32m", 3: "\x1b[36m", 4: "\x1b[33m", 5: "\x1b[31m"}
"""By the first digit of a status: red, green, cyan, yellow."""


def tail_lines(lines: Iterator[bytes], *, as_json: bool, colours: bool) -> Iterator[str]:
    """Yield what is printed of what the agent sends."""
    for line in lines:
        if not line.strip():
            continue
        if as_json:
            yield line.decode().rstrip("\n")
            continue
        record = json.loads(line)
        yield lost_line(record["lost"]) if "lost" in record else tail_line(record, colours=colours)


def lost_line(count: int) -> str:
    """Return what stands for requests that are not shown."""
    return f"... {count} more {'request' if count == 1 else 'requests'}, too many to be shown"


def tail_line(record: Mapping[str, Any], *, colours: bool) -> str:
    """Return one request in one line."""
    status = record["status"]
    colour, dim, reset = (_COLOURS.get(status // 100, ""), _DIM, _RESET) if colours else ("", "", "")
    time = time_of(record["at"], "milliseconds")[11:-1]
    by = f"{record['service']} {record['upstream']}".strip() if record["service"] else ""
    if record["stopped_by"]:
        by = f"policy {record['stopped_by']}"
    said = [
        f"{dim}{time} {record['id']}{reset}",
        f"{colour}{status or '---'}{reset}",
        f"{milliseconds(record['seconds']):>9}",
        f"{record['method'] or '-'} {record['target'] or '-'}".translate(PLAIN),
        f"{dim}{record['route'] or '-'}{reset}" + (f" -> {by}" if by else ""),
    ]
    if record["outcome"] != "complete":
        said.append(record["outcome"])
    if record["tries"] > 1:
        said.append(f"{record['tries']} tries")
    if record["error"]:
        said.append(f"{colour}{record['error'].translate(PLAIN)}{reset}")
    return "  ".join(said)
