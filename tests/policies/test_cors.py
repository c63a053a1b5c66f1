from __future__ import annotations

import asyncio
import re
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from portico.plugin import UNANSWERED_PREFLIGHT, Client, Headers, Request, Response, Stage
from portico.policies.cors import Cors, CorsPolicy
from tests.harness.policies import Asked, is_freed_by_counting, policy_of, request_of
from tests.policies.fetch_standard import SAFE_METHODS, Wish, fetch

A = "https://a.example"
B = "https://b.example"
LISTED: dict[str, Any] = {"origins": [A]}
ALL: dict[str, Any] = {"origins": "*"}
COOKIES: dict[str, Any] = {"origins": [A], "credentials": True}
BELOW: dict[str, Any] = {"origins": ["https://*.a.example"]}
REGEX: dict[str, Any] = {"origins": [r"~https://pr-[0-9]+\.a\.example"]}

METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
VARY = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
SHORT = {
    "origin": "access-control-allow-origin",
    "cred": "access-control-allow-credentials",
    "methods": "access-control-allow-methods",
    "headers": "access-control-allow-headers",
    "age": "access-control-max-age",
    "expose": "access-control-expose-headers",
    "private": "access-control-allow-private-network",
    "vary": "vary",
}


def said(**values: str) -> dict[str, str]:
    return {SHORT[name]: value for name, value in values.items()}


def simple(origin: str | None, method: str = "GET", **more: str) -> Request:
    pairs = [] if origin is None else [("Origin", origin)]
    return request_of(method, *pairs, *((name.replace("_", "-"), value) for name, value in more.items()))


def preflight(origin: str, method: str, *asked: str, private: str = "") -> Request:
    lines = [("Access-Control-Request-Headers", names) for names in asked]
    local = [("Access-Control-Request-Private-Network", private)] if private else []
    return request_of("OPTIONS", ("Origin", origin), ("Access-Control-Request-Method", method), *lines, *local)


def yes(origin: str = A, vary: str = VARY, methods: str = METHODS, age: str = "600", **more: str) -> dict[str, str]:
    """Return what a preflight's answer says to an origin that is allowed."""
    return said(origin=origin, methods=methods, age=age, vary=vary, **more)


NO = said(vary=VARY)
KEPT = said(vary="Origin")
READ = said(origin=A, vary="Origin")


class Row(NamedTuple):
    what: str
    settings: dict[str, Any]
    request: Request
    expected: dict[str, str]


ROWS = [
    # Which origins there are (section 3.2; the comparison is byte by byte, 4.10)
    Row("the origin that is listed", LISTED, simple(A), READ),
    Row("another origin", LISTED, simple(B), KEPT),
    Row("no origin, where others have one", LISTED, simple(None), KEPT),
    Row("another scheme", LISTED, simple("http://a.example"), KEPT),
    Row("a port that is not listed", LISTED, simple(f"{A}:8443"), KEPT),
    Row("the usual port, which no browser writes", LISTED, simple(f"{A}:443"), KEPT),
    Row("upper case, which no browser writes", LISTED, simple("https://A.example"), KEPT),
    Row("a trailing slash, which no browser writes", LISTED, simple(f"{A}/"), KEPT),
    Row("a longer name", LISTED, simple("https://a.example.evil"), KEPT),
    Row("a name that ends so", LISTED, simple("https://evila.example"), KEPT),
    Row("a name with a trailing dot is another", LISTED, simple("https://a.example."), KEPT),
    Row("an empty origin", LISTED, simple(""), KEPT),
    Row("two origins", LISTED, simple(f"{A} {B}"), KEPT),
    Row("a star as origin", LISTED, simple("*"), KEPT),
    Row(
        "a port that is listed",
        {"origins": [f"{A}:8443"]},
        simple(f"{A}:8443"),
        said(origin=f"{A}:8443", vary="Origin"),
    ),
    Row("the usual port where another is listed", {"origins": [f"{A}:8443"]}, simple(A), KEPT),
    Row("one of two", {"origins": [B, A]}, simple(A), READ),
    Row("a single text", {"origins": A}, simple(A), READ),
    Row("null that is not listed", LISTED, simple("null"), KEPT),
    Row("null that is listed", {"origins": ["null"]}, simple("null"), said(origin="null", vary="Origin")),
    Row("null of YAML", {"origins": [None]}, simple("null"), said(origin="null", vary="Origin")),
    Row("null in a list, and another", {"origins": ["null", A]}, simple(A), READ),
    Row("null in upper case", {"origins": ["null"]}, simple("NULL"), KEPT),
    Row(
        "a name in punycode",
        {"origins": ["https://xn--bcher-kva.example"]},
        simple("https://xn--bcher-kva.example"),
        said(origin="https://xn--bcher-kva.example", vary="Origin"),
    ),
    Row(
        "an IPv4 address and a port",
        {"origins": ["http://127.0.0.1:8080"]},
        simple("http://127.0.0.1:8080"),
        said(origin="http://127.0.0.1:8080", vary="Origin"),
    ),
    Row(
        "an IPv6 address and a port",
        {"origins": ["http://[::1]:8080"]},
        simple("http://[::1]:8080"),
        said(origin="http://[::1]:8080", vary="Origin"),
    ),
    Row(
        "a scheme of an app",
        {"origins": ["capacitor://localhost"]},
        simple("capacitor://localhost"),
        said(origin="capacitor://localhost", vary="Origin"),
    ),
    # Everyone
    Row("everyone", ALL, simple(A), said(origin="*")),
    Row("everyone, even without an origin: a cache may keep it", ALL, simple(None), said(origin="*")),
    Row("everyone has null in it", ALL, simple("null"), said(origin="*")),
    # Patterns
    Row("a subdomain", BELOW, simple("https://x.a.example"), said(origin="https://x.a.example", vary="Origin")),
    Row(
        "a deeper subdomain",
        BELOW,
        simple("https://y.x.a.example"),
        said(origin="https://y.x.a.example", vary="Origin"),
    ),
    Row("not the domain itself", BELOW, simple(A), KEPT),
    Row("not what only ends so", BELOW, simple("https://xa.example"), KEPT),
    Row("the dot is a dot", BELOW, simple("https://x.aXexample"), KEPT),
    Row("an empty label", BELOW, simple("https://.a.example"), KEPT),
    Row("a slash among the labels", BELOW, simple("https://evil.example/.a.example"), KEPT),
    Row("a user among the labels", BELOW, simple("https://x@y.a.example"), KEPT),
    Row("a subdomain with a port", BELOW, simple("https://x.a.example:8443"), KEPT),
    Row(
        "a subdomain with the port of the pattern",
        {"origins": ["https://*.a.example:8443"]},
        simple("https://x.a.example:8443"),
        said(origin="https://x.a.example:8443", vary="Origin"),
    ),
    Row("a subdomain with another scheme", BELOW, simple("http://x.a.example"), KEPT),
    Row("more than any origin has", BELOW, simple(f"https://{'x.' * 200}a.example"), KEPT),
    Row(
        "a regular expression",
        REGEX,
        simple("https://pr-7.a.example"),
        said(origin="https://pr-7.a.example", vary="Origin"),
    ),
    Row("a regular expression ends where it ends", REGEX, simple("https://pr-7.a.example.evil"), KEPT),
    Row("a regular expression starts where it starts", REGEX, simple("https://evil#https://pr-7.a.example"), KEPT),
    # Credentials, section 4.10
    Row("credentials", COOKIES, simple(A), said(origin=A, cred="true", vary="Origin")),
    Row("credentials of another origin", COOKIES, simple(B), KEPT),
    Row(
        "credentials below a domain",
        BELOW | {"credentials": True},
        simple("https://x.a.example"),
        said(origin="https://x.a.example", cred="true", vary="Origin"),
    ),
    Row("a preflight with credentials", COOKIES, preflight(A, "PUT"), yes(cred="true")),
    Row(
        "credentials: no star for methods",
        COOKIES | {"methods": "*"},
        preflight(A, "PURGE"),
        yes(methods="PURGE", cred="true"),
    ),
    Row(
        "credentials: no star for headers",
        COOKIES | {"headers": "*"},
        preflight(A, "PUT", "x-a,x-b"),
        yes(headers="x-a, x-b", cred="true"),
    ),
    Row(
        "credentials: a star is no authorization",
        COOKIES | {"headers": "*"},
        preflight(A, "PUT", "authorization,x-a"),
        yes(headers="x-a", cred="true"),
    ),
    Row(
        "credentials: authorization by name",
        COOKIES | {"headers": ["*", "Authorization"]},
        preflight(A, "PUT", "authorization,x-a"),
        yes(headers="authorization, x-a", cred="true"),
    ),
    Row(
        "credentials: a star is not repeated",
        COOKIES | {"methods": "*"},
        preflight(A, "*, DELETE"),
        said(origin=A, cred="true", age="600", vary=VARY),
    ),
    # Exposed headers
    Row(
        "exposed headers",
        LISTED | {"expose_headers": ["ETag", "X-Total"]},
        simple(A),
        READ | said(expose="ETag, X-Total"),
    ),
    Row("exposed headers to another origin", LISTED | {"expose_headers": ["ETag"]}, simple(B), KEPT),
    Row("all exposed", ALL | {"expose_headers": "*"}, simple(A), said(origin="*", expose="*")),
    Row("a preflight exposes nothing", LISTED | {"expose_headers": ["ETag"]}, preflight(A, "PUT"), yes()),
    # Preflights: methods (4.8; they have cases)
    Row("a preflight", LISTED, preflight(A, "PUT"), yes()),
    Row("a preflight of another origin", LISTED, preflight(B, "PUT"), NO),
    Row("a preflight of null", LISTED, preflight("null", "PUT"), NO),
    Row("a preflight for a safelisted method", LISTED, preflight(A, "POST"), yes()),
    Row(
        "a preflight for a method that is not listed",
        LISTED | {"methods": ["PUT"]},
        preflight(A, "DELETE"),
        yes(methods="PUT"),
    ),
    Row(
        "methods in lower case are meant in upper case",
        LISTED | {"methods": ["put", "Put"]},
        preflight(A, "PUT"),
        yes(methods="PUT"),
    ),
    Row("a single method", LISTED | {"methods": "PATCH"}, preflight(A, "PATCH"), yes(methods="PATCH")),
    Row("patch is not PATCH", LISTED | {"methods": "PATCH"}, preflight(A, "patch"), yes(methods="PATCH")),
    Row("every method", LISTED | {"methods": "*"}, preflight(A, "PURGE"), yes(methods="*")),
    Row(
        "everyone, every method",
        ALL | {"methods": "*"},
        preflight(A, "PURGE"),
        yes("*", VARY.removeprefix("Origin, "), "*"),
    ),
    # The headers of preflights
    Row("a header that is listed", LISTED | {"headers": ["X-A"]}, preflight(A, "PUT", "x-a"), yes(headers="x-a")),
    Row("a header that is not listed", LISTED | {"headers": ["X-A"]}, preflight(A, "PUT", "x-b"), yes()),
    Row("one of two", LISTED | {"headers": ["X-A"]}, preflight(A, "PUT", "x-a,x-b"), yes(headers="x-a")),
    Row(
        "odd spaces",
        LISTED | {"headers": ["X-A", "X-B"]},
        preflight(A, "PUT", " x-a ,\tx-b\t"),
        yes(headers="x-a, x-b"),
    ),
    Row("odd case", LISTED | {"headers": ["x-a", "X-B"]}, preflight(A, "PUT", "X-A, x-b"), yes(headers="X-A, x-b")),
    Row("empty elements", LISTED | {"headers": ["X-A"]}, preflight(A, "PUT", ",, x-a,,"), yes(headers="x-a")),
    Row("only empty elements", LISTED | {"headers": ["X-A"]}, preflight(A, "PUT", " , "), yes()),
    Row("nothing asked for", LISTED | {"headers": ["X-A"]}, preflight(A, "PUT", ""), yes()),
    Row("twice the same", LISTED | {"headers": ["X-A"]}, preflight(A, "PUT", "x-a,X-A"), yes(headers="x-a")),
    Row("two lines", LISTED | {"headers": ["X-A", "X-B"]}, preflight(A, "PUT", "x-a", "x-b"), yes(headers="x-a, x-b")),
    Row(
        "what is listed by default",
        LISTED,
        preflight(A, "PUT", "authorization,content-type"),
        yes(headers="authorization, content-type"),
    ),
    Row("none is listed", LISTED | {"headers": []}, preflight(A, "PUT", "content-type"), yes()),
    Row("every header", LISTED | {"headers": "*"}, preflight(A, "PUT", "x-a"), yes(headers="*")),
    Row(
        "every header, and authorization",
        LISTED | {"headers": ["*", "authorization"]},
        preflight(A, "PUT", "authorization"),
        yes(headers="*, Authorization"),
    ),
    Row("a star is no name to ask for", LISTED | {"headers": ["X-A"]}, preflight(A, "PUT", "*"), yes()),
    Row(
        "no name at all",
        COOKIES | {"headers": "*"},
        preflight(A, "PUT", 'x a,x"b,x-c'),
        yes(headers="x-c", cred="true"),
    ),
    # Preflights: the rest
    Row("max_age", LISTED | {"max_age": "2h"}, preflight(A, "PUT"), yes(age="7200")),
    Row("no max_age", LISTED | {"max_age": 0}, preflight(A, "PUT"), yes(age="0")),
    Row("max_age in parts of a second", LISTED | {"max_age": "1500ms"}, preflight(A, "PUT"), yes(age="1")),
    Row(
        "a private network",
        LISTED | {"private_network": True},
        preflight(A, "PUT", private="true"),
        yes(private="true", vary=f"{VARY}, Access-Control-Request-Private-Network"),
    ),
    Row(
        "a private network, not asked for",
        LISTED | {"private_network": True},
        preflight(A, "PUT"),
        yes(vary=f"{VARY}, Access-Control-Request-Private-Network"),
    ),
    Row(
        "a private network, asked for otherwise",
        LISTED | {"private_network": True},
        preflight(A, "PUT", private="1"),
        yes(vary=f"{VARY}, Access-Control-Request-Private-Network"),
    ),
    Row("a private network, not allowed", LISTED, preflight(A, "PUT", private="true"), yes()),
    Row(
        "a private network for another origin",
        LISTED | {"private_network": True},
        preflight(B, "PUT", private="true"),
        said(vary=f"{VARY}, Access-Control-Request-Private-Network"),
    ),
    Row("everyone's preflight", ALL, preflight(A, "PUT"), yes("*", VARY.removeprefix("Origin, "))),
    # What is no preflight
    Row("OPTIONS without a method that is asked for", LISTED, simple(A, "OPTIONS"), READ),
    Row("OPTIONS without an origin", LISTED, simple(None, "OPTIONS", Access_Control_Request_Method="PUT"), KEPT),
    Row("another method that asks for one", LISTED, simple(A, "GET", Access_Control_Request_Method="PUT"), READ),
    Row("a simple POST", LISTED, simple(A, "POST"), READ),
    Row("a PUT needs no list once it comes", LISTED | {"methods": "GET"}, simple(A, "PUT"), READ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_what_is_said(row: Row) -> None:
    asked = Asked(policy_of(CorsPolicy, **row.settings), row.request)
    assert asked.values("access-control-") | asked.values("vary") == row.expected
    is_preflight = {b"origin", b"access-control-request-method"} <= row.request.headers.index.keys()
    is_preflight = is_preflight and row.request.method == "OPTIONS"
    assert asked.reached is not is_preflight
    assert asked.response.status == (204 if is_preflight else 200)
    assert asked.response.body.whole == b""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["Accept-Encoding"], "Accept-Encoding, Origin"),
        (["Accept-Encoding", "Accept"], "Accept-Encoding, Accept, Origin"),
        (["origin"], "origin"),
        (["Accept, ORIGIN"], "Accept, ORIGIN"),
        (["*"], "*"),
        (["Accept", "*"], None),
        (["X-Origin"], "X-Origin, Origin"),
    ],
)
def test_vary_is_added_to_what_the_service_says(before: list[str], after: str | None) -> None:
    answer = Response(200, Headers((b"Vary", value.encode()) for value in before))
    asked = Asked(policy_of(CorsPolicy, **LISTED), simple(A), answer)
    found = [value.decode() for value in asked.response.headers.get_all(b"vary")]
    assert found == (before if after is None else [after])


@pytest.mark.parametrize("settings", [LISTED, ALL, COOKIES], ids=["listed", "all", "credentials"])
@pytest.mark.parametrize("origin", [A, B, None])
def test_what_the_service_says_of_it_is_replaced(settings: dict[str, Any], origin: str | None) -> None:
    theirs = [(name.encode(), b"*") for name in SHORT.values() if name != "vary"]
    answer = Response(200, Headers([*theirs, *theirs, (b"Access-Control-Allow-Origin", b"https://evil.example")]))
    policy = policy_of(CorsPolicy, **settings)
    replaced = Asked(policy, simple(origin), answer).values("access-control-")
    assert replaced == Asked(policy, simple(origin)).values("access-control-")


def test_an_error_can_be_read() -> None:
    asked = Asked(policy_of(CorsPolicy, **COOKIES), simple(A), Response.problem(401, "token-needed"))
    assert asked.problem == (401, "token-needed")
    assert asked.values("access-control-") == said(origin=A, cred="true")


def test_a_policy_further_in_may_take_the_origin_away() -> None:
    policy = policy_of(CorsPolicy, **LISTED)

    async def next_(request: Request) -> Response:
        request.headers.remove(b"origin")
        return Response(200)

    response = asyncio.run(policy.handle(simple(A), next_))
    assert response.headers.get(b"access-control-allow-origin") == A.encode()


def test_an_upgrade_is_left_alone() -> None:
    answer = Response(101)
    assert Asked(policy_of(CorsPolicy, **LISTED), simple(A), answer).values("") == {}


@pytest.mark.parametrize("request_", [simple(B), simple(B, "POST"), preflight(B, "PUT"), simple("null")])
def test_who_is_to_be_refused_is_refused(request_: Request) -> None:
    asked = Asked(policy_of(CorsPolicy, **LISTED, refuse=True), request_)
    assert asked.problem == (403, "origin-not-allowed")
    assert not asked.reached
    assert asked.values("access-control-") == {}
    assert asked.values("vary")["vary"].startswith("Origin")


OWN = [
    ("https", 443, "https://api.example", "api.example", True),
    ("https", 443, "https://api.example", "API.example:443", True),
    ("http", 80, "http://api.example", "api.example:80", True),
    ("http", 8000, "http://api.example:8000", "api.example:8000", True),
    ("http", 8000, "http://api.example", "api.example:8000", False),
    ("http", 80, "https://api.example", "api.example", False),
    ("https", 443, "https://evil.example", "api.example", False),
    ("https", 443, "null", "api.example", False),
]


@pytest.mark.parametrize(("scheme", "port", "origin", "host", "passes"), OWN)
def test_pages_of_the_own_origin_are_not_refused(scheme: str, port: int, origin: str, host: str, passes: bool) -> None:
    client = Client("192.0.2.1", 1, port, scheme)
    request = request_of("POST", ("Origin", origin), ("Host", host), client=client)
    assert Asked(policy_of(CorsPolicy, **LISTED, refuse=True), request).reached is passes


@pytest.mark.parametrize(("origin", "passes"), [("https://api.example", True), ("https://inner.example", False)])
def test_the_own_origin_is_the_one_that_a_trusted_proxy_was_asked_for(origin: str, passes: bool) -> None:
    client = Client("192.0.2.1", 1, 8080, "https", host=b"api.example")
    request = request_of("POST", ("Origin", origin), ("Host", "inner.example"), client=client)
    assert Asked(policy_of(CorsPolicy, **LISTED, refuse=True), request).reached is passes


def test_a_browser_may_say_that_the_origin_is_its_own() -> None:
    policy = policy_of(CorsPolicy, **LISTED, refuse=True)
    for site, passes in (("same-origin", True), ("same-site", False), ("cross-site", False)):
        assert Asked(policy, simple(B, "POST", Sec_Fetch_Site=site)).reached is passes


def test_who_has_no_origin_is_not_refused() -> None:
    assert Asked(policy_of(CorsPolicy, **LISTED, refuse=True), simple(None)).reached


def test_the_methods_are_those_of_the_route() -> None:
    policy = policy_of(CorsPolicy, ("GET", "PUT"), **LISTED)
    assert Asked(policy, preflight(A, "PUT")).values("access-control-allow-m") == said(methods="GET, PUT")


def test_a_preflight_for_another_route_is_left_alone() -> None:
    request = preflight(A, "PUT")
    request[UNANSWERED_PREFLIGHT] = True
    asked = Asked(policy_of(CorsPolicy, **LISTED, refuse=True), request, Response(200, Headers([(b"Vary", b"x")])))
    assert asked.reached
    assert asked.values("") == {"vary": "x"}


def test_it_leaves_no_cycle() -> None:
    assert is_freed_by_counting(lambda: policy_of(CorsPolicy, **BELOW))


def test_where_it_stands() -> None:
    assert CorsPolicy.stages == (Stage.GUARD, Stage.OBSERVE)
    assert CorsPolicy.answers_preflights


WRONG = [
    ({}, "origins"),
    ({"origins": []}, "at least 1"),
    ({"origins": "a.example"}, "no scheme; write https://a.example"),
    ({"origins": [A, "null"], "credentials": True}, "null would give every site what the user may see"),
    ({"origins": ""}, "no scheme"),
    ({"origins": f"{A}/"}, f"ends with the host or the port; write {A}$"),
    ({"origins": f"{A}/app?x"}, f"write {A}$"),
    ({"origins": f"{A}?x"}, f"write {A}$"),
    ({"origins": f"{A}#x"}, f"write {A}$"),
    ({"origins": "HTTPS://a.example"}, f"lower case; write {A}"),
    ({"origins": "https://A.example"}, f"lower case; write {A}"),
    ({"origins": f"{A}:443"}, f"leave out the usual port; write {A}$"),
    ({"origins": "http://a.example:80"}, "leave out the usual port"),
    ({"origins": "http://[::1]:80"}, r"leave out the usual port; write http://\[::1\]$"),
    ({"origins": f"{A}:70000"}, "no port 70000"),
    ({"origins": f"{A}:0"}, "not an origin"),
    ({"origins": f"{A}:"}, "not an origin"),
    ({"origins": f"{A}:*"}, "not an origin"),
    ({"origins": "https://u:p@a.example"}, "no user"),
    ({"origins": "https://"}, "not an origin"),
    ({"origins": "https://a..example"}, "not an origin"),
    ({"origins": "https://*"}, "not an origin"),
    ({"origins": "https://a.*.example"}, "not an origin"),
    ({"origins": "https://a*.example"}, "not an origin"),
    ({"origins": "https://a.example b"}, "not an origin"),
    ({"origins": "*://a.example"}, "not an origin"),
    ({"origins": "https://bücher.example"}, "write https://xn--bcher-kva.example"),
    ({"origins": "https://ü..example"}, "not an origin"),
    ({"origins": "http://127.0.0.1.5"}, "not an address"),
    ({"origins": "http://*.0.0.1"}, "not an address"),
    ({"origins": "http://*.127.0.0.1"}, "no subdomains"),
    ({"origins": "http://[0:0:0:0:0:0:0:1]:8080"}, r"write http://\[::1\]:8080"),
    ({"origins": "http://[::1"}, "not an origin"),
    ({"origins": "http://[1::2::3]"}, "not an address"),
    ({"origins": "~("}, "not a regular expression"),
    ({"origins": ["*", A]}, r"stands for all of them; write origins: '\*'"),
    ({"origins": [5]}, "valid string"),
    (ALL | {"credentials": True}, "no browser takes '\\*' for the origins; list the origins"),
    (COOKIES | {"expose_headers": "*"}, "exposed headers; list the headers"),
    ({"origins": "~.*", "credentials": True}, "would give every site"),
    ({"origins": "~https://[a-z.]+", "credentials": True}, "would give every site"),
    (LISTED | {"methods": ["*", "GET"]}, "stands for all"),
    (LISTED | {"methods": "TRACE"}, "no page can send TRACE"),
    (LISTED | {"methods": "G T"}, "not a method"),
    (LISTED | {"headers": "x y"}, "not a header name"),
    (LISTED | {"expose_headers": ["*", "ETag"]}, "stands for all"),
    (LISTED | {"max_age": -1}, "not a duration"),
    (LISTED | {"origin": A}, "origin"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG)
def test_what_no_browser_would_understand_is_an_error(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Cors.model_validate(settings)
    told = [
        str(error.get("ctx", {}).get("error", error["msg"])) + str(error["loc"]) * ("origin" in message)
        for error in caught.value.errors()
    ]
    assert any(re.search(message, re.sub(r"\(.*$", "", text) if message.endswith("$") else text) for text in told), told


# Against the standard itself

ORIGINS = [A, B, "https://x.a.example", "null", "http://a.example"]
NAMES = ["X-A", "X-B", "Content-Type", "Authorization", "Accept"]
lists = st.lists(st.sampled_from(NAMES), max_size=3, unique=True)


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    credentials = draw(st.booleans())
    known = [A, B, "https://*.a.example", *([] if credentials else ["null"])]
    origins = draw(st.lists(st.sampled_from(known), min_size=1, unique=True))
    return {
        "credentials": credentials,
        "origins": origins if credentials or draw(st.booleans()) else "*",
        "methods": draw(st.lists(st.sampled_from(["PUT", "DELETE"]), min_size=1, unique=True) | st.just("*")),
        "headers": draw(lists) + draw(st.sampled_from([[], ["*"]])),
        "expose_headers": draw(lists) if credentials or draw(st.booleans()) else "*",
        "refuse": draw(st.booleans()),
    }


wishes = st.builds(
    Wish,
    st.sampled_from(ORIGINS),
    st.sampled_from(["GET", "POST", "PUT", "DELETE", "PURGE"]),
    lists.map(tuple),
    st.booleans(),
)


def may(config: dict[str, Any], wish: Wish) -> bool:
    """Say from the settings alone whether a page gets its wish."""
    below = "https://*.a.example" in config["origins"] and wish.origin == "https://x.a.example"
    names = {name.lower() for name in config["headers"]}
    asked = {name.lower() for name in wish.headers} - {"accept"}
    return (
        (config["origins"] == "*" or wish.origin in config["origins"] or below)
        and (config["credentials"] or not wish.credentials)
        and (wish.method in SAFE_METHODS or wish.method in config["methods"] or config["methods"] == "*")
        and all(name in names or ("*" in names and name != "authorization") for name in asked)
    )


@settings(max_examples=400, deadline=None)
@given(configs(), wishes)
@example(
    COOKIES | {"methods": "*", "headers": ["*"], "expose_headers": [], "refuse": False},
    Wish(A, "PURGE", ("X-A",), True),
)
def test_a_browser_lets_pass_what_the_settings_allow(config: dict[str, Any], wish: Wish) -> None:
    policy = policy_of(CorsPolicy, **config)
    seen = []

    async def service(request: Request) -> Response:
        seen.append(request.method)
        return Response(200, Headers([(b"ETag", b"x"), (b"X-A", b"1"), (b"X-B", b"1"), (b"Content-Type", b"a/b")]))

    got = fetch(wish, lambda request: asyncio.run(policy.handle(request, service)))
    assert (got.answer is not None) is may(config, wish)
    assert "OPTIONS" not in seen
    if got.answer is not None:
        exposed = {name.lower() for name in config["expose_headers"]} & {"etag", "x-a", "x-b"}
        if config["expose_headers"] == "*":
            exposed = {"etag", "x-a", "x-b"}
        assert got.readable >= exposed
        assert got.readable & {"etag", "x-a", "x-b"} == exposed
