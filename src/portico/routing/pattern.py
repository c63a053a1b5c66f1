"""What a route says about paths and hosts, read once at load.

============================  =====================================================================================
`/orders`                     that path; a trailing slash makes it another one
`/orders/{id}`                one segment, not empty, captured; captures are percent-decoded
`/orders/*/items`             one segment, not empty
`/files/*.png`                a part of one segment, perhaps empty
`/orders/*`, `/orders/**`     `/orders` itself and anything below it; `/**` is every path
`~/orders/(?P<id>\\d+)`        a Python regular expression for the whole path; named groups are captures
`api.example.com`             that host
`*.example.com`               any host below example.com, however deep, but not example.com itself; `*` is any host
============================  =====================================================================================

Patterns are brought to the same normal form as the paths of requests; characters beyond ASCII may stand in
them and are percent-encoded. Regular expressions are taken as they are: they see normal paths, and one that backtracks
without bound will do so on a hostile one. The asterisk of `OPTIONS *` is no path: only they can take it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote, unquote

from portico.errors import MalformedRequest
from portico.http.target import EncodedSlashes, normalise_escapes, parse_host

Specificity = tuple[int, tuple[tuple[int, int], ...]]


class PatternError(ValueError):
    """A pattern that cannot be used; `offset` is the character at which it goes wrong."""

    def __init__(self, text: str, offset: int, fault: str) -> None:
        super().__init__(f"{text!r}, at offset {offset}: {fault}")
        self.offset = offset


class Glob:
    """A shape with an asterisk among other characters, for one segment.

    Each part between asterisks is looked for once, from the left, so nothing is ever tried again as in a regular
    expression, where a few asterisks and a hostile segment make for minutes.
    """

    __slots__ = ("middles", "prefix", "suffix")

    def __init__(self, shape: str) -> None:
        self.prefix, *middles, self.suffix = shape.split("*")
        self.middles = tuple(middles)

    def takes(self, segment: str) -> bool:
        """Return whether the whole of `segment` has this shape."""
        at = len(self.prefix)
        end = len(segment) - len(self.suffix)
        if at > end or not segment.startswith(self.prefix) or not segment.endswith(self.suffix):
            return False
        for middle in self.middles:
            at = segment.find(middle, at, end)
            if at < 0:
                return False
            at += len(middle)
        return True


def decode_capture(text: str) -> str:
    """Return `text` percent-decoded; what is not UTF-8 becomes U+FFFD."""
    return unquote(text) if "%" in text else text


@dataclass(frozen=True, slots=True)
class PathPattern:
    """A pattern for paths.

    `shape` has a string for each segment after the leading slash: `*` for any that is not empty, one with an asterisk
    in it for a glob, and otherwise the segment itself. With `tail` set, anything may follow. `names` has the name of
    each capture and the number of its segment, from one. A regular expression has `regex` instead.
    """

    text: str
    shape: tuple[str, ...] = ()
    tail: bool = False
    names: tuple[tuple[str, int], ...] = ()
    regex: re.Pattern[str] | None = None

    @property
    def exact(self) -> str | None:
        """The only path that this pattern takes, or None where there may be several."""
        if self.tail or self.regex is not None or any("*" in segment for segment in self.shape):
            return None
        return "/" + "/".join(self.shape)

    @property
    def capture_names(self) -> frozenset[str]:
        """The names of what is captured."""
        return frozenset(dict(self.names) if self.regex is None else self.regex.groupindex)

    @property
    def specificity(self) -> Specificity:
        """What orders the patterns that take the same path, the most specific first.

        First the exact path, then regular expressions, which tie, then the rest, compared segment by segment from the
        left: static, glob (the one with more characters first), any, tail.
        """
        if self.exact is not None:
            return 0, ()
        if self.regex is not None:
            return 1, ()
        steps = [_step(segment) for segment in self.shape]
        return 2, (*steps, (3, 0)) if self.tail else tuple(steps)

    def match(self, path: str) -> bool:
        """Return whether the pattern takes `path`."""
        if self.regex is not None:
            return self.regex.fullmatch(path) is not None
        first, *segments = path.split("/")
        if first or len(segments) < len(self.shape) or (len(segments) > len(self.shape) and not self.tail):
            return False
        return all(map(_takes, self.shape, segments))

    def captures(self, path: str) -> dict[str, str]:
        """Return the captures of a path that the pattern takes, percent-decoded."""
        if self.regex is None:
            segments = path.split("/")
            captures = {}
            for name, at in self.names:
                captures[name] = decode_capture(segments[at])
            return captures
        found = self.regex.fullmatch(path)
        assert found is not None
        return {name: decode_capture(part) for name, part in found.groupdict().items() if part is not None}

    def __str__(self) -> str:
        return self.text


def _step(shape: str) -> tuple[int, int]:
    if shape == "*":
        return 2, 0
    asterisks = shape.count("*")
    return (1, asterisks - len(shape)) if asterisks else (0, 0)


def _takes(shape: str, segment: str) -> bool:
    if shape == "*":
        return bool(segment)
    return Glob(shape).takes(segment) if "*" in shape else shape == segment


_DOTS = r"(?:\.|%2[eE]){1,2}"
_FAULTS = {
    r"\s": "white space never comes in a path; write %20 for a space",
    r"[\x00-\x1f\x7f\ud800-\udfff]|%00": "no request may have this character in its path; leave it out",
    r"\?": "a query is no part of a path; use a condition on its parameter, or %3F for the character itself",
    r"#": "a fragment is never sent to a server; leave it out, or write %23 for the character itself",
    r"\\": "a backslash is refused in requests; write a slash",
    r"%(?![0-9A-Fa-f]{2})": "an escape has two hexadecimal digits; write %25 for the percent sign itself",
    r"//": "can never match, as slashes in a row are one slash in a request; write one",
    rf"(?<=/){_DOTS}(?=/|\Z)": "can never match, as dot segments are removed from requests; leave it out",
    rf"(?:/|%2[fF]|%5[cC]){_DOTS}(?=/|;|%2[fF]|%5[cC]|%3[bB]|\Z)": "can never match, as requests with it are refused",
    r"(?<!/)\*\*|\*\*(?!\Z)": "`**` stands for any depth only as the last segment; write `*` for one segment",
}
_ANY_FAULT = re.compile("|".join(f"(?:{expression})" for expression in _FAULTS))
_ENCODED_SLASH = {
    EncodedSlashes.KEEP: re.compile(r"(?!)"),
    EncodedSlashes.DECODE: re.compile(r"%2[fF]"),
    EncodedSlashes.REJECT: re.compile(r"%2[fF]|%5[cC]"),
}
_BRACE = re.compile(r"[{}]")
_CAPTURE = re.compile(r"\{([^{}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")


def parse_path(text: str, slashes: EncodedSlashes = EncodedSlashes.KEEP) -> PathPattern:
    """Return the pattern that `text` stands for, or raise PatternError; `slashes` is what requests' paths undergo."""
    if text.startswith("~"):
        return _parse_regex(text)
    if not text.startswith("/"):
        raise PatternError(text, 0, "a path begins with a slash, a regular expression with `~`")
    if _ANY_FAULT.search(text):
        for expression, fault in _FAULTS.items():
            if found := re.search(expression, text):
                raise PatternError(text, found.start(), fault)
    if found := _ENCODED_SLASH[slashes].search(text):
        raise PatternError(text, found.start(), f"can never match, as encoded slashes are set to `{slashes}`")
    names: list[tuple[str, int]] = []
    shape: list[str] = []
    offset = 1
    fixed = text.removesuffix("/**") if text.endswith("/**") else text.removesuffix("/*")
    for segment in fixed.split("/")[1:]:
        name = _capture_name(text, segment, offset)
        if name is None:
            shape.append(normalise_escapes(_NOT_ASCII.sub(_escape, segment)))
        elif name in dict(names):
            raise PatternError(text, offset, f"the capture {name!r} is there twice; give it another name")
        else:
            shape.append("*")
            names.append((name, len(shape)))
        offset += len(segment) + 1
    return PathPattern(text, tuple(shape), fixed != text, tuple(names))


def _capture_name(text: str, segment: str, offset: int) -> str | None:
    """Return the name in a segment that is a capture, or None where it has no braces."""
    brace = _BRACE.search(segment)
    if brace is None:
        return None
    capture = _CAPTURE.search(segment)
    if capture is None:
        raise PatternError(text, offset + brace.start(), "a brace without its partner; write {name}, or %7B and %7D")
    if capture[0] != segment:
        raise PatternError(text, offset + brace.start(), "a capture is a whole segment; for less, use a `~` regex")
    if _NAME.fullmatch(capture[1]) is None:
        fault = f"{capture[1]!r} is no name for a capture; use letters, digits and underscores, no digit first"
        raise PatternError(text, offset + 1, fault)
    return capture[1]


def _escape(characters: re.Match[str]) -> str:
    return quote(characters[0])


def _parse_regex(text: str) -> PathPattern:
    if text == "~":
        raise PatternError(text, 1, "the regular expression is missing; write it after the `~`")
    try:
        return PathPattern(text, regex=re.compile(text[1:]))
    except re.error as error:
        raise PatternError(text, 1 + (error.pos or 0), f"not a regular expression: {error.msg}") from None


@dataclass(frozen=True, slots=True)
class HostPattern:
    """A pattern for hosts, in lower case: a host, `*.` and a domain, or `*` for any."""

    text: str

    @property
    def specificity(self) -> tuple[int, int]:
        """What orders the patterns that take the same host, the most specific first: exact, longer wildcard, any."""
        if self.text == "*":
            return 2, 0
        return (1, -len(self.text)) if self.text.startswith("*.") else (0, 0)

    def match(self, host: str) -> bool:
        """Return whether the pattern takes `host`, which is in lower case and without a port."""
        if self.text.startswith("*."):
            return host.endswith(self.text[1:]) and len(host) >= len(self.text)
        return self.text in ("*", host)

    def wider(self) -> Iterator[HostPattern]:
        """Yield the patterns that take whatever this one takes: itself, then from narrow to wide."""
        yield self
        _, dot, domain = self.text.removeprefix("*.").partition(".")
        while dot:
            yield HostPattern(f"*.{domain}")
            _, dot, domain = domain.partition(".")
        if self != ANY_HOST:
            yield ANY_HOST

    def __str__(self) -> str:
        return self.text


def parse_host_pattern(text: str) -> HostPattern:
    """Return the pattern that `text` stands for, or raise PatternError."""
    if text == "*":
        return ANY_HOST
    wildcard = "*." if text.startswith("*.") else ""
    if "*" in text[len(wildcard) :]:
        fault = "an asterisk stands only for the leftmost labels, as in *.example.com"
        raise PatternError(text, text.index("*", len(wildcard)), fault)
    try:
        host, port = parse_host(text[len(wildcard) :].encode("ascii"))
    except (MalformedRequest, UnicodeEncodeError):
        fault = "not a host; write its name (beyond ASCII in the xn-- form), or an IPv6 address in brackets"
        raise PatternError(text, len(wildcard), fault) from None
    if wildcard and host.startswith("["):
        raise PatternError(text, 0, "an address has no part that an asterisk could stand for; write it in full")
    if port is not None:
        raise PatternError(text, text.rindex(":"), "the port is no part of a host here; leave it out")
    return HostPattern(wildcard + host)


ANY_HOST = HostPattern("*")
ANY_PATH = PathPattern("/**", tail=True)
