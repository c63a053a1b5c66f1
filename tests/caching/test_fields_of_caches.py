"""The forms of what caches read and write: lists, dates, dictionaries, keys, and Cache-Status."""

from __future__ import annotations

import http_sf
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from portico.caching.dates import parse_date, write_date
from portico.caching.directives import ANY, NOTHING_SAID, request_directives, response_directives, targeted_directives
from portico.caching.fields import members, names, unquoted
from portico.caching.key import TRACKING, CacheKey
from portico.caching.rules import STRICT, CachingRules, SetCookie
from portico.caching.status import CacheStatus, Forward
from portico.caching.stored import kept_fields
from portico.caching.structured import dictionary
from portico.http.headers import Headers
from tests.harness.caching import T0, asking, at, keep, lines

LISTS: list[tuple[list[bytes], list[bytes]]] = [
    ([], []),
    ([b""], []),
    ([b" , ,\t"], []),
    ([b"a, b", b"c"], [b"a", b"b", b"c"]),
    ([b'a="b,c", d'], [b'a="b,c"', b"d"]),
    ([b'a="b\\",c", d'], [b'a="b\\",c"', b"d"]),
    ([b'a="b, c', b"d"], [b'a="b', b"c", b"d"]),
    ([b'a="b\\", c'], [b'a="b\\"', b"c"]),
    ([b'"a""b,", c'], [b'"a""b,"', b"c"]),
]


@pytest.mark.parametrize(("values", "expected"), LISTS)
def test_lists(values: list[bytes], expected: list[bytes]) -> None:
    assert members(values) == expected


def test_quoted_texts_and_names() -> None:
    assert unquoted(b'"a\\"b\\c"') == b'a"bc'
    assert [unquoted(value) for value in (b'"', b'"a', b"a", b"")] == [b'"', b'"a', b"a", b""]
    assert names([b"A, b-C"]) == {b"a", b"b-c"}
    assert names([b"a b"]) is None


DATES: list[tuple[str, bytes, float | None]] = [
    ("RFC 9110 5.6.7", b"Sun, 06 Nov 1994 08:49:37 GMT", 784111777),
    ("RFC 9110 5.6.7", b"Sunday, 06-Nov-94 08:49:37 GMT", 784111777),
    ("RFC 9110 5.6.7", b"Sun Nov  6 08:49:37 1994", 784111777),
    ("RFC 9110 5.6.7", b"sun, 06 nov 1994 08:49:37 gmt", 784111777),
    ("RFC 9110 5.6.7", b"Mon, 06 Nov 1994 08:49:37 GMT", 784111777),
    ("RFC 9110 5.6.7", b"Tuesday, 01-Jan-77 00:00:00 GMT", 3376684800),  # 2077: 50 years ahead
    ("RFC 9110 5.6.7", b"Sunday, 01-Jan-78 00:00:00 GMT", 252460800),  # 1978
    ("RFC 9110 5.6.7", b"Sat, 31 Dec 2016 23:59:60 GMT", 1483228799),
    ("RFC 9110 5.6.7", b"Sun, 6 Nov 1994 08:49:37 GMT", None),
    ("RFC 9110 5.6.7", b"Sun, 06 Nov 1994 08:49:37 +0000", None),
    ("RFC 9110 5.6.7", b"Sun, 06 Nov 1994 08:49:37", None),
    ("RFC 9110 5.6.7", b"Sun, 06 Nov 1994 24:00:00 GMT", None),
    ("RFC 9110 5.6.7", b"Sun, 31 Nov 1994 08:49:37 GMT", None),
    ("RFC 9110 5.6.7", b"Sun, 06 Nov 0000 08:49:37 GMT", None),
    ("RFC 9110 5.6.7", b"Sun, 06 Nov 1994 08:49:37 GMT ", None),
    ("RFC 9110 5.6.7", b"1994-11-06T08:49:37Z", None),
    ("RFC 9110 5.6.7", b"0", None),
    ("RFC 9110 5.6.7", b"", None),
]


@pytest.mark.parametrize(("section", "value", "expected"), DATES)
def test_dates(section: str, value: bytes, expected: float | None) -> None:
    assert parse_date(value, T0) == expected, section


@given(st.integers(min_value=0, max_value=253402300799))
def test_dates_are_read_as_they_are_written(seconds: int) -> None:
    assert parse_date(write_date(seconds), T0) == seconds


def test_a_date_that_cannot_be_read_is_replaced_in_what_is_kept() -> None:
    for date in ("Date:", "Date: never", "Date: never | Date: ever"):
        assert keep(f"{date} | ETag: x").headers.get_all(b"date") == [at(0).encode()]
    assert keep(f"Date: {at(-9)} | ETag: x").headers.text(b"date") == at(-9)


def test_what_is_not_kept_of_an_answer() -> None:
    answer = lines(
        f"Date: {at(0)} | Connection: X-One, close | X-One: 1 | Keep-Alive: 5 | TE: a | Trailer: X | Upgrade: h2"
        " | Transfer-Encoding: chunked | Proxy-Authenticate: a | Proxy-Authentication-Info: a | Proxy-Connection: a"
        " | Proxy-Authorization: a | Age: 5 | X-Kept: 1 | X-Kept: 2 | Set-Cookie: a=1 | X-Mine: 1"
    )  # RFC 9111 section 3.1
    rest = f"Date: {at(0)} | X-Kept: 1 | X-Kept: 2"
    assert kept_fields(answer, frozenset((b"x-mine",)), STRICT, None) == lines(rest)
    cookies = CachingRules(set_cookie=SetCookie.KEEP)
    assert kept_fields(answer, frozenset((b"x-mine",)), cookies, None) == lines(f"{rest} | Set-Cookie: a=1")


def test_directives_that_stand_alone_or_with_fields() -> None:
    said = response_directives(lines('Cache-Control: no-cache="A, b", private="C" | Cache-Control: public, immutable'))
    assert (said.no_cache, said.private, said.public, said.immutable) == (False, False, True, True)
    assert said.unkept == {b"a", b"b", b"c"}
    said = response_directives(lines('Cache-Control: no-cache="A", no-cache'))
    assert said.no_cache
    asked = request_directives(lines("Cache-Control: max-stale, min-fresh=5, min-fresh=x, only-if-cached"))
    assert (asked.max_stale, asked.min_fresh, asked.only_if_cached, asked.max_age) == (ANY, 5, True, None)


SAID = [
    "no-store",
    "no-cache",
    "private",
    "public",
    "must-revalidate",
    "proxy-revalidate",
    "must-understand",
    "immutable",
    "max-age=7",
    "s-maxage=7",
    "stale-while-revalidate=7",
    "stale-if-error=7",
    "max-age=99999999999",
    "max-age=-7",
    "max-age",
    'no-cache="A, b"',
    'private="A"',
    'private=""',
    "private=a",
    'private="etag, vary"',
    "other, other=7",
]


@pytest.mark.parametrize("said", SAID)
def test_a_targeted_field_says_the_same_in_the_same_words(said: str) -> None:
    by_all = response_directives(lines(f"Cache-Control: {said}"))
    by_target = targeted_directives(lines(f"CDN-Cache-Control: {said}"), (b"x", b"cdn-cache-control"))
    assert by_target == by_all  # RFC 9213 section 2.1
    assert (by_all == NOTHING_SAID) is said.startswith("other")


def test_what_a_targeted_field_forbids_by_any_value_and_allows_by_true_alone() -> None:
    said = "no-store=?0, must-revalidate=1, proxy-revalidate=?0, public=?0, immutable=1, must-understand=?0"
    forbidden = NOTHING_SAID._replace(no_store=True, must_revalidate=True, proxy_revalidate=True)
    assert targeted_directives(lines(f"CDN-Cache-Control: {said}"), (b"cdn-cache-control",)) == forbidden


DICTIONARIES = [
    b"",
    b" ",
    b"a",
    b"a, b=1;x=2;y, c=?0",
    b'a="x\\"y\\\\", b=tok/en:*',
    b"a=1.5, b=-7, c=-0.125",
    b"a=1234567890123456",
    b"a=1.2345",
    b"a=1234567890123.0",
    b"a=1.",
    b"a=-",
    b"a,",
    b"a,,b",
    b",a",
    b"A=1",
    b"a=",
    b"a =1",
    b"a= 1",
    b"a=1 , b",
    b"a=1\t,\tb",
    b"a=1 b",
    b'a=(1 2 "x";p);q=1, b',
    b"a=(1  2 )",
    b"a=(1,2)",
    b"a=(1",
    b'a=(1"x")',
    b"a=:aGVsbG8=:",
    b"a=@1659578233",
    b'a=%"f%c3%bc"',
    b"a=1, a=2",
    b"a;p=1;p=2",
    b"a; p",
    b"a ;p",
    b'a="x',
    b'a="\xff"',
    b"*a=1, a.b-c_d*=2",
    b"a=?2",
]


def _by_the_oracle(value: bytes) -> dict[bytes, object] | None:
    try:
        parsed = http_sf.parse(value, tltype="dictionary")
    except (ValueError, http_sf.StructuredFieldError):
        return None
    found: dict[bytes, object] = {}
    for key, (member, _) in parsed.items():
        text = isinstance(member, str | http_sf.Token)
        known = member if isinstance(member, bool | int) else None
        found[key.encode()] = str(member).encode() if text else known
    return found


@pytest.mark.parametrize("value", DICTIONARIES)
def test_dictionaries(value: bytes) -> None:
    assert dictionary(value) == _by_the_oracle(value)


_PIECES = st.sampled_from([*b'a b = , ; " \\ 1 - . ?1 ( ) max-age A'.split(), b" ", b"\t"])


@given(st.lists(_PIECES, max_size=12).map(b"".join))
@example(b"a\t")
def test_dictionaries_are_what_another_reader_takes_them_for(value: bytes) -> None:
    assert dictionary(value) == _by_the_oracle(value)


KEYS: list[tuple[CacheKey, str | None, str]] = [
    (CacheKey(), None, "GET http://example.com/a"),
    (CacheKey(), "", "GET http://example.com/a?"),
    (CacheKey(), "b=2&a=1&&c", "GET http://example.com/a?b=2&a=1&&c"),
    (CacheKey(in_order=True), "b=2&a=1", "GET http://example.com/a?a=1&b=2"),
    (CacheKey(in_order=True), "b=2&a=2&a=1&", "GET http://example.com/a?a=2&a=1&b=2"),
    (CacheKey(in_order=True), "b&%61=1", "GET http://example.com/a?%61=1&b"),
    (CacheKey(only=()), "a=1&b=2", "GET http://example.com/a"),
    (CacheKey(only=("b",)), "a=1&b=2&b=3", "GET http://example.com/a?b=2&b=3"),
    (CacheKey(only=("b",)), "%62=2&B=3", "GET http://example.com/a?%62=2"),
    (CacheKey(only=("b*",)), "b=1&bc=2&a=3", "GET http://example.com/a?b=1&bc=2"),
    (CacheKey(without=TRACKING), "utm_source=x&a=1&gclid=y", "GET http://example.com/a?a=1"),
    (CacheKey(without=TRACKING), "utm_source=x", "GET http://example.com/a"),
    (CacheKey(without=TRACKING), "utm=x&gclids=1", "GET http://example.com/a?utm=x&gclids=1"),
    (CacheKey(without=TRACKING), "a=1&gclid=y;a=2", "GET http://example.com/a?a=1&gclid=y;a=2"),
    (CacheKey(only=("a", "b"), without=("b",), in_order=True), "b=1&a=1", "GET http://example.com/a?a=1"),
]


@pytest.mark.parametrize(("key", "query", "expected"), KEYS)
def test_keys(key: CacheKey, query: str | None, expected: str) -> None:
    for method in ("GET", "HEAD"):
        assert key.of(asking(method=method, query=query), "http") == expected
    assert key.of_place(asking(), "http", "/a", query) == expected
    assert key.of(asking(query=query), "https") == expected.replace("http:", "https:")


STATUSES: list[tuple[CacheStatus, str]] = [
    (CacheStatus(), "ExampleCache"),
    (CacheStatus(hit=True), "ExampleCache; hit"),
    (CacheStatus(hit=True, ttl=376.9), "ExampleCache; hit; ttl=376"),
    (CacheStatus(hit=True, ttl=-411.5), "ExampleCache; hit; ttl=-412"),
    (CacheStatus(forward=Forward.URI_MISS), "ExampleCache; fwd=uri-miss"),
    (CacheStatus(forward=Forward.STALE, forward_status=304), "ExampleCache; fwd=stale; fwd-status=304"),
    (CacheStatus(forward=Forward.URI_MISS, collapsed=True), "ExampleCache; fwd=uri-miss; collapsed"),
    (CacheStatus(forward=Forward.URI_MISS, stored=True), "ExampleCache; fwd=uri-miss; stored"),
    (CacheStatus(hit=True, forward=Forward.STALE), "ExampleCache; hit"),
    (CacheStatus(hit=True, key='GET /ü?"a\\'), 'ExampleCache; hit; key="GET /??\\"a\\\\"'),
    (CacheStatus(hit=True, detail="MEMORY"), "ExampleCache; hit; detail=MEMORY"),
    (CacheStatus(hit=True, detail="not stored"), 'ExampleCache; hit; detail="not stored"'),
]


@pytest.mark.parametrize(("status", "expected"), STATUSES)
def test_cache_status(status: CacheStatus, expected: str) -> None:
    text = status.text("ExampleCache")
    assert text == expected.encode()  # RFC 9211 section 2
    assert http_sf.parse(text, tltype="list")[0][0] == "ExampleCache"


@given(st.text(max_size=600), st.text(max_size=600), st.text(max_size=600))
def test_cache_status_can_always_be_read(cache: str, key: str, detail: str) -> None:
    text = CacheStatus(hit=True, key=key, detail=detail).text(cache)
    Headers().add(b"Cache-Status", text)
    assert len(text) < 2000
    assert http_sf.parse(text, tltype="list")[0][1]["hit"] is True
