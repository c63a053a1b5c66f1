"""Who is calling: policies that each know one kind of credentials, and what several of them on one route come to.

Those of a route stand together, where the first of them stands. A request passes when one of them finds out who it is
from; credentials of another kind are not looked for any more then. One that is `required` has to find out as well,
whatever the others have found. Where none does, the answer is 401, with what each of them would take. What takes those
who have no credentials, as `anonymous` does, is asked last, and only where none were shown.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, cast

from portico.http.correlation import CORRELATION_ID
from portico.http.message import Handler, Key, Request, Response
from portico.http.user import USER, User
from portico.policy.authenticator import Admitted, Authenticator, Found, Refusal
from portico.policy.base import Policy
from portico.policy.consumers import LookupFailed

security = logging.getLogger("portico.security")

_BUSY: Final = Refusal("authentication-busy", "Authentication is busy", status=503, retry_after=1)
"""It cannot be found out at the moment whether the credentials are good."""
_LONGEST_NAME: Final = 128


class _NotAsked:
    """What is told instead of a finding where nobody was asked yet."""

    __slots__ = ()


_NOT_ASKED: Final = _NotAsked()
_AT_ONCE: Final = frozenset((User, Admitted, Refusal, Response, type(None)))


class Asked(NamedTuple):
    """What a client could do to be somebody."""

    all: Sequence[Authenticator[Any]]
    """Whose credentials it could show, if they are looked for by a condition that may hold then."""
    there: Sequence[Authenticator[Any]]
    """Who has looked for them in vain. Nobody else invites: a login of theirs would not be looked at, and so there
    would be one after the other."""


ASKED: Final[Key[Asked]] = Key("asked")
"""What could be done where nobody is known yet, whom somebody further in may want to know."""


class Part(NamedTuple):
    """One of the policies of a route that authenticate."""

    policy: Authenticator[Any]
    holds: Callable[[Request], bool] | None
    """For which requests it is there; for all where None."""


class Authentication:
    """All policies of a route that authenticate, as one.

    It sees no answers but its own unless one of them wants to, and is no coroutine where the first of them knows at
    once who it is: most requests of a busy client are answered from what somebody remembers.
    """

    __slots__ = ("_all", "_answering", "_clock", "_conceal", "_first", "_guests", "_parts", "_seeing")

    def __init__(self, parts: Iterable[Part] = (), clock: Callable[[], float] | None = None) -> None:
        """`clock` is the worker's, by which a request's record tells how long somebody was waited for."""
        self._clock = clock
        self._seeing: list[Authenticator[Any]] = []
        self._parts: list[Part] = []
        self._all: list[Authenticator[Any]] = []
        self._guests: list[Part] = []
        self._answering: list[Part] = []
        self._conceal: list[Callable[[Request], None]] = []
        self._first: Callable[[Request], Found | Awaitable[Found]] | None = None
        """Asks the first of them, where its word is enough, and no condition has to be asked."""
        for part in parts:
            self.add(part)

    def add(self, part: Part) -> None:
        """Take in one more, at load."""
        (self._guests if part.policy.takes_nobody else self._parts).append(part)
        self._all = [policy for policy, _ in self._parts]
        self._conceal = [each.conceal for each in self._all if type(each).conceal is not Authenticator.conceal]
        if type(part.policy).answer is not Authenticator.answer:
            self._answering.append(part)
        if type(part.policy).response is not Policy.response:
            self._seeing.insert(0, part.policy)
        enough = bool(self._parts) and not any(each.policy.config.required for each in self._parts[1:])
        plain = all(each.holds is None for each in self._parts) and not self._answering and not self._seeing
        self._first = self._parts[0].policy.identifier() if enough and plain else None

    @property
    def sees_answers(self) -> bool:
        """Whether one of them is given the answers to requests."""
        return bool(self._seeing)

    def handle(self, request: Request, next: Handler) -> Awaitable[Response]:  # noqa: A002 - the field's word
        """Pass on what comes from somebody; answer everything else."""
        first = self._first
        if first is None:
            return self._own(request) or self._decide(request, next, _NOT_ASKED)
        found = first(request)
        if type(found) is not User:
            return self._decide(request, next, found)
        request[USER] = found
        for conceal in self._conceal:
            conceal(request)
        return next(request)

    def _own(self, request: Request) -> Awaitable[Response] | None:
        """Return what answers for the policy that a request is for; None where it is for the service."""
        for policy, holds in self._answering:
            if holds is None or holds(request):
                answer = policy.answer(request)
                if answer is not None:
                    if request.exchange is not None:
                        request.exchange.stopped_by = policy.name
                    return answer
        return None

    async def _decide(
        self,
        request: Request,
        next: Handler,  # noqa: A002 - the field's word
        at_first: Found | Awaitable[Found] | _NotAsked,
    ) -> Response:
        """Do the same whatever there is to ask or to wait for; `at_first` is what the first of them has said."""
        asked: list[Authenticator[Any]] = []
        refused: tuple[Authenticator[Any], Refusal | Response] | None = None
        known: User | Admitted | None = None
        for policy, holds in self._parts:
            if holds is not None and not holds(request):
                continue
            asked.append(policy)
            required = policy.config.required
            if known is not None and not required:
                continue
            found = policy.identify(request) if at_first is _NOT_ASKED else cast("Found", at_first)
            at_first = _NOT_ASKED
            if type(found) not in _AT_ONCE:
                found = await self._waited(request, policy, cast("Awaitable[Found]", found))
            if type(found) is User or type(found) is Admitted:
                known = self._known(request, known, found)
            elif type(found) is Refusal or type(found) is Response:
                refused = refused or (policy, found)
                if required:
                    return self._refuse(request, asked, refused)
            elif required:
                return self._refuse(request, asked, None, policy)
        if type(known) is not User:
            request[ASKED] = Asked(self._all, asked)
            known = self._guest(request, refused) or known
        if known is None and asked:
            return self._refuse(request, asked, refused)
        self._let_in(request, known, asked)
        if not self._seeing:
            return await next(request)
        return self._answered(request, asked, await next(request))

    async def _waited(self, request: Request, policy: Authenticator[Any], looking: Awaitable[Found]) -> Found:
        """Return what a policy finds that has to ask somebody, and note how long that took."""
        exchange, clock = request.exchange, self._clock
        if exchange is None or clock is None:
            return await _found(looking)
        began = clock()
        try:
            return await _found(looking)
        finally:
            exchange.step(policy.called, began, clock(), "found out who it is")

    def _answered(self, request: Request, asked: Sequence[Authenticator[Any]], response: Response) -> Response:
        """Return the answer as those have it who were asked, the first of them last."""
        for policy in self._seeing:
            if policy in asked:
                response = policy.response(request, response)
        return response

    @staticmethod
    def _known(request: Request, known: User | Admitted | None, found: User | Admitted) -> User | Admitted:
        """Return who it is as far as that is known by now; the conditions of those that come after may ask."""
        if type(known) is User:
            return known
        if type(found) is User:
            request[USER] = found
        return found

    @staticmethod
    def _let_in(request: Request, known: User | Admitted | None, asked: Sequence[Authenticator[Any]]) -> None:
        if type(known) is User:
            request[USER] = known
        for policy in asked:
            policy.conceal(request)

    def _guest(self, request: Request, refused: tuple[Authenticator[Any], Refusal | Response] | None) -> User | None:
        """Return who somebody without credentials is, or None where they are nobody."""
        for policy, holds in self._guests if refused is None else ():
            if holds is None or holds(request):
                return cast(User, policy.identify(request))
        return None

    def _refuse(
        self,
        request: Request,
        asked: Sequence[Authenticator[Any]],
        refused: tuple[Authenticator[Any], Refusal | Response] | None,
        missing: Authenticator[Any] | None = None,
    ) -> Response:
        """Return the answer to a request from nobody that is known for sure, and tell the log.

        What is `missing` is what has to be there, whatever else is.
        """
        if request.get(USER) is not None:
            del request[USER]
        wanted = asked if missing is None else (missing,)
        invited = None if refused is not None else _invited(request, wanted)
        if invited is not None:
            if request.exchange is not None:
                request.exchange.stopped_by = wanted[0].name
            return self._answered(request, asked, invited)
        policy, found = refused or (wanted[0], None)
        refusal = found if type(found) is Refusal else None
        if type(found) is Response:
            response, reason = found, f"answered {found.status}"
        elif refusal is None:
            response, reason = _nobody(wanted), "no credentials"
        else:
            response = Response.problem(refusal.status, refusal.type, refusal.title)
            reason = refusal.reason or refusal.title
            if refusal.retry_after:
                response.headers.set(b"Retry-After", b"%d" % refusal.retry_after)
        note_refusal(request, policy.name, reason)
        if response.status == 401:
            for each in wanted:
                _add_challenge(request, response, each, refusal if each is policy else None)
        return self._answered(request, asked, response)


async def _found(looking: Awaitable[Found]) -> Found:
    try:
        return await looking
    except LookupFailed as failed:
        return _BUSY._replace(reason=str(failed))


def note_refusal(request: Request, policy: str, reason: str) -> None:
    """Tell the log of security, and the request's record, that a policy has refused a request; neither `reason` nor
    anything else is a secret."""
    if request.exchange is not None:
        request.exchange.stopped_by = policy
    client, user, correlation_id = request.client, request.get(USER), request.get(CORRELATION_ID)
    security.warning(
        "refused %s: %s, %sclient %s, route %s%s",
        policy,
        reason,
        "" if user is None else f"user {shown(user.name)}, ",
        "-" if client is None else client.address or "-",
        "-" if request.exchange is None else request.exchange.route or "-",
        "" if correlation_id is None else f", id {correlation_id.decode('ascii')}",
    )


def shown(name: str) -> str:
    """Return a name as a log may have it: on one line, and not too long of it."""
    text = name if name.isprintable() else ascii(name)
    return text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}..."


def unknown_user(request: Request) -> Response:
    """Return the answer to a request from nobody that is known: what one of those who were asked for it invites to, or
    the challenges of all."""
    asked = request.get(ASKED) or Asked((), ())
    invited = _invited(request, asked.there)
    if invited is not None:
        return invited
    response = _nobody(asked.all)
    for policy in asked.all:
        _add_challenge(request, response, policy, None)
    return response


def _invited(request: Request, asked: Iterable[Authenticator[Any]]) -> Response | None:
    for policy in asked:
        response = policy.invite(request)
        if response is not None:
            return response
    return None


def _nobody(asked: Sequence[Authenticator[Any]]) -> Response:
    """Return what is said where nothing was shown; what is missing has a name where only one kind was looked for."""
    titles = {policy.missing for policy in asked}
    title = titles.pop() if len(titles) == 1 else Authenticator.missing
    return Response.problem(401, "authentication-required", title, "This needs credentials, and there are none.")


def _add_challenge(request: Request, response: Response, policy: Authenticator[Any], refusal: Refusal | None) -> None:
    value, invitation = policy.challenge(refusal), policy.challenge_headers(request)
    if value:
        response.headers.add(b"WWW-Authenticate", value.encode("latin-1"))
    for name, text in invitation.pairs if invitation is not None else ():
        response.headers.add(name, text)
