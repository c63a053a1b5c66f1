"""The fields that have signatures in them (RFC 9421 section 4), read strictly: what two readers could read differently
is refused, and so is what would take long to read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple, TypeAlias, cast

import http_sf

from portico.http.headers import Headers

MAX_FIELD: Final = 4096
"""Bytes of a structured field, whose lines are counted together."""
MAX_PARTS: Final = 128
"""Members, parameters and items of a structured field; what separates them is counted, in texts as well."""
MAX_SIGNATURES: Final = 4
"""Signatures of a request."""
MAX_TEXT: Final = 256
"""Characters of what a signature calls its key, of its nonce and of its tag."""

_SEPARATORS: Final = re.compile(rb"[ \t,;]+")
_DERIVED_OR_FIELD: Final = re.compile(r"@[a-z-]{1,32}|[!#$%&'*+.^_`|~0-9a-z-]{1,256}")

Parameters: TypeAlias = Mapping[str, object]


class NotSigned(Exception):
    """A request is not signed as it has to be. The message says why, in words that may be logged."""


class Component(NamedTuple):
    """What a signature covers a part of a message by (RFC 9421 section 2)."""

    name: str
    """The name of a field in lower case, or that of a derived component, which begins with `@`."""
    parameters: Parameters
    identifier: str
    """Name and parameters, as the signature base has them."""

    @property
    def whole(self) -> bool:
        """Whether the whole of it is covered, and not one member or one line."""
        return "key" not in self.parameters and self.name != "@query-param"


class Signature(NamedTuple):
    """One signature of a message that is well formed, and is not verified yet."""

    components: tuple[Component, ...]
    parameters: Parameters
    """What is said of it: `created`, `keyid` and others (RFC 9421 section 2.3)."""
    input: str
    """The value of `@signature-params` in the signature base."""
    value: bytes


class Signatures:
    """The signatures of one request by their labels, each of which is read when it is asked for."""

    __slots__ = ("_inputs", "_values")

    def __init__(self, inputs: Mapping[str, object], values: Mapping[str, object]) -> None:
        self._inputs = inputs
        self._values = values

    @classmethod
    def of(cls, headers: Headers) -> Signatures | None:
        """Return the signatures of a request, or None where it has none; raise NotSigned."""
        has_inputs, has_values = b"signature-input" in headers.index, b"signature" in headers.index
        if not has_inputs and not has_values:
            return None
        if not has_inputs or not has_values:
            raise NotSigned("it has only one of Signature and Signature-Input")
        self = cls(dictionary(headers, b"signature-input"), dictionary(headers, b"signature"))
        if max(len(self._inputs), len(self._values)) > MAX_SIGNATURES:
            raise NotSigned(f"it has more than {MAX_SIGNATURES} signatures")
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """What the signatures are called."""
        return tuple(self._inputs)

    def tag(self, label: str) -> object:
        """Return what says of one of them what it is for; None where nothing does."""
        return _parts(self._inputs[label])[1].get("tag")

    def read(self, label: str) -> Signature:
        """Return one of them; raise NotSigned where it is not sound."""
        items, parameters = _parts(self._inputs[label])
        value, _ = _parts(self._values.get(label))
        if not isinstance(items, list):
            raise NotSigned("it does not say what it covers")
        if not isinstance(value, bytes):
            raise NotSigned("there is no signature for what it covers")
        components = tuple([_component(*_parts(item)) for item in items])
        if len({(name, frozenset(said.items())) for name, said, _ in components}) < len(components):
            raise NotSigned("it covers a component twice")
        said = " ".join([component.identifier for component in components])
        return Signature(components, parameters, f"({said}{serialized([([], dict(parameters))])[1:]}", value)


def combined(headers: Headers, name: bytes) -> bytes:
    """Return the value of a field, the lines of which are joined as RFC 9421 section 2.1 has it."""
    lines = headers.get_all(name) if len(headers.index) != len(headers.pairs) else [headers.index[name]]
    return b", ".join([line.strip(b" \t") for line in lines])


def dictionary(headers: Headers, name: bytes) -> dict[str, object]:
    """Return the members of a field that is a dictionary, each a value and its parameters; raise NotSigned."""
    return cast("dict[str, object]", structured(headers, name, "dictionary"))


def structured(headers: Headers, name: bytes, kind: str | None) -> http_sf.StructuredType:
    """Return what a structured field says (RFC 9651), which is of the kind that is registered for its name, or of this
    one; raise NotSigned where it is of none, has a key twice, or would take long to read.
    """
    value = combined(headers, name)
    if len(value) > MAX_FIELD or len(_SEPARATORS.findall(value)) > MAX_PARTS:
        raise NotSigned(f"its field {name.decode()} is too large")
    try:
        return http_sf.parse(value, None if kind else name.decode(), kind, _twice)
    except (ValueError, KeyError):
        raise NotSigned(f"its field {name.decode()} is not a structured one, or not well formed") from None


def serialized(value: object) -> str:
    """Return a structured value as there is one way to write it; raise NotSigned where there is none."""
    try:
        return http_sf.ser(cast(http_sf.StructuredType, value))
    except (ValueError, TypeError):
        raise NotSigned("a value of it cannot be written") from None


def _twice(key: str, context: str) -> None:
    raise ValueError("a key stands twice")


def _parts(member: object) -> tuple[object, Parameters]:
    """Return the value and the parameters of a member; None where there is no member."""
    return cast("tuple[object, Parameters]", member) if isinstance(member, tuple) else (None, {})


def _component(name: object, parameters: Parameters) -> Component:
    if not isinstance(name, str) or _DERIVED_OR_FIELD.fullmatch(name) is None:
        raise NotSigned("it covers what is no component")
    return Component(name, parameters, serialized((name, dict(parameters))) if parameters else f'"{name}"')
