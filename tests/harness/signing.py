"""Clients that sign their requests, by a library that nobody here wrote, and the policy that they are shown to."""

from __future__ import annotations

import asyncio
import base64
import hmac
from collections.abc import Awaitable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from http_message_signatures import HTTPMessageSigner, HTTPSignatureKeyResolver
from http_message_signatures.algorithms import (
    ECDSA_P256_SHA256,
    ECDSA_P384_SHA384,
    ED25519,
    HMAC_SHA256,
    RSA_PSS_SHA512,
    RSA_V1_5_SHA256,
)

from portico.http.body import Body
from portico.plugin import Client, Headers, Request
from portico.policies.hmac_auth import HmacAuthPolicy
from tests.harness.policy import TestEnv
from tests.harness.tokens import key, public

NOW = 1_800_000_000
"""The time of day when a test begins."""
SECRET = "a secret of thirty-two bytes, or even more than that"
URL = "http://api.example/orders/7?a=1&b=x%20y"

LINES = ('"@method": GET', f'"@target-uri": {URL}')
COVERED = '("@method" "@target-uri")'
GOOD = f';created={NOW};keyid="k"'
"""What an honest signature by hand is of."""

ALGORITHMS = {
    "hmac-sha256": (HMAC_SHA256, "secret"),
    "ed25519": (ED25519, "Ed25519"),
    "ecdsa-p256-sha256": (ECDSA_P256_SHA256, "P-256"),
    "ecdsa-p384-sha384": (ECDSA_P384_SHA384, "P-384"),
    "rsa-pss-sha512": (RSA_PSS_SHA512, "RSA"),
    "rsa-v1_5-sha256": (RSA_V1_5_SHA256, "RSA"),
}
Fields = list[tuple[str, str]]


class _Keys(HTTPSignatureKeyResolver):
    def __init__(self, kind: str) -> None:
        self._kind = kind

    def resolve_private_key(self, key_id: str) -> Any:
        return SECRET.encode() if self._kind == "secret" else key(self._kind).private_key  # type: ignore[union-attr]


class _Message:
    def __init__(self, method: str, url: str, headers: Iterable[tuple[str, str]]) -> None:
        self.method = method
        self.url = url
        self.headers = dict(headers)


def signer_of(algorithm: str) -> dict[str, Any]:
    """Return what the configuration says of the key that is for an algorithm."""
    kind = ALGORITHMS[algorithm][1]
    if kind == "secret":
        return {"secret": SECRET}
    chosen = {"algorithm": algorithm} if kind == "RSA" else {}
    return {"jwk": public(key(kind))} | chosen


def signed(
    method: str = "GET",
    url: str = URL,
    *headers: tuple[str, str],
    body: bytes | None = None,
    algorithm: str = "hmac-sha256",
    created: float = NOW,
    expires: float | None = None,
    components: Iterable[str] = ("@method", "@target-uri"),
    key_id: str = "k",
    **said: Any,
) -> Fields:
    """Return the header fields of a request that is signed."""
    message = _Message(method, url, headers)
    kind, keys = ALGORITHMS[algorithm]
    signer = HTTPMessageSigner(signature_algorithm=kind, key_resolver=_Keys(keys))
    signer.sign(
        message,
        key_id=key_id,
        created=datetime.fromtimestamp(created, UTC),
        expires=None if expires is None else datetime.fromtimestamp(expires, UTC),
        covered_component_ids=tuple(components),
        body=body,
        **said,
    )
    return list(message.headers.items())


def by_hand(said: str, *lines: str, label: str = "sig", secret: str = SECRET) -> Fields:
    """Return the fields of a signature that says `said`, over these lines: what an honest client would never send."""
    base = "\n".join((*lines, f'"@signature-params": {said}')).encode("latin-1")
    value = base64.b64encode(hmac.digest(secret.encode(), base, "sha256")).decode()
    return [("Signature-Input", f"{label}={said}"), ("Signature", f"{label}=:{value}:")]


def input_of(parameters: str = GOOD, covered: str = COVERED) -> str:
    """Return what a signature says of itself, and what it covers."""
    return f"{covered}{parameters}"


def request_of(
    headers: Iterable[tuple[str, str]] = (),
    method: str = "GET",
    url: str = URL,
    body: Body | bytes = b"",
    client: Client | None = None,
) -> Request:
    """Return a request as the gateway has it, which has come to a URL of http by its origin form."""
    parts = urlsplit(url)
    fields = Headers((name.encode(), value.encode("latin-1")) for name, value in headers)
    if b"host" not in fields:
        fields.add(b"Host", parts.netloc.encode())
    target = url.partition(parts.netloc)[2] or "/"
    content = Body(body) if isinstance(body, bytes) else body
    client = client or Client("192.0.2.7", 5000, 80, "http")
    return Request(
        method, parts.path or "/", parts.query or None, fields, content, client=client, sent=target.encode("latin-1")
    )


class SigningEnv(TestEnv):
    """An Env whose time of day a test has in its hand, and which keeps what is leased over a reload."""

    def __init__(self) -> None:
        super().__init__()
        self.now: float = NOW
        self.shared: dict[tuple[object, ...], Any] = {}

    def wall(self) -> float:
        return self.now

    def share(self, key: tuple[object, ...], make: Any) -> Any:
        if key not in self.shared:
            self.shared[key] = make()
        return self.shared[key]


def made(env: SigningEnv | None = None, **settings: Any) -> HmacAuthPolicy:
    """Return a policy that knows the key `k`, unless others are given."""
    keys: Mapping[str, Any] = {"k": {"secret": SECRET}}
    policy = HmacAuthPolicy(HmacAuthPolicy.config_class.model_validate({"keys": keys} | settings))
    policy.setup(env or SigningEnv())
    return policy


def found(policy: HmacAuthPolicy, request: Request) -> Any:
    """Return what a policy finds out about a request."""
    result = policy.identify(request)
    if not isinstance(result, Awaitable):
        return result

    async def wait() -> object:
        return await result

    return asyncio.run(wait())
