"""A provider of OpenID Connect and browsers, in a time that a test has in its hand.

The provider is as strict as the standards have it: it takes a code once, only with the verifier of its challenge, and
each refresh token once where it rotates them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qs, parse_qsl, urlsplit

from portico.plugin import USER, Body, Handler, Headers, Request, Response, User
from portico.policies.anonymous import Anonymous, AnonymousPolicy
from portico.policies.oidc import Oidc, OidcPolicy
from portico.policy.authentication import Authentication, Part
from portico.policy.authenticator import Authenticator
from tests.harness.tokens import World, key, public, token

ISSUER = "https://login.example"
DISCOVERY = f"{ISSUER}/.well-known/openid-configuration"
SHOP = "https://shop.example"
CALLBACK = f"{SHOP}/oidc/callback"
COOKIE_SECRET = "the first secret for the cookies of a test"
CLIENT_SECRET = "what the provider knows the shop by/:%"
PAGE = {"Accept": "text/html,*/*;q=0.8", "Sec-Fetch-Mode": "navigate"}

SETTINGS: dict[str, Any] = {
    "discovery_url": DISCOVERY,
    "client_id": "shop",
    "client_secret": CLIENT_SECRET,
    "external_url": SHOP,
    "cookie": COOKIE_SECRET,
}


class Provider:
    """Gives codes to who logs in, and tokens for codes."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.codes: dict[str, dict[str, str]] = {}
        self.fresh: dict[str, str] = {}
        """Refresh tokens that are good, and whose they are."""
        self.forms: list[dict[str, str]] = []
        """What the token endpoint was asked."""
        self.shown: list[str] = []
        self.revoked: list[str] = []
        self.lifetime: int | None = 300
        self.gives_refresh = True
        self.rotates = True
        self.kind = "RSA"
        self.claims: dict[str, Any] = {}
        """What ID tokens say otherwise."""
        self.answer: Response | None = None
        """What the token endpoint answers instead."""
        self.tokens: dict[str, Any] = {}
        """What it answers otherwise."""
        self.description = {
            "issuer": ISSUER,
            "authorization_endpoint": f"{ISSUER}/authorize?realm=shop",
            "token_endpoint": f"{ISSUER}/token",
            "jwks_uri": f"{ISSUER}/keys",
            "end_session_endpoint": f"{ISSUER}/logout",
            "revocation_endpoint": f"{ISSUER}/revoke",
        }
        self.up()

    def up(self) -> None:
        self.world.hosts |= {
            DISCOVERY: self.description,
            f"{ISSUER}/keys": {"keys": [public(key("RSA")), public(key("P-521"))]},
            f"{ISSUER}/token": self._token,
            f"{ISSUER}/revoke": self._revoke,
        }

    def down(self) -> None:
        self.world.hosts.clear()

    def log_in(self, location: str, name: str = "ada") -> str:
        """Log somebody in who was led here, and return where they are led then."""
        asked = dict(parse_qsl(urlsplit(location).query, strict_parsing=True))
        assert location.startswith(f"{ISSUER}/authorize?realm=shop&")
        assert (asked["client_id"], asked["response_type"], asked["redirect_uri"]) == ("shop", "code", CALLBACK)
        assert asked["code_challenge_method"] == "S256"
        assert "openid" in asked["scope"].split()
        code = secrets.token_hex(8)
        self.codes[code] = {**asked, "sub": name}
        return f"/oidc/callback?code={code}&state={asked['state']}"

    def id_token(self, name: str, nonce: str | None, access: str, **header: Any) -> str:
        now = int(self.world.wall())
        digest = hashlib.sha256 if self.kind == "RSA" else hashlib.sha512
        half = digest(access.encode()).digest()
        claims = {
            "iss": ISSUER,
            "sub": name,
            "aud": "shop",
            "exp": now + 300,
            "iat": now,
            "nonce": nonce,
            "at_hash": base64.urlsafe_b64encode(half[: len(half) // 2]).rstrip(b"=").decode(),
            "roles": ["buyer"],
            **self.claims,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        return token(claims, self.kind, kid=key(self.kind).thumbprint(), **header)

    def _token(self, request: Request) -> Response:
        assert request.method == "POST"
        assert request.body.whole is not None
        form = dict(parse_qsl(request.body.whole.decode(), strict_parsing=True))
        self.forms.append(form)
        self.shown.append(request.headers.text(b"authorization") or "")
        if self.answer is not None:
            return self.answer
        if form["grant_type"] == "refresh_token":
            name = self.fresh.get(form["refresh_token"])
            if name is None:
                return _json(400, {"error": "invalid_grant"})
            if self.rotates:
                del self.fresh[form["refresh_token"]]
            return self._given(name, None)
        asked = self.codes.pop(form["code"], None)
        challenge = hashlib.sha256(form["code_verifier"].encode()).digest()
        expected = base64.urlsafe_b64encode(challenge).rstrip(b"=").decode()
        if asked is None or asked["code_challenge"] != expected or asked["redirect_uri"] != form["redirect_uri"]:
            return _json(400, {"error": "invalid_grant"})
        return self._given(asked["sub"], asked["nonce"])

    def _given(self, name: str, nonce: str | None) -> Response:
        access = f"access-{name}-{len(self.forms)}"
        said: dict[str, Any] = {"token_type": "Bearer", "access_token": access, "expires_in": self.lifetime}
        said["id_token"] = self.id_token(name, nonce, access)
        if self.gives_refresh:
            said["refresh_token"] = f"refresh-{secrets.token_hex(8)}"
            self.fresh[said["refresh_token"]] = name
        said |= self.tokens
        return _json(200, {name: value for name, value in said.items() if value is not None})

    def _revoke(self, request: Request) -> Response:
        assert request.body.whole is not None
        form = parse_qs(request.body.whole.decode())
        self.revoked += form["token"]
        for each in form["token"]:
            self.fresh.pop(each, None)
        return Response(200)


def _json(status: int, said: dict[str, Any]) -> Response:
    return Response(status, None, json.dumps(said).encode())


def policy(world: World, **settings: Any) -> OidcPolicy:
    made = OidcPolicy(Oidc.model_validate({**SETTINGS, **settings}))
    made.setup(world)  # type: ignore[arg-type]
    return made


def anonymous() -> AnonymousPolicy:
    """Return the policy that takes whoever shows nothing."""
    made = AnonymousPolicy(Anonymous.model_validate({"name": "guest"}))
    made.setup(World())  # type: ignore[arg-type]
    return made


class Visit(NamedTuple):
    """What came of one request."""

    status: int
    location: str
    type: str
    headers: Headers
    user: User | None
    seen: Request | None
    """The request as the service has got it."""


class Browser:
    """Keeps cookies as browsers do, for one host."""

    def __init__(self, *policies: Authenticator[Any], service: Response | Handler | None = None) -> None:
        self.policies: Sequence[Authenticator[Any]] = policies
        self.cookies: dict[str, str] = {}
        self.set: list[str] = []
        """What was set by the last answer."""
        self.service = service
        self.body: Body | None = None
        """What the next request has as its content."""

    async def ask(self, target: str, method: str = "GET", **headers: str) -> Visit:
        """Send a request, as the page of a script does."""
        fields = Headers()
        for name, value in headers.items():
            fields.add(name.replace("_", "-").encode(), value.encode("latin-1"))
        if self.cookies:
            fields.add(b"Cookie", "; ".join(f"{name}={value}" for name, value in self.cookies.items()).encode())
        path, _, query = target.partition("?")
        request = Request(method, path, query or None, fields, self.body, host="shop.example")
        self.body = None
        seen: list[Request] = []

        async def passed(request: Request) -> Response:
            seen.append(request)
            return await self.service(request) if callable(self.service) else self.service or Response(204)

        response = await Authentication([Part(each, None) for each in self.policies]).handle(request, passed)
        self.set = [value.decode() for value in response.headers.get_all(b"set-cookie")]
        for line in self.set:
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies.pop(name, None)
            if "Max-Age=0;" not in line:
                self.cookies[name] = value
        problem = response.problem_value
        return Visit(
            response.status,
            response.headers.text(b"location") or "",
            "" if problem is None else problem.type,
            response.headers,
            request.get(USER),
            seen[0] if seen else None,
        )

    async def open(self, target: str, method: str = "GET", **headers: str) -> Visit:
        """Ask for a page."""
        return await self.ask(target, method, **{**PAGE, **headers})

    async def log_in(self, provider: Provider, target: str = "/", name: str = "ada") -> Visit:
        """Ask for a page, log in, and come to that page."""
        led = await self.open(target)
        assert led.status == 302
        back = await self.open(provider.log_in(led.location, name))
        assert back.status == 303, back
        assert back.location.startswith(f"{SHOP}/")
        return await self.open(back.location.removeprefix(SHOP))


def session_of(browser: Browser) -> dict[str, str]:
    """Return the cookies of the session."""
    return {name: value for name, value in browser.cookies.items() if "-login-" not in name}


def forged(**claims: Any) -> Callable[[Provider], None]:
    def play(provider: Provider) -> None:
        provider.claims = claims

    return play


def given_as(**said: Any) -> Callable[[Provider], None]:
    def play(provider: Provider) -> None:
        provider.tokens = said

    return play


def of_an_unknown_key(provider: Provider) -> None:
    provider.kind = "P-256"


async def has_ended(browser: Browser, target: str = "/") -> bool:
    answer = await browser.open(target)
    assert answer.status in (204, 302)
    return answer.status == 302
