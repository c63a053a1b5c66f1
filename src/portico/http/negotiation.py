"""What a client accepts: Accept-Encoding, with its weights (RFC 9110 section 12.5.3)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from portico.http.headers import Headers

IDENTITY: Final = "identity"
CODING_ALIASES: Final = {"x-gzip": "gzip", "x-zstd": "zstd"}
"""Other names of codings (RFC 9110 section 8.4.1.3)."""
_ELEMENT: Final = re.compile(
    r"[ \t]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)[ \t]*(?:;[ \t]*[qQ]=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)[ \t]*)?"
)
_REMEMBERED: Final = 256
_TOO_LONG: Final = 512


class AcceptEncoding:
    """The weights that one client gives to codings. An element that is not well-formed counts for nothing."""

    __slots__ = ("_any", "_weights")

    def __init__(self, value: str) -> None:
        self._weights: dict[str, float] = {}
        for text in value.split(","):
            element = _ELEMENT.fullmatch(text)
            if element is not None:
                name = element[1].lower()
                self._weights.setdefault(
                    CODING_ALIASES.get(name, name), 1.0 if element[2] is None else float(element[2])
                )
        self._any = self._weights.pop("*", 0.0)

    def weight(self, coding: str) -> float:
        """Return how welcome `coding` is, from 0, not at all, to 1."""
        return self._weights.get(coding, self._any)

    def best(self, offered: Sequence[str]) -> str:
        """Return the most welcome of `offered`, of equals the first; IDENTITY where that is more welcome than all.

        Where the client does not speak of IDENTITY, any coding that it does accept is more welcome.
        """
        best, most = IDENTITY, self._weights.get(IDENTITY, 0.0)
        for coding in offered:
            weight = self.weight(coding)
            if weight > most or (weight == most and weight > 0 and best == IDENTITY):
                best, most = coding, weight
        return best

    def accepts(self, codings: Sequence[str]) -> bool:
        """Return whether content with all of `codings` is welcome."""
        return all(self.weight(coding) > 0 for coding in codings)


class Negotiation:
    """Chooses among codings that are always the same ones; what it has chosen for a header, it remembers."""

    __slots__ = ("_chosen", "_offered")

    def __init__(self, offered: Sequence[str]) -> None:
        self._offered = tuple(offered)
        self._chosen: dict[bytes, str] = {}

    def choose(self, headers: Headers) -> str:
        """Return the best coding for a client with these headers; IDENTITY where it says nothing."""
        value = headers.index.get(b"accept-encoding")
        if value is None:
            return IDENTITY
        if len(headers.index) != len(headers.pairs):
            value = b",".join(headers.get_all(b"accept-encoding"))
        chosen = self._chosen.get(value)
        if chosen is None:
            chosen = AcceptEncoding(value.decode("latin-1")).best(self._offered)
            if len(self._chosen) >= _REMEMBERED:
                self._chosen.clear()
            if len(value) <= _TOO_LONG:  # nobody may fill the memory with long ones
                self._chosen[value] = chosen
        return chosen


def vary_by_encoding(headers: Headers) -> None:
    """Say that the answer depends on Accept-Encoding (RFC 9110 section 12.5.5)."""
    if b"vary" not in headers.index:
        headers.add(b"Vary", b"Accept-Encoding")
        return
    value = b", ".join(headers.get_all(b"vary"))
    names = {name.strip(b" \t").lower() for name in value.split(b",")}
    if b"*" not in names and b"accept-encoding" not in names:
        headers.set(b"Vary", value + b", Accept-Encoding")
