from __future__ import annotations

import pytest

from portico.http.body import Body
from portico.http.headers import Headers
from portico.http.message import Client, Key, Request, Response
from portico.http.problem import Problem

USER: Key[str] = Key("user")
OTHER: Key[str] = Key("user")


def test_a_slot_is_its_keys_alone() -> None:
    request = Request("GET", "/")
    assert request.get(USER) is None
    with pytest.raises(KeyError):
        request[USER]
    request[USER] = "anna"
    assert request[USER] == "anna"
    assert request.get(USER) == "anna"
    assert request.get(OTHER) is None
    with pytest.raises(KeyError):
        request[OTHER]
    assert Request("GET", "/").get(USER) is None


def test_the_target_is_path_and_query() -> None:
    assert Request("GET", "/a").target == "/a"
    assert Request("GET", "/a", "").target == "/a?"
    assert Request("GET", "/a", "b=c").target == "/a?b=c"
    assert repr(Request("GET", "/a", "b")) == "<Request GET /a?b>"


def test_the_target_is_known_as_it_was_sent() -> None:
    request = Request("GET", "/a/b", "c", sent=b"http://host/a//b?c")
    request.path = "/other"
    assert request.derive("/x").sent_target == request.copy(Body()).sent_target == "http://host/a//b?c"
    assert Request("GET", "/a", "b").sent_target == "/a?b"


def test_a_derived_request_is_the_same_but_for_its_path() -> None:
    client = Client("10.0.0.1", 5, 80, "http")
    request = Request("POST", "/a/b", "c", Headers([(b"d", b"e")]), Body(b"f"), "host", client)
    request.authority = b"g"
    request.captures = {"h": "i"}
    request.deadline = 7.0
    request[USER] = "anna"
    derived = request.derive("/b")
    assert (derived.method, derived.path, derived.query) == ("POST", "/b", "c")
    assert derived.headers is request.headers
    assert derived.body is request.body
    assert (derived.host, derived.client) == ("host", client)
    assert (derived.authority, derived.captures, derived.deadline) == (b"g", {"h": "i"}, 7.0)
    derived[OTHER] = "berta"
    assert derived[USER] == "anna"
    assert request[OTHER] == "berta"
    assert request.path == "/a/b"


def test_two_messages_share_nothing() -> None:
    one, other = Request("GET", "/"), Request("GET", "/")
    one.headers.add(b"A", b"b")
    one.captures["a"] = "b"
    assert len(other.headers) == 0
    assert other.captures == {}
    assert (other.body.whole, other.body.length) == (b"", 0)
    first, second = Response(), Response()
    first.headers.add(b"A", b"b")
    assert len(second.headers) == 0


def test_a_response_takes_bytes_or_a_body() -> None:
    assert Response(200, body=b"a").body.whole == b"a"
    body = Body(b"b")
    assert Response(200, None, body).body is body
    assert (Response().status, repr(Response(404))) == (200, "<Response 404>")


def test_a_problem_is_a_value_until_the_edge() -> None:
    response = Response.problem(403, "country-not-allowed", detail="no", allowed=["DE"])
    assert response.status == 403
    assert response.problem_value == Problem(403, "country-not-allowed", "", "no", {"allowed": ["DE"]})
    assert response.body.whole == b""
    assert Response().problem_value is None


def test_a_client_is_told_of_in_ready_lines() -> None:
    client = Client("::1", 5, 8443, "https")
    lines = b"\r\n".join(client.forwarded(None)).split(b"\r\n")
    assert lines == [
        b"X-Forwarded-For: ::1",
        b"X-Forwarded-Proto: https",
        b"X-Forwarded-Port: 8443",
        b"Via: 1.1 portico",
    ]
