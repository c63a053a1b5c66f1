"""What others are asked about requests: each question once for all who have it, and answers kept for a while."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
import secrets
from collections.abc import Callable, Coroutine
from typing import Any, Final, Generic, TypeVar

from portico.errors import PorticoError
from portico.policy.authenticator import AuthenticatorConfig, Refusal
from portico.policy.base import Env

MOST_REMEMBERED: Final = 4096
"""Answers that are remembered of each kind."""
MOST_UNDER_WAY: Final = 1024
"""Questions that are under way at once for one route; beyond them it is as if there were no answer."""
TELL_AGAIN: Final = 60.0
"""Seconds for which the log does not tell again that there are no answers."""
NO_ANSWER: Final = Refusal(
    "authentication-unavailable",
    "Authentication not available",
    "nobody says whether it may",
    status=503,
)
"""Nobody could be asked whether the request may pass."""

_LATE: Final = "no answer in time"
_BY_DIGEST: Final = os.urandom(32)
"""What settings are told apart by where they are shared; nobody can guess a secret by its digest."""

V = TypeVar("V")


class NoVerdict(PorticoError):
    """An answer says nothing that can be used."""


class Memory(Generic[V]):
    """What was answered, each for a while; the oldest is forgotten first."""

    def __init__(self, most: int = MOST_REMEMBERED) -> None:
        self._most = most
        self._salt = secrets.token_bytes(32)
        self._known: dict[bytes, tuple[float, V]] = {}

    def print_of(self, parts: object) -> bytes:
        """Return what stands for a question, by which nobody can guess the credentials in it."""
        said = parts if isinstance(parts, bytes) else repr(parts).encode("utf-8", "surrogateescape")
        return hashlib.blake2b(said, key=self._salt, digest_size=32).digest()

    def recall(self, key: bytes, now: float) -> V | None:
        """Return what still holds."""
        known = self._known.get(key)
        if known is None:
            return None
        if now >= known[0]:
            del self._known[key]
            return None
        return known[1]

    def keep(self, key: bytes, verdict: V, now: float, holds: float) -> None:
        """Keep an answer for some seconds."""
        self._known.pop(key, None)
        if holds <= 0:
            return
        while len(self._known) >= self._most:
            del self._known[next(iter(self._known))]
        self._known[key] = now + holds, verdict

    def forget(self, key: bytes) -> None:
        """Forget one answer."""
        self._known.pop(key, None)

    def __len__(self) -> int:
        return len(self._known)

    def close(self) -> None:
        """Forget everything."""
        self._known.clear()


class Trouble:
    """Tells a log that there are no answers, and not again for each request meanwhile."""

    def __init__(self, logger: logging.Logger, clock: Callable[[], float], beginning: str, end: str) -> None:
        """A line has why between `beginning` and `end`."""
        self._logger = logger
        self._clock = clock
        self._words = beginning, end
        self._tell_after = float("-inf")

    def tell(self, why: str) -> None:
        """Tell why there is no answer; it has no part of credentials."""
        now = self._clock()
        if now >= self._tell_after:
            self._tell_after = now + TELL_AGAIN
            self._logger.warning("%s: %s; %s", self._words[0], why, self._words[1])


class _Question(Generic[V]):
    """One that is under way."""

    __slots__ = ("answer", "asking", "waiting")

    def __init__(self, answer: asyncio.Future[V | None]) -> None:
        self.answer = answer
        self.asking: asyncio.Task[Any] | None = None
        self.waiting = 0


class Questions(Generic[V]):
    """Those that are under way. One belongs to no request: it goes on while any waits for it, and no longer."""

    def __init__(self, env: Env, name: str, timeout: float, trouble: Trouble) -> None:
        self._spawn = env.spawn
        self._name = name
        self._timeout = timeout
        self._trouble = trouble
        self._under_way: dict[bytes, _Question[V]] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    async def verdict(self, key: bytes, ask: Callable[[], Coroutine[Any, Any, V]]) -> V | None:
        """Return the answer to the question that is known by `key`, and asked by `ask` unless it is under way.

        It is None where there is none in time, or `ask` has raised a PorticoError; the log is told then.
        """
        question = self._under_way.get(key)
        if question is None:
            if len(self._under_way) >= MOST_UNDER_WAY:
                self._trouble.tell(f"{MOST_UNDER_WAY} questions are under way")
                return None
            question = self._under_way[key] = _Question(asyncio.get_running_loop().create_future())
            self._spawn(self._find_out(key, question, ask), self._name)
        question.waiting += 1
        try:
            async with asyncio.timeout(self._timeout):
                return await asyncio.shield(question.answer)  # whoever leaves must not end it for the others
        except TimeoutError:
            self._trouble.tell(_LATE)
            return None
        finally:
            question.waiting -= 1
            if not question.waiting:
                self._give_up(key, question)

    async def _find_out(self, key: bytes, question: _Question[V], ask: Callable[[], Coroutine[Any, Any, V]]) -> None:
        verdict: V | None = None
        question.asking = asyncio.current_task()
        try:
            async with asyncio.timeout(self._timeout):
                verdict = await ask()
        except TimeoutError:
            self._trouble.tell(_LATE)
        except PorticoError as error:
            self._trouble.tell(str(error))
        finally:
            self._over(key, question)
            if not question.answer.done():
                question.answer.set_result(verdict)

    def _give_up(self, key: bytes, question: _Question[V]) -> None:
        """End what nobody waits for any more; whoever has the same question now asks it anew."""
        self._over(key, question)
        if question.asking is not None and not question.answer.done():
            question.asking.cancel()

    def _over(self, key: bytes, question: _Question[V]) -> None:
        if self._under_way.get(key) is question:
            del self._under_way[key]


def settings_print(config: AuthenticatorConfig, *more: bytes) -> bytes:
    """Return what tells settings from others, under which nothing is remembered that was found out with these.

    `more` is what is not seen in them: secrets, what is in the files that they name, how a service of theirs is asked.
    """
    said = (config.model_dump_json(exclude={"required"}).encode(), *more)
    return hmac.digest(_BY_DIGEST, repr(said).encode(), "sha256")
