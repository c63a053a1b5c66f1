"""Know callers by a name and a password (RFC 7617).

```yaml
consumers:
  bob:
    password: $argon2id$v=19$m=65536,t=3,p=4$c29tZSBmcmVzaCBzYWx0$DFYKyX5mrcvWqWAydvHb1kD3IaZ0vGYdA4mVbXo0tA0
    roles: [staff]
routes:
  - {path: /staff/**, service: staff, policies: [basic-auth]}
  - path: /reports/**
    service: reports
    policies:
      - basic-auth: {realm: reports, remember: 1m, hide: off}
```

Names and passwords are those of [consumers](../configuration.md#consumers), of the file or of
[a database](../../consumers.md), in UTF-8. `Authorization` is not passed to the service unless `hide` is `off`.

To compare a password takes a tenth of a second of one core, and 64 MiB with what `portico hash password` makes: that is
what protects it. It is done beside the requests, two at once in each worker, and what was right is remembered for a
while; so only the first request of a client waits for it. Where too many wait, or more than 4 of one address, the
answer is 503. An unknown name takes as long as a wrong password. With bcrypt, a password of more than 72 bytes is never
right, as bcrypt would look at no more of it.

After 10 wrong passwords within a minute (`failures`, `within`) from one address, or for one name, further ones are
answered 429 with `Retry-After`, and not compared, until that minute is over. In IPv6 all of a network of 64 bits is one
address; behind a proxy, only with `trusted_proxies` has each client its own. All workers count together in the store,
and with a Redis all machines; with `shared: off`, and while the store does not answer, each worker counts for itself.

Nobody can lock somebody out by trying their name: a password that was right and is remembered is taken from every
address that is not itself refused, however many others were tried elsewhere. Whoever has logged in from an address
within a day is, from there, judged by their own failures alone, and not by those of others with the same name or the
same address. Only who comes from a new address, with a password that is not remembered, may have to wait while others
try their name.
"""

from __future__ import annotations

import asyncio
import binascii
import hashlib
import math
import re
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Annotated, Any, Final, NamedTuple

from pydantic import Field

from portico.plugin import (
    Authenticator,
    AuthenticatorConfig,
    Consumer,
    Duration,
    Env,
    Failures,
    Found,
    Off,
    Recent,
    Refusal,
    Request,
    SharedFailures,
    Stage,
    Trouble,
    origin_of,
)

THREADS: Final = 2
"""Passwords that a worker compares at once."""
MOST_WAITING: Final = 64
"""Passwords that are compared, or wait for it; beyond them the answer is 503."""
MOST_OF_ONE: Final = 4
"""Of these, those of one address."""
MOST_REMEMBERED: Final = 10_000
"""Credentials that were right, and are kept as hashes by a key that only this worker has; and as many addresses from
which somebody has logged in."""
MOST_COUNTED: Final = 20_000
"""Names and addresses whose wrong passwords are counted."""
LONGEST_WAIT: Final = 10.0
"""Seconds after which nobody waits any more for a password to be compared."""
AT_HOME: Final = 86400.0
"""Seconds for which it is known that somebody has logged in from an address."""
LONGEST: Final = 1024
"""Bytes that name and password may have together."""
_OF_BCRYPT: Final = 72

_MALFORMED: Final = Refusal("invalid-credentials", "Invalid credentials", "malformed credentials")
_WRONG: Final = Refusal("invalid-credentials", "Invalid credentials", "unknown user or wrong password")
_SEVERAL: Final = Refusal("duplicate-credentials", "Duplicate credentials")
_BUSY: Final = Refusal(
    "authentication-busy", "Authentication is busy", "too many passwords to compare", status=503, retry_after=1
)
_TOO_MANY: Final = Refusal("too-many-attempts", "Too many attempts", "too many wrong passwords", status=429)
_IS_OURS: Final = frozenset((b"authorization",)).__contains__
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f]")


class BasicAuth(AuthenticatorConfig):
    """How callers are asked."""

    realm: Annotated[str, Field(pattern=r"^[ !#-\[\]-~]*$")] = "api"
    """What browsers say that the password is for."""
    hide: bool = True
    """Whether the service is sent the request without it."""
    remember: Duration = 300.0
    """How long a password that was right is not compared again; `0s` has it done for each request."""
    failures: Annotated[Annotated[int, Field(ge=1, le=1000)] | None, Off()] = 10
    """How many wrong passwords an address may have, and a name; `off` has no limit."""
    within: Annotated[Duration, Field(ge=1, le=86400)] = 60.0
    """From the first of these on, for how long they count."""
    shared: bool = True
    """Whether all workers count them together, by the store, and not each of them."""


class Busy(Exception):
    """There are too many passwords to compare."""


class TooMany(Exception):
    """There were too many wrong passwords, as another worker knows."""

    def __init__(self, wait: float) -> None:
        super().__init__()
        self.wait = wait
        """The seconds after which there may be another try."""


class Together(NamedTuple):
    """How all workers count wrong passwords."""

    failures: SharedFailures
    most: int
    spawn: Callable[[Coroutine[Any, Any, None], str], None]


class Attempt(NamedTuple):
    """Who tries a password, and what it counts for if it is wrong."""

    now: float
    within: float
    origin: bytes
    """The address; empty where there is none."""
    home: bytes
    """What stands for the name at that address."""
    counts_for: tuple[bytes, ...]
    """First what may not try more, then what none is compared for any more."""
    said: tuple[bytes, ...]
    """The same as all workers have it."""
    said_home: bytes
    """What stands for the name at that address, as all workers have it."""


class Passwords:
    """Compares passwords in threads, and remembers for each worker which were right, and how many were wrong."""

    def __init__(self, compare: Callable[[str, bytes], bool] | None = None) -> None:
        self.failures = Failures(MOST_COUNTED)
        self._compare = compare or matches
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="passwords")
        self._key = secrets.token_bytes(32)
        self._right = Recent(MOST_REMEMBERED)
        self._homes = Recent(MOST_REMEMBERED)
        self._under_way: dict[bytes, asyncio.Future[bool | None]] = {}
        self._waiting: dict[bytes, int] = {}
        self._closed = False

    def print_of(self, hashed: str, name: str, password: bytes) -> bytes:
        """Return what stands for credentials, and for the hash that they are compared with: another hash, as after a
        change of the password, makes it another."""
        return self._print(hashed.encode(), name.encode(), password)

    def _print(self, *parts: bytes) -> bytes:
        return hashlib.blake2b(b"\0".join(parts), key=self._key, digest_size=32).digest()  # none of them has a NUL

    def attempt(self, name: str, origin: bytes, now: float, within: float) -> Attempt:
        """Return what a wrong password would count for."""
        said = name.encode()
        name_print, named = self._print(b"name", said), b"name\0" + said
        if not origin:
            return Attempt(now, within, origin, b"", (name_print,), (named,), b"")
        at = origin.hex().encode()
        home, said_home = self._print(b"home", said, at), b"home\0%b\0%b" % (said, at)
        if self._homes.was(home, now - AT_HOME):
            return Attempt(now, within, origin, home, (home,), (said_home,), said_home)
        address = self._print(b"address", at)
        return Attempt(now, within, origin, home, (address, name_print), (b"address\0" + at, named), said_home)

    def is_at_home(self, attempt: Attempt) -> None:
        """Keep in mind that somebody has logged in from there with this name."""
        self._homes.note(attempt.home, attempt.now)

    def was_right(self, print_: bytes, since: float) -> bool:
        """Return whether credentials were right, and that not before `since`."""
        return self._right.was(print_, since)

    def is_comparing(self, print_: bytes) -> bool:
        """Return whether the very same is being compared."""
        return print_ in self._under_way

    async def is_right(
        self,
        print_: bytes,
        hashed: str,
        password: bytes,
        attempt: Attempt,
        *,
        known: bool,
        together: Together | None = None,
    ) -> bool:
        """Compare a password with a hash. The same that come at once are one.

        It counts as wrong until it is `known` to be right, so that many at once are not one. Raises Busy where too many
        wait for it, and TooMany.
        """
        comparing = self._under_way.get(print_)
        if comparing is None:
            comparing = self._begin(print_, attempt)
            ticket = b"" if together is None else await self._ticket(print_, attempt, together)
            if self._closed:
                raise Busy
            loop = asyncio.get_running_loop()
            work = loop.run_in_executor(self._threads, self._compare, hashed, password)
            work.add_done_callback(partial(self._done, print_, attempt, known, together, ticket))
        try:
            async with asyncio.timeout(LONGEST_WAIT):
                right = await asyncio.shield(comparing)  # whoever leaves must not end it for the others
        except TimeoutError:
            raise Busy from None
        if right is None:
            raise Busy
        return right

    def _begin(self, print_: bytes, attempt: Attempt) -> asyncio.Future[bool | None]:
        waiting = self._waiting.get(attempt.origin, 0)
        if self._closed or len(self._under_way) >= MOST_WAITING or (attempt.origin and waiting >= MOST_OF_ONE):
            raise Busy
        comparing: asyncio.Future[bool | None] = asyncio.get_running_loop().create_future()
        self._under_way[print_] = comparing
        self._waiting[attempt.origin] = waiting + 1
        for key in attempt.counts_for:
            self.failures.add(key, attempt.now, attempt.within)
        return comparing

    async def _ticket(self, print_: bytes, attempt: Attempt, together: Together) -> bytes:
        """Have it counted by all workers, and return what that is taken back by; raise TooMany."""
        try:
            begun = await together.failures.begin(attempt.said, together.most, attempt.within)
        except BaseException:
            self._take_back(attempt)  # nothing was compared
            self._end(print_, attempt, Busy())
            raise
        if begun.refused is None:
            return begun.ticket
        self._take_back(attempt)
        # Nothing that is remembered here may be tried either, now that this is known.
        self.failures.exhaust(attempt.counts_for[begun.refused], together.most, attempt.now + begun.wait)
        error = TooMany(begun.wait)
        self._end(print_, attempt, error)
        raise error

    def _take_back(self, attempt: Attempt) -> None:
        for key in attempt.counts_for:
            self.failures.take_back(key)

    def _end(self, print_: bytes, attempt: Attempt, found: bool | BaseException) -> bool:
        """Tell those who wait for a comparison; False where `close` has told them that there is none."""
        comparing = self._under_way.pop(print_, None)
        if comparing is None:
            return False
        self._waiting[attempt.origin] -= 1
        if not self._waiting[attempt.origin]:
            del self._waiting[attempt.origin]
        if isinstance(found, bool):
            comparing.set_result(found)
        else:
            comparing.set_exception(found)
            comparing.exception()  # whoever waited may have left
        return True

    def _done(
        self,
        print_: bytes,
        attempt: Attempt,
        known: bool,
        together: Together | None,
        ticket: bytes,
        work: asyncio.Future[bool],
    ) -> None:
        if work.cancelled():
            return
        failed = work.exception()
        found = failed if failed is not None else work.result()
        if self._end(print_, attempt, found) and found is True and known:
            self._take_back(attempt)
            if attempt.home:
                self.is_at_home(attempt)
            if together is not None:
                together.spawn(_passed(attempt, together.failures, ticket), "passwords")

    def remember(self, print_: bytes, now: float) -> None:
        """Keep in mind that credentials were right."""
        self._right.note(print_, now)

    def close(self) -> None:
        """End the threads, and the waiting for them; what they have begun comes to its end, and is of no use."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for comparing in self._under_way.values():
            if not comparing.done():
                comparing.set_result(None)
        self._under_way.clear()


async def _passed(attempt: Attempt, failures: SharedFailures, ticket: bytes) -> None:
    """Have all workers know that it was right."""
    await failures.take_back(attempt.said, ticket, attempt.within)
    if attempt.home:
        await failures.note(attempt.said_home, AT_HOME)


def matches(hashed: str, password: bytes) -> bool:
    """Return whether a password has this hash."""
    if hashed.startswith("$2"):
        import bcrypt  # only who has such hashes needs it

        try:
            return bcrypt.checkpw(password[:_OF_BCRYPT], hashed.encode()) and len(password) <= _OF_BCRYPT
        except ValueError:  # it only looks like a hash
            return False
    import argon2

    try:
        return argon2.PasswordHasher().verify(hashed, password)
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        return False


class Tried(NamedTuple):
    """What is shown, and from where."""

    name: str
    password: bytes
    origin: bytes


class BasicAuthPolicy(Authenticator[BasicAuth], name="basic-auth", stages=(Stage.AUTHENTICATE,)):
    """Looks for a name and a password."""

    def setup(self, env: Env) -> None:
        """Have threads at hand."""
        self._consumers = env.consumers
        self._clock = env.clock
        self._passwords = env.share(("basic-auth", "passwords"), Passwords)
        self._together: Together | None = None
        if self.config.shared and self.config.failures is not None:
            trouble = Trouble(env.logger, env.clock, "wrong passwords cannot be counted together", "each worker does")
            failures = SharedFailures(env.store.volatile, trouble)
            self._together = Together(failures, self.config.failures, env.spawn)
        self._challenge = f'Basic realm="{self.config.realm}", charset="UTF-8"'

    def identify(self, request: Request) -> Found | Awaitable[Found]:
        """Return whose the password is."""
        headers = request.headers
        value = headers.index.get(b"authorization")
        if value is None:
            return None
        if len(headers.pairs) != len(headers.index):
            several = headers.get_all(b"authorization")
            if len(several) > 1:
                return _SEVERAL if any(map(_is_basic, several)) else None
        if not _is_basic(value):
            return None
        said = credentials_of(value)
        if said is None:
            return _MALFORMED
        tried = Tried(*said, origin_of(request.client))
        found = self._consumers.by_name(tried.name)
        if found is None or type(found) is Consumer:
            return self._judged(found, tried)
        return self._later(found, tried)  # type: ignore[arg-type]

    async def _later(self, looking: Awaitable[Consumer | None], tried: Tried) -> Found:
        found = self._judged(await looking, tried)
        return await found if isinstance(found, Awaitable) else found

    def _judged(self, consumer: Consumer | None, tried: Tried) -> Found | Awaitable[Found]:
        """Return the consumer whose password is remembered; otherwise have it compared, unless too many were wrong.

        Where there is no consumer it takes as long, and counts as much.
        """
        config, passwords, now = self.config, self._passwords, self._clock()
        known = consumer is not None and bool(consumer.password)
        hashed = consumer.password if consumer is not None and known else self._consumers.decoy
        print_ = passwords.print_of(hashed, tried.name, tried.password)
        remembered = known and bool(config.remember) and passwords.was_right(print_, now - config.remember)
        limited = config.failures is not None and not passwords.failures.none_at(now)
        if consumer is not None and remembered and not limited:
            return consumer.user(self.name)
        attempt = passwords.attempt(tried.name, tried.origin, now, config.within)
        if limited and not passwords.is_comparing(print_):
            left = self._left(attempt, remembered)
            if left:
                return self._too_many(consumer, tried, attempt, left)
        if consumer is not None and remembered:
            return consumer.user(self.name)
        return self._compared(consumer, hashed, print_, tried, attempt)

    def _too_many(
        self, consumer: Consumer | None, tried: Tried, attempt: Attempt, left: float
    ) -> Found | Awaitable[Found]:
        """Return the refusal of one who is not known at that address, to any worker."""
        if self._together is not None and attempt.home and attempt.counts_for != (attempt.home,):
            return self._unless_at_home(consumer, tried, attempt, left, self._together.failures)
        return self._refused(attempt, left)

    async def _unless_at_home(
        self, consumer: Consumer | None, tried: Tried, attempt: Attempt, left: float, failures: SharedFailures
    ) -> Found:
        if not await failures.was(attempt.said_home):
            return self._refused(attempt, left)
        self._passwords.is_at_home(attempt)
        found = self._judged(consumer, tried)
        return await found if isinstance(found, Awaitable) else found

    def _refused(self, attempt: Attempt, left: float) -> Refusal:
        if attempt.origin:  # or who is refused could go on trying what is remembered
            self._passwords.failures.add(attempt.counts_for[0], attempt.now, attempt.within)
        return _TOO_MANY._replace(retry_after=math.ceil(left))

    def _left(self, attempt: Attempt, remembered: bool) -> float:
        """Return for how many seconds nobody may try this; what is remembered is refused to an address alone."""
        asked = attempt.counts_for
        if remembered:
            asked = asked[:1] if attempt.origin else ()
        most = self.config.failures or 0
        return max((self._passwords.failures.left(key, most, attempt.now) for key in asked), default=0.0)

    async def _compared(
        self, consumer: Consumer | None, hashed: str, print_: bytes, tried: Tried, attempt: Attempt
    ) -> Found:
        """Return the consumer where the password is right; where there is none, take as long to refuse it."""
        known = consumer is not None and bool(consumer.password)
        try:
            right = await self._passwords.is_right(
                print_, hashed, tried.password, attempt, known=known, together=self._together
            )
        except Busy:
            return _BUSY
        except TooMany as error:
            found = self._too_many(consumer, tried, attempt, error.wait)
            return await found if isinstance(found, Awaitable) else found
        if consumer is None or not known or not right:
            return _WRONG
        if self.config.remember:
            self._passwords.remember(print_, self._clock())
        return consumer.user(self.name)

    def conceal(self, request: Request) -> None:
        """Take the password from the request."""
        if not self.config.hide:
            return
        if any(map(_is_basic, request.headers.get_all(b"authorization"))):
            request.headers.remove(b"authorization")
        request.body.refuse_trailers(_IS_OURS)

    def challenge(self, refusal: Refusal | None) -> str:
        """Return the challenge."""
        return self._challenge


def _is_basic(value: bytes) -> bool:
    return value[:6].lower() == b"basic " or value.lower() == b"basic"


def credentials_of(value: bytes) -> tuple[str, bytes] | None:
    """Return the name and the password that `Authorization` has (RFC 7617 section 2), or None where it is malformed."""
    try:
        text = binascii.a2b_base64(value[6:].strip(b" "), strict_mode=True).decode()
    except ValueError:
        return None
    name, colon, password = text.partition(":")
    if not colon or not name or len(text) > LONGEST or _CONTROLS.search(text) is not None:
        return None
    return name, password.encode()
