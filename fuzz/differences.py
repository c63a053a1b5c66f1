"""Where h11 and we read the same bytes differently, each with its reason; what is not listed here is a bug in one.

An entry says which side refuses, or that both accept with another meaning; `sign` tells its cases apart by their bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from fuzz.oracle import Case, Meaning, Verdict
from fuzz.reading import Pairs
from portico.errors import BodyTruncated, MalformedRequest, MalformedResponse, NotImplementedByUs, VersionNotSupported
from portico.wire.framing import _FORBIDDEN_TRAILERS, MAX_CHUNK_LINE, MAX_LENGTH_DIGITS, MAX_TRAILERS


class Difference(NamedTuple):
    """One way in which the two differ, why ours is right here, and witnesses: (method or None for a request, bytes)."""

    name: str
    why: str
    sign: Callable[[Case], bool]
    examples: tuple[tuple[str | None, bytes], ...]


def _malformed(verdict: Verdict) -> bool:
    return verdict in (None, MalformedRequest, MalformedResponse, BodyTruncated)


def _fields(case: Case) -> Meaning | None:
    """Return h11's meaning where h11 accepts what we call malformed, else None."""
    return case.theirs if _malformed(case.ours) and isinstance(case.theirs, Meaning) else None


def _in_fields(pattern: bytes) -> Callable[[Case], bool]:
    """Return a sign: we refuse for what `pattern` finds in the head or in the trailer section."""
    search = re.compile(pattern).search

    def sign(case: Case) -> bool:
        meaning = _fields(case)
        return meaning is not None and (
            search(meaning.framing[0]) is not None or (_chunked(meaning) and search(meaning.framing[-1]) is not None)
        )

    return sign


def _in_chunk_lines(pattern: bytes) -> Callable[[Case], bool]:
    """Return a sign: we refuse for what `pattern` finds in a chunk's line, without its line break."""
    search = re.compile(pattern).search

    def sign(case: Case) -> bool:
        meaning = _fields(case)
        return meaning is not None and any(search(line) is not None for line in _chunk_lines(meaning))

    return sign


def _chunked(meaning: Meaning) -> bool:
    return any(name.lower() == b"transfer-encoding" for name, _ in meaning.fields) and len(meaning.framing) > 1


def _chunk_lines(meaning: Meaning) -> list[bytes]:
    """Return the line of each chunk; h11 takes the end of the chunk before with it."""
    lines = [part.removeprefix(b"\r\n").split(b"\r\n")[0] for part in meaning.framing[1:]]
    return lines if _chunked(meaning) else []


def _values(pairs: Pairs, name: bytes) -> list[bytes]:
    return [value for key, value in pairs if key.lower() == name]


def _length_is_a_list(case: Case) -> bool:
    meaning = _fields(case)
    if meaning is None:
        return False
    lines = re.findall(rb"(?im)^content-length:[ \t]*(.*?)[ \t]*\r?$", meaning.framing[0])
    return len(lines) > 1 or any(b"," in line for line in lines)


def _length_has_many_digits(case: Case) -> bool:
    meaning = _fields(case)
    return meaning is not None and any(
        len(value) > MAX_LENGTH_DIGITS for value in _values(meaning.fields, b"content-length")
    )


def _long_chunk_line(case: Case) -> bool:
    meaning = _fields(case)
    return meaning is not None and any(len(line) > MAX_CHUNK_LINE - 2 for line in _chunk_lines(meaning))


def _long_trailers(case: Case) -> bool:
    meaning = _fields(case)
    return meaning is not None and _chunked(meaning) and len(meaning.framing[-1]) > MAX_TRAILERS


def _both_framings(case: Case) -> bool:
    meaning = _fields(case)
    return meaning is not None and all(
        _values(meaning.fields, name) for name in (b"content-length", b"transfer-encoding")
    )


def _codings_of_http_1_0(case: Case) -> bool:
    meaning = _fields(case)
    return (
        meaning is not None
        and bool(_values(meaning.fields, b"transfer-encoding"))
        and re.match(rb"[^\n]*HTTP/1\.0\r?\n" if case.method is None else rb"HTTP/1\.0 ", case.data) is not None
    )


def _another_version(case: Case) -> bool:
    if case.method is None:
        return (
            case.ours is VersionNotSupported
            and isinstance(case.theirs, Meaning)
            and re.match(rb"\S+ \S+ HTTP/(?!1\.[01])\d\.\d\r\n", case.data) is not None
        )
    return _fields(case) is not None and re.match(rb"HTTP/(?!1\.[01])", case.data) is not None


def _method_of_nobody(case: Case) -> bool:
    return case.ours is NotImplementedByUs and isinstance(case.theirs, Meaning)


def _target_of_no_form(case: Case) -> bool:
    """llhttp looks at the targets of methods that are not usual; those of the usual are `http.target`'s."""
    meaning = _fields(case)
    return (
        meaning is not None
        and case.method is None
        and not str(meaning.start[1], "latin-1").startswith(("/", "*"))
        and (meaning.start[0] not in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
    )


def _status_beyond(case: Case) -> bool:
    meaning = _fields(case)
    return meaning is not None and case.method is not None and re.match(rb"HTTP/1\.[01] [6-9]", case.data) is not None


def _refused_by_h11(case: Case) -> Meaning | None:
    return case.ours if isinstance(case.ours, Meaning) and isinstance(case.theirs, str) else None


def _host(case: Case) -> bool:
    meaning = _refused_by_h11(case)
    if meaning is None or case.method is not None:
        return False
    hosts = len(_values(meaning.fields, b"host"))
    return hosts > 1 or (hosts == 0 and meaning.start[2] == 1)


def _empty_lines(case: Case) -> bool:
    return _refused_by_h11(case) is not None and case.method is None and case.data.startswith(b"\r\n")


def _space_ahead_of_an_extension(case: Case) -> bool:
    return _refused_by_h11(case) is not None and re.search(rb"\r\n[0-9A-Fa-f]+[ \t]+;", case.data) is not None


def _framing_in_trailers(case: Case) -> bool:
    return (
        _refused_by_h11(case) is not None
        and re.search(rb"(?i)\r\n0+[ \t]*(;[^\r\n]*)?\r\n([^\r\n]+\r\n)*(content-length|transfer-encoding):", case.data)
        is not None
    )


def _coding_without_content(case: Case) -> bool:
    meaning = _refused_by_h11(case)
    if meaning is None or case.method is None:
        return False
    codings = [value.lower() for value in _values(meaning.fields, b"transfer-encoding")]
    (status,) = meaning.start
    return codings not in ([], [b"chunked"]) and (
        case.method == "HEAD" or status in (204, 304) or (isinstance(status, int) and status < 200)
    )


def _two(case: Case) -> tuple[Meaning, Meaning] | None:
    if isinstance(case.ours, Meaning) and isinstance(case.theirs, Meaning):
        return case.ours, case.theirs._replace(framing=())
    return None


def _alike_when(case: Case, mend: Callable[[Meaning, Meaning], tuple[Meaning, Meaning]]) -> bool:
    """Tell whether the two meanings differ, and would not if it were not for what `mend` takes away."""
    both = _two(case)
    if both is None:
        return False
    mine, other = mend(*both)
    return (mine, other) != both and _mended(mine, other)


def _mended(mine: Meaning, other: Meaning) -> bool:
    """Tell whether two meanings are the same but for all that is listed below."""
    for mend in (_lower_coding, _drop_named, _drop_trailers, _forget_old_keep_alive):
        mine, other = mend(mine, other)
    return mine == other


def _lower_coding(mine: Meaning, other: Meaning) -> tuple[Meaning, Meaning]:
    fields = [(name, value.lower() if name.lower() == b"transfer-encoding" else value) for name, value in mine.fields]
    return mine._replace(fields=fields), other


def _drop_named(mine: Meaning, other: Meaning) -> tuple[Meaning, Meaning]:
    """Take away the fields of `other` that its Connection names."""
    options = {
        option.strip(b" \t").lower() for value in _values(other.fields, b"connection") for option in value.split(b",")
    }
    gone = options & ({name.lower() for name, _ in other.fields} - {name.lower() for name, _ in mine.fields})
    fields = [pair for pair in other.fields if pair[0].lower() not in gone]
    trailers = [pair for pair in other.trailers if pair[0].lower() not in options]
    return mine, other._replace(fields=fields, trailers=trailers)


def _drop_trailers(mine: Meaning, other: Meaning) -> tuple[Meaning, Meaning]:
    return mine, other._replace(
        trailers=[pair for pair in other.trailers if pair[0].lower() not in _FORBIDDEN_TRAILERS]
    )


def _forget_old_keep_alive(mine: Meaning, other: Meaning) -> tuple[Meaning, Meaning]:
    """h11 never keeps a connection of HTTP/1.0."""
    asked = any(b"keep-alive" in value.lower() for value in _values(mine.fields, b"connection"))
    if asked and mine.keep_alive and not other.keep_alive:
        return mine._replace(keep_alive=False), other
    return mine, other


def _kind(mend: Callable[[Meaning, Meaning], tuple[Meaning, Meaning]]) -> Callable[[Case], bool]:
    return lambda case: _alike_when(case, mend)


_POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
_CHUNKED = _POST + b"Transfer-Encoding: chunked\r\n\r\n"
_OK = b"HTTP/1.1 200 OK\r\n"
_OK_CHUNKED = _OK + b"Transfer-Encoding: chunked\r\n\r\n"

DIFFERENCES = (
    # We refuse, h11 does not.
    Difference(
        "bare line feed",
        "RFC 9112 section 2.2 allows to take a bare LF for a line's end; who does not take it reads another message",
        _in_fields(rb"(?<!\r)\n"),
        (
            (None, b"GET / HTTP/1.1\nHost: a\r\n\r\n"),
            (None, b"GET / HTTP/1.1\r\nHost: a\r\n\n"),
            (None, _CHUNKED + b"0\r\nA: b\n\r\n"),
            ("GET", b"HTTP/1.1 204 OK\r\nA: b\nC: d\r\n\r\n"),
        ),
    ),
    Difference(
        "obsolete folding",
        "RFC 9112 section 5.2: a server must refuse or unfold it; for a proxy, refusing is safe",
        _in_fields(rb"\n[ \t]"),
        (
            (None, b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n"),
            (None, _CHUNKED + b"0\r\nA: b\r\n\tc\r\n\r\n"),
            ("GET", b"HTTP/1.1 204 OK\r\nA: b\r\n c\r\n\r\n"),
        ),
    ),
    Difference(
        "control characters",
        "RFC 9110 section 5.5 and RFC 9112 section 4: neither a field's value nor a reason has any but HTAB",
        _in_fields(rb"[\x01-\x08\x0e-\x1f\x7f]"),
        (
            (None, b"GET / HTTP/1.1\r\nHost: a\r\nA: \x01b\r\n\r\n"),
            (None, _CHUNKED + b"0\r\nA: b\x7f\r\n\r\n"),
            ("GET", b"HTTP/1.1 204 O\x01K\r\n\r\n"),
        ),
    ),
    Difference(
        "several lengths, all alike",
        "RFC 9110 section 8.6 and RFC 9112 section 6.3: to refuse or to merge; the next parser may do neither",
        _length_is_a_list,
        (
            (None, _POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na"),
            (None, _POST + b"Content-Length: 1, 1\r\n\r\na"),
            ("HEAD", _OK + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n"),
        ),
    ),
    Difference(
        "a length of more than 18 digits",
        "RFC 9110 section 8.6: parse without overflow; a peer's 64 bits are the bound, zeros included",
        _length_has_many_digits,
        (
            (None, _POST + b"Content-Length: 0000000000000000001\r\n\r\na"),
            ("HEAD", _OK + b"Content-Length: 1000000000000000000\r\n\r\n"),
        ),
    ),
    Difference(
        "both framings",
        "RFC 9112 section 6.1: ought to be handled as an error, and a server may refuse it",
        _both_framings,
        (
            (None, _POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            ("GET", _OK + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n"),
            ("HEAD", _OK + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n"),
        ),
    ),
    Difference(
        "Transfer-Encoding with HTTP/1.0",
        "RFC 9112 section 6.1: its framing must be treated as faulty",
        _codings_of_http_1_0,
        (
            (None, b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            ("GET", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ),
    ),
    Difference(
        "another version",
        "RFC 9110 sections 2.5 and 15.6.6: a version that is not spoken is a 505; h11 takes any digits",
        _another_version,
        ((None, b"GET / HTTP/1.2\r\nHost: a\r\n\r\n"), ("GET", b"HTTP/2.0 204 OK\r\n\r\n")),
    ),
    Difference(
        "a method that llhttp does not know",
        "RFC 9110 section 9.1: an unrecognized method is a 501; h11 leaves that to its user",
        _method_of_nobody,
        ((None, b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n"), (None, b"get / HTTP/1.1\r\nHost: a\r\n\r\n")),
    ),
    Difference(
        "a target of no form",
        "RFC 9112 section 3.2: h11 takes any visible characters",
        _target_of_no_form,
        ((None, b"PROPFIND a HTTP/1.1\r\nHost: a\r\n\r\n"),),
    ),
    Difference(
        "a status beyond 599",
        "RFC 9110 section 15: not valid; a proxy that passed it on would vouch for it",
        _status_beyond,
        (("GET", b"HTTP/1.1 600 X\r\nContent-Length: 0\r\n\r\n"),),
    ),
    Difference(
        "a chunk size of more than 15 digits",
        "RFC 9112 section 7.1: anticipate large numerals; 60 bits fit every peer's integers",
        _in_chunk_lines(rb"\A[0-9A-Fa-f]{16,}"),
        ((None, _CHUNKED + b"0000000000000001\r\na\r\n0\r\n\r\n"),),
    ),
    Difference(
        "a control character in a chunk extension",
        "RFC 9112 section 7.1.1: names and values are tokens or quoted strings, which have none",
        _in_chunk_lines(rb";.*[\x00-\x08\x0a-\x1f\x7f]"),
        (
            (None, _CHUNKED + b"1;a\rb\r\na\r\n0\r\n\r\n"),
            ("GET", _OK_CHUNKED + b"0;\x00\r\n\r\n"),
        ),
    ),
    Difference(
        "white space behind a chunk size",
        "RFC 9112 section 7.1: there is none; h11 is lenient toward old servers",
        _in_chunk_lines(rb"\A[0-9A-Fa-f]+[ \t]+\Z"),
        ((None, _CHUNKED + b"1 \r\na\r\n0\r\n\r\n"), ("GET", _OK_CHUNKED + b"0\t\r\n\r\n")),
    ),
    Difference(
        "a long chunk line",
        "RFC 9112 section 7.1.1: limit the length of extensions",
        _long_chunk_line,
        ((None, _CHUNKED + b"0;" + b"x" * MAX_CHUNK_LINE + b"\r\n\r\n"),),
    ),
    Difference(
        "long trailers",
        "RFC 9110 section 5.4: a server may bound the fields it takes; trailers are held until they are whole",
        _long_trailers,
        (
            (None, _CHUNKED + b"0\r\nA: " + b"x" * MAX_TRAILERS + b"\r\n\r\n"),
            ("GET", _OK_CHUNKED + b"0\r\nA: " + b"x" * MAX_TRAILERS + b"\r\n\r\n"),
        ),
    ),
    # h11 refuses, we do not.
    Difference(
        "missing or repeated Host",
        "RFC 9112 section 3.2: it is refused, but by the server, which knows the target's authority",
        _host,
        (
            (None, b"GET / HTTP/1.1\r\n\r\n"),
            (None, b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"),
        ),
    ),
    Difference(
        "empty lines ahead of a request",
        "RFC 9112 section 2.2: a server should ignore at least one",
        _empty_lines,
        ((None, b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),),
    ),
    Difference(
        "white space ahead of a chunk extension",
        "RFC 9112 section 7.1.1: BWS, which a recipient must parse",
        _space_ahead_of_an_extension,
        ((None, _CHUNKED + b"1 ;a\r\na\r\n0\r\n\r\n"), ("GET", _OK_CHUNKED + b"0\t;a\r\n\r\n")),
    ),
    Difference(
        "framing fields in a trailer section",
        "RFC 9110 section 6.5.1: what must not be a trailer is left out, as it means nothing there",
        _framing_in_trailers,
        (
            (None, _CHUNKED + b"0\r\nTransfer-Encoding: gzip\r\n\r\n"),
            ("GET", _OK_CHUNKED + b"0\r\nContent-Length: a\r\n\r\n"),
        ),
    ),
    Difference(
        "an unknown coding of an answer without content",
        "RFC 9112 section 6.3, first rule: there is no content, whatever the head says of its coding",
        _coding_without_content,
        (
            ("HEAD", _OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n"),
            ("GET", b"HTTP/1.1 304 X\r\nTransfer-Encoding: gzip\r\n\r\n"),
        ),
    ),
    # Both accept; the meaning differs.
    Difference(
        "the case of a coding",
        "RFC 9112 section 7: names of codings have none; we keep the field as it came",
        _kind(_lower_coding),
        ((None, _POST + b"Transfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n"),),
    ),
    Difference(
        "fields that Connection names",
        "RFC 9110 section 7.6.1: an intermediary must take them away",
        _kind(_drop_named),
        (
            (None, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x-a\r\nX-A: b\r\n\r\n"),
            ("GET", b"HTTP/1.1 204 OK\r\nConnection: close, A\r\nA: b\r\n\r\n"),
            (None, _POST + b"Connection: x-a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-A: b\r\n\r\n"),
        ),
    ),
    Difference(
        "trailers that must not be trailers",
        "RFC 9110 section 6.5.1: a proxy may discard trailers, and merging these would be harmful",
        _kind(_drop_trailers),
        ((None, _CHUNKED + b"0\r\nHost: b\r\nA: b\r\n\r\n"), ("GET", _OK_CHUNKED + b"0\r\nSet-Cookie: b\r\n\r\n")),
    ),
    Difference(
        "HTTP/1.0 that keeps the connection",
        "RFC 9112 section 9.3: keep-alive may be honoured; h11 never does",
        _kind(_forget_old_keep_alive),
        (
            (None, b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
            ("GET", b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 0\r\n\r\n"),
        ),
    ),
)


def explanations(case: Case) -> list[str]:
    """Return the names of the differences that explain `case`; it is a bug where there are none."""
    return [difference.name for difference in DIFFERENCES if difference.sign(case)]
