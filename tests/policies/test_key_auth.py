from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from portico.config.consumers import Consumer, Consumers, Credential, KeyRecord, digest_of
from portico.plugin import USER, Request, User
from portico.policies.key_auth import KeyAuth, KeyAuthPolicy
from portico.testing import Gateway, Reply
from tests.harness.policies import Asked, request_of
from tests.harness.policy import TestEnv

ADA, OLD, OWN = "ada-has-a-long-key", "an-old-key-of-ada", "billing-has-a-long-key"
KNOWN = Consumers(
    [
        Consumer(
            "ada",
            (KeyRecord(digest_of(ADA.encode())), KeyRecord(digest_of(OLD.encode()), 1000.0)),
            roles=frozenset("r"),
        )
    ]
)


def made(known: Any = KNOWN, now: float = 2000.0, **settings: object) -> KeyAuthPolicy:
    policy = KeyAuthPolicy(KeyAuth.model_validate(settings))
    env = TestEnv()
    env.consumers = known
    env.wall = lambda: now  # type: ignore[method-assign]
    policy.setup(env)
    return policy


def ask(policy: KeyAuthPolicy, *headers: tuple[str, str], query: str | None = None) -> tuple[Asked, Request]:
    request = request_of("GET", *headers)
    request.query = query
    return Asked(policy, request), request


OK, MISSING, INVALID, SEVERAL = "", "authentication-required", "invalid-api-key", "duplicate-api-key"
BY_QUERY = {"query": "api_key"}
CASES: list[tuple[dict[str, Any], list[tuple[str, str]], str | None, str]] = [
    ({}, [("X-API-Key", ADA)], None, OK),
    ({}, [("x-api-KEY", ADA)], None, OK),
    ({}, [], None, MISSING),
    ({}, [("X-API-Key", "")], None, MISSING),
    ({}, [("X-API-Key", ADA[:-1])], None, INVALID),
    ({}, [("X-API-Key", ADA + " ")], None, INVALID),
    ({}, [("X-API-Key", ADA.upper())], None, INVALID),
    ({}, [("X-API-Key", "k" * 32000)], None, INVALID),
    ({}, [("X-API-Key", "\xff\xfe\x80")], None, INVALID),
    ({}, [("X-API-Key", f"{ADA}, {ADA}")], None, INVALID),
    ({}, [("X-API-Key", "sha256:" + digest_of(ADA.encode()).hex())], None, INVALID),  # the hash is no key
    ({}, [("X-API-Key", OLD)], None, INVALID),  # it has expired
    ({}, [("X-API-Key", ADA), ("x-api-key", ADA)], None, SEVERAL),
    ({}, [("X-API-Key", ADA), ("X-Other", "a"), ("X-Other", "b")], None, OK),
    ({}, [], f"api_key={ADA}", MISSING),
    ({"header": "Authorization-Key"}, [("authorization-key", ADA)], None, OK),
    ({"header": "Authorization-Key"}, [("X-API-Key", ADA)], None, MISSING),
    (BY_QUERY, [], f"api_key={ADA}", OK),
    (BY_QUERY, [], f"a=1&api%5Fkey={ADA}&b", OK),
    (BY_QUERY, [], f"api_key={ADA.replace('a', '%61')}", OK),
    (BY_QUERY, [], "api_key=", MISSING),
    (BY_QUERY, [], "api_key", MISSING),
    (BY_QUERY, [], "api_key=%00%ff%zz", INVALID),
    (BY_QUERY, [], f"API_KEY={ADA}", MISSING),
    (BY_QUERY, [], f"api_key={ADA}&api_key={ADA}", SEVERAL),
    (BY_QUERY, [], "api_key=&api_key=", SEVERAL),
    (BY_QUERY, [("X-API-Key", ADA)], f"api_key={ADA}", SEVERAL),
    (BY_QUERY, [("X-API-Key", ADA)], "api_key=", SEVERAL),
    (BY_QUERY, [("X-API-Key", ADA)], "a=1", OK),
    ({"keys": {"billing": OWN}}, [("X-API-Key", OWN)], None, OK),
    ({"keys": {"billing": OWN}}, [("X-API-Key", ADA)], None, OK),
    ({"keys": {"billing": OWN}, "consumers": "off"}, [("X-API-Key", ADA)], None, INVALID),
    ({"keys": {"billing": {"hash": OWN, "expires": "1970-01-01"}}}, [("X-API-Key", OWN)], None, INVALID),
]


@pytest.mark.parametrize(("settings", "headers", "query", "verdict"), CASES)
def test_whose_key_it_is(
    settings: dict[str, Any], headers: list[tuple[str, str]], query: str | None, verdict: str
) -> None:
    asked, request = ask(made(**settings), *headers, query=query)
    assert asked.reached is (verdict == OK)
    if verdict == OK:
        assert request[USER].kind == "key-auth"
        assert request.headers.get(b"x-api-key") is None
        assert "api_key" not in (request.query or "")
        return
    assert asked.problem == (401, verdict)
    assert asked.response.headers.get_all(b"www-authenticate") == [b'Key realm="api"']
    assert request.get(USER) is None


def test_who_they_are() -> None:
    _, request = ask(made(), ("X-API-Key", ADA))
    assert request[USER] == User("ada", frozenset("r"), kind="key-auth", consumer="ada")
    _, request = ask(made(keys={"billing": OWN}), ("X-API-Key", OWN))
    assert request[USER] == User("billing", kind="key-auth")


def test_the_titles() -> None:
    titles = []
    for headers in ([], [("X-API-Key", "x")], [("X-API-Key", OLD)], [("X-API-Key", ADA)] * 2):
        asked, _ = ask(made(), *headers)
        assert asked.response.problem_value is not None
        titles.append(asked.response.problem_value.title)
    assert titles == ["Missing authentication", "Invalid API key", "Invalid API key", "Duplicate API key"]


def test_two_keys_at_once_are_good_until_one_expires() -> None:
    for key, now, good in ((ADA, 999.0, True), (OLD, 999.0, True), (ADA, 1000.0, True), (OLD, 1000.0, False)):
        assert ask(made(now=now), ("X-API-Key", key))[0].reached is good


def test_the_service_may_be_sent_the_key() -> None:
    _, request = ask(made(hide="off", query="k"), ("X-API-Key", ADA), query="a=1")
    assert request.headers.text(b"x-api-key") == ADA
    _, request = ask(made(hide=False, query="k"), query=f"k={ADA}&a=1")
    assert request.query == f"k={ADA}&a=1"


@pytest.mark.parametrize(
    ("query", "left"),
    [("k=K", None), ("k=K&a", "a"), ("a=%20&&k=K&b=+", "a=%20&&b=+"), ("&k=K&", "&"), ("%6b=K&kk=1", "kk=1")],
)
def test_all_else_of_the_query_is_left_as_it_is(query: str, left: str | None) -> None:
    asked, request = ask(made(query="k"), query=query.replace("K", ADA))
    assert asked.reached
    assert request.query == left


def test_others_who_have_found_out_hide_it_too() -> None:
    text = f"""
consumers: {{ada: {ADA}}}
services: {{s: "http://s"}}
policies:
  - key-auth
  - {{key-auth: {{header: X-Second, query: k}}, name: second}}
routes: [{{path: /**, service: s}}]
"""
    with Gateway(text=text, services={"s": Reply()}) as gateway:
        for headers in ({"X-API-Key": ADA, "X-Second": "x"}, {"X-API-Key": "x", "X-Second": ADA}):
            assert gateway.get("/a?b=1", headers=headers).status == 200
            seen = gateway.services["s"].requests[-1]
            assert "x-api-key" not in seen.headers
            assert "x-second" not in seen.headers
        assert gateway.get(f"/a?k={ADA}", headers={"X-API-Key": ADA}).status == 200
        assert gateway.services["s"].requests[-1].headers.get("x-api-key") is None


class Database:
    """Consumers that take a while to be found."""

    decoy = ""

    def by_key(self, digest: bytes) -> Awaitable[Credential | None]:
        async def found() -> Credential | None:
            return KNOWN.by_key(digest)

        return found()

    def by_name(self, name: str) -> Consumer | None:
        return None


def test_consumers_may_be_somewhere_else() -> None:
    policy = made(Database())
    assert ask(policy, ("X-API-Key", ADA))[0].reached
    assert ask(policy, ("X-API-Key", "x"))[0].problem == (401, INVALID)
    assert ask(policy, ("X-API-Key", OLD))[0].problem == (401, INVALID)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"consumers": False}, "this takes no keys"),
    ({"keys": {"": OWN}}, "cannot be the name"),
    ({"keys": {"a": "short"}}, "16 or more"),
    ({"keys": {"a": OWN, "b": OWN}}, "is one of a as well"),
    ({"realm": 'a"b'}, "match pattern"),
    ({"realm": "a\nb"}, "match pattern"),
    ({"header": "a b"}, "not a header name"),
    ({"query": ""}, "at least 1"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        KeyAuth.model_validate(settings)
    assert any(message in error["msg"] for error in caught.value.errors()), caught.value


@given(st.text(st.characters(max_codepoint=255), max_size=40), st.text(st.characters(max_codepoint=127), max_size=60))
def test_whatever_is_sent_is_a_key_or_none(value: str, query: str) -> None:
    headers = [("X-API-Key", value)] if not set(value) & set(map(chr, (*range(32), 127))) else []
    asked, _ = ask(made(query="k"), *headers, query=query)
    assert asked.reached is (value == ADA)
