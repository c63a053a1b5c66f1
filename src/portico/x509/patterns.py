"""Patterns for the names in certificates: `*` stands for one character or more, and never for more than one part.

Each looks at a name once, from its beginning to its end: no certificate makes it try again and again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import starmap
from typing import Annotated, Final, NamedTuple, TypeAlias

from pydantic import AfterValidator, WithJsonSchema

from portico.config.values import BadValue
from portico.x509.certificate import DistinguishedName, attribute_kind, lowered_domain

Matches: TypeAlias = Callable[[str], object]
"""Whether a name is meant; only its truth counts."""

_ANY: Final = r"[\s\S]"
_OF_LABEL: Final = r"[^.]"
_OF_LOCAL: Final = r"[^@]"
_OF_SEGMENT: Final = r"[^/?#]"
_OF_PATH: Final = r"[^?#]"

_UNTIDY: Final = re.compile(r"/\.{1,2}(?:[/?#]|$)|^[^:]*:[^/]+//|/[^/]+//|///|%2[ef]|%5c|\\", re.IGNORECASE)
"""What some would take for another URI: wildcards do not stand for it. Only the `//` after the scheme is none."""
_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")
_LABEL: Final = r"(?:[A-Za-z0-9_-]|\*(?!\*))+"
_DNS: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}")
_CHARACTER: Final = re.compile(r"\\[\s\S]|[\s\S]")
_ESCAPED: Final = re.compile(r"\\[\s\S]")
_UNIT: Final = re.compile(r"(?:\\[0-9A-Fa-f]{2})+|\\[\s\S]|\*|[^\\*]+")
"""What a value in a pattern for a subject is made of."""
_VALUE: Final = re.compile(r" *((?:\\[\s\S]|[^\\])*?) *")
"""A value, without the spaces around it that are not escaped."""
_ESCAPABLE: Final = frozenset('"+,;<>\\ #=*')
_UNESCAPED: Final = re.compile(r'(?:\\[\s\S]|[^\\"<>;])*')

_OPENSSL: Final = "openssl x509 -in FILE -noout -subject -issuer -nameopt RFC2253 prints what is meant"


class _Attribute(NamedTuple):
    kind: str
    matches: Matches


def dns_pattern(text: str) -> Matches:
    """Return what matches host names, where a `*` stays within a label."""
    if _DNS.fullmatch(text) is None:
        raise BadValue(f"{text!r} is no host name", "write api.example.com or *.example.com")
    return _compiled([(_pieces(text.lower()), _OF_LABEL)])


def email_pattern(text: str) -> Matches:
    """Return what matches addresses, where a `*` stays on its side of the @, and within a label of the domain."""
    local, at, domain = lowered_domain(text).rpartition("@")
    if not local or not at or "**" in local or _DNS.fullmatch(domain) is None:
        raise BadValue(f"{text!r} is no address", "write ada@example.com or *@example.com")
    return _compiled([(_pieces(local), _OF_LOCAL), (["@"], ""), (_pieces(domain), _OF_LABEL)])


def uri_pattern(text: str) -> Matches:
    """Return what matches URIs, where a `*` stays within a segment, and a `**` at the end stands for the rest."""
    if _URI.fullmatch(text) is None:
        raise BadValue(f"{text!r} is no URI", "write spiffe://example.org/ns/shop/sa/*")
    plain = text.removesuffix("**")
    if "**" in plain or (plain != text and plain.endswith("*")):
        raise BadValue(f"{text!r} has ** before its end", "write * for each segment")
    rest = [(["", ""], _OF_PATH)] if plain != text else []
    matches = _compiled([(_pieces(plain), _OF_SEGMENT), *rest])
    return matches if "*" not in text else lambda name: _UNTIDY.search(name) is None and matches(name)


def fingerprint(text: str) -> str:
    """Return a fingerprint (SHA-256) as certificates have it here: in lower case, without colons."""
    digits = text.removeprefix("sha256:").replace(":", "").lower()
    if _FINGERPRINT.fullmatch(digits) is None:
        hint = "openssl x509 -in FILE -noout -fingerprint -sha256 prints it"
        raise BadValue("a fingerprint has 64 hexadecimal digits", hint)
    return digits


def name_pattern(text: str) -> Callable[[DistinguishedName], bool]:
    """Return what matches names of subjects and issuers, written as RFC 4514 has it: a `*` stays within a value.

    Parts are compared one by one, and not as text: what is in a value is never taken for a part of its own.
    """
    wanted = [
        sorted((_attribute(text, each) for each in _split(rdn, "+")), key=lambda each: each.kind)
        for rdn in _split(text, ",")
    ]

    def matches(name: DistinguishedName) -> bool:
        return len(name.rdns) == len(wanted) and all(starmap(_is_meant, zip(name.rdns, wanted, strict=True)))

    return matches


def _is_meant(rdn: Sequence[tuple[str, str]], wanted: Sequence[_Attribute]) -> bool:
    return len(rdn) == len(wanted) and all(
        kind == each.kind and each.matches(value) for (kind, value), each in zip(rdn, wanted, strict=True)
    )


def _split(text: str, mark: str) -> list[str]:
    """Return what is between the marks that are not escaped."""
    pieces = [""]
    for unit in _CHARACTER.findall(text):
        if unit == mark:
            pieces.append("")
        else:
            pieces[-1] += unit
    return pieces


def _attribute(text: str, attribute: str) -> _Attribute:
    name, equals, value = attribute.partition("=")
    kind = attribute_kind(name.strip(" "))
    if not equals or kind is None:
        raise BadValue(f"{text!r} is no name: {attribute.strip()!r} is no attribute such as CN=ada", _OPENSSL)
    trimmed = _VALUE.fullmatch(value)
    if trimmed is None or not trimmed[1] or _UNESCAPED.fullmatch(trimmed[1]) is None:
        raise BadValue(f"{text!r} is no name: {attribute.strip()!r} has no value, or such as is not escaped", _OPENSSL)
    if "**" in _ESCAPED.sub("-", trimmed[1]):
        raise BadValue(f"{text!r} has ** in it", "write *")
    pieces = [""]
    for unit in _UNIT.findall(trimmed[1]):
        if unit == "*":
            pieces.append("")
        else:
            pieces[-1] += _literal(text, unit)
    return _Attribute(kind, _compiled([(pieces, _ANY)]))


def _literal(text: str, unit: str) -> str:
    if not unit.startswith("\\"):
        return unit
    if len(unit) == 2:
        if unit[1] not in _ESCAPABLE:
            raise BadValue(f"{text!r} is no name: {unit} is no escape", _OPENSSL)
        return unit[1]
    try:
        return bytes.fromhex(unit.replace("\\", "")).decode()
    except UnicodeDecodeError:
        raise BadValue(f"{text!r} is no name: {unit} is no UTF-8", _OPENSSL) from None


def _pieces(text: str) -> list[str]:
    """Return what is around the wildcards."""
    return text.split("*")


def _compiled(parts: Sequence[tuple[list[str], str]]) -> Matches:
    """Return what matches parts, each of pieces with any characters of a kind between them.

    A wildcard that is not the last of its part takes as little as it can, and does not try more later: what comes then
    could be taken by the next one as well. So no name takes longer than its length.
    """
    return re.compile("".join(part for pieces, of in parts for part in _regex(pieces, of))).fullmatch


def _regex(pieces: list[str], of: str) -> Iterator[str]:
    yield re.escape(pieces[0])
    for piece in pieces[1:-1]:
        yield f"(?>{of}+?{re.escape(piece)})"
    if len(pieces) > 1:
        yield f"{of}+{re.escape(pieces[-1])}"


def _kept(by: Callable[[str], object]) -> AfterValidator:
    """Return what refuses a text that is no pattern, and keeps it as it is: a configuration is sent to workers."""

    def check(text: str) -> str:
        by(text)
        return text

    return AfterValidator(check)


def _shows(*examples: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "minLength": 1, "examples": list(examples)})


DnsPattern = Annotated[str, _kept(dns_pattern), _shows("*.clients.example.com")]
EmailPattern = Annotated[str, _kept(email_pattern), _shows("*@example.com")]
UriPattern = Annotated[str, _kept(uri_pattern), _shows("spiffe://example.org/ns/shop/**")]
NamePattern = Annotated[str, _kept(name_pattern), _shows("CN=*,OU=partners,O=Example")]
Fingerprint = Annotated[str, AfterValidator(fingerprint), _shows("sha256:…")]
