"""Rows: what is asked, of which service, under which load. A new scenario is a new entry in ROWS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

BODY = (
    '{"id":48151,"name":"keyboard","price":42.50,"currency":"EUR",'
    '"stock":7,"tags":["usb","qwerty"],"updated":"2025-01-31"}'
)


UNWATCHED = "metrics: off\nrecorder: off\n"
"""What portico's file has more where nobody watches its requests."""


@dataclass(frozen=True)
class Watch:
    """Who watches the requests."""

    metrics: bool = False
    log: bool = False
    traces: bool = False
    recorder: bool = False

    @property
    def config(self) -> str:
        """What portico's file has more; @dir@ is a directory of its own."""
        parts = (
            "" if self.metrics else "metrics: off\n",
            "" if self.recorder else "recorder: off\n",
            'access_log: {format: json, file: "@dir@/access.log"}\n' if self.log else "",
            "tracing: {sample: 0%}\n" if self.traces else "",
        )
        return "".join(parts)


@dataclass(frozen=True)
class Request:
    method: str = "GET"
    path: str = "/api/item"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Row:
    name: str
    title: str
    request: Request = Request()
    service: str = "json"
    """The service's nginx configuration: bench/services/<service>.conf."""
    answer: str = BODY
    """The body that the service answers with, put in the place of @body@; it may hold no quote ' and no dollar sign."""
    echo: str | None = "/api/echo"
    """A path where the service tells in X-Seen-* headers what reached it; None where there is nothing to check."""
    setup: str = ""
    """Which configuration of the peers: bench/peers/<peer>.conf, or <peer>-<setup>.conf where a row needs its own."""
    distinct: bool = False
    """Whether each request asks for a path of its own, below the request's."""
    policies: int | None = None
    """How many policies that do nothing portico has around the route, where the row is about that. nginx has no such
    chain and stands beside it as it is, so --max-ratio does not judge the row."""
    credentials: str | None = None
    """What portico asks of each request, and the load shows: a name of bench/credentials.py. nginx asks for nothing and
    stands beside it as it is, so --max-ratio does not judge the row."""
    alone: bool = False
    """Whether the peers answer without asking the service, out of what they keep or are told to say. A peer that is
    bare has none of that, and asks it each time."""
    watch: Watch | None = None
    """What portico says of each request, where the row is about that. nginx says nothing and stands beside it as it is,
    so --max-ratio does not judge the row."""
    tls: bool = False
    """Whether the load speaks TLS to the peer; the service is always asked without."""
    threads: int = 1
    connections: int = 32

    @property
    def judged(self) -> bool:
        """Whether the peers do the same, so that their ratio is one of costs."""
        return self.policies is None and self.credentials is None and self.watch is None

    @property
    def scheme(self) -> str:
        return "https" if self.tls else "http"


ROWS = {
    row.name: row
    for row in (
        Row("get-json", "keep-alive GET, 118-byte JSON answer, no policies"),
        Row(
            "get-json-distinct",
            "the same, but no two requests alike: each asks for a path of its own, so no head is remembered",
            distinct=True,
        ),
        Row("get-json-tls", "the same over TLS 1.3 to the proxy, without to the service", setup="tls", tls=True),
        *(Row(f"chain-{n}", f"as get-json, with {n} policies that do nothing", policies=n) for n in (0, 4, 8, 16)),
        Row("respond", "as get-json, but the proxy says the answer itself", setup="respond", alone=True, echo=None),
        Row("cache-hit", "as get-json, but the answer is kept by the proxy", setup="cache", alone=True),
        Row("jwt", "as get-json, with a token of RS256 that is remembered", credentials="jwt"),
        Row("jwt-first-seen", "the same, but each token is one that is not remembered", credentials="jwt-first-seen"),
        Row("key-auth", "as get-json, with an API key", credentials="key-auth"),
        Row("rate-limit", "as get-json, within two limits that are counted in LMDB", credentials="rate-limit"),
        Row("metrics", "as get-json, and all metrics are counted", watch=Watch(metrics=True)),
        Row("access-log", "as get-json, with a line of JSON for each request in a file", watch=Watch(log=True)),
        Row("traces", "as get-json, and each request has its place in a trace", watch=Watch(traces=True)),
        Row("recorder", "as get-json, and the last requests are remembered", watch=Watch(recorder=True)),
        Row("watched", "as get-json, with all four of them", watch=Watch(True, True, True, True)),
        Row("forward-auth", "as get-json, and the service is asked first whether it may", credentials="forward-auth"),
    )
}
