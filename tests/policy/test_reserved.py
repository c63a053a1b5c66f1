"""What only the gateway may say does not come to a service by what follows a body either, past whatever policy."""

from __future__ import annotations

import gzip

import argon2
import pytest

from portico.config.values import BadValue
from portico.plugin import Body, ReservedHeaders, check_reservable
from portico.testing import Gateway, Reply
from tests.harness.policies import request_of
from tests.harness.policy import Pieces

HASHED = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("swordfish")
CONFIG = f"""
consumers: {{ada: {{keys: ada-has-a-long-key, password: '{HASHED}'}}}}
services: {{s: "http://s", auth: "http://auth"}}
routes: [{{path: /**, service: s, policies: [POLICY]}}]
"""
KEY = {"X-API-Key": "ada-has-a-long-key"}
BASIC = {"Authorization": "Basic YWRhOnN3b3JkZmlzaA=="}
CASES: list[tuple[str, dict[str, str], list[str]]] = [
    ("user-headers: {groups: X-Groups}", {}, ["X-User-ID", "X_User_ID", "x-user_roles", "x-groups"]),
    (
        "internal-jwt: {secret: 'a secret of thirty-two bytes or more', issuer: i, audience: a, header: X-Me}",
        {},
        ["X-Me", "x_me"],
    ),
    ("key-auth", KEY, ["X-API-Key", "x_api_key"]),
    ("basic-auth", BASIC, ["Authorization", "AUTHORIZATION"]),
    ("forward-auth: {service: auth, identity: X-Name, pass: X-Extra}", {}, ["X-Name", "x_name", "X-Extra"]),
    ("headers: {request: {remove: [X-In-*, X-Y], set: {X-Z: a}}}", {}, ["x-in-a", "X_In_b", "x_y", "X-Z", "x_z"]),
]


@pytest.mark.parametrize("decodes", ["", "guard", "transform"])
@pytest.mark.parametrize(("policy", "headers", "names"), CASES)
def test_trailers_cannot_say_so(policy: str, headers: dict[str, str], names: list[str], decodes: str) -> None:
    """Nor where another policy puts content of its own in the place of what is sent."""
    policy = f"{{{policy}}}" if ":" in policy else policy
    text = CONFIG.replace("POLICY", f"{policy}, {{decompress: {{}}, stage: {decodes}}}" if decodes else policy)
    content = gzip.compress(b"xy") if decodes else b"xy"
    headers = headers | ({"Content-Encoding": "gzip"} if decodes else {})
    with Gateway(text=text, services={"s": Reply(), "auth": Reply(200, {"X-Name": "ada"})}) as gateway:
        trailers = [("X-Sum", "1"), *((name, "root") for name in names), ("X-Other", "2")]
        assert gateway.post("/a", headers=headers, body=[content[:1], content[1:]], trailers=trailers).status == 200
        (asked,) = gateway.services["s"].requests
        assert (asked.body, asked.trailers.pairs) == (b"xy", [("X-Sum", "1"), ("X-Other", "2")])


@pytest.mark.parametrize(
    ("policy", "headers"),
    [("key-auth: {hide: off}", KEY), ("basic-auth: {hide: off}", BASIC), ("cors: {origins: '*'}", {})],
)
def test_others_are_left(policy: str, headers: dict[str, str]) -> None:
    with Gateway(text=CONFIG.replace("POLICY", f"{{{policy}}}"), services={"s": Reply()}) as gateway:
        trailers = [("X-API-Key", "a"), ("Authorization", "b")]
        assert gateway.post("/a", headers=headers, body=[b"x"], trailers=trailers).status == 200
        assert gateway.services["s"].requests[0].trailers.pairs == trailers


def test_all_spellings_of_all_names_are_taken() -> None:
    reserved = ReservedHeaders(["X-A_b", "Y"])
    fields = [("X-A-B", "1"), ("x_a_b", "2"), ("X_A-b", "3"), ("y", "4"), ("Y", "5"), ("XA-B", "6"), ("X-A-B-", "7")]
    request = request_of("POST", *fields)
    request.body = Body.stream(Pieces([], [(name.encode(), value.encode()) for name, value in fields]), None)
    reserved.take_from(request)
    left = [(b"XA-B", b"6"), (b"X-A-B-", b"7")]
    assert list(request.headers) == left == request.body.trailers()


@pytest.mark.parametrize("name", ["Host", "content_length", "Cookie", "Connection", "TE", "a" + "-a" * 9])
def test_what_cannot_be_reserved(name: str) -> None:
    with pytest.raises(BadValue):
        check_reservable(name)
