"""Peers: the proxies that stand beside each other. A new peer is an entry in PEERS and a file in bench/peers/."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench import BenchError
from bench.credentials import Credentials
from bench.machine import Tool
from bench.row import UNWATCHED, Row

HERE = Path(__file__).parent
WRK = Tool("wrk", "wrk")
NGINX = Tool("nginx", "nginx")
BARE = "-bare"


@dataclass(frozen=True)
class Peer:
    name: str
    suffix: str
    """Of its file in bench/peers/."""
    arguments: tuple[str, ...]
    """@file@ is its rendered configuration, @dir@ a directory of its own."""
    tool: Tool | None = None
    """What Debian package brings the program; None is the Python that runs the bench."""
    bare: bool = False
    """Whether it goes without what a row is about, such as its policies: what that costs is the difference to it."""

    def command(self, tokens: Mapping[str, str]) -> list[str]:
        program = self.tool.find() if self.tool else sys.executable
        return [program, *(render(argument, tokens) for argument in self.arguments)]

    def template(self, row: Row) -> Path:
        setup = "" if self.bare and row.alone else row.setup
        path = HERE / "peers" / f"{self.name.removesuffix(BARE)}{'-' + setup if setup else ''}{self.suffix}"
        if not path.is_file():
            raise BenchError(f"{self.name} has no configuration for the row {row.name}: there is no {path}")
        return path

    def configuration(self, row: Row, credentials: Credentials | None = None) -> str:
        """Its file for a row, with the row's policies where the peer has such."""
        text = self.template(row).read_text()
        if self.tool is not None:
            return text
        if row.watch is not None:
            text += UNWATCHED if self.bare else row.watch.config
        if self.bare:
            return text
        if credentials is not None:
            text += credentials.config
        if row.policies:
            chain = ", ".join(f"{{do-nothing: , name: nothing-{number}}}" for number in range(row.policies))
            text += f"plugins: [{HERE}/do_nothing.py]\npolicies: [{chain}]\n"
        return text


NGINX_ARGUMENTS = ("-e", "stderr", "-p", "@dir@", "-c", "@file@")

PEERS = {
    peer.name: peer
    for peer in (
        Peer("nginx", ".conf", NGINX_ARGUMENTS, NGINX),
        Peer(f"nginx{BARE}", ".conf", NGINX_ARGUMENTS, NGINX, bare=True),
        Peer("portico", ".yaml", ("-m", "portico", "run", "@file@")),
        Peer(f"portico{BARE}", ".yaml", ("-m", "portico", "run", "@file@"), bare=True),
        Peer("portico-2", ".yaml", ("-m", "portico", "run", "@file@")),
    )
}

SUBJECT = "portico"
"""The peer that --max-ratio is about."""


def render(text: str, tokens: Mapping[str, str]) -> str:
    """Put values in the place of @names@: nginx has a use of its own for dollars and braces."""
    for name, value in tokens.items():
        text = text.replace(f"@{name}@", value)
    return text


def labels(names: list[str]) -> list[str]:
    """A name for each place in the list: nginx twice is nginx and nginx#2."""
    found: list[str] = []
    for place, name in enumerate(names):
        earlier = names[:place].count(name)
        found.append(f"{name}#{earlier + 1}" if earlier else name)
    return found
