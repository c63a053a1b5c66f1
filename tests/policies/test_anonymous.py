from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from portico.plugin import USER, User
from portico.policies.anonymous import Anonymous, AnonymousPolicy
from portico.testing import Gateway, Reply
from tests.harness.policies import Asked, policy_of, request_of


def test_everyone_is_the_same_user() -> None:
    request = request_of()
    policy = policy_of(AnonymousPolicy, roles="guest", permissions=["p"], groups="g", scopes="s")
    assert Asked(policy, request).reached
    some = {name: frozenset(name[0]) for name in ("scopes", "permissions", "groups")}
    assert request[USER] == User("anonymous", frozenset({"guest"}), kind="anonymous", **some)


def ask(policies: str, **headers: str) -> int:
    text = f"""
consumers: {{ada: ada-has-a-long-key}}
services: {{s: "http://s"}}
routes: [{{path: /**, service: s, policies: [{policies}]}}]
"""
    with Gateway(text=text, services={"s": Reply()}) as gateway:
        return gateway.get("/", headers={name.replace("_", "-"): value for name, value in headers.items()}).status


@pytest.mark.parametrize(
    ("policies", "headers", "status"),
    [
        ("anonymous", {}, 200),
        ("anonymous, key-auth", {}, 200),
        ("key-auth, anonymous", {}, 200),
        ("anonymous, key-auth", {"X_API_Key": "wrong"}, 401),
        ("key-auth, anonymous", {"X_API_Key": "wrong"}, 401),
        ("anonymous, {key-auth: {required: true}}", {}, 401),
        ("anonymous, {key-auth: {required: true}}", {"X_API_Key": "ada-has-a-long-key"}, 200),
        ("key-auth, {anonymous: guest, when: \"method == 'GET'\"}", {}, 200),
        ("key-auth, {anonymous: guest, when: \"method == 'POST'\"}", {}, 401),
    ],
)
def test_it_is_for_those_who_show_nothing(policies: str, headers: dict[str, str], status: int) -> None:
    assert ask(policies, **headers) == status


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"required": True}, "leave required out"),
    ({"name": ""}, "at least 1"),
    ({"role": "x"}, "Extra inputs"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Anonymous.model_validate(settings)
    assert any(message in error["msg"] for error in caught.value.errors()), caught.value
