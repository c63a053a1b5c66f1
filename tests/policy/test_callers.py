"""Whom limits count: who is the same caller, and who is not."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from portico.http.headers import Headers
from portico.http.message import Client, Request
from portico.http.user import USER, User
from portico.policy.base import RouteInfo
from portico.policy.callers import MOST_PARTS, CallerKey, KeyParts
from portico.policy.condition import Condition, ConditionError
from tests.harness.policy import TestEnv

PARTS: TypeAdapter[tuple[str, ...]] = TypeAdapter(KeyParts)


def request_of(address: str = "10.1.2.3", user: User | None = None, **headers: bytes) -> Request:
    fields = Headers([(name.replace("_", "-").encode(), value) for name, value in headers.items()])
    client = Client(address, 5, 443, "https") if address else None
    request = Request("GET", "/orders/7", "a=1%00b", fields, client=client)
    if user is not None:
        request[USER] = user
    return request


def key(request: Request, *parts: str) -> bytes:
    return CallerKey(parts).of(request)


def test_credentials_of_one_consumer_are_one_caller() -> None:
    by_key = request_of(user=User("ada", kind="key-auth", consumer="ada"))
    by_password = request_of("10.9.9.9", User("ada@example", kind="basic-auth", consumer="ada"))
    assert key(by_key, "user") == key(by_password, "user")


def test_the_same_name_of_another_policy_is_another_caller() -> None:
    consumer = User("ada", kind="key-auth", consumer="ada")
    users = [
        consumer,
        User("ada", kind="jwt"),
        User("ada", kind="oidc"),
        User("a", kind="jwtda"),
        User("ada", kind="jwt", claims={"iss": "https://other.example"}),
        User("bob", kind="jwt"),
    ]
    keys = [key(request_of(user=user), "user") for user in users]
    assert len({*keys, key(request_of(), "user")}) == 7


def test_guests_are_not_one_caller() -> None:
    guest = User("guest", kind="anonymous")
    one, other = request_of("10.1.2.3", guest), request_of("10.1.2.4", guest)
    assert key(one, "user") == key(one, "address") != key(other, "user")


def test_the_same_name_of_another_issuer_is_another_caller() -> None:
    claims: list[dict[str, object]] = [{}, {"iss": "https://a.example"}, {"iss": "https://b.example"}]
    keys = [key(request_of(user=User("ada", kind="jwt", claims=each)), "user") for each in claims]
    assert len({*keys}) == 3
    again = User("ada", kind="jwt", claims={"iss": "https://a.example", "jti": "another token"})
    assert key(request_of(user=again), "user") == keys[1]


def test_the_user_who_is_everybody_unknown_is_not_one_caller() -> None:
    one, other = (request_of(address, User("guest", kind="anonymous")) for address in ("10.1.2.3", "10.1.2.4"))
    assert key(one, "user") == key(one, "address") != key(other, "user")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.1.2.3", "10.1.2.4", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.1.2.3", "10.1.2.3", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("", "10.1.2.3", False),
    ],
)
def test_addresses_of_one_network_are_one_caller(one: str, other: str, same: bool) -> None:
    for parts in ("address", "user", "headers['x-tenant']"):
        assert (key(request_of(one), parts) == key(request_of(other), parts)) is same


def test_who_leaves_out_what_is_counted_by_counts_as_the_address() -> None:
    without, empty = request_of(), request_of(x_tenant=b"")
    assert key(without, "headers['x-tenant']") == key(empty, "headers['x-tenant']") == key(without, "address")
    assert key(request_of("10.9.9.9", x_tenant=b"a"), "headers['x-tenant']") == key(
        request_of(x_tenant=b"a"), "headers['x-tenant']"
    )


def test_no_value_passes_for_an_address_or_for_a_user() -> None:
    address = key(request_of("65.66.67.68"), "address")
    said = key(request_of("10.9.9.9", x_tenant=address), "headers['x-tenant']")
    assert said not in (address, key(request_of("10.9.9.9"), "address"))


def test_several_parts_tell_apart_whatever_one_of_them_does() -> None:
    parts = ("headers['x-a']", "headers['x-b']")
    keys = {
        key(request_of(x_a=a, x_b=b), *parts)
        for a, b in [(b"a", b"b"), (b"ab", b""), (b"a2:xb", b"b"), (b"a", b"b2:xb"), (b"b", b"a"), (b"\xff", b"b")]
    }
    assert len(keys) == 6


def test_what_an_expression_says_is_not_told_and_not_long() -> None:
    for said in (b"sesame", b"sesame" * 1000):
        found = key(request_of(authorization=said), "user", "headers['authorization']")
        assert b"sesame" not in found
        assert len(found) < 64


def test_everyone_is_one_caller() -> None:
    assert key(request_of(), "everyone") == key(request_of("10.9.9.9", User("ada")), "everyone")


def test_captures_that_a_path_does_not_have_are_told() -> None:
    caller = CallerKey(("user", "captures['id']"))
    env = TestEnv(("id",))
    caller.check_captures(env)
    env.route = RouteInfo("a", ("/a",), {"/a": frozenset()})
    with pytest.raises(ConditionError, match="there is no capture 'id'"):
        caller.check_captures(env)
    with pytest.raises(ConditionError, match="there is no capture 'which'"):
        CallerKey(("user",)).check_captures(env, Condition("captures['which'] == 'a'"))
    env.place = "service:a:policy"  # of whose routes some may have it
    caller.check_captures(env)


@pytest.mark.parametrize("value", ["user", ["user", "route"], "headers['x-tenant']", "user.claims['org']"])
def test_what_can_be_counted_by(value: object) -> None:
    assert PARTS.validate_python(value) == (tuple(value) if isinstance(value, list) else (value,))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("ip", "there is no 'ip'; write user, address, everyone, or an expression"),
        ("adress", "did you mean 'address'"),
        ("headers.x", "write headers\\['x'\\]"),
        ("user.roles", "a text is wanted here, and this is a list of texts"),
        ("method == 'GET'", "a text is wanted here, and this is a truth value"),
        ([], "at least 1"),
        (["user"] * (MOST_PARTS + 1), "at most"),
    ],
)
def test_what_cannot(value: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PARTS.validate_python(value)
