"""`python -m bench`: run it, print the table, write the file.

Exit status: 0; 1 when --max-ratio is exceeded; 2 when there is no result that means anything; 130 when interrupted.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

from bench import BenchError, report
from bench.certificate import OPENSSL
from bench.machine import choose_cores, facts, provide
from bench.measure import measure
from bench.peer import HERE, NGINX, PEERS, SUBJECT, WRK, labels
from bench.row import ROWS


def options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="CPU time a request, beside other proxies.")
    parser.add_argument("--rounds", type=int, default=21, help="timed rounds of every peer (default 21)")
    parser.add_argument("--seconds", type=int, default=1, help="length of one peer's turn in a round (default 1)")
    peers = f"comma-separated, of: {', '.join(PEERS)}; the first is the base, and one may stand twice"
    parser.add_argument("--peers", default="nginx,portico", help=peers)
    parser.add_argument("--rows", default=",".join(ROWS), help=f"comma-separated, of: {', '.join(ROWS)}")
    parser.add_argument(
        "--max-ratio",
        type=float,
        help=f"exit 1 when the median of the rounds' ratios of {SUBJECT} to the base is above",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write there, not to bench/results/<time>.json")
    chosen = parser.parse_args(arguments)
    chosen.peers, chosen.rows = chosen.peers.split(","), chosen.rows.split(",")
    for name, known in [(name, PEERS) for name in chosen.peers] + [(name, ROWS) for name in chosen.rows]:
        if name not in known:
            parser.error(f"{name!r} is none of {', '.join(known)}")
    if chosen.max_ratio is not None and len(chosen.peers) < 2:
        parser.error("--max-ratio needs a peer beside the base")
    if chosen.rounds < 1 or chosen.seconds < 1:
        parser.error("--rounds and --seconds start at 1")
    return chosen


def bench(chosen: argparse.Namespace) -> int:
    peers = [(label, PEERS[name]) for label, name in zip(labels(chosen.peers), chosen.peers, strict=True)]
    tools = list(dict.fromkeys([WRK, NGINX, *(peer.tool for _, peer in peers if peer.tool)]))
    provide([*tools, OPENSSL] if any(ROWS[name].tls for name in chosen.rows) else tools)
    cores = choose_cores()
    os.sched_setaffinity(0, {cores.load})
    began = datetime.datetime.now(datetime.UTC)
    found = {"time": began.isoformat(timespec="seconds"), "machine": facts(cores, tools), "arguments": sys.argv[1:]}
    rows, exceeded = [], []
    for name in chosen.rows:
        row = ROWS[name]
        with tempfile.TemporaryDirectory(prefix="portico-bench-") as directory:
            where = Path(directory)
            where.chmod(0o755)
            result = measure(row, peers, chosen.rounds, chosen.seconds, cores, where)
        summaries = report.summarize(result)
        rows.append(report.as_json(result, summaries))
        print(f"\n{name}: {row.title}; wrk -t{row.threads} -c{row.connections}, {chosen.rounds} x {chosen.seconds} s")
        if (agreed := result.peers[0].encryption) is not None:
            print(f"every peer: {agreed}, on kept connections")
        print(report.table(summaries))
        for warning in report.warnings(summaries, result):
            print(f"note: {warning}")
        if chosen.max_ratio is not None and row.judged:
            exceeded += [f"{name}: {label}" for label in report.over(summaries, SUBJECT, chosen.max_ratio)]
    file = chosen.json or HERE / "results" / f"{began:%Y%m%dT%H%M%SZ}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({**found, "rows": rows}, indent=1, ensure_ascii=False) + "\n")
    print(f"written to {file}")
    for one in exceeded:
        print(f"above the ratio {chosen.max_ratio}: {one}")
    return 1 if exceeded else 0


def main(arguments: list[str] | None = None) -> int:
    chosen = options(arguments)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # As Ctrl-C, so that every way to end the bench ends its processes too.
        signal.signal(number, signal.default_int_handler)
    try:
        return bench(chosen)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bench: interrupted; its processes are ended", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
