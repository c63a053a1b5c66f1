"""What is written down of the answers for one URI: one record for all of them, and others for large contents.

A record begins with the length of what is told of the answers, as JSON; small contents follow it. A large one is in
parts under a name of its own, which no other content ever has: parts that are not those of the answer are not found.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Any, Final

import orjson

from portico.caching.freshness import Life
from portico.caching.stored import Stored
from portico.http.headers import Headers
from portico.state.store import LARGEST_VALUE

INLINE: Final = 16 * 1024
"""The most bytes of a content that stand in the record itself."""

PART: Final = LARGEST_VALUE
"""The bytes of each part of a larger one, but for the last."""

MOST_VARIANTS: Final = 16
"""The most answers for one URI; of more, those go that came longest ago."""

_VERSION: Final = 2
_HEAD: Final = Struct("<BI")


@dataclass(frozen=True, slots=True)
class Entry:
    """One answer that is kept, and what has to be known of it beside what HTTP says."""

    stored: Stored
    route: str
    """The route that it is of: what another answers by other headers must not be taken for it."""
    asked: float
    """When the service was asked for it, or whether it is still good; seconds since 1970."""
    length: int
    """The bytes of its content."""
    content: bytes | None
    """All of its content; None while it is only in the store."""
    implied: bool = False
    """Whether it does not say by itself for how long it is fresh."""
    for_all: bool = False
    """Whether it says that others may have what was asked for in somebody's name."""
    tags: tuple[bytes, ...] = ()
    """By which it is purged."""
    name: bytes = b""
    """What its parts are called; empty where its content is in the record."""
    parts_until: float = 0.0
    """When its parts expire."""

    @property
    def size(self) -> int:
        """Nearly the bytes that it takes in memory."""
        fields = sum(len(name) + len(value) for name, value in self.stored.headers.pairs)
        return 600 + 2 * fields + 120 * len(self.stored.headers.pairs) + len(self.content or b"")

    def with_content(self, content: bytes) -> Entry:
        """Return it with all of its content."""
        return dataclasses.replace(self, content=content)


def is_same(one: Entry, other: Entry) -> bool:
    """Whether two answers are for the same requests."""
    return (
        one.route == other.route and one.stored.vary == other.stored.vary and one.stored.variant == other.stored.variant
    )


def parts_of(content: bytes) -> Iterator[bytes]:
    """Iterate over the parts of a large content."""
    for at in range(0, len(content), PART):
        yield content[at : at + PART]


def part_key(place: bytes, name: bytes, number: int) -> bytes:
    """Return the key of a part."""
    return b"%b%b%d" % (place, name, number)


def part_sizes(length: int) -> Iterator[int]:
    """Iterate over how many bytes each part of a large content has."""
    for at in range(0, length, PART):
        yield min(PART, length - at)


def encode(entries: Sequence[Entry]) -> bytes:
    """Return the record of the answers for one URI; of those that there is no room for, the oldest are left out."""
    kept = sorted(entries, key=lambda entry: entry.stored.received)[-MOST_VARIANTS:]
    while True:
        told = orjson.dumps([_told(entry) for entry in kept])
        contents = [entry.content for entry in kept if not entry.name and entry.content is not None]
        record = b"".join((_HEAD.pack(_VERSION, len(told)), told, *contents))
        if len(record) <= LARGEST_VALUE or not kept:
            return record
        del kept[0]


def decode(record: bytes) -> tuple[Entry, ...]:
    """Return the answers of a record: none where it is of another version, or not whole."""
    try:
        if len(record) < _HEAD.size:
            return ()
        version, size = _HEAD.unpack_from(record)
        if version != _VERSION:
            return ()
        at = _HEAD.size + size
        entries = []
        for told in orjson.loads(record[_HEAD.size : at]):
            entry = _entry(told)
            if not entry.name:
                content = record[at : at + entry.length]
                at += entry.length
                if len(content) != entry.length:
                    return ()
                entry = entry.with_content(content)
            entries.append(entry)
    except (ValueError, TypeError, KeyError, IndexError, ArithmeticError):
        return ()
    return tuple(entries)


def _told(entry: Entry) -> list[Any]:
    stored = entry.stored
    return [
        stored.status,
        [(_text(name), _text(value)) for name, value in stored.headers.pairs],
        stored.date,
        stored.received,
        stored.initial_age,
        list(stored.life),
        [_text(name) for name in stored.vary],
        stored.variant.hex(),
        stored.invalid,
        entry.route,
        entry.asked,
        entry.length,
        entry.implied,
        entry.for_all,
        [_text(tag) for tag in entry.tags],
        entry.name.hex(),
        entry.parts_until,
    ]


def _entry(told: list[Any]) -> Entry:
    (status, pairs, date, received, age, life, vary, variant, invalid, *more) = told
    route, asked, length, implied, for_all, tags, name, parts_until = more
    headers = Headers()
    for field, value in pairs:
        headers.put_parsed(field.encode("latin-1"), value.encode("latin-1"))
    stored = Stored(
        status,
        headers,
        date,
        received,
        age,
        Life(*life),
        tuple(each.encode("latin-1") for each in vary),
        bytes.fromhex(variant),
        invalid,
    )
    its_tags = tuple(tag.encode("latin-1") for tag in tags)
    return Entry(stored, route, asked, length, None, implied, for_all, its_tags, bytes.fromhex(name), parts_until)


def _text(value: bytes) -> str:
    return value.decode("latin-1")
