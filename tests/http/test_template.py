from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from portico.http.headers import Headers
from portico.http.message import Client, Request
from portico.http.template import Template, escape_for


def request() -> Request:
    headers = Headers([(b"X-Name", b"\xe4"), (b"x-name", b"second")])
    made = Request("GET", "/a b", "q=1&r=2", headers, host="example.com", client=Client("10.0.0.1", 5, 80, "http"))
    made.captures = {"id": "4/2", "name": 'a"b'}
    return made


def same(text: str) -> str:
    return text


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("", ""),
        ("plain", "plain"),
        ("{ not } a {place}", "{ not } a {place}"),
        ("{{ method }} {{path}}", "GET /a b"),
        ("{{query}}", "q=1&r=2"),
        ("http://{{ host }}/", "http://example.com/"),
        ("{{client.address}}", "10.0.0.1"),
        ("<{{ captures.id }}>", "<4/2>"),
        ("{{captures.other}}|", "|"),
        ("{{ headers.X-Name }}", "ä"),
        ("{{headers.none}}{{ method }}{{method}}", "GETGET"),
        ("{{\n method \n}}", "GET"),
    ],
)
def test_fill(text: str, filled: str) -> None:
    assert Template(text, same).fill(request()) == filled


def test_what_a_request_does_not_have_is_empty() -> None:
    assert Template("[{{query}}{{client.address}}{{host}}]", same).fill(Request("GET", "/")) == "[]"


def test_each_value_is_escaped_and_the_text_is_not() -> None:
    assert Template("/a b/{{captures.id}}", lambda value: quote(value, safe="")).fill(request()) == "/a b/4%2F2"
    body = Template('{"name": {{captures.name}}}', json.dumps).fill(request())
    assert json.loads(body) == {"name": 'a"b'}


@pytest.mark.parametrize("media_type", ["Text/HTML", "TEXT/XML; charset=utf-8", "application/XHTML+xml"])
def test_a_media_type_is_the_same_in_capitals(media_type: str) -> None:
    assert escape_for(media_type)("<b>") == "&lt;b&gt;"
    assert escape_for("Application/JSON")('"') == r"\""


def test_a_value_is_not_a_template() -> None:
    made = request()
    made.captures["id"] = "{{ host }}"
    assert Template("{{captures.id}}", same).fill(made) == "{{ host }}"


def test_what_has_no_places_is_constant() -> None:
    assert Template("a", same).constant == "a"
    assert Template("", same).constant == ""
    assert Template("{{path}}", same).constant is None


def test_the_captures_that_are_needed() -> None:
    assert Template("{{captures.a}}{{ captures.b }}{{captures.a}}{{path}}", same).captures == {"a", "b"}


@pytest.mark.parametrize(
    "place", ["", "nothing", "captures", "captures.", "captures.a b", "headers", "headers.", "headers.a:b", "Method"]
)
def test_an_unknown_place_is_refused_at_load(place: str) -> None:
    with pytest.raises(ValueError, match="is not known; known are method, path"):
        Template(f"a {{{{ {place} }}}}", same)
