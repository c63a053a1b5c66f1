"""What the five services share: a table of routes, and the life of a process.

The services stand for somebody else's programs behind the gateway: standard library only, and nothing of Portico.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from database import Database
from peer import Peer, Refusal
from server import Answer, Server

MAX_DELAY = 10.0
MAX_LIMIT = 100


@dataclass(frozen=True)
class Request:
    """What a route is given."""

    params: Mapping[str, str]
    query: Mapping[str, str]
    headers: Message
    body: bytes

    def document(self) -> dict[str, Any]:
        """Return the JSON object that was sent; anything else is a 400."""
        try:
            document = json.loads(self.body)
            json.dumps(document, ensure_ascii=False).encode()  # "\\ud800" is JSON, but no text
        except (ValueError, RecursionError) as error:
            raise Refusal(400, "bad-json", f"the body is not JSON: {error}") from error
        if not isinstance(document, dict):
            raise Refusal(400, "bad-json", "the body must be a JSON object")
        return document

    def number(self, name: str, default: float, low: float, high: float) -> float:
        """Return a number of the query; more than `high` counts as `high`, less than `low` is a 400."""
        try:
            number = float(self.query.get(name, default))
        except ValueError:
            number = float("nan")
        if not number >= low:
            raise Refusal(400, "bad-query", f"?{name}= must be a number, {low:g} or more")
        return min(number, high)

    @property
    def limit(self) -> int:
        """How many rows a list may have."""
        return int(self.number("limit", 20, 1, MAX_LIMIT))

    @property
    def trace(self) -> dict[str, str]:
        """The headers that go along when this request causes another."""
        correlation_id = self.headers.get("X-Correlation-ID")
        return {"X-Correlation-ID": correlation_id} if correlation_id else {}


def text(document: Mapping[str, Any], name: str, default: str = "") -> str:
    """Return a field that must be a text, and not empty."""
    value = document.get(name, default)
    if not isinstance(value, str) or not value:
        raise Refusal(400, "bad-field", f"'{name}' must be a text that is not empty")
    return value


def count(document: Mapping[str, Any], name: str) -> int:
    """Return a field that must be a whole number, 1 to a million."""
    value = document.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 1_000_000:
        raise Refusal(400, "bad-field", f"'{name}' must be a whole number from 1 to 1000000")
    return value


def found(row: dict[str, Any]) -> Answer:
    """Answer with a row of the database; an empty one is a 404."""
    if not row:
        raise Refusal(404, "not-found", "there is no such thing here")
    return Answer(document=row)


Route = Callable[[Request], Answer]


class Service:
    """One service: its routes, its database, its peers, and its process."""

    def __init__(self, name: str, *, port: int, schema: str, seed: Mapping[str, Sequence[tuple[Any, ...]]]) -> None:
        self.name = name
        self.instance = name
        self.port = port
        self.database = Database(schema, seed)
        self.stopping = threading.Event()
        self._peers: list[Peer] = []
        self._routes: list[tuple[str, re.Pattern[str], Route]] = []
        self.route("GET", "/health")(self._health)

    def peer(self, name: str, port: int) -> Peer:
        """Declare a service that this one calls; the command line or the environment can say where it is."""
        peer = Peer(name, f"http://127.0.0.1:{port}")
        self._peers.append(peer)
        return peer

    def route(self, method: str, path: str) -> Callable[[Route], Route]:
        """Enter a function into the table; `{name}` in the path stands for one segment."""
        pattern = re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path))

        def enter(route: Route) -> Route:
            self._routes.append((method, pattern, route))
            return route

        return enter

    def answer(self, method: str, target: str, headers: Message, body: bytes) -> Answer:
        """Ask the route that a request is for; `?delay=2` makes any of them slow."""
        url = urlsplit(target)
        table = reversed(self._routes)  # of two routes that match, the one entered first counts
        matches = {verb: (match, route) for verb, path, route in table if (match := path.fullmatch(url.path))}
        if "GET" in matches:
            matches["HEAD"] = matches["GET"]
        if not matches:
            raise Refusal(404, "no-such-path", f"the {self.name} has nothing at {url.path}")
        if method not in matches:
            allow = ", ".join(sorted(matches))
            raise Refusal(405, "wrong-method", f"{url.path} takes {allow}", {"Allow": allow})
        match, route = matches[method]
        params = {name: unquote(value) for name, value in match.groupdict().items()}
        request = Request(params, dict(parse_qsl(url.query)), headers, body)
        self.stopping.wait(request.number("delay", 0, 0, MAX_DELAY))
        return route(request)

    def _health(self, request: Request) -> Answer:
        self.database.row("PRAGMA user_version")
        return Answer(document={"status": "healthy", "service": self.name, "instance": self.instance})

    def main(self) -> None:
        """Read the command line, then serve until SIGTERM or SIGINT."""
        signals = {signal.SIGTERM, signal.SIGINT}
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # before there are threads, which inherit it
        options = self._options()
        self.instance = options.name
        for peer in self._peers:
            peer.url = getattr(options, peer.name.replace("-", "_"))
        try:
            server = Server((options.host, options.port), self.answer, {"X-Served-By": self.instance})
        except OSError as error:
            sys.exit(f"{self.instance} cannot listen on {options.host}:{options.port}: {error.strerror}")
        with self.database.opened(Path(options.data) / f"{self.name}.db"), server:
            accepting = threading.Thread(target=server.serve_forever, args=(0.1,))
            accepting.start()
            if options.end_with_stdin:
                threading.Thread(target=_terminate_at_eof, daemon=True).start()
            print(f"{self.instance} listens on {options.host}:{server.server_port}", flush=True)
            signal.sigwait(signals)
            self.stopping.set()
            server.end()
            accepting.join()

    def _options(self) -> argparse.Namespace:
        parser = argparse.ArgumentParser(description=f"The {self.name} of the demo platform.")
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=int, default=self.port)
        parser.add_argument("--name", default=self.name.replace("service", "1"), help="the name of this instance")
        parser.add_argument("--data", default=".", help="the folder of the database, the same for all instances")
        parser.add_argument("--end-with-stdin", action="store_true", help="end when standard input does")
        for peer in self._peers:
            variable = peer.name.replace("-", "_").upper() + "_URL"
            default = os.environ.get(variable, peer.url)
            parser.add_argument(f"--{peer.name}", metavar="URL", default=default, help=f"default: ${variable}")
        return parser.parse_args()


def _terminate_at_eof() -> None:
    """Turn the end of standard input, and so of whoever started this process, into SIGTERM."""
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
