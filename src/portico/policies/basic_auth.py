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
while; so only the first request of a client waits for it. Where too many wait, the answer is 503. An unknown name takes
as long as a wrong password. With bcrypt, a password of more than 72 bytes is never right, as bcrypt would look at no
more of it.
"""

from __future__ import annotations

import asyncio
import binascii
import hashlib
import re
import secrets
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Final

from pydantic import Field

from portico.plugin import (
    Authenticator,
    AuthenticatorConfig,
    Consumer,
    Duration,
    Env,
    Found,
    Refusal,
    Request,
    Stage,
)

THREADS: Final = 2
"""Passwords that a worker compares at once."""
MOST_WAITING: Final = 64
"""Passwords that are compared, or wait for it; beyond them the answer is 503."""
MOST_REMEMBERED: Final = 10_000
"""Credentials that were right, and are kept as hashes by a key that only this worker has."""
LONGEST: Final = 1024
"""Bytes that name and password may have together."""
_OF_BCRYPT: Final = 72

_MALFORMED: Final = Refusal("invalid-credentials", "Invalid credentials", "malformed credentials")
_WRONG: Final = Refusal("invalid-credentials", "Invalid credentials", "unknown user or wrong password")
_SEVERAL: Final = Refusal("duplicate-credentials", "Duplicate credentials")
_BUSY: Final = Refusal("authentication-busy", "Authentication is busy", "too many passwords to compare", "", 503, 1)
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f]")


class BasicAuth(AuthenticatorConfig):
    """How callers are asked."""

    realm: Annotated[str, Field(pattern=r"^[ !#-\[\]-~]*$")] = "api"
    """What browsers say that the password is for."""
    hide: bool = True
    """Whether the service is sent the request without it."""
    remember: Duration = 300.0
    """How long a password that was right is not compared again; `0s` has it done for each request."""


class Busy(Exception):
    """There are too many passwords to compare."""


class Passwords:
    """Compares passwords in threads, and remembers for each worker which were right."""

    def __init__(self, compare: Callable[[str, bytes], bool] | None = None) -> None:
        self._compare = compare or matches
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="passwords")
        self._key = secrets.token_bytes(32)
        self._right: dict[bytes, float] = {}
        self._under_way: dict[bytes, asyncio.Future[bool]] = {}

    def print_of(self, hashed: str, name: str, password: bytes) -> bytes:
        """Return what stands for credentials, and for the hash that they are compared with: another hash, as after a
        change of the password, makes it another."""
        said = b"\0".join((hashed.encode(), name.encode(), password))  # none of them has a NUL
        return hashlib.blake2b(said, key=self._key, digest_size=32).digest()

    def was_right(self, print_: bytes, since: float) -> bool:
        """Return whether credentials were right, and that not before `since`."""
        return self._right.get(print_, -1.0) >= since

    async def is_right(self, print_: bytes, hashed: str, password: bytes) -> bool:
        """Compare a password with a hash; raise Busy where too many wait for it. The same that come at once are one."""
        comparing = self._under_way.get(print_)
        if comparing is None:
            if len(self._under_way) >= MOST_WAITING:
                raise Busy
            loop = asyncio.get_running_loop()
            comparing = loop.run_in_executor(self._threads, self._compare, hashed, password)
            self._under_way[print_] = comparing
            comparing.add_done_callback(lambda _: self._under_way.pop(print_, None))
        return await asyncio.shield(comparing)  # whoever leaves must not end it for the others

    def remember(self, print_: bytes, now: float) -> None:
        """Keep in mind that credentials were right."""
        self._right.pop(print_, None)
        while len(self._right) >= MOST_REMEMBERED:
            del self._right[next(iter(self._right))]
        self._right[print_] = now

    def close(self) -> None:
        """End the threads; what they have begun comes to its end."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def matches(hashed: str, password: bytes) -> bool:
    """Return whether a password has this hash."""
    if hashed.startswith("$2"):
        import bcrypt  # only who has such hashes needs it

        return bcrypt.checkpw(password[:_OF_BCRYPT], hashed.encode()) and len(password) <= _OF_BCRYPT
    import argon2

    try:
        return argon2.PasswordHasher().verify(hashed, password)
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        return False


class BasicAuthPolicy(Authenticator[BasicAuth], name="basic-auth", stages=(Stage.AUTHENTICATE,)):
    """Looks for a name and a password."""

    def setup(self, env: Env) -> None:
        """Have threads at hand."""
        self._consumers = env.consumers
        self._clock = env.clock
        self._passwords = env.share(("basic-auth", "passwords"), Passwords)
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
        found = self._consumers.by_name(said[0])
        if found is None or type(found) is Consumer:
            return self._judged(found, *said)
        return self._later(found, *said)  # type: ignore[arg-type]

    async def _later(self, looking: Awaitable[Consumer | None], name: str, password: bytes) -> Found:
        found = self._judged(await looking, name, password)
        return await found if isinstance(found, Awaitable) else found

    def _judged(self, consumer: Consumer | None, name: str, password: bytes) -> Found | Awaitable[Found]:
        if consumer is not None and consumer.password:
            print_ = self._passwords.print_of(consumer.password, name, password)
            if self.config.remember and self._passwords.was_right(print_, self._clock() - self.config.remember):
                return consumer.user(self.name)
            return self._compared(consumer, consumer.password, print_, password)
        decoy = self._consumers.decoy
        return self._compared(None, decoy, self._passwords.print_of(decoy, name, password), password)

    async def _compared(self, consumer: Consumer | None, hashed: str, print_: bytes, password: bytes) -> Found:
        """Return the consumer where the password is right; where there is none, take as long to refuse it."""
        try:
            right = await self._passwords.is_right(print_, hashed, password)
        except Busy:
            return _BUSY
        if consumer is None or not right:
            return _WRONG
        if self.config.remember:
            self._passwords.remember(print_, self._clock())
        return consumer.user(self.name)

    def conceal(self, request: Request) -> None:
        """Take the password from the request."""
        value = request.headers.index.get(b"authorization")
        if value is not None and self.config.hide and any(map(_is_basic, request.headers.get_all(b"authorization"))):
            request.headers.remove(b"authorization")

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
