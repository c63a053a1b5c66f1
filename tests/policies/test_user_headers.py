from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from portico.plugin import USER, User
from portico.policies.user_headers import UserHeaders, UserHeadersPolicy, written
from tests.harness.policies import Asked, is_freed_by_counting, policy_of, request_of

ADA = User(
    "ada",
    frozenset({"staff", "admin"}),
    frozenset({"s"}),
    {"email": "a@b", "n": 7, "yes": True, "list": ["b", "a", 1], "object": {"a": 1}, "none": None, "big": 10**5000},
    frozenset({"p"}),
    frozenset({"g"}),
    "key-auth",
    "ada",
)


def sent(user: User | None, *headers: tuple[str, str], **settings: object) -> list[tuple[str, str]]:
    request = request_of("GET", *headers)
    if user is not None:
        request[USER] = user
    assert Asked(policy_of(UserHeadersPolicy, **settings), request).reached
    return [(name.decode(), value.decode("latin-1")) for name, value in request.headers]


ALL = {"groups": "G", "scopes": "S", "permissions": "P", "consumer": "C", "kind": "K"}
CLAIMS = {name: f"X-{name}" for name in (*ADA.claims, "other")}
CASES: list[tuple[User | None, dict[str, Any], list[tuple[str, str]]]] = [
    (ADA, {}, [("X-User-ID", "ada"), ("X-User-Roles", "admin,staff")]),
    (ADA, {"roles": "off"}, [("X-User-ID", "ada")]),
    (ADA, {"roles": False, "id": "X-Me"}, [("X-Me", "ada")]),
    (ADA, {"id": "off", "roles": "off", **ALL}, [("G", "g"), ("S", "s"), ("P", "p"), ("C", "ada"), ("K", "key-auth")]),
    (
        ADA,
        {"id": "off", "roles": "off", "claims": CLAIMS},
        [("X-email", "a@b"), ("X-n", "7"), ("X-yes", "true"), ("X-list", "b,a,1")],
    ),
    (User("bob"), ALL, [("X-User-ID", "bob")]),
    (None, ALL, []),
]


@pytest.mark.parametrize(("user", "settings", "expected"), CASES)
def test_what_is_sent(user: User | None, settings: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert sent(user, **settings) == expected


FORGED = [
    ("X-User-ID", "root"),
    ("x-user-id", "root"),
    ("X_User_ID", "root"),
    ("x_user-id", "root"),
    ("X-USER_ID", "root"),
    ("X-User-Roles", "admin"),
    ("x_user_roles", "admin"),
    ("X-User-Email", "root@b"),
    ("x-user_email", "root@b"),
]


@pytest.mark.parametrize("user", [None, User("bob"), ADA])
def test_a_client_cannot_say_so(user: User | None) -> None:
    claims = {"email": "X-User-Email"}
    for forged in ([each] for each in FORGED), [FORGED], [FORGED * 2]:
        for headers in forged:
            assert sent(user, ("X-Other", "a"), *headers, claims=claims) == [
                ("X-Other", "a"),
                *sent(user, claims=claims),
            ]


def test_what_is_like_them_is_left() -> None:
    others = [("X-User", "a"), ("X-User-IDs", "b"), ("XUser-ID", "c"), ("X-User-ID-2", "d")]
    assert sent(None, *others) == others


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("ada@example.com", "ada@example.com"),
        ("auth0|5f7c", "auth0|5f7c"),
        ("a b", "a%20b"),
        ("Zoë", "Zo%C3%AB"),
        ("a,b", "a%2Cb"),
        ("100%", "100%25"),
        ("a\r\nX-Admin: 1", "a%0D%0AX-Admin:%201"),
        ("\0", "%00"),
        ("\ud800", "%ED%A0%80"),
        (frozenset({"b", "a,c"}), "a%2Cc,b"),
        ([["a"], {"b": 1}, None], ""),
        (1.5, "1.5"),
        (False, "false"),
    ],
)
def test_values_are_made_safe(value: object, expected: str) -> None:
    assert written(value).decode() == expected


@given(st.frozensets(st.text(), max_size=5))
def test_what_is_sent_can_be_read(roles: frozenset[str]) -> None:
    value = written(roles).decode()
    assert all(0x20 < ord(char) < 0x7F for char in value)
    assert {unquote(each) for each in value.split(",")} == (roles or {""})


def test_it_leaves_no_cycle() -> None:
    assert is_freed_by_counting(lambda: policy_of(UserHeadersPolicy))


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"id": "off", "roles": "off"}, "this tells services nothing"),
    ({"id": "Host"}, "has a meaning of its own"),
    ({"claims": {"a": "Connection"}}, "has a meaning of its own"),
    ({"groups": "x_user_id"}, "stands twice"),
    ({"id": "a b"}, "not a header name"),
    ({"id": "X-" * 9 + "X"}, "more than 8 dashes"),
    ({"name": "X"}, "Extra inputs"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        UserHeaders.model_validate(settings)
    assert any(message in error["msg"] for error in caught.value.errors()), caught.value
