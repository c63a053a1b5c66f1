"""wrk: the load, and its own count of what was answered."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import BenchError
from bench.peer import WRK, render
from bench.process import Process
from bench.row import Request, Row

GRACE_SECONDS = 10.0
MARK = "bench "
REPORT = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\nbench {"requests": %d, "microseconds": %d, "bytes": %d, "p50_us": %d, "p99_us": %d, '
      .. '"errors": {"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}}\\n',
    summary.requests, summary.duration, summary.bytes, latency:percentile(50), latency:percentile(99),
    e.connect, e.read, e.write, e.status, e.timeout))
end
"""


@dataclass(frozen=True)
class Load:
    requests: int
    seconds: float
    bytes: int
    p50_us: int
    p99_us: int


DISTINCT = """
local number = 0
request = function()
  number = number + 1
  return wrk.format(nil, wrk.path .. "/" .. number)
end
"""


EACH = """
local values, number = {}, 0
for line in io.lines("@file@") do values[#values + 1] = line end
request = function()
  number = number % #values + 1
  wrk.headers["@header@"] = values[number]
  return wrk.format()
end
"""


def script(request: Request, *, distinct: bool = False, each: tuple[str, Path] | None = None) -> str:
    """What wrk sends, and its totals as one line of JSON; nothing in it runs per request, unless all are `distinct`,
    or have in `each` a header of their own, whose values are the lines of a file."""
    lines = [f"wrk.method = {_quoted(request.method.encode())}"]
    for name, value in request.headers.items():
        lines.append(f"wrk.headers[{_quoted(name.encode())}] = {_quoted(value.encode())}")
    if request.body:
        lines.append(f"wrk.body = {_quoted(request.body)}")
    varied = DISTINCT if distinct else ""
    if each is not None:
        varied += render(EACH, {"header": each[0], "file": str(each[1])})
    return "\n".join(lines) + varied + REPORT


def _quoted(value: bytes) -> str:
    return '"' + "".join(f"\\{byte:03d}" for byte in value) + '"'


def url(row: Row, port: int) -> str:
    return f"{row.scheme}://127.0.0.1:{port}{row.request.path}"


def run(row: Row, port: int, seconds: int, core: int, directory: Path, each: tuple[str, Path] | None = None) -> Load:
    """Load one port for so long. Any answer of 400 or above and any error of a socket fails the run."""
    lua = directory / f"{row.name}.lua"
    lua.write_text(script(row.request, distinct=row.distinct, each=each))
    command = [WRK.find(), f"-t{row.threads}", f"-c{row.connections}", f"-d{seconds}s", "--latency", "-s", str(lua)]
    process = Process("wrk", [*command, url(row, port)], core, directory / "wrk.log")
    try:
        status = process.ended(seconds + GRACE_SECONDS)
    finally:
        process.stop()
    if status != 0:
        how = f"with status {status}" if status is not None else f"not within {seconds + GRACE_SECONDS:.0f} s"
        raise BenchError(f"wrk ended {how}:\n{process.tail()}")
    return parse(process.log.read_text(errors="replace"))


def parse(output: str) -> Load:
    found = [line.removeprefix(MARK) for line in output.splitlines() if line.startswith(MARK)]
    if len(found) != 1:
        raise BenchError(f"wrk did not report its totals:\n{output}")
    totals: dict[str, Any] = json.loads(found[0])
    errors = {kind: count for kind, count in totals["errors"].items() if count}
    if errors:
        kinds = ", ".join(f"{kind} {count}" for kind, count in errors.items())
        raise BenchError(f"wrk met errors ({kinds}) in {totals['requests']} requests")
    if not totals["requests"]:
        raise BenchError("wrk got no answer at all")
    seconds = totals["microseconds"] / 1e6
    return Load(totals["requests"], seconds, totals["bytes"], totals["p50_us"], totals["p99_us"])
