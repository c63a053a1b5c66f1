"""A policy that finds out who is calling, and what it may find."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Final, Generic, NamedTuple, TypeAlias, TypeVar

from portico.http.headers import HeaderBlock
from portico.http.message import Handler, Request, Response
from portico.http.user import User
from portico.policy.base import Policy, PolicyConfig


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
    """The seconds after which it is worth another try, where that is known."""


class Admitted:
    """What is found where a request may pass, and nobody says who it is from; see `ADMITTED`."""

    __slots__ = ()


ADMITTED: Final = Admitted()
"""The one there is."""

Found: TypeAlias = User | Admitted | Refusal | Response | None
"""Who it is, or that it may pass without a name; why it is not taken, or the very answer to that, which somebody else
has decided on; None where no credentials of the kind were shown."""


_NEVER_CALLED: Final = ("handle", "request")


class Authenticator(Policy[AuthConfigT], Generic[AuthConfigT]):
    """A policy that finds out who is calling by one kind of credentials; see `identify` and `challenge`.

    Its `response` is given each answer to a request that it was asked about, refusals included.
    """

    missing: ClassVar[str] = "Missing authentication"
    """The title of the answer where nothing was shown."""
    takes_nobody: ClassVar[bool] = False
    """Whether `identify` returns, at once, who those are that have shown no credentials; it is never challenged."""

    of_callers: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for method in _NEVER_CALLED:
            if getattr(cls, method) is not getattr(Authenticator, method):
                raise TypeError(
                    f"{cls.__name__}.{method} would never be called, as those of a route that authenticate stand "
                    "together; override identify, challenge and conceal, and do the rest in a policy of its own"
                )

    def identify(self, request: Request) -> Found | Awaitable[Found]:
        """Return who the request is from, or an awaitable of that where it takes some waiting."""
        raise NotImplementedError

    def identifier(self) -> Callable[[Request], Found | Awaitable[Found]]:
        """Return what is asked of most requests, after `setup`: `identify`, or whatever does the same with less."""
        return self.identify

    def challenge(self, refusal: Refusal | None) -> str:
        """Return the challenge for WWW-Authenticate (RFC 9110 section 11.6.1), such as `Bearer realm="api"`.

        `refusal` is why the credentials were not taken; None where none were shown, or where `identify` has answered
        by itself. An empty text is no challenge.
        """
        raise NotImplementedError

    def answer(self, request: Request) -> Awaitable[Response] | None:
        """Return what answers a request that is for this policy itself, such as the way back from a login, and not for
        a service; None for any other. It is asked before anybody looks for credentials."""
        return None

    def invite(self, request: Request) -> Response | None:
        """Return what somebody who has shown no credentials at all is answered instead of a 401, such as a redirect to
        a login; None where that will do."""
        return None

    def challenge_headers(self, request: Request) -> HeaderBlock | None:
        """Return what else a 401 says of the credentials that would be taken, such as Accept-Signature."""
        return None

    def conceal(self, request: Request) -> None:
        """Take from a request what its service is not to see, such as the credentials; whoever they were good for.

        This is the last look at a request that passes: what the service is to be told instead is put there now.
        """

    async def handle(self, request: Request, next: Handler) -> Response:  # noqa: A002 - the field's word
        """Pass on what comes from somebody; answer everything else."""
        from portico.policy.authentication import Authentication, Part  # it is made of these policies

        return await Authentication((Part(self, None),)).handle(request, next=next)
