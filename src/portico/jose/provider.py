"""Keys that a provider publishes at a URL: fetched ahead of need, kept while it is down, and shared."""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from portico.config.addresses import parse_url
from portico.config.values import BadValue
from portico.errors import ConfigError, PorticoError
from portico.http.headers import Headers
from portico.http.message import Handler, Request, Response
from portico.jose.compact import NotTaken, json_object
from portico.jose.keys import KeySet, UnusableKey
from portico.policy.base import Env

logger = logging.getLogger("portico.jose")

WELL_KNOWN: Final = "/.well-known/openid-configuration"
"""Where a provider describes itself, below its issuer (OpenID Connect Discovery 1.0 section 4)."""
_WELL_KNOWN_OAUTH: Final = "/.well-known/oauth-authorization-server"
"""Where a server that is not of OpenID describes itself (RFC 8414 section 3.1): ahead of its issuer's path."""
DEFAULT_AGE: Final = 600.0
"""Seconds for which keys are fresh where the provider says nothing of it."""
MIN_AGE: Final = 60.0
MAX_AGE: Final = 86400.0
COOL_DOWN: Final = 10.0
"""Seconds from one fetch to the next for a key that is not known."""
PATIENCE: Final = 2.0
"""Seconds that a request waits for keys."""
MAX_ANSWER: Final = 256 * 1024
"""Bytes of what a provider answers."""
_ASK_FOR: Final = 10.0
"""Seconds that a provider has for its answer."""
_RETRIES: Final = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Seconds until the next try after one, two, and more failures."""
_ACCEPT: Final = ((b"Accept", b"application/json"), (b"Accept-Encoding", b"identity"))
_MAX_AGE: Final = re.compile(r"(?:^|[\s,])max-age=\"?(\d{1,9})")
_AT_ONCE: Final = re.compile(r"(?:^|[\s,])no-(?:store|cache)(?:$|[\s,])")


class NotPublished(Exception):
    """What is needed of a provider could not be got from it; the message says why."""


def _check_url(text: str) -> str:
    url, mark, query = text.partition("?")
    parse_url(url)
    if (mark and re.fullmatch(r"[!-~]*", query) is None) or "#" in query:
        raise BadValue(f"{text!r} is not a URL", "write https://issuer.example/keys")
    return text


KeyUrl = Annotated[str, AfterValidator(_check_url), Field(examples=["https://issuer.example/jwks.json"])]
"""The URL of keys, or of what tells where they are."""


class ProviderKeys:
    """The keys that are published at a URL, or where the description of a provider at that URL says that they are.

    Each configuration that uses them has work going on that keeps them fresh; of several, one after a reload for
    instance, any does what is due. Keys that were got go on being used while there are no newer ones.
    """

    def __init__(
        self,
        url: str,
        clock: Callable[[], float],
        ca: str | None = None,
        issuers: frozenset[str] | None = None,
    ) -> None:
        """Where `issuers` are given, the URL is that of a description, which must be of one of them."""
        self.url = url
        self.current: KeySet | None = None
        self.description: Mapping[str, Any] | None = None
        """What the provider says of itself; None while that is not known, or where only its keys are asked for."""
        self._ca = ca
        self._issuers = issuers
        self._clock = clock
        self._document: object = None
        self._served: Handler | None = None
        self._due = clock()
        self._asked = -COOL_DOWN
        self._busy = False
        self._failures = 0
        self._trouble = ""
        self._wake = asyncio.Event()
        self._news = asyncio.Event()

    @classmethod
    def shared(cls, env: Env, url: str, ca: str | None = None, issuers: frozenset[str] | None = None) -> ProviderKeys:
        """Return those that all have who trust the same, and keep them fresh. Raises ConfigError."""
        keys = env.share(("provider keys", url, ca, issuers), lambda: cls(url, env.clock, ca, issuers))
        keys.serve(env)
        return keys

    def serve(self, env: Env) -> None:
        """Keep them fresh for as long as a configuration lasts. Raises ConfigError where nobody can be asked."""
        handler = env.web(_plain(self.url), self._ca)
        if handler != self._served:  # otherwise another route of this configuration has begun it
            self._served = handler
            env.spawn(self._keep(env), f"keys of {_plain(self.url)}")

    def renewed(self) -> Awaitable[None] | None:
        """Have the keys fetched where that was not done just now; return what ends when they were, or after a while."""
        now = self._clock()
        if not self._busy:
            if self.current is not None:
                if now < self._asked + COOL_DOWN:
                    return None
                self._due = now
            elif self._due > now + PATIENCE:
                return None
            self._roused()
        return self._wait(self._news)

    async def _wait(self, news: asyncio.Event) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await news.wait()

    def _roused(self) -> None:
        """Have whoever keeps the keys fresh look what is due."""
        wake, self._wake = self._wake, asyncio.Event()
        wake.set()

    async def _keep(self, env: Env) -> None:
        while True:
            wait = self._due - self._clock()
            if wait <= 0 and not self._busy:
                await self._fetch(env)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(None if self._busy else wait):
                    await self._wake.wait()

    async def _fetch(self, env: Env) -> None:
        """Get the keys, and say when they are due next."""
        self._busy = True
        self._asked = now = self._clock()
        try:
            document, age, description = await self._ask(env)
            self._take(document)
            self.description = description
        except asyncio.CancelledError:
            self._due = now  # it is another configuration's turn, for whose answer those who wait go on waiting
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the keys that are known go on serving
            known = isinstance(error, NotPublished | UnusableKey)
            self._failed(str(error) if known else f"{type(error).__name__}: {error}")
        else:
            self._failures = 0
            self._due = self._clock() + age * random.uniform(0.75, 0.9)  # noqa: S311 - before it is old, not all at once
            if self._trouble:
                self._trouble = ""
                logger.info("the keys of %s could be fetched again", _plain(self.url))
        finally:
            self._busy = False
            self._roused()
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _failed(self, why: str) -> None:
        self._due = self._clock() + _RETRIES[min(self._failures, len(_RETRIES) - 1)]
        self._failures += 1
        if why != self._trouble:
            self._trouble = why
            known = "those known go on serving" if self.current is not None else "none are known"
            logger.warning("the keys of %s could not be fetched: %s; %s", _plain(self.url), why, known)

    def _take(self, document: dict[str, Any]) -> None:
        if self.current is not None and document == self._document:
            return
        keys = KeySet.of_jwks(document.get("keys"), published=True)
        self._document, self.current = document, keys
        if not keys.keys:
            why = "; ".join(keys.unusable) or "there is none"
            logger.warning("the keys of %s: none can be used, so no token is taken: %s", _plain(self.url), why)

    async def _ask(self, env: Env) -> tuple[dict[str, Any], float, dict[str, Any] | None]:
        """Return the JWKS, for how many seconds it is fresh, and what the provider says of itself."""
        if self._issuers is None:
            return *await _get(env, self.url, self._ca), None
        found, age = await _description(env, self.url, self._ca, self._issuers)
        url = _place(found, "jwks_uri", self.url)
        document, fresh = await _get(env, url, self._ca)
        return document, min(age, fresh), found

    def close(self) -> None:
        """Nothing is held; the work ends with the configurations that it belongs to."""


def target_of(url: str) -> tuple[str, str, str | None]:
    """Return a URL without its query, and the path and the query by which what is there is asked for."""
    place, _, query = url.partition("?")
    return place, "/" + place.partition("://")[2].partition("/")[2], query or None


def issuers_of(discovery_url: str, policy: str) -> frozenset[str]:
    """Return the issuer whose description is at a URL; whether it ends with a slash cannot be seen there.

    Raises ConfigError where the URL does not say it.
    """
    before, found, rest = discovery_url.partition(WELL_KNOWN)
    if not found:
        before, found, rest = discovery_url.partition(_WELL_KNOWN_OAUTH)
    elif rest:
        found = ""
    if not found or "?" in rest:
        raise ConfigError(f"{policy}: the discovery_url does not end with {WELL_KNOWN}; give the issuer as well")
    issuer = (before + rest).rstrip("/")
    return frozenset((issuer, f"{issuer}/"))


async def described(env: Env, url: str, ca: str | None, issuers: Collection[str], member: str) -> tuple[str, float]:
    """Return the URL that the description of a provider has as `member`, and for how many seconds that is fresh.

    Raises NotPublished, also where the description is not of one of the issuers.
    """
    found, age = await _description(env, url, ca, issuers)
    return _place(found, member, url), age


async def _description(env: Env, url: str, ca: str | None, issuers: Collection[str]) -> tuple[dict[str, Any], float]:
    """Return what a provider says of itself, and for how many seconds that is fresh; raise NotPublished."""
    found, age = await _get(env, url, ca)
    issuer = found.get("issuer")
    if not isinstance(issuer, str) or issuer not in issuers:
        raise NotPublished("the provider says that it is another issuer")
    return found, age


def _place(description: Mapping[str, Any], member: str, url: str) -> str:
    """Return the URL that the description at `url` has as `member`; raise NotPublished."""
    what = description.get(member)
    if not isinstance(what, str):
        raise NotPublished(f"the provider does not say where its {member} is")
    if url.startswith("https:") and not what.startswith("https:"):
        raise NotPublished(f"the provider's {member} is not a URL of https")
    try:
        _check_url(what)
    except BadValue:
        raise NotPublished(f"the provider's {member} is no URL") from None
    return what


async def _get(env: Env, url: str, ca: str | None) -> tuple[dict[str, Any], float]:
    """Return the JSON object at a URL, and for how many seconds it is fresh."""
    try:
        handler = env.web(_plain(url), ca)
    except ConfigError as error:
        raise NotPublished(str(error)) from None
    _, path, query = target_of(url)
    request = Request("GET", path, query, Headers(_ACCEPT))
    request.deadline = env.clock() + _ASK_FOR
    try:
        async with asyncio.timeout(_ASK_FOR):
            answer = await handler(request)
            try:
                if answer.status != 200:
                    raise NotPublished(f"{_plain(url)} answers {answer.status}")
                content = await answer.body.read(MAX_ANSWER)
            finally:
                answer.body.close()
    except TimeoutError:
        raise NotPublished(f"{_plain(url)} does not answer") from None
    except PorticoError as error:
        raise NotPublished(f"{_plain(url)} does not answer: {error}") from None
    try:
        return json_object(content, "text"), _age(answer)
    except NotTaken:
        raise NotPublished(f"{_plain(url)} does not answer with a JSON object") from None


def _age(answer: Response) -> float:
    """Return for how many seconds an answer is fresh (RFC 9111 section 4.2.1), within bounds."""
    told = b",".join(answer.headers.get_all(b"cache-control")).decode("latin-1").lower()
    if _AT_ONCE.search(told) is not None:
        return MIN_AGE
    match = _MAX_AGE.search(told)
    if match is None:
        return DEFAULT_AGE
    spent = answer.headers.text(b"age") or "0"
    age = float(match[1]) - (float(spent) if re.fullmatch(r"\d{1,9}", spent) else 0.0)
    return min(max(age, MIN_AGE), MAX_AGE)


def _plain(url: str) -> str:
    """Return a URL without its query, which may hold what is not for the log."""
    return url.partition("?")[0]
