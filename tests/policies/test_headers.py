from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from portico.plugin import ConfigError, Headers, Request, Response
from portico.policies.headers import HeadersPolicy
from tests.harness.gateway import Gateway, Service, curl, portico_here
from tests.harness.policy import made, request, response


def on_request(given: list[tuple[str, str]], **changes: object) -> list[tuple[str, str]]:
    asked = Request("GET", "/a b", "q=1", Headers((name.encode(), value.encode("latin-1")) for name, value in given))
    asked.host = "example.com"
    asked.captures = {"id": "42"}
    assert made(HeadersPolicy, ["id"], request=changes).request(asked) is None
    return shown(asked.headers)


def on_response(given: list[tuple[str, str]], asked: Request | None = None, **changes: object) -> list[tuple[str, str]]:
    answer = Response(201, Headers((name.encode(), value.encode("latin-1")) for name, value in given))
    assert made(HeadersPolicy, response=changes).response(asked or request(), answer) is answer
    return shown(answer.headers)


def shown(headers: Headers) -> list[tuple[str, str]]:
    for name in headers.index:
        assert headers.index[name] == headers.get_all(name)[0]
    return [(name.decode(), value.decode("latin-1")) for name, value in headers.pairs]


BOTH = pytest.mark.parametrize("change", [on_request, on_response])


@BOTH
def test_set_replaces_every_value(change: type) -> None:
    before = [("x-a", "1"), ("Y", "2"), ("X-A", "3")]
    assert change(before, set={"X-A": "new"}) == [("Y", "2"), ("X-A", "new")]


@BOTH
def test_add_keeps_what_is_there(change: type) -> None:
    assert change([("X-A", "1")], add={"x-a": "2", "B": ["3", "4"]}) == [
        *(("X-A", "1"), ("x-a", "2")),
        *(("B", "3"), ("B", "4")),
    ]


@BOTH
def test_remove_by_name_and_by_pattern(change: type) -> None:
    before = [("X-Internal-User", "1"), ("x-INTERNAL-b", "2"), ("X-Internal", "3"), ("X-Debug", "4"), ("Y-Id", "5")]
    assert change(before, remove=["x-internal-*"]) == before[2:]
    assert change(before, remove=["X-Internal-*", "x-debug"]) == [before[2], before[4]]
    assert change(before, remove=["*-id", "x-*"]) == []
    assert change(before, remove=["x-*-b"]) == [before[0], *before[2:]]
    assert change(before, remove=["absent", "absent-*"]) == before


@BOTH
def test_rename(change: type) -> None:
    before = [("A", "1"), ("B", "2"), ("a", "3")]
    assert change(before, rename={"A": "C"}) == [("B", "2"), ("C", "1"), ("C", "3")]
    assert change(before, rename={"a": "b"}) == [("b", "1"), ("b", "3")]
    assert change(before, rename={"A": "B", "B": "A"}) == [("B", "1"), ("B", "3"), ("A", "2")]
    assert change(before, rename={"Z": "B"}) == before
    assert change(before, rename={"a": "A"}) == [("B", "2"), ("A", "1"), ("A", "3")]


@BOTH
def test_the_order_of_changes(change: type) -> None:
    before = [("X-Internal-Id", "7"), ("X-Internal-Key", "8")]
    after = change(
        before,
        add={"X-Id": "9"},
        remove=["x-internal-*"],
        rename={"X-Internal-Id": "X-Id"},
        set={"X-Internal-Mark": "m"},
    )
    assert after == [("X-Id", "7"), ("X-Internal-Mark", "m"), ("X-Id", "9")]


def test_values_are_made_before_the_first_change() -> None:
    before = [("X-Internal-Id", "7")]
    after = on_request(before, set={"X-Id": "id {{ headers.X-Internal-Id }}"}, remove=["x-internal-*"])
    assert after == [("X-Id", "id 7")]


def test_places() -> None:
    text = "{{ method }} {{ host }} {{ path }}?{{ query }} {{ captures.id }}"
    assert on_request([], set={"X": text}) == [("X", "GET example.com /a b?q=1 42")]
    assert on_request([], add={"X": [text, "2"]}) == [("X", "2"), ("X", "GET example.com /a b?q=1 42")]


def test_places_of_answers() -> None:
    asked = request("POST", "/x", X_Asked="yes")
    after = on_response([], asked, set={"X": "{{ status }} {{ method }} {{headers.x-asked}}"}, add={"Y": "{{status}}"})
    assert after == [("X", "201 POST yes"), ("Y", "201")]


def test_status_is_known_of_answers_only() -> None:
    with pytest.raises(ConfigError, match="status"):
        on_request([], set={"X": "{{ status }}"})


def test_a_value_that_comes_out_empty() -> None:
    place = "{{ headers.X-Absent }}"
    assert on_request([("X-User", "root"), ("x-user", "b")], set={"X-User": place}) == []
    assert on_request([("X-User", "root")], add={"X-User": place}) == [("X-User", "root")]
    assert on_request([("X-A", " \t")], set={"X-User": "{{ headers.X-A }}"}) == [("X-A", " \t")]


@given(st.text(max_size=60))
def test_what_a_client_sends_forges_nothing(value: str) -> None:
    policy = made(HeadersPolicy, ["id"], request={"set": {"X-Id": "<{{ captures.id }}>"}, "add": {"Y": "{{ path }}"}})
    asked = request(path="/" + value)
    asked.captures = {"id": value}
    policy.request(asked)
    for made_value in (*asked.headers.get_all(b"x-id"), *asked.headers.get_all(b"y")):
        assert not set(made_value) & {*range(9), *range(10, 32), 127}
    assert asked.headers.get_all(b"x-id")[0][:1] == b"<"


@pytest.mark.parametrize(
    ("value", "filled"),
    [
        ("a\r\nSet-Cookie: x=1", "aSet-Cookie: x=1"),
        ("a\0b\x7fc\x1bd", "abcd"),
        ("a\tb", "a\tb"),
        (" a ", "a"),
        ("gr\xfc\xdf", "gr\xfc\xdf"),
        ("\u4e2d", "%E4%B8%AD"),
        ("\ud800", "%3F"),
        ("\r\n", None),
    ],
)
def test_characters_that_no_header_can_have(value: str, filled: str | None) -> None:
    policy = made(HeadersPolicy, ["id"], request={"set": {"X": "{{ captures.id }}"}})
    asked = request()
    asked.captures = {"id": value}
    policy.request(asked)
    assert asked.headers.text(b"x") == filled


def test_other_spellings_of_what_is_named() -> None:
    before = [("X_Internal_User", "root"), ("x-internal_key", "k"), ("X_User", "u"), ("X_Other", "o"), ("X_Old", "1")]
    after = on_request(before, remove=["x-internal-*"], set={"X-User": "me"}, rename={"X-Old": "X-New"})
    assert after == [("X_Other", "o"), ("X-User", "me")]
    assert on_request([("x_a", "1"), ("X-A", "2")], remove=["x-a"]) == []
    assert on_request([("x_a", "1"), ("X-A", "2")], set={"x_a": "3"}) == [("x_a", "3")]
    assert on_request([("X-A", "1"), ("X-Ab", "2"), ("Y", "3")], remove=["x_a*"]) == [("Y", "3")]
    assert on_request([("X-A", "1")], set={"x_a": "2", "X-A": "3"}) == [("x_a", "2"), ("X-A", "3")]
    assert on_request([("X-Forwarded-For", "1"), ("X-A", "2")], remove=["x_*"]) == [("X-Forwarded-For", "1")]
    assert on_request([("x_a", "1")], rename={"x_a": "X-A"}) == [("X-A", "1")]
    assert on_response([("x_a", "1")], remove=["x-a"]) == [("x_a", "1")]


def test_no_pattern_removes_what_frames_a_message() -> None:
    kept = [("Host", "a"), ("Content-Length", "3"), ("Transfer-Encoding", "chunked"), ("X-Forwarded-For", "1.2.3.4")]
    assert on_request([*kept, ("A", "b")], remove=["*"]) == kept
    assert on_response([("Content-Length", "3"), ("Host", "x")], remove=["*"]) == [("Content-Length", "3")]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Content-Length", "counts"),
        ("transfer-encoding", "frames"),
        ("Connection", "one connection"),
        ("Keep-Alive", "one connection"),
        ("TE", "one connection"),
        ("Upgrade", "upgrades"),
        ("Content-Encoding", "compress"),
        ("Host", "preserve_host"),
        ("Expect", "gateway answers"),
        ("X-Forwarded-For", "forwarded"),
        ("Forwarded", "forwarded"),
    ],
)
@pytest.mark.parametrize("how", ["set", "add", "remove", "rename", "rename to"])
def test_headers_that_another_feature_decides(name: str, hint: str, how: str) -> None:
    changes: dict[str, dict[str, object]] = {
        "set": {"set": {name: "x"}},
        "add": {"add": {name: ["x"]}},
        "remove": {"remove": [name]},
        "rename": {"rename": {name: "X-Other"}},
        "rename to": {"rename": {"X-Other": name}},
    }
    with pytest.raises(ValidationError, match=hint):
        made(HeadersPolicy, request=changes[how])
    if name in {"Host", "Expect", "X-Forwarded-For", "Forwarded"}:
        made(HeadersPolicy, response=changes[how])
    else:
        with pytest.raises(ValidationError, match=hint):
            made(HeadersPolicy, response=changes[how])


@pytest.mark.parametrize(
    "changes",
    [
        {"set": {"X Y": "1"}},
        {"set": {"X": 1}},
        {"set": {"X": "1", "x": "2"}},
        {"rename": {"A": "B C"}},
        {"remove": ["a b"]},
        {"remove": [""]},
        {"replace": {"A": "b"}},
    ],
)
def test_settings_that_cannot_be(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        made(HeadersPolicy, request=changes)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "under remove"),
        ("  ", "under remove"),
        ("a\nb", "control characters"),
        ("a\0", "control characters"),
        ("caf\u4e2d", "Latin-1"),
        ("a {{ captures.id }}\r\n", ""),
        ("{{ nothing }}", "not known"),
        ("{{ captures.other }}", "no capture"),
        ("\x00{{ captures.id }}", "control characters"),
    ],
)
def test_values_that_cannot_be(text: str, why: str) -> None:
    if not why:  # what stands at the end of a block of YAML
        made(HeadersPolicy, ["id"], request={"set": {"X": text}})
        return
    for changes in ({"set": {"X": text}}, {"add": {"X": [text]}}):
        with pytest.raises(ConfigError, match=why):
            made(HeadersPolicy, ["id"], request=changes)


def test_problems_get_headers_too() -> None:
    policy = made(HeadersPolicy, response={"set": {"X": "{{ status }}"}})
    refused = policy.response(request(), Response.problem(403, "no"))
    assert refused.headers.text(b"x") == "403"
    assert policy.response(request(), response(204)).headers.text(b"x") == "204"


# Through a gateway

CONFIG = """
services:
  echo: {{url: http://127.0.0.1:{port}}}
policies:
  - headers:
      request: {{remove: [x-internal-*], set: {{X-Gateway: portico}}}}
      response: {{remove: [Server, X-Service], add: {{X-Via: portico}}}}
    stage: observe
routes:
  - path: /users/{{id}}/**
    service: echo
    policies:
      - headers:
          request: {{set: {{X-User-Id: "{{{{ captures.id }}}}"}}, rename: {{X-Api-Key: X-Key}}}}
          response: {{set: {{X-Answer: "{{{{ status }}}} {{{{ captures.id }}}}"}}}}
        name: user
"""


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Service() as service:
        yield service


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, service: Service) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("headers"), CONFIG.format(port=service.port)) as gateway:
        yield gateway


def test_through_a_gateway(gateway: Gateway, service: Service) -> None:
    sent = ["X-Internal-Role: admin", "X_Internal_Role: admin", "X-User-Id: 1", "X_User_Id: 1", "X-Api-Key: k"]
    reply = curl(*(part for line in sent for part in ("-H", line)), f"{gateway.url}/users/42/x")
    seen = service.last
    assert seen.values("X-User-Id") == ["42"]
    assert seen.values("X-Gateway") == ["portico"]
    assert seen.values("X-Key") == ["k"]
    assert not seen.names & {"x-internal-role", "x_internal_role", "x_user_id", "x-api-key"}
    assert reply.value("X-Answer") == "200 42"
    assert reply.value("X-Via") == "portico"
    assert not reply.values("Server")
    assert not reply.values("X-Service")


@pytest.mark.parametrize("injected", ["a%0d%0aX-Forged:%201", "a%0aX-Forged:%201", "a%0dX-Forged:%201"])
def test_a_capture_forges_no_header(gateway: Gateway, service: Service, injected: str) -> None:
    reply = curl(f"{gateway.url}/users/{injected}/x")
    if reply.status == 200:
        assert "x-forged" not in service.last.names
        assert service.last.values("X-User-Id") == ["aX-Forged: 1"]
        assert not reply.values("X-Forged")
    else:
        assert reply.status == 400


def test_what_the_gateway_answers_has_the_headers_too(gateway: Gateway) -> None:
    assert curl(f"{gateway.url}/nowhere").value("X-Via") == "portico"


def test_check_tells_where(gateway: Gateway) -> None:
    file = gateway.folder / "wrong.yaml"
    file.write_text("routes:\n  - {path: /, respond: x, policies: [headers: {request: {set: {Host: x}}}]}\n")
    done = portico_here("check", str(file))
    assert done.code != 0
    assert "wrong.yaml:2:" in done.out + done.err
    assert "preserve_host" in done.out + done.err
