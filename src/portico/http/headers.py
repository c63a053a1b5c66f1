"""Header fields: ordered, case-insensitive, bytes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

Pair = tuple[bytes, bytes]

HOP_BY_HOP: Final[frozenset[bytes]] = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
"""Fields that speak of one connection and never pass through (RFC 9110 section 7.6.1, and RFC 2616's list)."""

_DROPS: Final = 8
"""Ways to leave fields out of which a block remembers what that makes of it."""

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FORBIDDEN_IN_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def check_name(name: bytes) -> bytes:
    """Return `name` if it is a header name (RFC 9110 section 5.1), or raise ValueError."""
    if _TOKEN.fullmatch(name) is None:
        raise ValueError(f"{name!r} is not a header name")
    return name


def check_value(value: bytes) -> bytes:
    """Return `value` if it may stand in a header (RFC 9110 section 5.5), or raise ValueError.

    A line break or another control character would let whoever chose the value forge header lines.
    """
    if _FORBIDDEN_IN_VALUE.search(value) is not None:
        raise ValueError("a header value has a control character in it")
    return value


def spelled(name: bytes) -> bytes:
    """Return the name of a field in the one way that stands for all that a service may take for the same name."""
    return name.lower().replace(b"_", b"-")


class HeaderBlock:
    """Header fields that were checked once, to be set on many messages. A name that stands twice has its last value, as
    where one is set after the other."""

    __slots__ = ("_lines", "index", "mark", "pairs", "start", "start_of")

    def __init__(self, fields: Iterable[Pair]) -> None:
        headers = Headers()
        for name, value in fields:
            headers.set(name, value)
        self._take(headers)

    @classmethod
    def of(cls, headers: Headers) -> HeaderBlock:
        """Return the fields of a message as a block, as they are: a name may stand twice."""
        block = cls(())
        block._take(headers.copy())
        return block

    def _take(self, headers: Headers) -> None:
        self.pairs = headers.pairs
        """All of them. Messages that have nothing else share this, so it never changes; nor does `index`."""
        self.index = headers.index
        self._lines: list[tuple[frozenset[bytes], bytes]] = []
        self.start = b""
        """What the last answer that had nothing else began with, for the codec that has written it."""
        self.start_of = (0, 0)
        """That answer's status, and the length of its content."""
        self.mark: object = None
        """Whoever has looked at all of the fields may leave something here by which that is known again."""

    def lines(self, drop: frozenset[bytes]) -> bytes:
        """Return the header lines of a message that has nothing else, without those in `drop` and without the last line
        break; they are made once for each `drop`, and remembered by which object that is."""
        for known, lines in self._lines:
            if known is drop:
                return lines
        lines = b"\r\n".join([name + b": " + value for name, value in self.pairs if name.lower() not in drop])
        if len(self._lines) >= _DROPS:
            self._lines.clear()
        self._lines.append((drop, lines))
        return lines

    def __repr__(self) -> str:
        return f"HeaderBlock({self.pairs!r})"


class Headers:
    """The header fields of one message, in order, with the case that their names came with.

    `pairs` is the truth, for reading only; `index` maps each lower-case name to its first value, so that a lookup is
    one step. Where no name stands twice, both have the same order, and can be walked side by side. Both are others once
    something is changed: nobody may keep hold of one of them beyond that.

    The methods that look up or remove take names in lower case, which every caller knows at writing time. Names and
    values given to `set` and `add` are checked, so no policy can forge a header line by accident.
    """

    __slots__ = ("base", "block", "index", "pairs")

    def __init__(self, pairs: Iterable[Pair] = (), block: HeaderBlock | None = None) -> None:
        """Hold `pairs`, or be all that a block says."""
        self.block: HeaderBlock | None = block
        """The block that these are, and share, as long as nothing else is said."""
        self.base: HeaderBlock | None = None
        """The block that these begin with, once something was added behind it, until something of it is changed."""
        self.pairs: list[Pair] = [] if block is None else block.pairs
        self.index: dict[bytes, bytes] = {} if block is None else block.index
        if pairs:  # most begin empty, and even an empty loop costs
            for name, value in pairs:
                self.add(name, value)

    def put_parsed(self, name: bytes, value: bytes) -> None:
        """Add a value that a parser has checked."""
        if self.block is not None:
            self._part()
        self.pairs.append((name, value))
        self.index.setdefault(name.lower(), value)

    def get(self, name: bytes) -> bytes | None:
        """Return the first value of `name` (lower case), or None."""
        return self.index.get(name)

    def text(self, name: bytes) -> str | None:
        """Return the first value of `name` (lower case) as text, or None."""
        value = self.index.get(name)
        return None if value is None else value.decode("latin-1")

    def get_all(self, name: bytes) -> list[bytes]:
        """Return every value of `name` (lower case), in order."""
        if name not in self.index:
            return []
        return [value for key, value in self.pairs if key.lower() == name]

    def set(self, name: bytes, value: bytes) -> None:
        """Make `value` the only value of `name`, which is written with the case given here."""
        self._put(check_name(name), name.lower(), check_value(value))

    def put(self, key: bytes, value: bytes) -> None:
        """Make `value`, which is sound, the only value of `key` (lower case), in the place and the case of the one that
        it has: what `set` does, for what stands in most messages and is another in each."""
        if self.block is not None:
            self._part()
        index, pairs = self.index, self.pairs
        old = index.get(key)
        if old is None:
            pairs.append((key, value))
            index[key] = value
        elif len(index) != len(pairs):
            self._put(key, key, value)
        else:
            self.base = None
            at = 0
            for pair in pairs:  # the index has the very object, which is found more quickly than a name of any case
                if pair[1] is old and pair[0].lower() == key:
                    break
                at += 1
            assert at < len(pairs)
            pairs[at] = (pairs[at][0], value)
            index[key] = value

    def shared(self) -> Headers:
        """Return Headers that say the same, and share it with all their copies until one of these says more."""
        return Headers(block=HeaderBlock.of(self) if self.block is None else self.block)

    def set_block(self, block: HeaderBlock) -> None:
        """Set each field of a block that was checked at load."""
        if not self.pairs:
            self.pairs, self.index, self.block = block.pairs, block.index, block
            return
        if self.block is not None:
            self._part()
        index = self.index
        for key in block.index:
            if key in index:
                self.remove(key)
        self.pairs += block.pairs
        index.update(block.index)

    def add(self, name: bytes, value: bytes) -> None:
        """Add a value to `name`, after those that it has."""
        pair = (check_name(name), check_value(value))
        if self.block is not None:
            self._part()
        self.pairs.append(pair)
        self.index.setdefault(name.lower(), value)

    def remove(self, name: bytes) -> None:
        """Remove every value of `name` (lower case); nothing happens where it has none."""
        if name in self.index:
            if self.block is not None:
                self._part()
            self.base = None
            del self.index[name]
            self.pairs = [pair for pair in self.pairs if pair[0].lower() != name]

    def copy(self) -> Headers:
        """Return Headers that change apart from these."""
        if self.block is not None:
            return Headers(block=self.block)
        other = Headers()
        other.pairs = self.pairs.copy()
        other.index = self.index.copy()
        other.base = self.base
        return other

    def _part(self) -> None:
        """Have copies of one's own, ahead of the first change, of what the block has."""
        self.base, self.block = self.block, None
        self.pairs = self.pairs.copy()
        self.index = self.index.copy()

    def _put(self, name: bytes, key: bytes, value: bytes) -> None:
        if self.block is not None:
            self._part()
        if self.index.pop(key, None) is not None:
            self.base = None
            self.pairs = [pair for pair in self.pairs if pair[0].lower() != key]
        self.pairs.append((name, value))
        self.index[key] = value

    def __contains__(self, name: object) -> bool:
        return name in self.index

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Headers) and self.pairs == other.pairs

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Headers({self.pairs!r})"
