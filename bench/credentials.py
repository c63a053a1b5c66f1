"""Who is calling, in the rows that are about that: what portico is told to ask for, and what the load shows."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from joserfc.jwk import RSAKey

from portico.jose.mint import sign

FORGOTTEN = 10_000
"""Tokens that are more than portico remembers, so that in their round none is known when it comes again."""
HOUR = 3600
API_KEY = "a-key-that-only-the-bench-knows"


@dataclass(frozen=True)
class Credentials:
    """What a row shows and asks for."""

    config: str
    """What portico's file has more."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """What every request has."""
    each: tuple[str, list[str]] | None = None
    """A header that every request has with another value, and the values, which come round."""

    def write_values(self, where: Path) -> Path | None:
        """Put the values where the load reads them, one a line."""
        if self.each is None:
            return None
        file = where / "values.txt"
        file.write_text("".join(f"{value}\n" for value in self.each[1]))
        return file


def _tokens(where: Path, number: int) -> tuple[str, list[str]]:
    """Return the policy that takes tokens of a new key, and so many of them."""
    key = RSAKey.generate_key(2048)
    file = where / "jwks.json"
    file.write_text(json.dumps({"keys": [dict(key.as_dict(private=False), kid=key.thumbprint())]}))
    file.chmod(0o644)
    claims = {"iss": "bench", "aud": "portico", "exp": int(time.time()) + HOUR, "scope": "items:read"}
    tokens = [sign(claims | {"sub": f"user-{each}"}, key, "RS256") for each in range(number)]
    return f"policies: [{{jwt: {{jwks_file: {file}, issuer: bench, audience: portico}}}}]\n", tokens


def jwt(where: Path) -> Credentials:
    """One token, over and over."""
    config, (token,) = _tokens(where, 1)
    return Credentials(config, {"Authorization": f"Bearer {token}"})


def jwt_first_seen(where: Path) -> Credentials:
    """More tokens than are remembered, in turn."""
    config, tokens = _tokens(where, FORGOTTEN)
    shown = [f"Bearer {token}" for token in tokens]
    return Credentials(config, {"Authorization": shown[0]}, ("Authorization", shown))


def key_auth(where: Path) -> Credentials:
    """A key of a consumer."""
    return Credentials(f"consumers: {{bench: {API_KEY}}}\npolicies: [key-auth]\n", {"X-API-Key": API_KEY})


def forward_auth(where: Path) -> Credentials:
    """A question to the service itself before every request."""
    return Credentials("policies: [{forward-auth: {service: api, path: /api/item}}]\n", {"Authorization": "Any of it"})


def rate_limit(where: Path) -> Credentials:
    """Two limits that nobody reaches, counted together for the address."""
    return Credentials("policies: [{rate-limit: [1000000/1s, 1000000000/1h]}]\n")


MAKERS: Mapping[str, Callable[[Path], Credentials]] = MappingProxyType(
    {
        "jwt": jwt,
        "jwt-first-seen": jwt_first_seen,
        "key-auth": key_auth,
        "forward-auth": forward_auth,
        "rate-limit": rate_limit,
    }
)
