"""Text with places for parts of the request: `Hello {{ captures.name }}`."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import orjson

from portico.http.message import Request

_PLACE: Final = re.compile(r"\{\{\s*(.*?)\s*\}\}", re.DOTALL)
_KNOWN: Final = "method, path, query, host, client.address, captures.NAME, headers.NAME"

Part = Callable[[Request], str]


class Template:
    """A text with places that are filled in for each request.

    Places are `{{ method }}`, `{{ path }}`, `{{ query }}`, `{{ host }}`, `{{ client.address }}`, `{{ captures.NAME }}`
    and `{{ headers.NAME }}`; what a request does not have is empty. Each value is made safe for where the text stands:
    in a path, a URL, JSON or HTML.
    """

    __slots__ = ("_parts", "constant")

    def __init__(
        self,
        text: str,
        escape: Callable[[str], str],
        *,
        in_url: bool = False,
        literal: Callable[[str], str] = str,
        places: Mapping[str, Part] = MappingProxyType({}),
    ) -> None:
        """Compile `text`; raise ValueError for a place that is not known.

        Each value goes through `escape`, which must make it safe where the text will stand; with `in_url`, path and
        query stand as they are, since they are percent-encoded already. The text between the places goes through
        `literal`, once. `places` are there beside those of every template.
        """
        self._parts: list[str | Part] = []
        at = 0
        for match in _PLACE.finditer(text):
            part = places.get(match[1]) or _part(match[1], places)
            encoded = in_url and match[1] in ("path", "query")
            self._parts += [literal(text[at : match.start()]), part if encoded else _Escaped(part, escape)]
            at = match.end()
        self._parts.append(literal(text[at:]))
        self.constant = literal(text) if at == 0 else None
        """The text itself where it has no places."""

    def fill(self, request: Request) -> str:
        """Return the text for `request`."""
        if self.constant is not None:
            return self.constant
        return "".join([part if isinstance(part, str) else part(request) for part in self._parts])

    @property
    def captures(self) -> frozenset[str]:
        """The path captures that the text needs."""
        parts = [part.part for part in self._parts if isinstance(part, _Escaped)]
        return frozenset(part.name for part in parts if isinstance(part, _Capture))


class _Escaped:
    """A part made safe for where it stands."""

    __slots__ = ("_escape", "part")

    def __init__(self, part: Part, escape: Callable[[str], str]) -> None:
        self.part = part
        self._escape = escape

    def __call__(self, request: Request) -> str:
        return self._escape(self.part(request))


class _Capture:
    """A path capture, decoded."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, request: Request) -> str:
        return request.captures.get(self.name, "")


class _Header:
    """The first value of a request header."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name.lower().encode("ascii")

    def __call__(self, request: Request) -> str:
        return request.headers.text(self._name) or ""


def _part(name: str, places: Mapping[str, Part]) -> Part:
    simple: dict[str, Part] = {
        "method": lambda request: request.method,
        "path": lambda request: request.path,
        "query": lambda request: request.query or "",
        "host": lambda request: request.host,
        "client.address": lambda request: request.client.address if request.client else "",
    }
    if name in simple:
        return simple[name]
    group, _, member = name.partition(".")
    if group == "captures" and member.isidentifier():
        return _Capture(member)
    if group == "headers" and re.fullmatch(r"[A-Za-z0-9-]+", member):
        return _Header(member)
    raise ValueError(f"{{{{ {name} }}}} is not known; known are {', '.join([*places, _KNOWN])}")


def escape_for(media_type: str) -> Callable[[str], str]:
    """Return what makes a value from the request safe within text of `media_type`."""
    media_type = media_type.lower()  # Text/HTML is HTML as well (RFC 9110 section 8.3.1)
    if "json" in media_type:
        return lambda value: orjson.dumps(value.encode("utf-8", "replace").decode()).decode()[1:-1]
    if "html" in media_type or "xml" in media_type:
        return html.escape
    return str
