"""How rate limits and quotas are written in the file, and what is odd about it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Final, Literal, Protocol, TypeAlias

from pydantic import AfterValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, field_validator, model_validator
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_before_validator_function as before

from portico.config.forms import JsonSchema, Nothing, Off, OneOrMany, Shorthand
from portico.config.values import BadValue, Count, Duration, HeaderName, Whole, parse_duration
from portico.policy.base import PolicyConfig, Stage
from portico.policy.callers import KeyParts
from portico.policy.condition import Condition, ConditionError, Expression
from portico.state.check import OnStoreFailure
from portico.state.limits import FixedWindow, Limit, Rate, SlidingWindow

LARGEST: Final = 10**9
"""The most requests of a limit."""
LONGEST: Final = 366 * 86400.0
"""Seconds of the longest window."""
SHORTEST: Final = 0.001
"""Seconds of the shortest one."""
LONGEST_WAIT: Final = 60.0
"""Seconds that a request may be made to wait for its turn."""
MOST_COST: Final = 10**6
"""What one request may count."""
MOST_LIMITS: Final = 16
"""Of one list."""

Remark: TypeAlias = tuple[str, str]
"""What is odd, and how to mend it."""

_UNITS: Final = {
    **dict.fromkeys(("s", "sec", "second"), 1.0),
    **dict.fromkeys(("m", "min", "minute"), 60.0),
    **dict.fromkeys(("h", "hour"), 3600.0),
    **dict.fromkeys(("d", "day"), 86400.0),
}
_TEXT: Final = r"(\d{1,10}) ?/ ?([0-9a-z.]+)"
_SIGNS: Final = r"[ !#$&-\[\]-~]{1,64}"
"""Of the name of a limit: what stands as it is in a text of structured fields (RFC 9651 section 3.3.3), without `%`."""


def parse_limit(text: str) -> dict[str, object]:
    """Return the requests and the window that `100/1m` or `100/minute` stand for."""
    match = re.fullmatch(_TEXT, text, re.ASCII)
    if match is not None:
        window = _UNITS.get(match[2])
        try:
            return {"requests": int(match[1]), "window": parse_duration(match[2]) if window is None else window}
        except BadValue:
            pass
    raise BadValue(f"{text!r} is not a limit", "write 100/1m, 100/minute, 5/10s, or {requests: 100, window: 1m}")


def shown_window(seconds: float) -> str:
    """Return a time as it would be written: `1m`, `90s`, `12h`."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds % size == 0:
            return f"{seconds // size:.0f}{unit}"
    return f"{seconds:.15g}s"


def _limit_of(value: object) -> object:
    """Return a limit that is written as a text as one that is written in full."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise BadValue(f"in which time {value:g} requests are the limit is not said", f"write {value:g}/1m")
    return parse_limit(value) if isinstance(value, str) else value


@dataclass(frozen=True)
class LimitText:
    """A text such as `100/1m` stands for a limit's requests and its window."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return before(_limit_of, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        text = {"type": "string", "pattern": f"^{_TEXT}$", "examples": ["100/1m", "1000/hour"]}
        return {"anyOf": [text, handler(schema)]}


class LimitSettings(PolicyConfig):
    """One limit; `100/1m` for short, or `100/minute`."""

    requests: Annotated[Count, Field(le=LARGEST)]
    """How many requests."""
    window: Annotated[Duration, Field(ge=SHORTEST, le=LONGEST)]
    """In which time."""
    algorithm: Literal["sliding", "fixed", "gcra"] = "sliding"
    """How they are counted: in any such time (`sliding`), in one that begins by the clock (`fixed`), or evenly, by
    what has come back since (`gcra`)."""
    burst: Annotated[Count, Field(le=LARGEST)] | None = None
    """With `gcra`: how many may come at once after a pause; as many as `requests` unless given."""
    delay: bool | Annotated[Count, Field(le=LARGEST)] = False
    """With `gcra`: whether those that come sooner than evenly wait for their turn; a number is of how many that is
    not asked."""
    name: Annotated[str, Field(pattern=f"^{_SIGNS}$")] | None = None
    """What `RateLimit` calls it; `100/1m`, or whatever it is, unless given."""

    @model_validator(mode="after")
    def _of_gcra(self) -> LimitSettings:
        if self.algorithm != "gcra":
            for name in ("burst", "delay"):
                if getattr(self, name):
                    raise BadValue(f"{name} has no meaning with {self.algorithm}", "write algorithm: gcra as well")
        longest = ((self.burst or self.requests) - 1) * self.window / self.requests
        if self.delay is not False and longest > LONGEST_WAIT:
            hint = f"give it a smaller burst, of {int(LONGEST_WAIT * self.requests / self.window) + 1} at most"
            raise BadValue(f"with delay, a request would wait {shown_window(round(longest))} for its turn", hint)
        return self

    @property
    def text(self) -> str:
        """Its short form, without what makes it different from others."""
        return f"{self.requests}/{shown_window(self.window)}"

    @property
    def limit(self) -> Limit:
        """What the store counts by."""
        if self.algorithm == "gcra":
            return Rate(self.requests, self.window, self.burst or 0)
        return (SlidingWindow if self.algorithm == "sliding" else FixedWindow)(self.requests, self.window)


LimitList: TypeAlias = Annotated[
    tuple[Annotated[LimitSettings, LimitText()], ...],
    OneOrMany(),
    Field(min_length=1, max_length=MOST_LIMITS),
    Nothing(()),
]
"""Limits that all have to be kept to: one, or a list; `none` is an empty one."""


def _condition(text: str) -> str:
    try:
        Condition(text)
    except ConditionError as error:
        raise BadValue(str(error), error.hint) from None
    return text


def expression(text: str) -> str:
    """Return `text` where it is an expression that is a text, or raise BadValue."""
    try:
        Expression(text)
    except ConditionError as error:
        raise BadValue(str(error), error.hint) from None
    return text


class Tier(PolicyConfig):
    """Limits of their own for some requests."""

    when: Annotated[str, AfterValidator(_condition)]
    """For which: a [condition](../configuration.md#conditions)."""
    limits: LimitList
    """What they may; `none` is as much as they like."""


class Cost(PolicyConfig):
    """How much of a limit a request counts. A number, or an expression, stands for `before`."""

    before: Annotated[Whole, Field(ge=0, le=MOST_COST)] | Annotated[str, AfterValidator(expression)] = 1
    """What is counted when it comes: a number, or an expression that is the text of one. Where that is none for a
    request, it counts 1."""
    header: HeaderName | None = None
    """The header of the answer that says what it has cost in all; what that is more than `before` is counted then."""
    most: Annotated[Count, Field(le=MOST_COST)] = 100_000
    """What is counted of a request at most, whatever is said."""
    strip: bool = False
    """Whether the client is not told that header."""

    @model_validator(mode="after")
    def _at_most(self) -> Cost:
        if isinstance(self.before, int) and self.before > self.most:
            raise BadValue(
                f"{self.before} is more than a request may cost at most", f"write most: {self.before} as well"
            )
        return self

    @field_validator("strip")
    @classmethod
    def _of_header(cls, strip: bool, info: Any) -> bool:
        if strip and info.data.get("header") is None:
            raise BadValue("there is no header to strip", "name the header that has the cost")
        return strip


Form = Literal["draft", "x-ratelimit"]


Plan: TypeAlias = Annotated[str, AfterValidator(expression)]
"""An expression that is the name of a plan."""


class LimitingConfig(PolicyConfig):
    """What the settings of everything that limits callers have."""

    key: KeyParts = ("user",)
    """What is counted together: the requests of a `user`, of an `address`, of `everyone`, of the same text of an
    expression such as `headers['x-tenant']`, or of several of these."""
    plan: Plan = "user.claims['plan']"
    """The expression that is the name of the plan. Of a consumer it is `plan` of its metadata unless given."""
    cost: Annotated[Cost, Shorthand("before")] = Cost()
    """How much a request counts: 1 unless given."""
    status: Annotated[Whole, Field(ge=400, le=599)] = 429
    """What is answered beyond the limit."""
    message: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    """What the answer says then, in place of the usual words."""
    headers: Annotated[Annotated[frozenset[Form], OneOrMany()] | None, Off()] = frozenset(("draft", "x-ratelimit"))
    """Which headers tell what is left: `draft` is `RateLimit` and `RateLimit-Policy`, `x-ratelimit` is
    `X-RateLimit-Limit`, `-Remaining` and `-Reset`. With `off`, what a service says of its own is passed on."""
    dry_run: bool = False
    """Whether requests are counted, and what would be refused is logged and passes; no headers tell of it."""
    on_store_failure: OnStoreFailure = "allow"
    """What becomes of requests that the store cannot count: they pass (`allow`), are answered 503 (`deny`), or each
    worker counts for itself (`local`)."""

    @cached_property
    def text(self) -> str:
        """All of it, to tell it from others; there is no secret in it."""
        return repr(self)


_OF_USERS: Final = re.compile(r"""(?<![\w'".-])user(?![\w'"-])""")


class Keyed(Protocol):
    """Settings that say what is counted together."""

    @property
    def key(self) -> tuple[str, ...]:
        """The parts of the key."""
        ...


def remarks_on_nobody(config: Keyed, stage: Stage, conditions: Iterable[str] = ()) -> Iterator[Remark]:
    """Yield what is odd about limits that ask who is calling before that is known."""
    if stage >= Stage.AUTHENTICATE:
        return
    if any(_OF_USERS.search(part) for part in config.key):
        message = "nobody is known yet in this stage, so the key user counts addresses"
        yield message, "write key: address where that is meant, or leave out the stage"
    for text in conditions:
        if _OF_USERS.search(text):
            yield f"nobody is known yet in this stage, so {text!r} never finds anyone", "leave out the stage"


def remarks_on_limits(limits: Sequence[LimitSettings]) -> Iterator[Remark]:
    """Yield what is odd about limits that are kept to together."""
    ordered = sorted(limits, key=lambda each: each.window)
    for at, shorter in enumerate(ordered):
        for longer in ordered[at + 1 :]:
            if longer.window > shorter.window and longer.requests <= shorter.requests:
                message = f"the limit {shorter.text} means nothing beside {longer.text}, which is smaller"
                yield message, "give the longer window more requests"
