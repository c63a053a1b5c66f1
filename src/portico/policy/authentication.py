"""Who is calling: policies that each know one kind of credentials, and what several of them on one route come to.

Those of a route stand together, where the first of them stands. A request passes when one of them finds out who it is
from; credentials of another kind are not looked for any more then. One that is `required` has to find out as well,
whatever the others have found. Where none does, the answer is 401, with what each of them would take. What takes those
who have no credentials, as `anonymous` does, is asked last, and only where none were shown.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, ClassVar, Final, Generic, NamedTuple, TypeAlias, TypeVar, cast

from portico.http.message import Handler, Key, Request, Response
from portico.http.user import USER, User
from portico.policy.base import Policy, PolicyConfig
from portico.policy.consumers import LookupFailed

security = logging.getLogger("portico.security")


class AuthenticatorConfig(PolicyConfig):
    """What the settings of every policy that authenticates have."""

    required: bool = False
    """Whether these credentials have to be there and be good, whatever others are. Unless given, those of one policy of
    the route are enough."""


AuthConfigT = TypeVar("AuthConfigT", bound=AuthenticatorConfig)


class Refusal(NamedTuple):
    """Why credentials that were shown are not taken."""

    type: str
    """A stable name, such as `token-expired`."""
    title: str
    """What is wrong, in words that any client may read: `Token expired`."""
    reason: str = ""
    """What the log is told beside that; it has no part of the credentials."""
    error: str = ""
    """The `error` of the challenge where its scheme has one (RFC 6750 section 3.1): `invalid_token`."""
    status: int = 401
    """What is answered; 503 where it could not be found out whether they are good."""
    retry_after: int = 0
    """In how many seconds that may be otherwise; 0 where nobody knows."""


_BUSY: Final = Refusal("authentication-busy", "Authentication is busy", status=503, retry_after=1)
"""It cannot be found out at the moment whether the credentials are good."""


_LONGEST_NAME: Final = 128


class Admitted:
    """What is found where a request may pass, and nobody says who it is from; see `ADMITTED`."""

    __slots__ = ()


ADMITTED: Final = Admitted()
"""The one there is."""

Found: TypeAlias = User | Admitted | Refusal | Response | None
"""Who it is, or that it may pass without a name; why it is not taken, or the very answer to that, which somebody else
has decided on; None where no credentials of the kind were shown."""

_AT_ONCE: Final = frozenset((User, Admitted, Refusal, Response, type(None)))


class Authenticator(Policy[AuthConfigT], Generic[AuthConfigT]):
    """A policy that finds out who is calling by one kind of credentials; see `identify` and `challenge`."""

    missing: ClassVar[str] = "Missing authentication"
    """The title of the answer where nothing was shown."""
    takes_nobody: ClassVar[bool] = False
    """Whether `identify` returns, at once, who those are that have shown no credentials; it is never challenged."""

    of_callers: ClassVar[bool] = True

    def identify(self, request: Request) -> Found | Awaitable[Found]:
        """Return who the request is from, or an awaitable of that where it takes some waiting."""
        raise NotImplementedError

    def challenge(self, refusal: Refusal | None) -> str:
        """Return the challenge for WWW-Authenticate (RFC 9110 section 11.6.1), such as `Bearer realm="api"`.

        `refusal` is why the credentials were not taken; None where none were shown, or where `identify` has answered
        by itself. An empty text is no challenge.
        """
        raise NotImplementedError

    def conceal(self, request: Request) -> None:
        """Take from a request what its service is not to see, such as the credentials; whoever they were good for.

        This is the last look at a request that passes: what the service is to be told instead is put there now.
        """

    async def handle(self, request: Request, next: Handler) -> Response:  # noqa: A002 - the field's word
        """Pass on what comes from somebody; answer everything else."""
        return await Authentication((Part(self, None),)).handle(request, next)


ASKED: Final[Key[Sequence[Authenticator[Any]]]] = Key("asked")
"""Who has looked for credentials in vain, where nobody's were taken: what a client could show to be somebody."""


class Part(NamedTuple):
    """One of the policies of a route that authenticate."""

    policy: Authenticator[Any]
    holds: Callable[[Request], bool] | None
    """For which requests it is there; for all where None."""


class Authentication:
    """All policies of a route that authenticate, as one."""

    __slots__ = ("_guests", "_parts")

    def __init__(self, parts: Iterable[Part] = ()) -> None:
        self._parts: list[Part] = []
        self._guests: list[Part] = []
        for part in parts:
            self.add(part)

    def add(self, part: Part) -> None:
        """Take in one more, at load."""
        (self._guests if part.policy.takes_nobody else self._parts).append(part)

    async def handle(self, request: Request, next: Handler) -> Response:  # noqa: A002 - the field's word
        """Pass on what comes from somebody; answer everything else."""
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
            found = policy.identify(request)
            if type(found) not in _AT_ONCE:
                found = await _found(cast("Awaitable[Found]", found))
            if type(found) is User or type(found) is Admitted:
                known = self._known(request, known, found)
            elif type(found) is Refusal or type(found) is Response:
                refused = refused or (policy, found)
                if required:
                    return self._refuse(request, asked, refused)
            elif required:
                return self._refuse(request, [policy], None)
        known = known if type(known) is User else self._guest(request, asked, refused) or known
        if known is None and asked:
            return self._refuse(request, asked, refused)
        self._let_in(request, known, asked)
        return await next(request)

    @staticmethod
    def _known(request: Request, known: User | Admitted | None, found: User | Admitted) -> User | Admitted:
        """Return who it is as far as that is known by now; the conditions of those that come after may ask."""
        if type(known) is User:
            return known
        if type(found) is User:
            request[USER] = found
        return found

    def _let_in(self, request: Request, known: User | Admitted | None, asked: Sequence[Authenticator[Any]]) -> None:
        if type(known) is not User:
            request[ASKED] = [policy for policy, _ in self._parts]
        else:
            request[USER] = known
        for policy in asked:
            policy.conceal(request)

    def _guest(
        self,
        request: Request,
        asked: Sequence[Authenticator[Any]],
        refused: tuple[Authenticator[Any], Refusal | Response] | None,
    ) -> User | None:
        """Return who somebody without credentials is, or None where they are nobody."""
        for policy, holds in self._guests if refused is None else ():
            if holds is None or holds(request):
                request[ASKED] = asked
                return cast(User, policy.identify(request))
        return None

    def _refuse(
        self,
        request: Request,
        asked: Sequence[Authenticator[Any]],
        refused: tuple[Authenticator[Any], Refusal | Response] | None,
    ) -> Response:
        """Return the answer to a request from nobody that is known for sure, and tell the log."""
        if request.get(USER) is not None:
            del request[USER]
        policy, found = refused or (asked[0], None)
        refusal = found if type(found) is Refusal else None
        if type(found) is Response:
            response, reason = found, f"answered {found.status}"
        elif refusal is None:
            response, reason = _nobody(policy.missing), "no credentials"
        else:
            response = Response.problem(refusal.status, refusal.type, refusal.title)
            if refusal.retry_after:
                response.headers.set(b"Retry-After", b"%d" % refusal.retry_after)
            reason = refusal.reason or refusal.title
        note_refusal(request, policy.name, reason)
        if response.status == 401:
            for each in asked:
                _add_challenge(response, each.challenge(refusal if each is policy else None))
        return response


async def _found(looking: Awaitable[Found]) -> Found:
    try:
        return await looking
    except LookupFailed as failed:
        return _BUSY._replace(reason=str(failed))


def note_refusal(request: Request, policy: str, reason: str) -> None:
    """Tell the log of security that a policy has refused a request; neither `reason` nor anything else is a secret."""
    client, user = request.client, request.get(USER)
    security.warning(
        "refused %s: %s, %sclient %s, route %s",
        policy,
        reason,
        "" if user is None else f"user {shown(user.name)}, ",
        "-" if client is None else client.address or "-",
        "-" if request.exchange is None else request.exchange.route or "-",
    )


def shown(name: str) -> str:
    """Return a name as a log may have it: on one line, and not too long of it."""
    text = name if name.isprintable() else ascii(name)
    return text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}..."


def unknown_user(request: Request) -> Response:
    """Return the answer to a request from nobody that is known, with the challenges of those who were asked for it."""
    response = _nobody(Authenticator.missing)
    for policy in request.get(ASKED) or ():
        _add_challenge(response, policy.challenge(None))
    return response


def _nobody(title: str) -> Response:
    return Response.problem(401, "authentication-required", title, "This needs credentials, and there are none.")


def _add_challenge(response: Response, value: str) -> None:
    if value:
        response.headers.add(b"WWW-Authenticate", value.encode("latin-1"))
