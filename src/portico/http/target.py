"""The request target and the Host header: read strictly, and brought to one normal form before anything looks at them.

What is matched is what is sent: routes see the normal form, and so do services. A path has one normal form, in which

- percent-encoded unreserved characters are decoded, and other escapes are in upper case (RFC 3986 section 6.2.2);
- slashes in a row are one slash, and then dot segments are removed, never above the root (section 5.2.4);
- characters that clients send raw although RFC 3986 has no place for them in a path (`"<>[]^{|}` and the backtick) are
  percent-encoded, so that both spellings are one path.

Refused are a raw backslash, as some services take it for a slash, controls, spaces, `#`, bytes beyond ASCII, and NUL in
any spelling.

A path is refused, too, if a dot segment would come to light in a service that decodes slashes or drops path parameters:
`/public/..%2Fadmin`, `/public/..;/admin`. No honest client sends these.
"""

from __future__ import annotations

import re
from enum import StrEnum
from ipaddress import AddressValueError, IPv6Address
from typing import Final

from portico.errors import MalformedRequest


class EncodedSlashes(StrEnum):
    """What becomes of an encoded slash, `%2F`, in a path."""

    KEEP = "keep"
    """It stays as it is: data, never a boundary between segments."""
    DECODE = "decode"
    """It is a slash like any other. `%5C` stays as it is."""
    REJECT = "reject"
    """The request is refused, and so it is for an encoded backslash, `%5C`."""


_UNRESERVED = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
_RAW = '"<>[]^`{|}'

_PLAIN: Final = re.compile(rb"/[A-Za-z0-9\-._~!$&'()*+,;=:@/]*+(?:\?[!-\"$-~]*+)?+").fullmatch
"""Takes a target in origin form without an escape in its path: nearly all are."""

_PATH_BYTES: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=:@/"
"""What stands in a path for itself; a target of nothing else, the usual one, is told apart faster than by a regular
expression."""

_ODD = re.compile(r"%.{0,2}|[^A-Za-z0-9\-._~!$&'()*+,;=:@/]", re.DOTALL)
_ENCODED_SLASH = re.compile(r"%2F|%5C")
_HIDDEN_DOTS = re.compile(r"(?:/|%2F|%5C)\.\.?(?:/|%2F|%5C|;|%3B|\Z)")
_QUERY = re.compile(r'[!-"$-~]*')
_ABSOLUTE = re.compile(r"https?://([^/?#]*)", re.IGNORECASE)

_HOST = re.compile(rb"([a-z0-9_-]++(?:\.[a-z0-9_-]++)*+)\.?+(?::([0-9]{0,5}))?").fullmatch
_LITERAL = re.compile(rb"(\[[0-9a-f:.]+\])(?::([0-9]{0,5}))?").fullmatch
_LONGEST_HOST = 253  # RFC 1035 section 2.3.4, in text


def _spellings() -> dict[str, str]:
    """Return the normal spelling of each escape, and of each raw character that stands for one."""
    table = {char: f"%{ord(char):02X}" for char in _RAW}
    for code in range(1, 256):  # NUL has none
        normal = chr(code) if chr(code) in _UNRESERVED else f"%{code:02X}"
        for first in {f"{code:02X}"[0], f"{code:02x}"[0]}:
            for second in {f"{code:02X}"[1], f"{code:02x}"[1]}:
                table[f"%{first}{second}"] = normal
    return table


_SPELLINGS = _spellings()


def _respell(odd: re.Match[str]) -> str:
    return _SPELLINGS[odd[0]]


def normalise_escapes(text: str) -> str:
    """Return `text`, of which a path is made, with each character in its one normal spelling; dots and slashes stay.

    Raises MalformedRequest for a broken escape, and for a character that may not stand in a path.
    """
    try:
        return _ODD.sub(_respell, text)
    except KeyError as error:
        raise MalformedRequest(f"{error.args[0]!r} may not stand in a path") from None


def normalise_path(path: str, slashes: EncodedSlashes) -> str:
    """Return the normal form of `path`, which begins with a slash; the normal form's normal form is itself.

    Raises MalformedRequest where it has none.
    """
    path = normalise_escapes(path)
    if "%" in path and slashes is not EncodedSlashes.KEEP:
        if slashes is EncodedSlashes.DECODE:
            path = path.replace("%2F", "/")
        elif _ENCODED_SLASH.search(path) is not None:
            raise MalformedRequest("an encoded slash or backslash may not stand in a path here")
    if "//" in path or "/." in path:
        path = _without_dot_segments(path)
    if "." in path and _HIDDEN_DOTS.search(path) is not None:
        raise MalformedRequest("a dot segment is hidden in the path")
    return path


def _without_dot_segments(path: str) -> str:
    """Remove dot segments and empty ones (RFC 3986 section 5.2.4, with slashes in a row taken for one)."""
    kept: list[str] = []
    segment = ""
    for segment in path.split("/"):
        if segment == "..":
            if kept:
                kept.pop()
        elif segment and segment != ".":
            kept.append(segment)
    if segment in ("", ".", "..") and kept:
        kept.append("")  # what ended in a dot segment names a directory
    return "/" + "/".join(kept)


def parse_target(target: bytes, method: str, slashes: EncodedSlashes) -> tuple[str, str | None, str | None]:
    """Return the path, the query and the authority of a request target (RFC 9112 section 3.2).

    The path is in normal form; it is `*` for a target in asterisk form, which only OPTIONS may have. The query is what
    follows the question mark, untouched, or None without one. The authority is None but for a target in absolute form;
    then it overrides the Host header, and `parse_host` takes it. The authority form, CONNECT's, is refused.

    Raises MalformedRequest for everything else.
    """
    if not target.translate(None, _PATH_BYTES) and target.startswith(b"/"):
        path = target.decode("ascii")
        if "//" not in path and "/." not in path:
            return path, None, None
    elif _PLAIN(target) is not None:
        path, mark, query = target.decode("ascii").partition("?")
        if "//" not in path and "/." not in path:
            return path, query if mark else None, None
    return _parse_unusual(target.decode("latin-1"), method, slashes)


def _parse_unusual(target: str, method: str, slashes: EncodedSlashes) -> tuple[str, str | None, str | None]:
    authority = None
    if not target.startswith("/"):
        absolute = _ABSOLUTE.match(target)
        if absolute is not None:
            authority = absolute[1]
            parse_host(authority.encode("latin-1"))
            target = target[absolute.end() :] or ("*" if method == "OPTIONS" else "/")  # RFC 9112 section 3.2.4
        if target == "*" and method == "OPTIONS":
            return target, None, authority
        if authority is not None and target.startswith("?"):
            target = "/" + target
    path, mark, query = target.partition("?")
    if not path.startswith("/"):
        raise MalformedRequest("the request target is neither a path nor an http URI")
    if _QUERY.fullmatch(query) is None:
        raise MalformedRequest("the query has a character in it that must be percent-encoded")
    return normalise_path(path, slashes), query if mark else None, authority


def parse_host(value: bytes) -> tuple[str, int | None]:
    """Return the host of a Host header in lower case, and its port or None (RFC 9110 section 7.2).

    A trailing dot is dropped: it names the same host. An IPv6 address comes in brackets and in its one text form
    (RFC 5952). Names are made of letters, digits, hyphens and underscores; RFC 3986 has room for more, but DNS has not.

    Raises MalformedRequest for everything else, also for an empty value: an http URI always has a host.
    """
    lower = value.lower()
    found = _HOST(lower) or _LITERAL(lower)
    if found is None:
        raise MalformedRequest("the Host header is not a host and a port")
    name, digits = found.groups()
    host = name.decode("ascii")
    if len(host) > _LONGEST_HOST:
        raise MalformedRequest("the host is too long")
    if host.startswith("["):
        try:
            host = f"[{IPv6Address(host[1:-1])}]"
        except AddressValueError:
            raise MalformedRequest("the Host header has a bad IPv6 address") from None
    if not digits:
        return host, None
    port = int(digits)
    if port > 65535:
        raise MalformedRequest("the Host header has a bad port")
    return host, port
