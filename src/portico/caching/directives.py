"""Cache directives (RFC 9111 section 5.2), read with the leniency that the section asks for, and no more.

What stands twice, or cannot be read, means the most restrictive thing that it can mean: `max-age=60, max-age=5` is 5
seconds, and `max-age=soon` is none. Section 4.2.1 leaves that open. nginx takes the first of several in one line; a
quoted number, or one with something after it, it does not keep by either, and `private` and `no-cache` with fields it
takes for those without.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from portico.caching import fields
from portico.caching.structured import Member, dictionary
from portico.http.headers import Headers

LONGEST: Final = 2**31
"""Seconds that stand for all that are more (RFC 9111 section 1.2.2)."""
ANY: Final = float("inf")
"""What `max-stale` without a number allows."""
_DIGITS: Final = re.compile(rb"[0-9]+")
_NO_NAMES: Final[frozenset[bytes]] = frozenset()
_UNPARTED: Final = frozenset(
    b"age cache-control connection content-encoding content-length content-range content-type date expires"
    b" transfer-encoding vary".split()
)
"""Fields without which an answer cannot be kept; who takes one of them back has taken back all."""


class ResponseDirectives(NamedTuple):
    """What an answer says of its being kept."""

    no_store: bool = False
    no_cache: bool = False
    private: bool = False
    public: bool = False
    must_revalidate: bool = False
    proxy_revalidate: bool = False
    must_understand: bool = False
    immutable: bool = False
    """RFC 8246."""
    max_age: int | None = None
    s_maxage: int | None = None
    stale_while_revalidate: int | None = None
    """RFC 5861 section 3."""
    stale_if_error: int | None = None
    """RFC 5861 section 4."""
    unkept: frozenset[bytes] = _NO_NAMES
    """Fields that `private` or `no-cache` name: they are not kept, and the rest may be (sections 5.2.2.4, 5.2.2.7)."""

    @property
    def shares(self) -> bool:
        """Whether it allows a shared cache to keep what was asked for with Authorization (RFC 9111 section 3.5)."""
        return self.public or self.must_revalidate or self.s_maxage is not None


class RequestDirectives(NamedTuple):
    """What a request says of what it may be answered with."""

    no_store: bool = False
    no_cache: bool = False
    only_if_cached: bool = False
    max_age: int | None = None
    min_fresh: int | None = None
    max_stale: float | None = None
    stale_if_error: int | None = None


NOTHING_ASKED: Final = RequestDirectives()
NOTHING_SAID: Final = ResponseDirectives()


def request_directives(headers: Headers) -> RequestDirectives:
    """Return what a request asks of caches. A number that is none asks for nothing: clients are only advised to ask.

    `Pragma` counts where there is no Cache-Control (RFC 9111 section 5.4, and RFC 7234 before it).
    """
    if b"cache-control" not in headers.index:
        if b"pragma" in headers.index:
            return RequestDirectives(no_cache=b"no-cache" in _by_name(fields.members_of(headers, b"pragma")))
        return NOTHING_ASKED
    said = _by_name(fields.members_of(headers, b"cache-control"))
    max_stale: float | None = _least(said.get(b"max-stale"), None)
    if max_stale is None and None in said.get(b"max-stale", ()):
        max_stale = ANY
    fresh = [seconds for seconds in map(_seconds, said.get(b"min-fresh", ())) if seconds is not None]
    return RequestDirectives(
        b"no-store" in said,
        b"no-cache" in said,
        b"only-if-cached" in said,
        _least(said.get(b"max-age"), None),
        max(fresh, default=None),
        max_stale,
        _least(said.get(b"stale-if-error"), None),
    )


def response_directives(headers: Headers) -> ResponseDirectives:
    """Return what the Cache-Control of an answer says."""
    if b"cache-control" not in headers.index:
        return NOTHING_SAID
    said = _by_name(fields.members_of(headers, b"cache-control"))
    private, private_fields = _parted(said.get(b"private"))
    no_cache, no_cache_fields = _parted(said.get(b"no-cache"))
    return ResponseDirectives(
        no_store=b"no-store" in said,
        no_cache=no_cache,
        private=private,
        public=b"public" in said,
        must_revalidate=b"must-revalidate" in said,
        proxy_revalidate=b"proxy-revalidate" in said,
        must_understand=b"must-understand" in said,
        immutable=b"immutable" in said,
        max_age=_least(said.get(b"max-age"), 0),
        s_maxage=_least(said.get(b"s-maxage"), 0),
        stale_while_revalidate=_least(said.get(b"stale-while-revalidate"), 0),
        stale_if_error=_least(said.get(b"stale-if-error"), 0),
        unkept=private_fields | no_cache_fields,
    )


def targeted_directives(headers: Headers, targets: Iterable[bytes]) -> ResponseDirectives | None:
    """Return what the first of the fields `targets` says that is well formed and not empty (RFC 9213 section 2.2).

    These are structured fields: an error anywhere in one and all of it counts for nothing, and so does Cache-Control
    where one of them counts. A value of another type than the directive has is taken as one that cannot be read.
    """
    for name in targets:
        if name in headers.index:
            said = dictionary(b",".join(headers.get_all(name)))
            if said:
                return _targeted(said)
    return None


def _targeted(said: Mapping[bytes, Member]) -> ResponseDirectives:
    private, private_fields = _parted(_texts(said, b"private"))
    no_cache, no_cache_fields = _parted(_texts(said, b"no-cache"))
    return ResponseDirectives(
        no_store=b"no-store" in said,
        no_cache=no_cache,
        private=private,
        public=said.get(b"public") is True,
        must_revalidate=b"must-revalidate" in said,
        proxy_revalidate=b"proxy-revalidate" in said,
        must_understand=said.get(b"must-understand") is True,
        immutable=said.get(b"immutable") is True,
        max_age=_number(said, b"max-age"),
        s_maxage=_number(said, b"s-maxage"),
        stale_while_revalidate=_number(said, b"stale-while-revalidate"),
        stale_if_error=_number(said, b"stale-if-error"),
        unkept=private_fields | no_cache_fields,
    )


def _number(said: Mapping[bytes, Member], name: bytes) -> int | None:
    if name not in said:
        return None
    value = said[name]
    return min(max(value, 0), LONGEST) if isinstance(value, int) and not isinstance(value, bool) else 0


def _texts(said: Mapping[bytes, Member], name: bytes) -> Sequence[bytes | None] | None:
    if name not in said:
        return None
    value = said[name]
    return (value if isinstance(value, bytes) else None,)


def _by_name(members: Iterable[bytes]) -> dict[bytes, list[bytes | None]]:
    """Return the arguments of each directive, by its name in lower case; None is one without."""
    said: dict[bytes, list[bytes | None]] = {}
    for member in members:
        name, equals, argument = member.partition(b"=")
        value = fields.unquoted(argument.strip(b" \t")) if equals else None
        said.setdefault(name.strip(b" \t").lower(), []).append(value)
    return said


def delta_seconds(value: bytes) -> int | None:
    """Return a number of seconds (RFC 9111 section 1.2.2), at most LONGEST, or None where it is none."""
    if _DIGITS.fullmatch(value) is None:
        return None
    digits = value.lstrip(b"0")
    return min(int(digits or b"0"), LONGEST) if len(digits) <= 10 else LONGEST  # more take time to be read


def _seconds(argument: bytes | None) -> int | None:
    return None if argument is None else delta_seconds(argument)


def _least(arguments: Sequence[bytes | None] | None, unreadable: int | None) -> int | None:
    """Return the smallest of the numbers; `unreadable` stands for those that are none, None for no number at all."""
    if arguments is None:
        return None
    numbers = [unreadable if (seconds := _seconds(argument)) is None else seconds for argument in arguments]
    return min((number for number in numbers if number is not None), default=None)


def _parted(arguments: Sequence[bytes | None] | None) -> tuple[bool, frozenset[bytes]]:
    """Return whether a directive that may name fields speaks of the whole answer, and which fields it names.

    Names that cannot be read, or that the cache itself lives by, and an empty list, speak of the whole answer.
    """
    if arguments is None:
        return False, _NO_NAMES
    named: frozenset[bytes] = _NO_NAMES
    for argument in arguments:
        found = None if argument is None else fields.names((argument,))
        if not found or not found.isdisjoint(_UNPARTED):
            return True, _NO_NAMES
        named |= found
    return False, named
