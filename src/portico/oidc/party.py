"""The gateway as a relying party: whom it knows by their sessions, and how they log in and out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from typing import Final, NamedTuple

from portico.http.cookies import with_cookies
from portico.http.headers import Headers
from portico.http.message import Key, Request, Response
from portico.http.user import User
from portico.jose.provider import ProviderKeys
from portico.jose.rules import UNAVAILABLE, TokenRules
from portico.jose.verifier import UserOf
from portico.oidc import logout
from portico.oidc.cookies import MOST_LOGINS, Cookies, Shown, TooLarge, hide
from portico.oidc.id_tokens import REQUIRED, IdTokens
from portico.oidc.login import LASTS, Login, finished, is_navigation, is_state, opened, parameters_of
from portico.oidc.provider import LONGEST_TOKEN, Provider, ProviderDown, Registration, TokensRefused, is_error
from portico.oidc.renewal import Relay, TokenSessions
from portico.oidc.seal import Seal
from portico.oidc.session import Lost, Present, Session, SessionLifetime, Sessions
from portico.policy.authentication import note_refusal
from portico.policy.authenticator import Found
from portico.policy.base import Env
from portico.policy.reserved import ReservedHeaders

MOST_FINISHING: Final = 64
"""Logins for which a provider is asked at once; beyond them the answer is 503."""
_OF_CALLBACK: Final = frozenset(("code", "state", "error", "iss"))
_ONLY_OURS: Final = ReservedHeaders(("Authorization",))
_UNAVAILABLE: Final = UNAVAILABLE._replace(reason="the tokens of the session have ended, and cannot be renewed now")
_PASSING: Final = frozenset(("server_error", "temporarily_unavailable"))
"""What a provider calls troubles of its own (RFC 6749 section 4.1.2.1)."""


class LoginPaths(NamedTuple):
    """Where browsers find the gateway."""

    origin: str
    """Scheme, host and port, as browsers know them."""
    callback: str
    logout: str
    after_logout: str


class ProviderSettings(NamedTuple):
    """Whose word counts, and how it must be given."""

    discovery_url: str
    ca: str | None
    issuers: frozenset[str]
    algorithms: frozenset[str]
    leeway: float


class SessionSettings(NamedTuple):
    """What browsers keep."""

    name: str
    secrets: tuple[str, ...]
    lifetime: SessionLifetime

    def __repr__(self) -> str:
        return f"<SessionSettings {self.name}>"


class PartySettings(NamedTuple):
    """What a relying party is told."""

    client: Registration
    scope: str
    extra: Mapping[str, str]
    places: LoginPaths
    trusts: ProviderSettings
    keeps: SessionSettings
    relay: Relay
    user_of: UserOf


class RelyingParty:
    """Knows callers by the cookies of their sessions."""

    def __init__(self, party: PartySettings, env: Env, print_: bytes) -> None:
        """What is told alike has the same `print_`, and what a worker remembers in common."""
        trusts, keeps, user_of = party.trusts, party.keeps, party.user_of
        keys = ProviderKeys.shared(env, trusts.discovery_url, trusts.ca, trusts.issuers)
        self._party = party
        self._wall: Callable[[], float] = env.wall
        self._logger = env.logger
        self._provider = Provider(env, keys, party.client, trusts.ca)
        self._cookies = Cookies(keeps.name, secure=party.places.origin.startswith("https:"))
        self._seal = Seal(keeps.secrets, (trusts.discovery_url, party.client.id, keeps.name))
        self._sessions = env.share(("oidc", print_), lambda: Sessions(self._seal, keeps.lifetime, user_of))
        rules = TokenRules(
            issuers=trusts.issuers,
            audiences=frozenset((party.client.id,)),
            algorithms=trusts.algorithms,
            required=REQUIRED,
            leeway=trusts.leeway,
            max_size=LONGEST_TOKEN,
        )
        id_tokens = IdTokens(keys, rules, party.client.id, user_of, env.wall)
        self._tokens = TokenSessions(env, self._provider, id_tokens, self._sessions, party.relay)
        self._present: Key[Present] = Key("oidc")
        self._set: Key[list[bytes]] = Key("oidc cookies")
        self._finishing = 0

    def answer(self, request: Request) -> Awaitable[Response] | None:
        """Answer what is neither for a service nor for another policy: the way back from a login, and a logout."""
        if request.path == self._party.places.callback:
            return self._finish(request)
        return self._end(request) if request.path == self._party.places.logout else None

    # Who it is.

    def identify(self, request: Request) -> Found | Awaitable[Found]:
        """Return who has the session that a request shows."""
        line = request.headers.index.get(b"cookie")
        if line is None:
            return self._nobody(request)
        present = self._looked_at(request.headers, line)
        if present is None:
            return self._nobody(request)
        request[self._present] = present
        shown, session = present
        if session is None:
            return self._nobody(request)
        now = self._wall()
        if now < session.fresh_until:
            return session.user
        if self._sessions.lifetime.is_over(session, now):
            request[self._present] = Present(shown, None)
            return self._nobody(request)
        newest = self._sessions.newest(session)
        if newest.is_to_be_renewed(now):
            return self._renewed(request, shown, session, newest, now)
        return self._kept(request, shown, session, newest, now)

    def _looked_at(self, headers: Headers, line: bytes) -> Present | None:
        """Return what a request shows; None where it has no cookie of the gateway's."""
        if len(headers.index) != len(headers.pairs):
            line = b"; ".join(headers.get_all(b"cookie"))
        if not self._cookies.may_be_in(line):
            return None
        key, lines = sha256(line).digest(), self._sessions.lines
        present = lines.get(key)
        if present is None:
            shown = self._cookies.of(headers)
            if shown is None:
                return None
            session = self._sessions.recall(shown.session) if shown.session else None
            present = Present(shown, session)
            if session is not None:
                lines.put(key, present)
        return present

    def _nobody(self, request: Request) -> Awaitable[None] | None:
        """Wait for the provider that a browser will be led to, where it is not known yet."""
        return None if self._provider.is_known or not is_navigation(request) else self._provider.described()

    def _kept(self, request: Request, shown: Shown, before: Session, session: Session, now: float) -> User | None:
        """Return whose session it is, and have its cookie made anew where it is due; None where it has ended."""
        lifetime = self._sessions.lifetime
        over = lifetime.is_over(session, now) or self._sessions.has_ended(session)
        if over or (session.expires and now >= session.expires):
            request[self._present] = Present(shown, None)
            return None
        if now >= lifetime.rotation(session.issued) and not session.is_to_be_renewed(now):
            session = self._sessions.rotated(session, now)
        if session is not before:
            try:
                request[self._set] = self._lines(session, shown, now)
            except TooLarge as error:
                self._logger.warning("oidc: a session cannot be kept: %s", error)
        request[self._present] = Present(shown, session)
        return session.user

    async def _renewed(self, request: Request, shown: Shown, before: Session, session: Session, now: float) -> Found:
        """Return whose session it is when its tokens were renewed, or could not be and were good when it was shown."""
        renewal = await self._tokens.renewed(session, good=now < session.expires)
        found = self._kept(request, shown, before, renewal if isinstance(renewal, Session) else session, now)
        if found is None and renewal is Lost.UNAVAILABLE and not self._sessions.lifetime.is_over(session, now):
            return _UNAVAILABLE
        return found

    def _lines(self, session: Session, shown: Shown | None, now: float) -> list[bytes]:
        text, before = self._sessions.text_of(session), () if shown is None else shown.parts
        return self._cookies.keep(text, self._sessions.lifetime.left(session, now), before)

    def conceal(self, request: Request) -> None:
        """Take the gateway's cookies from a request, and show its service the token that it is to see."""
        present = request.get(self._present)
        if present is None:  # nobody has looked for them yet, as somebody else has found out who it is
            line = request.headers.index.get(b"cookie")
            present = None if line is None else self._looked_at(request.headers, line)
            if present is None:
                return
            present = request[self._present] = Present(present.shown, None)
        hide(request.headers, present.shown)
        if present.session is not None and self._party.relay != "none":
            token = present.session.id_token if self._party.relay == "id_token" else present.session.access_token
            _ONLY_OURS.take_from(request)
            if token:  # a route that shows nobody the access token may have begun the session
                request.headers.set(b"Authorization", b"Bearer " + token.encode())

    def keep(self, request: Request, response: Response) -> Response:
        """Give an answer the cookies of a session that goes on."""
        lines, present = request.get(self._set), request.get(self._present)
        if lines is None or present is None or present.session is None or self._sessions.has_ended(present.session):
            return response  # there may have been a logout while the service was at work
        return with_cookies(response, lines)

    # Login.

    def begin(self, request: Request) -> Response | None:
        """Return what leads a browser to a login; None where something else asks, which could not follow."""
        if not is_navigation(request):
            return None
        now, party = self._wall(), self._party
        login = Login.begin(request, now)
        parameters = {
            **party.extra,
            "response_type": "code",
            "client_id": party.client.id,
            "redirect_uri": self._party.places.origin + self._party.places.callback,
            "scope": party.scope,
            "state": login.state,
            "nonce": login.nonce,
            "code_challenge": login.challenge,
            "code_challenge_method": "S256",
        }
        url = self._provider.leads_to("authorization_endpoint", parameters)
        if url is None:
            return _unavailable()
        response = _redirect(302, url)
        response.headers.add(b"Set-Cookie", self._cookies.login(login.state, login.sealed(self._seal), LASTS))
        present = request.get(self._present)  # they may have been taken from the request by now
        shown = self._cookies.of(request.headers) if present is None else present.shown
        for name in self._outdated(shown.logins, now) if shown is not None else ():
            response.headers.add(b"Set-Cookie", self._cookies.drop(name))
        return response

    def _outdated(self, logins: Mapping[bytes, bytes], now: float) -> list[bytes]:
        """Return the names of the cookies of logins that are too many, the oldest, or are over."""
        if len(logins) < MOST_LOGINS:
            return []
        looked_at = list(logins.items())[: 2 * MOST_LOGINS]
        begun = {name: login.begun for name, text in looked_at if (login := opened(self._seal, text)) is not None}
        kept = sorted(begun, key=lambda name: begun[name])[1 - MOST_LOGINS :]
        return [name for name in logins if name not in kept or now >= begun[name] + LASTS]

    async def _finish(self, request: Request) -> Response:
        """Answer a browser that comes back from a login."""
        if request.method != "GET":
            return _wrong_method("GET")
        parameters = parameters_of(request.query, _OF_CALLBACK.__contains__)
        shown = self._cookies.of(request.headers)
        state = "" if parameters is None else parameters.get("state", "")
        if parameters is None or shown is None or not is_state(state):
            return _not_known(request, "no login is under way")
        name = self._cookies.login_name(state)
        login = opened(self._seal, shown.logins.get(name, b""))
        if login is None or not finished(login, state, self._wall()):
            return _not_known(request, "no such login is under way")
        if self._finishing >= MOST_FINISHING:
            return _unavailable()
        self._finishing += 1
        try:
            described = self._provider.described()  # a worker that has just begun may not know it yet
            if described is not None:
                await described
            response = await self._finished(request, parameters, login, shown)
        finally:
            self._finishing -= 1
        response.headers.add(b"Set-Cookie", self._cookies.drop(name))
        response.headers.set(b"Cache-Control", b"no-store")
        response.headers.set(b"Referrer-Policy", b"no-referrer")
        return response

    async def _finished(self, request: Request, said: Mapping[str, str], login: Login, shown: Shown) -> Response:
        if not self._provider.is_known:
            return _unavailable()
        issuer = said.get("iss", "" if self._provider.names_itself else self._provider.issuer)
        if issuer != self._provider.issuer:  # RFC 9207: it comes from another provider than the login has led to
            return _refused(request, "it comes from another provider")
        error = said.get("error")
        if error is not None:
            told = f" ({error})" if is_error(error) else ""
            return _unavailable() if error in _PASSING else _refused(request, f"the provider has refused it{told}")
        if not said.get("code"):
            return _not_known(request, "there is no code")
        grant = {
            "grant_type": "authorization_code",
            "code": said["code"],
            "redirect_uri": self._party.places.origin + self._party.places.callback,
            "code_verifier": login.verifier,
        }
        try:
            session = await self._tokens.begun(await self._provider.tokens(grant), login.nonce)
            lines = self._lines(session, shown, self._wall())
        except ProviderDown as down:
            self._logger.warning("oidc: a login could not be finished: %s", down)
            return _unavailable()
        except TokensRefused as refusal:
            return self._unfinished(request, refusal)
        except TooLarge as large:
            self._logger.warning("oidc: a login could not be finished: %s", large)
            return _failed()
        response = _redirect(303, self._party.places.origin + login.back)
        for line in lines:
            response.headers.add(b"Set-Cookie", line)
        return response

    def _unfinished(self, request: Request, error: TokensRefused) -> Response:
        if error.error == "invalid_grant":
            return _not_known(request, str(error))
        if not error.error:
            return _refused(request, str(error))
        self._logger.warning("oidc: a login could not be finished: %s", error)
        return _failed()

    # Logout.

    async def _end(self, request: Request) -> Response:
        """End the session that a request shows, or ask whether it is meant."""
        if request.method not in logout.METHODS:
            return _wrong_method("GET, POST")
        if not logout.is_meant(request, self._party.places.origin):
            return logout.page()
        after = self._party.places.origin + self._party.places.after_logout
        shown = self._cookies.of(request.headers)
        session = self._sessions.recall(shown.session) if shown is not None and shown.session else None
        url: str | None = None
        if session is not None:
            session = self._sessions.newest(session)
            about = {"id_token_hint": session.id_token, "client_id": self._party.client.id}
            url = self._provider.leads_to("end_session_endpoint", {**about, "post_logout_redirect_uri": after})
            self._tokens.end(session)
        response = _redirect(303, url or after)
        for name in (*shown.parts, *shown.logins) if shown is not None else ():
            response.headers.add(b"Set-Cookie", self._cookies.drop(name))
        return response


def _redirect(status: int, url: str) -> Response:
    response = Response(status)
    response.headers.set(b"Location", url.encode("ascii"))
    response.headers.set(b"Cache-Control", b"no-store")
    return response


def _wrong_method(allowed: str) -> Response:
    response = Response.problem(405, "method-not-allowed")
    response.headers.set(b"Allow", allowed.encode())
    return response


def _not_known(request: Request, reason: str) -> Response:
    note_refusal(request, "oidc", reason)
    return Response.problem(
        400,
        "login-not-known",
        "This login is not known",
        "It was begun elsewhere, took too long, or is over. Go to the page that you wanted again.",
    )


def _refused(request: Request, reason: str) -> Response:
    note_refusal(request, "oidc", reason)
    return Response.problem(403, "login-refused", "Login refused", "The provider has not said who you are.")


def _failed() -> Response:
    return Response.problem(502, "login-failed", "Login failed", "The provider's answer could not be used.")


def _unavailable() -> Response:
    return Response.problem(503, "authentication-unavailable", "Authentication not available")
