from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from portico.jose.mint import secret_key, sign
from portico.plugin import USER, Client, User
from portico.policies.authorize import Authorize, AuthorizePolicy
from portico.testing import Gateway, Reply
from tests.harness.policies import Asked, is_freed_by_counting, policy_of, request_of


def ask(user: User | None, **settings: object) -> Asked:
    request = request_of(client=Client("192.0.2.7", 1, 80, "http"))
    request.captures = {"id": "ada"}
    if user is not None:
        request[USER] = user
    return Asked(policy_of(AuthorizePolicy, **settings), request)


def user(*names: str, kind: str = "key-auth", name: str = "ada") -> User:
    has = frozenset(names)
    return User(name, has, has, permissions=has, groups=has, kind=kind)


CASES: list[tuple[dict[str, Any], list[str], bool]] = [
    ({"roles": "a"}, ["a"], True),
    ({"roles": "a"}, ["a", "b"], True),
    ({"roles": ["a", "b"]}, ["b"], True),
    ({"roles": ["a", "b"]}, ["c"], False),
    ({"roles": "a"}, [], False),
    ({"roles": "a"}, ["A"], False),
    ({"roles": "a"}, ["aa"], False),
    ({"roles": ["a", "b"], "match": {"roles": "all"}}, ["a"], False),
    ({"roles": ["a", "b"], "match": {"roles": "all"}}, ["a", "b", "c"], True),
    ({"groups": ["a", "b"]}, ["b"], True),
    ({"groups": ["a", "b"], "match": {"groups": "all"}}, ["b"], False),
    ({"scopes": ["a", "b"]}, ["a"], False),
    ({"scopes": ["a", "b"]}, ["b", "a"], True),
    ({"scopes": ["a", "b"], "match": {"scopes": "any"}}, ["a"], True),
    ({"permissions": ["a", "b"]}, ["a"], False),
    ({"permissions": ["a", "b"], "match": {"permissions": "any"}}, ["a"], True),
    ({"roles": "a", "permissions": "b"}, ["a"], False),  # all that is given has to fit
    ({"roles": "a", "permissions": "b"}, ["a", "b"], True),
    ({"allow": "user == captures['id']"}, [], True),
    ({"allow": "user != captures['id']"}, ["a"], False),
    ({"roles": "a", "allow": "user == captures['id']"}, [], False),
    ({"roles": "a", "allow": "user == captures['id']"}, ["a"], True),
    ({"allow": "'a' in user.roles && address in '192.0.2.0/24'"}, ["a"], True),
    ({"allow": "'a' in user.roles && address in '10.0.0.0/8'"}, ["a"], False),
]


@pytest.mark.parametrize(("settings", "names", "expected"), CASES)
def test_who_may(settings: dict[str, Any], names: list[str], expected: bool) -> None:
    asked = ask(user(*names), **settings)
    assert asked.reached is expected
    if not expected:
        problem = asked.response.problem_value
        assert problem is not None
        assert (problem.status, problem.type, problem.title, problem.detail) == (
            403,
            "forbidden",
            "Forbidden",
            "You may not do this.",
        )
        assert not asked.response.headers.pairs


@pytest.mark.parametrize("settings", [case[0] for case in CASES])
def test_nobody_may(settings: dict[str, Any]) -> None:
    assert ask(None, **settings).problem == (401, "authentication-required")


@given(st.sets(st.sampled_from("abcd"), min_size=1), st.sets(st.sampled_from("abcd")), st.sampled_from(["any", "all"]))
def test_what_is_needed_is_what_sets_say(wanted: set[str], has: set[str], match: str) -> None:
    for what in ("roles", "groups", "scopes", "permissions"):
        someone = User("ada", **{what: frozenset(has)})
        asked = ask(someone, **{what: sorted(wanted), "match": {what: match}})
        assert asked.reached is (bool(wanted & has) if match == "any" else wanted <= has)


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        ("jwt", {"scopes": "x"}, [b'Bearer error="insufficient_scope"']),
        ("jwt", {"roles": "x"}, []),
        ("jwt", {"roles": "x", "scopes": "x"}, []),
        ("key-auth", {"scopes": "x"}, []),
    ],
)
def test_tokens_without_a_scope(kind: str, settings: dict[str, Any], expected: list[bytes]) -> None:
    asked = ask(user(kind=kind), **settings)
    assert asked.problem == (403, "forbidden")
    assert asked.response.headers.get_all(b"www-authenticate") == expected


def test_the_log_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "portico.security")
    ask(user("a"), roles="b")
    ask(user("b"), roles="b")
    ask(None, roles="b")
    ask(user(name="a\r\nrefused forged: \x1b[1m"), allow="user == ''")
    ask(user(name="a" * 5000), permissions="b")
    assert caplog.messages == [
        "refused authorize: roles, user ada, client 192.0.2.7, route -",
        "refused authorize: nobody is known, client 192.0.2.7, route -",
        r"refused authorize: allow, user 'a\r\nrefused forged: \x1b[1m', client 192.0.2.7, route -",
        f"refused authorize: permissions, user {'a' * 128}..., client 192.0.2.7, route -",
    ]


GUESTS = """
consumers: {ada: {keys: ada-has-a-long-key, roles: admin}, bob: bob-has-a-long-key}
services: {s: "http://s"}
policies: [{anonymous: guest}, {key-auth: {realm: x}}]
routes:
  - {path: /open, service: s}
  - {path: /guests, service: s, policies: [{authorize: [guest, admin]}]}
  - {path: /admin, service: s, policies: [{authorize: admin}]}
  - {path: /safe, service: s, policies: [{anonymous: off}]}
"""


@pytest.mark.parametrize(
    ("path", "key", "status"),
    [
        ("/open", "", 200),
        ("/open", "wrong", 401),  # nobody becomes a guest by a mistake
        ("/open", "bob-has-a-long-key", 200),
        ("/guests", "", 200),
        ("/guests", "ada-has-a-long-key", 200),
        ("/guests", "bob-has-a-long-key", 403),
        ("/admin", "", 401),  # a guest may log in
        ("/admin", "bob-has-a-long-key", 403),
        ("/admin", "ada-has-a-long-key", 200),
        ("/safe", "", 401),
    ],
)
def test_guests(path: str, key: str, status: int) -> None:
    with Gateway(text=GUESTS, services={"s": Reply()}) as gateway:
        answer = gateway.get(path, headers={"X-API-Key": key} if key else {})
        assert answer.status == status
        assert answer.headers.get("WWW-Authenticate") == ('Key realm="x"' if status == 401 else None)


def test_it_leaves_no_cycle() -> None:
    assert is_freed_by_counting(lambda: policy_of(AuthorizePolicy, roles="a", allow="user == ''"))


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "this lets nobody in"),
    ({"match": {"roles": "any"}}, "this lets nobody in"),
    ({"roles": []}, "nobody could have that"),
    ({"scopes": [""]}, "nobody could have that"),
    ({"roles": "a", "match": {"roles": "some"}}, "'any' or 'all'"),
    ({"roles": "a", "match": "all"}, "Matches"),
    ({"allow": "user"}, "a condition is true or false"),
    ({"allow": "user =="}, "column"),
    ({"allow": "usr == ''"}, "user"),
    ({"role": "a"}, "Extra inputs"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Authorize.model_validate(settings)
    assert any(message in error["msg"] for error in caught.value.errors()), caught.value


def test_names_of_several_kinds_can_be_told_apart() -> None:
    """A consumer `ada`, and somebody whose token says `ada`."""
    secret = "a secret of thirty-two bytes or more"
    text = f"""
consumers: {{ada: {{keys: ada-has-a-long-key}}}}
policies: [key-auth, {{jwt: {{secret: {secret}}}}}]
routes:
- {{path: /either, respond: x, policies: [{{authorize: {{allow: "user == 'ada'"}}}}]}}
- {{path: /consumer, respond: x, policies: [{{authorize: {{allow: "user.consumer == 'ada'"}}}}]}}
- {{path: /token, respond: x, policies: [{{authorize: {{allow: "user == 'ada' && user.kind == 'jwt'"}}}}]}}
"""
    token = sign({"sub": "ada", "exp": 4_000_000_000}, secret_key(secret))
    shown = {"consumer": {"X-API-Key": "ada-has-a-long-key"}, "token": {"Authorization": f"Bearer {token}"}}
    with Gateway(text=text) as gateway:
        for who, headers in shown.items():
            for path in ("either", "consumer", "token"):
                answer = gateway.get(f"/{path}", headers=headers)
                assert answer.status == (200 if path in ("either", who) else 403), (who, path)
