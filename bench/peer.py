"""Peers: the proxies that stand beside each other. A new peer is an entry in PEERS and a file in bench/peers/."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench import BenchError
from bench.machine import Tool
from bench.row import Row

HERE = Path(__file__).parent
WRK = Tool("wrk", "wrk")
NGINX = Tool("nginx", "nginx")


@dataclass(frozen=True)
class Peer:
    name: str
    suffix: str
    """Of its file in bench/peers/."""
    arguments: tuple[str, ...]
    """@file@ is its rendered configuration, @dir@ a directory of its own."""
    tool: Tool | None = None
    """What Debian package brings the program; None is the Python that runs the bench."""

    def command(self, tokens: Mapping[str, str]) -> list[str]:
        program = self.tool.find() if self.tool else sys.executable
        return [program, *(render(argument, tokens) for argument in self.arguments)]

    def template(self, row: Row) -> Path:
        path = HERE / "peers" / f"{self.name}{'-' + row.setup if row.setup else ''}{self.suffix}"
        if not path.is_file():
            raise BenchError(f"{self.name} has no configuration for the row {row.name}: there is no {path}")
        return path

    def configuration(self, row: Row) -> str:
        """Its file for a row, with the row's policies where the peer has such."""
        text = self.template(row).read_text()
        if row.policies and self.tool is None:
            chain = ", ".join(f"{{do-nothing: , name: nothing-{number}}}" for number in range(row.policies))
            text += f"plugins: [{HERE}/do_nothing.py]\npolicies: [{chain}]\n"
        return text


NGINX_ARGUMENTS = ("-e", "stderr", "-p", "@dir@", "-c", "@file@")

PEERS = {
    peer.name: peer
    for peer in (
        Peer("nginx", ".conf", NGINX_ARGUMENTS, NGINX),
        Peer("portico", ".yaml", ("-m", "portico", "run", "@file@")),
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
