from __future__ import annotations

import fnmatch
import json
import time
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.plugin import (
    ADMITTED,
    DENIED,
    Client,
    FixedVerdict,
    Headers,
    NoVerdict,
    Request,
    RouteArn,
    User,
    cookies_of,
    event_of,
    read_iam,
    read_simple,
)
from portico.policy.lambda_authorizer import MOST_RESOURCES, fits

ARN = "arn:aws:execute-api:local:000000000000:portico/$default"
PLACE = RouteArn(ARN, "orders", ("/orders/{id}",))
NOW = 1_583_348_638.39


def test_what_is_asked_about_a_request() -> None:
    fields = [
        ("Host", "api.example:8000"),
        ("User-Agent", "curl"),
        ("X-One", "1"),
        ("x-one", "2"),
        ("Cookie", "a=b; c=d"),
        ("Cookie", "e"),
        ("X-Request-Id", "7"),
        ("X-Forwarded-For", "9.9.9.9"),
        ("X_Real_IP", "9.9.9.9"),
        ("Connection", "close"),
        ("X-Latin", "\xe4"),
    ]
    headers = Headers((name.encode(), value.encode("latin-1")) for name, value in fields)
    client = Client("192.0.2.7", 50_000, 8000, "https")
    request = Request("POST", "/orders/7%2F8", "a=1&b=%C3%A4+b&a=2&&c", headers, host="api.example", client=client)
    request.captures = {"id": "7/8"}
    event = event_of(request, PLACE, ["secret"], NOW)
    assert json.loads(orjson.dumps(event)) == {
        "version": "2.0",
        "type": "REQUEST",
        "routeArn": f"{ARN}/POST/orders/7%2F8",
        "identitySource": ["secret"],
        "routeKey": "POST /orders/{id}",
        "rawPath": "/orders/7%2F8",
        "rawQueryString": "a=1&b=%C3%A4+b&a=2&&c",
        "cookies": ["a=b", "c=d", "e"],
        "headers": {
            "host": "api.example:8000",
            "user-agent": "curl",
            "x-one": "1,2",
            "x-request-id": "7",
            "x-latin": "ä",
            "x-forwarded-for": "192.0.2.7",
            "x-forwarded-proto": "https",
            "x-forwarded-port": "8000",
            "x-forwarded-host": "api.example:8000",
            "via": "1.1 portico",
        },
        "queryStringParameters": {"a": "1,2", "b": "ä b", "c": ""},
        "pathParameters": {"id": "7/8"},
        "requestContext": {
            "accountId": "000000000000",
            "apiId": "portico",
            "authentication": None,
            "domainName": "api.example",
            "domainPrefix": "api",
            "http": {
                "method": "POST",
                "path": "/orders/7%2F8",
                "protocol": "HTTP/1.1",
                "sourceIp": "192.0.2.7",
                "userAgent": "curl",
            },
            "requestId": "7",
            "routeKey": "POST /orders/{id}",
            "stage": "$default",
            "time": "04/Mar/2020:19:03:58 +0000",
            "timeEpoch": 1583348638390,
        },
    }


def test_what_is_not_there_is_left_out_and_what_is_no_unicode_can_be_sent() -> None:
    bare = event_of(Request("GET", "/"), RouteArn(ARN, "all", ("/a", "/b")), [], NOW)
    assert not {"cookies", "queryStringParameters", "pathParameters"} & bare.keys()
    assert (bare["routeKey"], bare["rawQueryString"], bare["headers"]) == ("GET all", "", {})
    assert len(bare["requestContext"]["requestId"]) == 36
    odd = Request("GET", "/", "a=%FF")
    odd.captures = {"x": "\udcff"}
    event = json.loads(orjson.dumps(event_of(odd, PLACE, ["\udcff"], NOW)))
    assert (event["queryStringParameters"], event["identitySource"]) == ({"a": "\ufffd"}, ["\ufffd"])
    assert event["pathParameters"] == {"x": "\ufffd"}


def named(claims: Any) -> User:
    return User(claims.get("principalId", "nobody"), claims=claims)


def test_no_cookie_passes_for_another() -> None:
    fields = Headers([(b"Cookie", b"\xa0session=a;\x85session=b; \tsession=c"), (b"Cookie", b"d")])
    assert cookies_of(Request("GET", "/", headers=fields)) == ["\xa0session=a", "\x85session=b", "session=c", "d"]


def test_simple_answers() -> None:
    assert read_simple({"isAuthorized": False, "context": {"a": 1}}, named) == FixedVerdict(DENIED)
    found = read_simple({"isAuthorized": True, "context": {"principalId": "ada"}}, named).of("")
    assert isinstance(found, User)
    assert (found.name, found.claims) == ("ada", {"principalId": "ada"})
    assert read_simple({"isAuthorized": True, "context": None}, lambda _: ADMITTED) == FixedVerdict(ADMITTED)


@pytest.mark.parametrize(
    "said",
    [{}, {"isAuthorized": "true"}, {"isAuthorized": 1}, {"isAuthorized": None}, {"isAuthorized": True, "context": [1]}],
)
def test_what_is_no_simple_answer(said: dict[str, Any]) -> None:
    with pytest.raises(NoVerdict):
        read_simple(said, named)


def statement(effect: str = "Allow", resource: Any = "*", action: Any = "execute-api:Invoke") -> dict[str, Any]:
    return {"Effect": effect, "Action": action, "Resource": resource}


def policy(*statements: Any, **more: Any) -> dict[str, Any]:
    document = {"Version": "2012-10-17", "Statement": list(statements)}
    return {"principalId": "ada", "policyDocument": document, **more}


HERE = f"{ARN}/GET/orders/7"
JUDGED: list[tuple[dict[str, Any], bool]] = [
    (policy(statement()), True),
    (policy(statement(resource=HERE)), True),
    (policy(statement(resource=["arn:else", HERE])), True),
    (policy(statement(resource=f"{ARN}/GET/*")), True),
    (policy(statement(resource="arn:aws:execute-api:*:*:*/*/GET/orders/?")), True),
    (policy(statement(action="*")), True),
    (policy(statement(action=["s3:GetObject", "execute-api:*"])), True),
    (policy(statement(action="EXECUTE-API:invoke")), True),
    ({**policy(), "policyDocument": {"Statement": statement()}}, True),
    (policy(statement() | {"Sid": "a"}), True),
    (policy(), False),
    (policy(statement(resource=f"{ARN}/POST/*")), False),
    (policy(statement(resource=f"{ARN}/GET/orders/78")), False),
    (policy(statement(resource=f"{ARN}/GET/orders/??")), False),
    (policy(statement(resource=HERE.upper())), False),
    (policy(statement(action="execute-api:ManageConnections")), False),
    (policy(statement("Deny")), False),
    (policy(statement(), statement("Deny", f"{ARN}/*/orders/*")), False),
    (policy(statement("Deny", f"{ARN}/*/orders/?"), statement()), False),
    (policy(statement(), statement("Deny", f"{ARN}/*/users/*")), True),
    (policy(statement(), statement("Deny", action="s3:*")), True),
]


@pytest.mark.parametrize(("said", "allowed"), JUDGED)
def test_policies_are_judged_for_each_request(said: dict[str, Any], *, allowed: bool) -> None:
    found = read_iam(said, named).of(HERE)
    assert (found.name if isinstance(found, User) else found) == ("ada" if allowed else DENIED)


def test_what_a_policy_says_of_a_user() -> None:
    found = read_iam(policy(statement(), context={"role": "admin", "principalId": "root"}), named).of(HERE)
    assert isinstance(found, User)
    assert dict(found.claims) == {"role": "admin", "principalId": "ada"}


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"policyDocument": policy()["policyDocument"]},
        policy() | {"principalId": 7},
        policy() | {"policyDocument": "{}"},
        policy() | {"policyDocument": {}},
        policy("*"),
        policy({}),
        policy(statement("allow")),
        policy(statement() | {"Condition": {"IpAddress": {}}}),
        policy(statement("Deny") | {"NotResource": "*"}),
        policy({"Effect": "Deny", "NotAction": "*", "Resource": "*"}),
        policy(statement(resource=None)),
        policy(statement(resource=[])),
        policy(statement(resource=["*", 7])),
        policy(statement(action={})),
        policy(statement(), context="a"),
        policy(statement(resource=["*"] * MOST_RESOURCES)),
        policy(*[statement()] * (MOST_RESOURCES // 2 + 1)),
    ],
)
def test_what_is_not_understood_as_a_whole_is_no_policy(said: dict[str, Any]) -> None:
    with pytest.raises(NoVerdict):
        read_iam(said, named)


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=8))
def test_patterns(pattern: str, text: str) -> None:
    assert fits(pattern, text) == fnmatch.fnmatchcase(text, pattern)


def test_signs_of_other_patterns_stand_for_themselves() -> None:
    for sign in "[].+()|^$\\{}":
        assert fits(f"*{sign}?{sign}*", f"a{sign}\n{sign}")
        assert not fits(f"*{sign}?", "ab")


def test_no_pattern_takes_long() -> None:
    began = time.process_time()
    for part in ("*a", "*?a", "?*"):
        assert not fits(part * 100 + "b", "a" * 8000)
        assert not fits("b" + part * 100, "a" * 8000)
    assert time.process_time() - began < 1
