"""New tokens for a session, before the old ones end (RFC 6749 section 6)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Literal

from portico.jose.compact import NotTaken
from portico.oidc.id_tokens import IdTokens
from portico.oidc.provider import ANSWERS_IN, Provider, ProviderDown, Tokens, TokensRefused
from portico.oidc.session import Asking, Lost, Renewal, Session, Sessions, claims_of, key_of
from portico.policy.base import Env

PATIENCE: Final = 2.0
"""Seconds that a request waits for new tokens while the old ones are good yet."""
MOST_UNDER_WAY: Final = 256
"""Sessions whose tokens are renewed, or revoked, at once; others have to do with those that they have meanwhile."""
COOL_DOWN: Final = 2.0
"""Seconds for which a provider that could not be asked is left alone."""
GIVEN_UP: Final = 2 * ANSWERS_IN
"""Seconds after which nobody waits for an answer any more."""
SHORTEST: Final = 2.0
"""Seconds that tokens have to last."""

Relay = Literal["none", "access_token", "id_token"]
"""What services are shown of a session."""


class TokenSessions:
    """Makes sessions of tokens: at a login, and when they are renewed, which is done once however many ask for it."""

    def __init__(self, env: Env, provider: Provider, id_tokens: IdTokens, sessions: Sessions, relay: Relay) -> None:
        self._spawn = env.spawn
        self._clock: Callable[[], float] = env.clock
        self._wall: Callable[[], float] = env.wall
        self._logger: logging.Logger = env.logger
        self._provider = provider
        self._id_tokens = id_tokens
        self._sessions = sessions
        self._relay = relay
        self._revoking = 0

    async def begun(self, tokens: Tokens, nonce: str) -> Session:
        """Return the session of a login; raise ProviderDown or TokensRefused."""
        await self._id_tokens.of_login(tokens, nonce)
        session = self._made(tokens, None)
        if session.expires and session.expires < session.issued + SHORTEST:
            raise TokensRefused("the tokens end at once, and so there would be one login after the other")
        return session

    async def renewed(self, session: Session, *, good: bool) -> Renewal:
        """Return what becomes of a session whose tokens end soon, or have ended where they are not `good` any more."""
        key, sessions = key_of(session), self._sessions
        known = Lost.ENDED if sessions.has_ended(session) else sessions.renewals.get(key)
        if known is not None:
            return known
        asking, now = sessions.under_way.get(key), self._clock()
        if asking is None or now >= asking.until:
            if now < sessions.ask_again or len(sessions.under_way) >= MOST_UNDER_WAY:
                return Lost.UNAVAILABLE
            asking = Asking(asyncio.get_running_loop().create_future(), now + GIVEN_UP)
            sessions.under_way[key] = asking
            self._spawn(self._renew(session, key, asking), "oidc renewal")
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE if good else ANSWERS_IN):
                return await asyncio.shield(asking.renewal)
        return Lost.UNAVAILABLE

    async def _renew(self, session: Session, key: bytes, asking: Asking) -> None:
        """Ask for new tokens; it goes on when those who wait for it have left, as the old ones may be used up by it."""
        renewal: Renewal = Lost.UNAVAILABLE
        sessions = self._sessions
        try:
            renewal = await self._asked(session)
            if isinstance(renewal, Session) and sessions.has_ended(session):
                self.end(renewal)  # there was a logout meanwhile, which did not know of these tokens
                renewal = Lost.ENDED
            if renewal is Lost.UNAVAILABLE:
                sessions.ask_again = self._clock() + COOL_DOWN
            else:
                sessions.renewals.put(key, renewal)
        finally:
            if sessions.under_way.get(key) is asking:
                del sessions.under_way[key]
            if not asking.renewal.done():
                asking.renewal.set_result(renewal)

    async def _asked(self, session: Session) -> Renewal:
        grant = {"grant_type": "refresh_token", "refresh_token": session.refresh_token}
        try:
            tokens = await self._provider.tokens(grant)
            if tokens.id_token:
                await self._id_tokens.of_renewal(tokens, session.id_token)
            return self._made(tokens, session)
        except ProviderDown as error:
            self._logger.warning("oidc: a session could not be renewed: %s", error)
            return Lost.UNAVAILABLE
        except (TokensRefused, NotTaken) as error:
            ended = getattr(error, "error", "") == "invalid_grant"
            self._logger.log(logging.INFO if ended else logging.WARNING, "oidc: a session is not renewed: %s", error)
            return Lost.ENDED

    def end(self, session: Session) -> None:
        """Have a session's tokens be of no use to whoever has kept its cookie, as far as the provider takes part."""
        self._sessions.end(session)
        if not session.refresh_token or self._provider.endpoint("revocation_endpoint") is None:
            return
        if self._revoking < MOST_UNDER_WAY:
            self._revoking += 1
            self._spawn(self._revoke(session.refresh_token), "oidc revocation")

    async def _revoke(self, refresh_token: str) -> None:
        try:
            await self._provider.revoke(refresh_token)
        except ProviderDown as error:
            self._logger.warning("oidc: the tokens of a session that has ended are good yet: %s", error)
        finally:
            self._revoking -= 1

    def _made(self, tokens: Tokens, before: Session | None) -> Session:
        now = self._wall()
        id_token = tokens.id_token or ("" if before is None else before.id_token)
        refresh = tokens.refresh_token or ("" if before is None else before.refresh_token)
        ends = []
        if tokens.lifetime is not None and (refresh or self._relay == "access_token"):
            ends.append(now + tokens.lifetime)
        if self._relay == "id_token" or (refresh and tokens.lifetime is None):
            ends.append(float(claims_of(id_token)["exp"]))
        access = tokens.access_token if self._relay == "access_token" else ""
        begun = now if before is None else before.begun
        return self._sessions.made(id_token, access, refresh, begun, now, min(ends, default=0.0))
