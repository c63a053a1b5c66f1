"""What is asked of a provider: where to lead a browser, and tokens for what it brings back (RFC 6749)."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Awaitable, Mapping
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import quote, urlencode

from portico.config.addresses import parse_url
from portico.config.values import BadValue
from portico.errors import PorticoError
from portico.http.body import Body
from portico.http.headers import Headers
from portico.http.message import Request
from portico.jose.compact import NotTaken, json_object
from portico.jose.introspection import basic_credentials
from portico.jose.provider import ProviderKeys, target_of
from portico.policy.base import Env

ANSWERS_IN: Final = 10.0
"""Seconds that a provider has to answer with tokens."""
MAX_ANSWER: Final = 64 * 1024
"""Bytes of its answer."""
LONGEST_TOKEN: Final = 8192
"""Bytes of each token."""
_MAX_SECONDS: Final = 10**9
_ERROR: Final = re.compile(r"[a-z_]{1,40}")

ClientAuth = Literal["basic", "post", "none"]
"""How a client shows its secret (OpenID Connect Core 1.0 section 9)."""


class ProviderDown(PorticoError):
    """The provider cannot be asked now."""


class TokensRefused(PorticoError):
    """The provider gives no tokens; `error` is what it calls that (RFC 6749 section 5.2), or empty."""

    def __init__(self, message: str, error: str = "") -> None:
        super().__init__(message)
        self.error = error


class Tokens(NamedTuple):
    """What a provider has answered; nothing of it is verified."""

    id_token: str
    """Empty where it gives none, as it may when tokens are renewed."""
    access_token: str
    refresh_token: str
    """Empty where it gives none, or the old one goes on being good."""
    lifetime: float | None
    """Seconds for which the access token is good, if it says so."""

    def __repr__(self) -> str:
        return "<Tokens>"


class Registration(NamedTuple):
    """What the provider knows the gateway as."""

    id: str
    secret: str
    auth: ClientAuth

    def __repr__(self) -> str:
        return f"<Registration {self.id}>"


class Provider:
    """A provider of OpenID Connect, whose description `known` has."""

    def __init__(self, env: Env, known: ProviderKeys, client: Registration, ca: str | None) -> None:
        self._env = env
        self._known = known
        self._client = client
        self._ca = ca
        self._secure = known.url.startswith("https:")

    @property
    def is_known(self) -> bool:
        """Whether the provider has described itself yet."""
        return self._known.description is not None

    @property
    def issuer(self) -> str:
        """What it is called in tokens."""
        return str((self._known.description or {}).get("issuer", ""))

    @property
    def names_itself(self) -> bool:
        """Whether browsers always come back with its name (RFC 9207)."""
        return (self._known.description or {}).get("authorization_response_iss_parameter_supported") is True

    def endpoint(self, name: str) -> str | None:
        """Return the URL of one of its endpoints, or None where it has none that can be used."""
        url = (self._known.description or {}).get(name)
        if not isinstance(url, str) or "#" in url or (self._secure and not url.startswith("https:")):
            return None
        try:
            parse_url(url.partition("?")[0])
        except BadValue:
            return None
        return url if url.isascii() and url.isprintable() and " " not in url else None

    def leads_to(self, name: str, parameters: Mapping[str, str]) -> str | None:
        """Return the URL that leads a browser to one of its endpoints; None where it has no such."""
        url = self.endpoint(name)
        if url is None:
            return None
        mark = "&" if "?" in url else "?"
        return f"{url}{mark}{urlencode(parameters, quote_via=quote)}"

    def described(self) -> Awaitable[None] | None:
        """Return what ends when the provider has described itself, or after a while; None if that has no use now."""
        return None if self.is_known else self._known.renewed()

    async def tokens(self, grant: Mapping[str, str]) -> Tokens:
        """Return the tokens that are given for a grant; raise ProviderDown or TokensRefused."""
        return _tokens_of(*await self._asked("token_endpoint", grant))

    async def revoke(self, refresh_token: str) -> None:
        """Have a token be of no use any more (RFC 7009); raise ProviderDown."""
        about = {"token": refresh_token, "token_type_hint": "refresh_token"}
        status, _ = await self._asked("revocation_endpoint", about)
        if status != 200:
            raise ProviderDown(f"the provider answers {status}")

    async def _asked(self, endpoint: str, form: Mapping[str, str]) -> tuple[int, bytes]:
        """Return status and content of what is answered to a form; raise ProviderDown."""
        url = self.endpoint(endpoint)
        if url is None:
            raise ProviderDown(f"the provider names no {endpoint} that can be asked")
        place, path, query = target_of(url)
        request = self._request(path, query, dict(form))
        try:
            async with asyncio.timeout(ANSWERS_IN):
                answer = await self._env.web(place, self._ca)(request)
                try:
                    if answer.status >= 500 or answer.status == 429:
                        raise ProviderDown(f"the provider answers {answer.status}")
                    return answer.status, await answer.body.read(MAX_ANSWER)
                finally:
                    answer.body.close()
        except TimeoutError:
            raise ProviderDown("the provider does not answer") from None
        except ProviderDown:
            raise
        except PorticoError as error:
            raise ProviderDown(f"the provider does not answer: {error}") from None

    def _request(self, path: str, query: str | None, form: dict[str, str]) -> Request:
        headers = Headers(
            (
                (b"Accept", b"application/json"),
                (b"Accept-Encoding", b"identity"),
                (b"Content-Type", b"application/x-www-form-urlencoded"),
            )
        )
        client = self._client
        if client.auth == "basic":
            headers.add(b"Authorization", basic_credentials(client.id, client.secret))
        else:
            form["client_id"] = client.id
            if client.auth == "post":
                form["client_secret"] = client.secret
        request = Request("POST", path, query, headers, Body(urlencode(form).encode()))
        request.deadline = self._env.clock() + ANSWERS_IN
        return request


def is_error(text: str) -> bool:
    """Return whether a text is the name of an error, which the log can be told."""
    return _ERROR.fullmatch(text) is not None


def _tokens_of(status: int, content: bytes) -> Tokens:
    """Return what an answer says; raise TokensRefused."""
    try:
        said = json_object(content, "text")
    except NotTaken:
        raise TokensRefused(f"the provider answers {status}, and no JSON object") from None
    if status != 200:
        error = said.get("error")
        if isinstance(error, str) and is_error(error):
            raise TokensRefused(f"the provider answers {status} ({error})", error)
        raise TokensRefused(f"the provider answers {status}")
    kind = said.get("token_type")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise TokensRefused("the provider gives tokens that are none of bearers")
    access = _token(said, "access_token")
    if not access:
        raise TokensRefused("the provider gives no access token")
    return Tokens(_token(said, "id_token"), access, _token(said, "refresh_token"), _lifetime(said.get("expires_in")))


def _token(said: Mapping[str, Any], name: str) -> str:
    value = said.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > LONGEST_TOKEN or not value.isascii() or not value.isprintable():
        raise TokensRefused(f"the {name} that the provider gives cannot be used")
    return value


def _lifetime(value: object) -> float | None:
    if isinstance(value, str) and re.fullmatch(r"\d{1,9}", value):  # some write it as a text
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(min(value, _MAX_SECONDS)) if value > 0 else None
