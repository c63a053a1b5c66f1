"""How many are at something at once: the record of who has how many places of a key.

A key has some places, and each of its holders, such as a worker, says how many of them it has, and how many more it
would like; it is given what there is room for. A holder says its number whole, and not what has changed: what was not
heard, or heard twice, is mended by the next word. One that is not heard of for its time to live has ended, and its
places are free.

Every engine has the same record and comes to the same: by `hold`, or inside of a Redis by `SCRIPT`, which is the same
once more in Lua. Times are whole microseconds since 1970, and numbers are doubles, as in `portico.state.limits`.

A clock may go back. What holds good for longer than two times to live from now was written by a clock that was wrong,
and is forgotten; its holder, if there is one, will say it again.
"""

from __future__ import annotations

import math
from struct import Struct
from typing import Final, NamedTuple

ID: Final = 8
"""The bytes by which a holder is known; they are drawn by lot."""

MOST: Final = 1024
"""The most holders of a key; one more is given nothing."""

_ENTRY: Final = Struct(f"<{ID}sdd")
"""A holder, how many places it has, and until when that holds good."""

_SIZE: Final = _ENTRY.size
_FULL: Final = MOST * _SIZE

_MICRO: Final = 1_000_000


class Held(NamedTuple):
    """What came of a word to a key."""

    granted: int
    """How many places were given beside those that the holder had."""
    total: int
    """How many are taken now, by all holders together."""
    wait: float
    """The seconds after which places will be free, if nobody says or gives back anything; 0 where none is taken."""


def hold(
    record: bytes, holder: bytes, count: int, wanted: int, most: int, now: float, ttl: float
) -> tuple[bytes, Held, float]:
    """Return the record in which `holder` has `count` places, and of those `wanted` as many as there are below `most`;
    what came of that; and when the record can be forgotten. `ttl` is seconds; a record without holders is empty.
    """
    lives = ttl * _MICRO // 1
    kept = b""
    others = 0.0
    first, last = math.inf, now
    for at in range(0, len(record), _SIZE):
        who, number, until = _ENTRY.unpack_from(record, at)
        if who != holder and now < until <= now + 2 * lives:
            kept += record[at : at + _SIZE]
            others += number
            first, last = min(first, until), max(last, until)
    granted, mine = 0, count
    if len(kept) < _FULL:
        granted = max(0, min(wanted, most - int(others) - count))
        mine += granted
        if mine > 0:
            until = now + lives
            kept += _ENTRY.pack(holder, mine, until)
            first, last = min(first, until), max(last, until)
    return kept, Held(granted, int(others) + mine, (first - now) / _MICRO if kept else 0.0), last


def arguments(holder: bytes, count: int, wanted: int, most: int, ttl: float) -> tuple[bytes, ...]:
    """Return what the script is told beside the time."""
    return holder, b"%d" % count, b"%d" % wanted, b"%d" % most, b"%d" % math.floor(ttl * _MICRO)


SCRIPT: Final = b"""
local now, holder, count = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local wanted, most, lives = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local held = redis.call('GET', KEYS[1]) or ''
local kept, others, first, last = {}, 0, 0, 0
local function keep(entry, till)
  kept[#kept + 1] = entry
  if first == 0 or till < first then first = till end
  if till > last then last = till end
end
for at = 1, #held - 23, 24 do
  local who, number, till = struct.unpack('<c8dd', held, at)
  if who ~= holder and now < till and till <= now + 2 * lives then
    keep(string.sub(held, at, at + 23), till)
    others = others + number
  end
end
local granted, mine = 0, count
if #kept < 1024 then
  granted = math.max(0, math.min(wanted, most - others - count))
  mine = mine + granted
  if mine > 0 then keep(struct.pack('<c8dd', holder, mine, now + lives), now + lives) end
end
if #kept > 0 then
  redis.call('SET', KEYS[1], table.concat(kept), 'PX', string.format('%.0f', math.ceil((last - now) / 1000)))
elseif held ~= '' then
  redis.call('DEL', KEYS[1])
end
return {granted, others + mine, first > 0 and first - now or 0}
"""
"""`hold` inside of a Redis. KEYS has the record's key; ARGV has the time, or nothing for the Redis's own, and what
`arguments` returns. It returns what was granted, how many are taken, and the microseconds until places are free."""
