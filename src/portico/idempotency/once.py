"""One request at work for all that have the same key: it belongs to none of their clients, and goes on without them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from portico.errors import PorticoError, StoreUnavailable
from portico.http.body import Body, Trailers
from portico.http.message import Handler, Request, Response
from portico.idempotency.record import Standing, answer_record, recalled, unkept_record, unknown_record
from portico.observe.exchange import Exchange, Outcome
from portico.policy.verdicts import Trouble
from portico.state.store import Space

MOST_UNDER_WAY: Final = 512
"""Requests with a key that one route of a worker has at work, or waiting for another, at once."""
FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 0.5
"""Seconds between two looks at whether another request has its answer, and between two tries to keep one."""
RESERVE: Final = 5.0
"""Seconds of a claim that are left to keep the answer in, and a fifth of it at most."""
PATIENCE: Final = 30.0
"""Seconds beyond all others after which nobody waits for an answer any more."""

_KEPT: Final = "had the store keep what became of it"
_FREED: Final = "had the store free its key"

_Found: TypeAlias = Response | Standing | Exception
"""An answer; or why there is none; or what broke it off, which is raised where it is waited for."""


@dataclass(frozen=True)
class OnceRules:
    """What is kept, and how long; times are seconds."""

    ttl: float
    """How long an answer is kept."""
    lock: float
    """How long a key is claimed for a request at work."""
    wait: float
    """How long a request waits for another one with its key."""
    largest: int
    """Bytes of content of an answer that is kept."""
    retryable: frozenset[int]
    """Statuses that say that nothing was done; what is answered so is not kept."""
    keep_unknown: bool
    """Whether a request of which nobody knows whether it was carried out is never sent again."""

    @property
    def work(self) -> float:
        """How long a request may be at work."""
        return self.lock - min(RESERVE, self.lock / 5)


class Once:
    """Has each request carried out once for its key, and answers those that come again."""

    def __init__(
        self,
        space: Space,
        place: str,
        rules: OnceRules,
        see_through: Callable[[Coroutine[Any, Any, None], str], None],
        clock: Callable[[], float],
        logger: logging.Logger,
    ) -> None:
        """`place` tells these keys from those of other policies."""
        self.space = space
        self.rules = rules
        self.clock = clock
        self.logger = logger
        self.trouble = Trouble(logger, clock, "idempotency-key: the store is missed", "keys are not known meanwhile")
        self.name = place.rpartition(":")[2]
        """What the file calls the policy."""
        self.under_way = 0
        """Requests that are at work, or wait for another."""
        self._see_through = see_through
        self._place = hashlib.blake2b(place.encode("utf-8", "surrogatepass"), digest_size=32).digest()

    async def answer(
        self, request: Request, following: Handler, caller: bytes, key: bytes, print_: bytes
    ) -> tuple[Response | Standing, bool]:
        """Return what `following` answers, or has answered the first request with this key, or why neither is so; and
        whether that is an answer which is given again.

        The content of the request is in memory. Who waits for it may leave: it goes on, and is kept for the next one.
        """
        if self.under_way >= MOST_UNDER_WAY:
            return Standing.CROWDED, False
        flight = _Flight(self, request, following, self._record_key(caller, key), print_)
        self.under_way += 1
        self._see_through(flight.run(), "idempotency-key")
        try:
            async with asyncio.timeout(self.rules.wait + self.rules.lock + PATIENCE):
                found = await asyncio.shield(flight.found)
        except TimeoutError:  # the work was ended before it had begun
            flight.leave()
            return Standing.LATE, False
        except asyncio.CancelledError:
            flight.leave()
            raise
        flight.join(request.exchange, found)
        if isinstance(found, Exception):
            raise found
        return found, flight.again

    def _record_key(self, caller: bytes, key: bytes) -> bytes:
        """Return the key of a record, in which nobody can read that of the client."""
        said = b"%d:%s%s" % (len(caller), caller, key)
        return b"once" + hashlib.blake2b(said, key=self._place, digest_size=32).digest()


class _Flight:
    """One request, from the claim to its key until what became of it is kept."""

    __slots__ = ("_exchange", "_following", "_key", "_left", "_once", "_print", "_request", "again", "found")

    def __init__(self, once: Once, request: Request, following: Handler, key: bytes, print_: bytes) -> None:
        self._once = once
        self._request = request
        self._following = following
        self._key = key
        self._print = print_
        self._left = False
        self.again = False
        """Whether it is the answer to an earlier request."""
        self.found: asyncio.Future[_Found] = asyncio.get_running_loop().create_future()
        own = request.exchange
        self._exchange = Exchange(once.clock()) if own is None else own.branch()
        """The record of this one: that of the client may end before it does."""
        self._exchange.route = "" if own is None else own.route

    def leave(self) -> None:
        """Have nobody wait for it any more."""
        self._left = True
        if self.found.done():
            self._drop(self.found.result())

    def join(self, exchange: Exchange | None, found: _Found) -> None:
        """Have the client's record tell what this one does; whatever waits for its end waits for that of the client."""
        mine = self._exchange
        if exchange is not None:
            error = exchange.error
            exchange.tries += mine.tries
            exchange.take(mine)
            exchange.error = mine.error or error
        elif not isinstance(found, Response) or found.body.whole is not None:
            mine.end(Outcome.COMPLETE, self._once.clock())

    async def run(self) -> None:
        """Come to an answer, and hand it over."""
        try:
            self._hand_over(await self._come_to())
        finally:
            self._once.under_way -= 1
            self._hand_over(Standing.LATE)  # where it was ended, and nobody knows what became of it

    async def _come_to(self) -> _Found:
        once = self._once
        rules, space, clock = once.rules, once.space, once.clock
        began = clock()
        until, pause, waited = began + rules.wait, FIRST_PAUSE, False
        try:
            while True:
                claimed = clock()
                try:
                    claim = await space.claim(self._key, rules.lock)
                except StoreUnavailable as error:
                    once.trouble.tell(str(error))
                    return Standing.UNDER_WAY if waited else Standing.NO_STORE
                if claim.ours:
                    break
                if claim.value is not None:
                    found = recalled(claim.value, self._print)
                    self.again = isinstance(found, Response)
                    return found
                left = until - clock()
                if left <= 0 or self._left:
                    return Standing.UNDER_WAY
                await asyncio.sleep(min(pause, left))
                pause, waited = min(2 * pause, LONGEST_PAUSE), True
        finally:
            what = "waited for the first request with its key" if waited else "asked the store for its key"
            self._exchange.step(once.name, began, clock(), what)
        if self._left:  # nothing was sent, and nobody waits for it
            await self._settle(claim.token, None, claimed + rules.lock, Standing.UNDER_WAY)
            return Standing.UNDER_WAY
        if clock() >= claimed + rules.work:  # the store took so long to say so that it may be somebody else's by now
            return Standing.UNDER_WAY if waited else Standing.NO_STORE
        return await self._carry_out(claim.token, claimed)

    async def _carry_out(self, token: int, claimed: float) -> _Found:
        rules = self._once.rules
        request = self._request.copy(Body(self._request.body.whole))
        request.exchange = self._exchange
        request.answer_by = claimed + rules.work
        response: Response | None = None
        content: bytes | None = None
        found: _Found = Standing.LATE
        try:
            async with asyncio.timeout_at(request.answer_by):
                response = await self._following(request)
                content = await self._content(response)
            found = response
        except TimeoutError:
            pass
        except asyncio.CancelledError:  # the worker ends, and its claim would, too
            with contextlib.suppress(StoreUnavailable):
                await self._conclude(token, self._record(found, None))
            raise
        except Exception as error:  # noqa: BLE001 - a mistake around the content, too, comes after the request was sent
            found = error
        finally:
            if response is not None and found is not response:
                response.body.close()
        await self._settle(token, self._record(found, content), claimed + rules.lock, found)
        return found

    async def _content(self, response: Response) -> bytes | None:
        """Return the content of an answer; None where that is too large, or has trailers, and so is not kept."""
        body, most = response.body, self._once.rules.largest
        if body.whole is not None:
            return body.whole if len(body.whole) <= most else None
        pieces: list[bytes] = []
        size = 0
        while size <= most and (body.length is None or body.length <= most):
            piece = await body.chunk()
            if not piece:
                body.whole = b"".join(pieces)
                body.length = size
                return None if body.trailers() else body.whole
            pieces.append(piece)
            size += len(piece)
        response.body = Body.stream(_Rest(pieces, body, self._exchange, self._once.clock), body.length)
        response.body.of_answer = True
        return None

    def _record(self, found: _Found, content: bytes | None) -> bytes | None:
        """Return what is to be kept of how it came out; None where the key is to be free again."""
        rules, exchange, print_ = self._once.rules, self._exchange, self._print
        response = found if isinstance(found, Response) else None
        problem = None if response is None else response.problem_value
        if exchange.tries == 0 and (exchange.error or (problem is not None and _refuses(problem.status))):
            return None  # no target was sent it
        nothing_done = response is not None and response.status in rules.retryable
        doubtful = exchange.error or any(status not in rules.retryable for status in exchange.passed_over)
        if response is None or problem is not None or (nothing_done and doubtful):
            return unknown_record(print_) if rules.keep_unknown else None
        if nothing_done:
            return None
        kept = None if content is None else answer_record(print_, response, content)
        return unkept_record(print_) if kept is None else kept

    async def _settle(self, token: int, record: bytes | None, ends: float, found: _Found) -> None:
        """Keep what became of the request. The client does not wait for that where the store cannot be asked."""
        once, pause, unsure, began = self._once, FIRST_PAUSE, False, self._once.clock()
        while True:
            try:
                kept = await self._conclude(token, record)
                if not kept and not unsure:
                    once.logger.error(
                        "idempotency-key: a claim had ended, and the key is another's; the answer is not kept"
                    )
            except StoreUnavailable as error:
                unsure = True  # it may have done it all the same
                once.trouble.tell(str(error))
            else:
                now = once.clock()
                if now > began:
                    what = "found its key to be another's" if not kept else _FREED if record is None else _KEPT
                    self._exchange.step(once.name, began, now, what)
                return
            self._hand_over(found)
            if once.clock() + pause >= ends:
                if record is not None:
                    once.logger.error("idempotency-key: an answer could not be kept; another try is carried out again")
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _conclude(self, token: int, record: bytes | None) -> bool:
        """Make a record of the claim, or give it back where there is none; False where it is somebody else's by now.

        Where the store has lost it, and nobody has come since, there is still time to have the record known.
        """
        space, key, rules = self._once.space, self._key, self._once.rules
        if record is None:
            await space.release(key, token)
            return True
        if await space.settle(key, token, record, rules.ttl):
            return True
        claim = await space.claim(key, rules.lock)
        return claim.ours and await space.settle(key, claim.token, record, rules.ttl)

    def _hand_over(self, found: _Found) -> None:
        if not self.found.done():
            self.found.set_result(found)
            if self._left:
                self._drop(found)

    def _drop(self, found: _Found) -> None:
        """Let go of what nobody waits for."""
        if isinstance(found, Response):
            found.body.close()
        elif isinstance(found, Exception) and not isinstance(found, PorticoError):
            self._once.logger.error("idempotency-key: a request that nobody waits for has failed", exc_info=found)
        self._exchange.end(Outcome.CLIENT_LEFT, self._once.clock())


def _refuses(status: int) -> bool:
    """Return whether a problem of this status is told instead of carrying a request out."""
    return status < 500 or status == 503


class _Rest:
    """An answer of which the beginning was read."""

    __slots__ = ("_body", "_clock", "_exchange", "_pieces")

    def __init__(self, pieces: list[bytes], body: Body, exchange: Exchange, clock: Callable[[], float]) -> None:
        self._pieces = pieces[::-1]
        self._body = body
        self._exchange = exchange
        self._clock = clock

    async def read(self) -> bytes:
        """Return the next piece, or b"" at the end."""
        return self._pieces.pop() if self._pieces else await self._body.chunk()

    def trailers(self) -> Trailers:
        """Return the trailer fields."""
        return self._body.trailers()

    def close(self) -> None:
        """Give up the rest."""
        self._body.close()
        self._exchange.end(Outcome.COMPLETE, self._clock())  # who waits for its end may have gone over to the client's
