"""What a signature covers, as it is here and as a library has it that nobody here wrote."""

from __future__ import annotations

from typing import Any

import pytest
from http_message_signatures import HTTPSignatureComponentResolver
from http_sf.compat import Item
from hypothesis import given
from hypothesis import strategies as st

from portico.plugin import Client, Headers, NotSigned, Request
from portico.signatures.base import Message
from portico.signatures.fields import Component, Signatures, serialized
from tests.harness.signing import Fields, by_hand, request_of


def value(request: Request, component: str, **parameters: object) -> str:
    return Message(request).value(Component(component, parameters, serialized((component, parameters))))


class Theirs:
    def __init__(self, url: str, headers: Fields) -> None:
        self.method = "GET"
        self.url = url
        self.headers = Lines(headers)


class Lines:
    def __init__(self, fields: Fields) -> None:
        self._fields = fields

    def items(self) -> Fields:
        return self._fields


def theirs(url: str, headers: Fields, component: str, **parameters: Any) -> str:
    item = Item(component)
    item.params.update(parameters)
    resolved: str = HTTPSignatureComponentResolver(Theirs(url, headers)).resolve(item)
    return resolved


URLS = [
    "http://api.example/",
    "http://api.example/a/b?c=d&e=%20f",
    "http://api.example/a?",
    "http://api.example/?c",
    "http://API.Example:8080/a//b/../%7E;p=1?x=?&y=/",
    "http://api.example:80/%2F%c3%a4",
    "http://[2001:db8::1]:8080/a",
]
DERIVED = ["@method", "@target-uri", "@authority", "@scheme", "@request-target", "@path", "@query"]


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("name", DERIVED)
def test_what_is_derived_from_a_request(url: str, name: str) -> None:
    assert value(request_of(url=url), name) == theirs(url, [], name)


FIELDS: Fields = [
    ("A", "  b \t"),
    ("Two", "one"),
    ("two", "two, three "),
    ("Empty", ""),
    ("Priority", "u=1,i"),
    ("Digests", "b=:AAAA:;x;y=1.0,  a=(1   2);q, c"),
    ("Content-Digest", "sha-256=:AAAA:,   md5=:AAAA:"),
    ("Cookie", "a=1; b=2"),
]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("a", {}),
        ("two", {}),
        ("empty", {}),
        ("cookie", {}),
        ("a", {"bs": True}),
        ("two", {"bs": True}),
        ("empty", {"bs": True}),
        ("priority", {"sf": True}),
        ("content-digest", {"sf": True}),
        ("content-digest", {"key": "md5"}),
        ("digests", {"key": "a"}),
        ("digests", {"key": "b", "sf": True}),
        ("digests", {"key": "c"}),
    ],
)
def test_fields(name: str, parameters: dict[str, Any]) -> None:
    stripped = [(name, value.strip(" \t")) for name, value in FIELDS]
    assert value(request_of(FIELDS), name, **parameters) == theirs("http://api.example/", stripped, name, **parameters)


@pytest.mark.parametrize(
    ("query", "name", "expected"),
    [
        ("a=b", "a", "b"),
        ("a=b&c", "c", ""),
        ("a=", "a", ""),
        (
            "var=this%20is%20a%20big%0Amultiline%20value&bar=with+plus+whitespace&fa%C3%A7ade%22%3A%20=something",
            "var",
            "this%20is%20a%20big%0Amultiline%20value",
        ),
        ("bar=with+plus+whitespace", "bar", "with%20plus%20whitespace"),
        ("fa%C3%A7ade%22%3A%20=something", "fa%C3%A7ade%22%3A%20", "something"),
        ("a=*-._~", "a", "*-._%7E"),
        ("a=b=c&&", "a", "b%3Dc"),
        ("a=%2B%2b", "a", "%2B%2B"),
        ("%61=1", "a", "1"),
        ("a=%ff", "a", "%EF%BF%BD"),
    ],
)
def test_single_query_parameters(query: str, name: str, expected: str) -> None:
    """The longer ones are those of RFC 9421 section 2.2.8."""
    url = f"http://api.example/?{query}"
    assert value(request_of(url=url), "@query-param", name=name) == expected
    if query.isascii() and "%ff" not in query:
        assert theirs(url, [], "@query-param", name=name) == expected


@pytest.mark.parametrize("query", ["", "b=1", "a=1&a=2", "a=1&%61=1", "a&" * 300])
def test_a_query_parameter_that_is_not_there_once(query: str) -> None:
    with pytest.raises(NotSigned):
        value(request_of(url=f"http://api.example/?{query}"), "@query-param", name="a")


def test_the_forms_of_a_target() -> None:
    def sent(target: str, name: str, method: str = "GET") -> str:
        headers = Headers([(b"Host", b"a.example")])
        client = Client("::1", 1, 443, "https")
        return value(Request(method, "/", None, headers, client=client, sent=target.encode()), name)

    for target, path, query, uri in (
        ("http://a.example/b?c", "/b", "?c", "https://a.example/b?c"),
        ("HTTPS://a.example", "/", "?", "https://a.example/"),
        ("http://a.example?c", "/", "?c", "https://a.example/?c"),
        ("/b", "/b", "?", "https://a.example/b"),
    ):
        assert (sent(target, "@path"), sent(target, "@query"), sent(target, "@target-uri")) == (path, query, uri)
        assert sent(target, "@request-target") == target
        assert sent(target, "@scheme") == "https"
    assert sent("*", "@request-target", "OPTIONS") == "*"
    assert sent("*", "@authority", "OPTIONS") == "a.example"
    for name in ("@path", "@query", "@target-uri"):
        with pytest.raises(NotSigned):
            sent("*", name, "OPTIONS")


def test_the_authority() -> None:
    for scheme, host, authority in (
        ("http", "A.Example", "a.example"),
        ("http", "a.example:80", "a.example"),
        ("http", "a.example:443", "a.example:443"),
        ("https", "a.example:443", "a.example"),
        ("https", "a.example:80", "a.example:80"),
        ("https", "a.example:8443", "a.example:8443"),
        ("http", "a.example:", "a.example"),
        ("http", "[::1]:80", "[::1]"),
    ):
        request = Request("GET", "/", None, Headers([(b"Host", host.encode())]), client=Client("::1", 1, 1, scheme))
        assert value(request, "@authority") == authority
    for headers in (Headers(), Headers([(b"Host", b"")])):
        for name in ("@authority", "@target-uri"):
            with pytest.raises(NotSigned):
                value(Request("GET", "/", None, headers), name)


def test_policies_that_rewrite_do_not_change_it() -> None:
    request = request_of(url="http://api.example/a//b?c")
    request.path, request.query, request.host, request.authority = "/other", None, "other", b"other"
    for derived in (request.derive("/x"), request.copy(request.body)):
        assert value(derived, "@target-uri") == "http://api.example/a//b?c"


@given(st.integers(0, 10**12), st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30))
def test_what_was_written_is_signed_in_the_one_way_to_write_it(created: int, nonce: str) -> None:
    """Spaces that mean nothing are not signed, all else is."""
    escaped = nonce.replace("\\", "\\\\").replace('"', '\\"')
    tidy = f'("a" "b";key="c");created={created};nonce="{escaped}"'
    loose = f'(  "a"    "b"; key="c" ); created={created};  nonce="{escaped}"'
    signatures = Signatures.of(request_of(by_hand(loose)).headers)
    assert signatures is not None
    assert signatures.read("sig").input == tidy
