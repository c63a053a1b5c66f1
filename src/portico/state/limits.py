"""How often something may happen: the arithmetic of limits, and the record of what has happened.

All limits of one key are one record, and a check is all or nothing: where one of them refuses, none has counted it.
Every engine has the same record and comes to the same verdict: by `Limits`, or inside of a Redis by `SCRIPT`, which is
the same once more in Lua.

Times are whole microseconds since 1970. All numbers are doubles, which are exact for whole numbers up to 2**53 and
rounded alike by Python and Lua where they are not whole, so that both come to the same to the last bit.

A clock may go back, and those of several machines differ a little. What was counted later than now counts as now; what
was counted more than a period later than now was counted by a clock that was wrong, and is forgotten.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from struct import Struct
from typing import Final, NamedTuple, TypeAlias

_MICRO: Final = 1_000_000
_NUMBERS: Final = 3
"""What each limit has of a record: what is used, since when, and what was used in the window before."""

_LONGEST: Final = 10**15
"""Milliseconds that a Redis is told to keep a record at most; from some thousand times as many on it refuses to."""

_AGES: Final = 2**33
"""Seconds of a window that begins in 1970, and ends in 2242."""


class Rate(NamedTuple):
    """So many in a period, evenly: the generic cell rate algorithm, as a leaky bucket (ITU-T I.371, annex A).

    After a pause `burst` may come at once, `amount` of them unless given; what is used comes back steadily.
    """

    amount: int
    period: float
    """Seconds."""
    burst: int = 0


class SlidingWindow(NamedTuple):
    """So many in any period, nearly: of the window before, as much counts as the period that ends now has of it."""

    amount: int
    period: float


class FixedWindow(NamedTuple):
    """So many in a period that begins by the clock, such as at each full hour, in UTC."""

    amount: int
    period: float


class Total(NamedTuple):
    """So many in all: nothing comes back while the record lives, as for a key that names its period."""

    amount: int
    lives: float
    """Seconds that the record lives after the last that it has counted."""


Limit: TypeAlias = Rate | SlidingWindow | FixedWindow | Total


class _Rule:
    """One limit at work. `used` is counted in units of which one request takes `weight`."""

    kind = ""

    def __init__(self, weight: int, capacity: int, drain: int, period: int) -> None:
        self.weight = float(weight)
        self.capacity = float(capacity)
        self.drain = float(drain)
        """What comes back in a microsecond."""
        self.period = float(period)
        self.lives = self.period
        """The microseconds after which nothing of what was used matters any more."""

    def age(self, state: list[float], at: int, now: float) -> float:
        """Bring what `state` has at `at` to what it is now, and return how much of the limit is used."""
        raise NotImplementedError

    def used(self, state: list[float], at: int, now: float) -> float:
        """Return how much of the limit is used, by a state that was brought to `now`."""
        return state[at]

    def lasts(self, used: float) -> float:
        """Return the microseconds for which so much used matters, which may be more than the limit has."""
        return self.lives

    def backlog(self, used: float, since: float, now: float) -> float:
        """Return the microseconds in which so much used comes back at an even rate; 0 where there is none."""
        return 0.0

    def reset(self, used: float, since: float, before: float, now: float) -> float:
        """Return the microseconds after which all of it is free again, if nothing comes; infinity where it never is."""
        raise NotImplementedError

    def wait(self, used: float, since: float, before: float, now: float, wanted: float) -> float:
        """Return the microseconds after which `wanted` fits, if nothing comes; infinity where it never does."""
        raise NotImplementedError


class _Bucket(_Rule):
    kind = "bucket"

    def __init__(self, limit: Rate) -> None:
        period = round(limit.period * _MICRO)
        # In these units what comes back in a microsecond is a whole number, so that nothing is ever rounded.
        common = math.gcd(period, limit.amount)
        weight = period // common
        super().__init__(weight, (limit.burst or limit.amount) * weight, limit.amount // common, period)
        self.lives = self.capacity / self.drain

    def age(self, state: list[float], at: int, now: float) -> float:
        elapsed = now - state[at + 1]
        used = state[at]
        if elapsed >= 0.0:
            used -= elapsed * self.drain
            if used < 0.0:
                used = 0.0
            state[at + 1] = now
        elif -elapsed > self.period:
            used = 0.0
            state[at + 1] = now
        state[at] = used
        return used

    def lasts(self, used: float) -> float:
        return max(self.lives, used / self.drain)

    def backlog(self, used: float, since: float, now: float) -> float:
        return used / self.drain + max(0.0, since - now)

    def reset(self, used: float, since: float, before: float, now: float) -> float:
        return used / self.drain + max(0.0, since - now)

    def wait(self, used: float, since: float, before: float, now: float, wanted: float) -> float:
        if wanted > self.capacity:
            return math.inf
        missing = used + wanted - self.capacity
        return missing / self.drain + max(0.0, since - now) if missing > 0.0 else 0.0


class _Window(_Rule):
    kind = "window"

    def __init__(self, limit: SlidingWindow | FixedWindow) -> None:
        super().__init__(1, limit.amount, 0, round(limit.period * _MICRO))

    def age(self, state: list[float], at: int, now: float) -> float:
        start = now - now % self.period
        since = state[at + 1]
        if start > since:
            state[at + 2] = state[at] if start == since + self.period else 0.0
            state[at] = 0.0
            state[at + 1] = start
        elif since - start > self.period:
            state[at : at + _NUMBERS] = (0.0, start, 0.0)
        return state[at]

    def reset(self, used: float, since: float, before: float, now: float) -> float:
        return since + self.period - now if used else 0.0

    def wait(self, used: float, since: float, before: float, now: float, wanted: float) -> float:
        if wanted > self.capacity:
            return math.inf
        return since + self.period - now if used + wanted > self.capacity else 0.0


class _Sliding(_Window):
    kind = "sliding"

    def __init__(self, limit: SlidingWindow) -> None:
        super().__init__(limit)
        self.lives = 2 * self.period

    def age(self, state: list[float], at: int, now: float) -> float:
        super().age(state, at, now)
        return self.used(state, at, now)

    def used(self, state: list[float], at: int, now: float) -> float:
        used, before = state[at], state[at + 2]
        if before:
            elapsed = now - state[at + 1]
            if elapsed < 0.0:
                elapsed = 0.0
            used += before * ((self.period - elapsed) / self.period)
        return used

    def reset(self, used: float, since: float, before: float, now: float) -> float:
        end = since + self.period - now
        return end + self.period if used else end if before else 0.0

    def wait(self, used: float, since: float, before: float, now: float, wanted: float) -> float:
        room = self.capacity - wanted
        if room < 0.0:
            return math.inf
        if used <= room:  # what is in the way is of the window before, and goes on to count for less
            gone = self.period * (1.0 - (room - used) / before) if before > room - used else 0.0
            return max(0.0, since + gone - now)
        return since + self.period - now + self.period * (1.0 - room / used)


class _Total(_Window):
    """A window that never ends, and so needs no arithmetic of its own."""

    def __init__(self, limit: Total) -> None:
        super().__init__(FixedWindow(limit.amount, _AGES))
        self.lives = float(round(limit.lives * _MICRO))

    def reset(self, used: float, since: float, before: float, now: float) -> float:
        return math.inf if used else 0.0

    def wait(self, used: float, since: float, before: float, now: float, wanted: float) -> float:
        return math.inf if used + wanted > self.capacity else 0.0


def _rule(limit: Limit) -> _Rule:
    if isinstance(limit, Rate):
        return _Bucket(limit)
    if isinstance(limit, Total):
        return _Total(limit)
    return _Sliding(limit) if isinstance(limit, SlidingWindow) else _Window(limit)


class Limits:
    """The limits of one key, ready to be checked."""

    def __init__(self, limits: Sequence[Limit]) -> None:
        for limit in limits:
            if limit.amount < 1 or (limit.lives if isinstance(limit, Total) else limit.period) * _MICRO < 1:
                raise ValueError("a limit is for one or more, in a period that is not 0")
        self.limits = tuple(limits)
        self.rules = tuple(map(_rule, limits))
        self._steps = tuple((rule, number * _NUMBERS, rule.weight) for number, rule in enumerate(self.rules))
        self._fresh = [0.0] * (_NUMBERS * len(limits))
        self._record = Struct(f"<{len(self._fresh)}d")
        self._lasting = Struct(f"<{len(self._fresh) + 1}d")
        self.size = self._record.size
        """The bytes of a record."""
        self.lives = max((rule.lives for rule in self.rules), default=0.0)
        """The microseconds after which a record can be forgotten, unless more was charged than there was."""
        shape = repr([(rule.kind, rule.weight, rule.drain, rule.period) for rule in self.rules])
        self.tag = b"l" + hashlib.blake2b(shape.encode(), digest_size=6).digest()
        """What a record can be found by beside its key: limits that read it otherwise have another one."""
        numbers = [
            (rule.kind, f"{rule.weight:.0f}", f"{rule.capacity:.0f}", f"{rule.drain:.0f}", f"{rule.period:.0f}")
            for rule in self.rules
        ]
        lives = str(min(max(1, math.ceil(self.lives / 1000)), _LONGEST))
        self.arguments = tuple(part.encode() for part in (lives, *(each for rule in numbers for each in rule)))
        """What the script is told of them."""

    def state(self, record: bytes | memoryview | None) -> list[float]:
        """Return what a record of these limits says; what stands behind it does not matter."""
        if record is None:
            return self._fresh.copy()
        return list(self._record.unpack_from(record))

    def record(self, state: list[float]) -> bytes:
        """Return the record of a state."""
        return self._record.pack(*state)

    def record_until(self, state: list[float], expires: float) -> bytes:
        """Return the record of a state, and behind it when that can be forgotten."""
        return self._lasting.pack(*state, expires)

    def take(self, state: list[float], now: float, cost: int = 1) -> bool:
        """Bring a state to `now`, and count `cost` where all limits have room for it; tell whether they had."""
        fits = True
        for rule, at, weight in self._steps:
            if rule.age(state, at, now) + cost * weight > rule.capacity:
                fits = False
        if fits:
            for _, at, weight in self._steps:
                state[at] += cost * weight
        return fits

    def charge(self, state: list[float], now: float, cost: int) -> bool:
        """Bring a state to `now`, and count `cost` whether there is room for it or not; tell whether there was.

        A negative cost gives back what was counted and has not been used; there is never less than nothing used.
        """
        fits = True
        for rule, at, weight in self._steps:
            if rule.age(state, at, now) + cost * weight > rule.capacity:
                fits = False
            state[at] = max(0.0, state[at] + cost * weight)
        return fits

    def lasts(self, state: list[float]) -> float:
        """Return the microseconds after which the record of a state can be forgotten, whatever was charged."""
        return max((rule.lasts(state[at]) for rule, at, _ in self._steps), default=0.0)

    def unknown(self, *, allowed: bool) -> Verdict:
        """Return the verdict where nobody knows what has happened."""
        return Verdict(self, allowed, self._fresh, 0.0, 1)


class Verdict:
    """What came of a check."""

    __slots__ = ("_cost", "_now", "_state", "allowed", "limits")

    def __init__(self, limits: Limits, allowed: bool, state: list[float], now: float, cost: int) -> None:
        self.limits = limits
        self.allowed = allowed
        """Whether all limits had room for it. Only then have they counted it, unless it was charged."""
        self._state = state
        self._now = now
        self._cost = cost

    @property
    def known(self) -> bool:
        """Whether anyone has counted; otherwise nothing but `allowed` means anything."""
        return self._now != 0.0

    @property
    def left(self) -> tuple[int, ...]:
        """How much more could come now, of each limit."""
        return tuple([self.left_of(number) for number in range(len(self.limits.rules))])

    def left_of(self, number: int) -> int:
        """Return how much more could come now, of one limit."""
        rule = self.limits.rules[number]
        used = rule.used(self._state, number * _NUMBERS, self._now)
        return max(0, math.floor((rule.capacity - used) / rule.weight))

    @property
    def resets(self) -> tuple[float, ...]:
        """The seconds after which all of each limit is free again, if nothing comes; infinity where it never is."""
        return tuple([self.reset_of(number) for number in range(len(self.limits.rules))])

    def reset_of(self, number: int) -> float:
        """Return the seconds after which all of one limit is free again."""
        used, since, before = self._state[number * _NUMBERS : number * _NUMBERS + _NUMBERS]
        return self.limits.rules[number].reset(used, since, before, self._now) / _MICRO

    @property
    def wait(self) -> float:
        """The seconds after which the same would be allowed, if nothing else came; 0 where it was, and infinity where
        it is more than a limit ever has.
        """
        return max(self.waits, default=0.0)

    @property
    def waits(self) -> tuple[float, ...]:
        """The same of each limit by itself."""
        if self.allowed:
            return (0.0,) * len(self.limits.rules)
        return tuple(rule.wait(*part, self._now, self._cost * rule.weight) / _MICRO for rule, part in self._parts())

    @property
    def backlogs(self) -> tuple[float, ...]:
        """The seconds in which all that a Rate had counted before this comes back, of each limit; 0 for any other.

        Who lets each request wait as long lets them pass evenly, one each interval.
        """
        counted = self._cost if self.allowed else 0
        return tuple(
            rule.backlog(max(0.0, used - counted * rule.weight), since, self._now) / _MICRO
            for rule, (used, since, _) in self._parts()
        )

    def _parts(self) -> list[tuple[_Rule, tuple[float, float, float]]]:
        state = self._state
        return [
            (rule, (state[at], state[at + 1], state[at + 2]))
            for rule, at in zip(self.limits.rules, range(0, len(state), _NUMBERS), strict=True)
        ]


SCRIPT: Final = b"""
local now, cost, charge = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == '1'
local lives = tonumber(ARGV[4])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local rules = (#ARGV - 4) / 5
local form = '<' .. string.rep('d', 3 * rules)
local held = redis.call('GET', KEYS[1])
local state
if held and #held == 24 * rules then
  state = {struct.unpack(form, held)}
else
  state = {}
  for number = 1, 3 * rules do state[number] = 0 end
end
state[3 * rules + 1] = nil
local fits = true
for rule = 0, rules - 1 do
  local kind, period = ARGV[5 + 5 * rule], tonumber(ARGV[9 + 5 * rule])
  local at = 3 * rule + 1
  local used, since = state[at], state[at + 1]
  if kind == 'bucket' then
    local elapsed = now - since
    if elapsed >= 0 then
      used = used - elapsed * tonumber(ARGV[8 + 5 * rule])
      if used < 0 then used = 0 end
      state[at + 1] = now
    elseif -elapsed > period then
      used = 0
      state[at + 1] = now
    end
    state[at] = used
  else
    local start = now - now % period
    if start > since then
      state[at + 2] = start == since + period and used or 0
      state[at] = 0
      state[at + 1] = start
    elseif since - start > period then
      state[at], state[at + 1], state[at + 2] = 0, start, 0
    end
    used = state[at]
    if kind == 'sliding' and state[at + 2] ~= 0 then
      local elapsed = now - state[at + 1]
      if elapsed < 0 then elapsed = 0 end
      used = used + state[at + 2] * ((period - elapsed) / period)
    end
  end
  if used + cost * tonumber(ARGV[6 + 5 * rule]) > tonumber(ARGV[7 + 5 * rule]) then fits = false end
end
if fits or charge then
  for rule = 0, rules - 1 do
    local at = 3 * rule + 1
    state[at] = math.max(0, state[at] + cost * tonumber(ARGV[6 + 5 * rule]))
    if charge and ARGV[5 + 5 * rule] == 'bucket' then
      lives = math.max(lives, math.ceil(state[at] / tonumber(ARGV[8 + 5 * rule]) / 1000))
    end
  end
  if cost ~= 0 then
    redis.call('SET', KEYS[1], struct.pack(form, unpack(state)), 'PX', string.format('%.0f', math.min(lives, 1e15)))
  end
end
return struct.pack('<dd', fits and 1 or 0, now) .. struct.pack(form, unpack(state))
"""
"""`Limits.take` and `Limits.charge` inside of a Redis. KEYS has the record's key; ARGV has the time, or nothing for the
Redis's own, the cost, 1 to charge it, and what `Limits.arguments` has. It returns whether it fits, the time, and the
state."""
