"""What a signature is over (RFC 9421 section 2): the parts of a request, as its client has sent it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Final
from urllib.parse import quote, unquote, unquote_plus

from portico.http.message import Request
from portico.signatures.fields import Component, NotSigned, Signature, combined, dictionary, serialized, structured

MAX_BASE: Final = 64 * 1024
"""Bytes that are signed; a field can be covered in more ways than one, and be large."""
MAX_QUERY_PARAMETERS: Final = 256
"""Query parameters among which a single one is looked for."""

_ABSOLUTE: Final = re.compile(r"https?://[^/?#]*", re.IGNORECASE)
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
_FLAGS: Final = frozenset(("sf", "bs"))
_DICTIONARIES: Final = frozenset(
    (
        "accept-signature",
        "content-digest",
        "repr-digest",
        "signature",
        "signature-input",
        "want-content-digest",
        "want-repr-digest",
    )
)
"""Fields that were made structured ones, so that no list of older ones has them."""


class Message:
    """A request, taken apart as far as somebody asks for it.

    The target is that which the client has sent, whatever policies have made of it since. Scheme and host are those
    that it asked for, by the word of a trusted proxy where it came through one.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.request_target = request.sent_target
        client = request.client
        self.scheme = "http" if client is None else client.scheme
        self._parsed: dict[str, dict[str, object]] = {}

    def base(self, signature: Signature) -> bytes:
        """Return what a signature is over (RFC 9421 section 2.5); raise NotSigned where the request has not got it."""
        lines, size = [], 0
        for component in signature.components:
            line = f"{component.identifier}: {self.value(component)}"
            size += len(line) + 1
            if size > MAX_BASE:
                raise NotSigned("what it covers is too large")
            lines.append(line)
        lines.append(f'"@signature-params": {signature.input}')
        try:
            return "\n".join(lines).encode("ascii")
        except UnicodeEncodeError:
            raise NotSigned("what it covers has characters beyond ASCII") from None

    def value(self, component: Component) -> str:
        """Return the value of a component; raise NotSigned where there is none."""
        name, parameters, _ = component
        if not name.startswith("@"):
            return self._field(name, parameters)
        if name == "@query-param":
            return self._query_parameter(parameters)
        derive = _DERIVED.get(name)
        if derive is None or parameters:
            raise NotSigned(f"it covers {name} in a way that is not known here")
        return derive(self)

    @cached_property
    def _host(self) -> str:
        """The host that was asked for, as it was sent."""
        host = self.request.headers.get(b"host")
        asked = host if self.request.client is None else self.request.client.asked(host)
        if not asked:
            raise NotSigned("it covers the host, and there is none")
        return asked.decode("latin-1")

    @property
    def authority(self) -> str:
        """The host in lower case, with its port unless that is the scheme's own."""
        return self._host.lower().removesuffix(_DEFAULT_PORTS[self.scheme]).removesuffix(":")

    @cached_property
    def _origin_form(self) -> tuple[str, str]:
        """The path, and the query with the question mark ahead of it where there was one."""
        target = self.request_target
        if not target.startswith("/"):
            absolute = _ABSOLUTE.match(target)
            if absolute is None:
                raise NotSigned("it covers the path, and there is none")
            target = target[absolute.end() :]
        path, mark, query = target.partition("?")
        return path or "/", mark + query

    @property
    def path(self) -> str:
        """The path, its escapes as they were sent."""
        return self._origin_form[0]

    @property
    def query(self) -> str:
        """The query as it was sent; a single question mark where there is none."""
        return self._origin_form[1] or "?"

    @property
    def target_uri(self) -> str:
        """The whole URI (RFC 9112 section 3.3), of which nothing is normalised."""
        return f"{self.scheme}://{self._host}{''.join(self._origin_form)}"

    def _field(self, name: str, parameters: Mapping[str, object]) -> str:
        key = name.encode()
        headers = self.request.headers
        if key not in headers.index:
            raise NotSigned(f"it covers the field {name}, and there is none")
        if not parameters:
            return combined(headers, key).decode("latin-1")
        if any(parameters.get(flag, True) is not True for flag in _FLAGS):
            raise NotSigned(f"it covers the field {name} in a way that is not known here")
        asked = parameters.keys()
        if asked == {"bs"}:
            return serialized([(line.strip(b" \t"), {}) for line in headers.get_all(key)])
        if asked == {"sf"}:
            return serialized(structured(headers, key, "dictionary" if name in _DICTIONARIES else None))
        member = parameters.get("key")
        if not isinstance(member, str) or asked - {"key", "sf"}:
            raise NotSigned(f"it covers the field {name} in a way that is not known here")
        if name not in self._parsed:
            self._parsed[name] = dictionary(headers, key)
        if member not in self._parsed[name]:
            raise NotSigned(f"it covers a member of the field {name} that is not there")
        return serialized([self._parsed[name][member]])

    @cached_property
    def _query_parameters(self) -> dict[str, list[str]]:
        """The values of each query parameter, decoded as forms are."""
        pieces = self._origin_form[1][1:].split("&", MAX_QUERY_PARAMETERS)
        if len(pieces) > MAX_QUERY_PARAMETERS:
            raise NotSigned("it covers a parameter of a query that has too many")
        found: dict[str, list[str]] = {}
        for piece in pieces:
            name, _, value = piece.partition("=")
            if piece:
                found.setdefault(unquote_plus(name), []).append(unquote_plus(value))
        return found

    def _query_parameter(self, parameters: Mapping[str, object]) -> str:
        """Return the value of a single query parameter (RFC 9421 section 2.2.8)."""
        name = parameters.get("name")
        if not isinstance(name, str) or len(parameters) > 1 or _form_encoded(unquote(name)) != name:
            raise NotSigned("it covers @query-param in a way that is not known here")
        values = self._query_parameters.get(unquote(name), [])
        if len(values) != 1:
            raise NotSigned("it covers a query parameter that is not there once")
        return _form_encoded(values[0])


def _form_encoded(text: str) -> str:
    """Return a text as WHATWG's URL standard encodes it in forms, but for spaces, which are `%20`."""
    return quote(text, safe="*", errors="replace").replace("~", "%7E")


_DERIVED: Final[Mapping[str, Callable[[Message], str]]] = {
    "@method": lambda message: message.request.method,
    "@target-uri": lambda message: message.target_uri,
    "@authority": lambda message: message.authority,
    "@scheme": lambda message: message.scheme,
    "@request-target": lambda message: message.request_target,
    "@path": lambda message: message.path,
    "@query": lambda message: message.query,
}

DERIVED_COMPONENTS: Final = frozenset(_DERIVED)
"""What may be covered of a request beside its fields, and single parameters of its query."""
