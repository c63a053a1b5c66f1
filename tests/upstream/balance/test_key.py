from __future__ import annotations

import pytest

from portico.config.balance import HashKey
from portico.http.forwarded import Client
from portico.http.headers import Headers
from portico.http.message import Request
from portico.http.user import USER, User
from portico.upstream.balance import key_of
from portico.upstream.balance.ring import place


def a_request() -> Request:
    lines = [(b"X-User", b"alice"), (b"Cookie", b"a=1; visitor=v7"), (b"cookie", b"visitor=v8"), (b"x-user", b"bob")]
    request = Request("GET", "/", "q=1&q=2&name=a%20b", Headers(lines), client=Client("192.0.2.7", 1, 80, "http"))
    request.captures = {"id": "42"}
    request[USER] = User("carol")
    return request


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"header": "x-USER"}, b"alice"),
        ({"header": "x-none"}, None),
        ({"cookie": "visitor"}, "v7"),
        ({"cookie": "visito"}, None),
        ({"query": "q"}, "1"),
        ({"query": "name"}, "a b"),
        ({"query": "none"}, None),
        ({"capture": "id"}, "42"),
        ({"capture": "none"}, None),
        ({"by": "address"}, "192.0.2.7"),
        ({"by": "consumer"}, "carol"),
    ],
)
def test_the_key_of_a_request(config: dict[str, str], key: bytes | str | None) -> None:
    read = key_of(HashKey.model_validate(config))
    assert read(a_request()) == key
    assert read(Request("GET", "/")) is None


def test_any_key_has_a_place() -> None:
    odd = ["\udcff", "\ud800", "ü", "a" * 10_000, b"\xff\x00"]
    assert len({place(key) for key in odd}) == len(odd)
    assert all(0 <= place(key) < 1 << 53 for key in odd)
