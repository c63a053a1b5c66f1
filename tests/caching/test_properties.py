"""What is so whatever comes."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portico.caching.answering import answer
from portico.caching.dates import parse_date
from portico.caching.directives import request_directives, response_directives, targeted_directives
from portico.caching.fields import members, names, unquoted
from portico.caching.freshness import HEURISTIC
from portico.caching.invalidation import invalidated
from portico.caching.key import CacheKey
from portico.caching.ranges import part_of
from portico.caching.reuse import decide, may_stand_in
from portico.caching.rules import STRICT, CachingRules, SetCookie
from portico.caching.stored import NotStored, Stored
from portico.caching.storing import store
from portico.caching.structured import dictionary
from portico.caching.validation import freshened, merged, to_validate, updated_by_head
from portico.caching.validators import tags_of
from portico.http.headers import Headers
from portico.http.message import Request
from tests.harness.caching import T0, asking, at

# Values that a parser has let through: no control characters, any other byte.
ANY_VALUE = st.binary(max_size=60).map(lambda value: bytes(byte for byte in value if byte > 31 and byte != 127))
_NUMBERS = st.sampled_from(["0", "5", "60", "999", "-1", "x", "", '"7"', "1.5", "99999999999"])
_ARGUED = ["max-age", "s-maxage", "stale-while-revalidate", "stale-if-error", "max-stale", "min-fresh"]
_PLAIN = "no-store no-cache private public must-revalidate proxy-revalidate must-understand immutable only-if-cached"
_DIRECTIVE = st.one_of(
    st.sampled_from([*_PLAIN.split(), "max-stale", 'private="X-A"', 'no-cache="X-A"', "private=x-a", "ext", 'a="b']),
    st.builds("{}={}".format, st.sampled_from(_ARGUED), _NUMBERS),
)
DIRECTIVES = st.lists(_DIRECTIVE, max_size=4).map(", ".join).map(str.encode)
_DATES = st.sampled_from([-9999, -60, 0, 60, 9999]).map(lambda seconds: at(seconds).encode())
_TAGS = st.sampled_from([b'"1"', b'W/"1"', b'"2"', b"broken"])
_FIELD = st.one_of(
    st.tuples(st.sampled_from([b"Cache-Control", b"CDN-Cache-Control"]), DIRECTIVES),
    st.tuples(st.sampled_from([b"Expires", b"Date", b"Last-Modified"]), _DATES | ANY_VALUE),
    st.tuples(st.just(b"Age"), _NUMBERS.map(str.encode)),
    st.tuples(st.just(b"ETag"), _TAGS),
    st.tuples(st.just(b"Vary"), st.sampled_from([b"*", b"Accept", b"Accept, Cookie", b"x y"])),
    st.tuples(st.sampled_from([b"Set-Cookie", b"X-A", b"Connection", b"Content-Length"]), ANY_VALUE),
)
ANSWERS = st.lists(_FIELD, max_size=6).map(Headers)
_OWN = st.one_of(
    st.tuples(st.just(b"Cache-Control"), DIRECTIVES),
    st.tuples(
        st.sampled_from([b"Accept", b"Cookie", b"Authorization", b"Pragma"]), st.sampled_from([b"a", b"no-cache"])
    ),
    st.tuples(st.sampled_from([b"If-None-Match", b"If-Range", b"If-Match"]), _TAGS),
    st.tuples(st.sampled_from([b"If-Modified-Since", b"If-Range"]), _DATES),
    st.tuples(st.just(b"Range"), st.sampled_from([b"bytes=0-1", b"bytes=-3", b"bytes=50-", b"bytes=1-0"])),
)
RULES = st.builds(
    CachingRules,
    posts=st.booleans(),
    ttl=st.sampled_from([{}, {200: 60.0, 302: 5.0}]),
    ignored=st.sets(st.sampled_from([b"cache-control", b"expires"])).map(frozenset),
    unvaried=st.sampled_from([frozenset(), frozenset((b"cookie",))]),
    set_cookie=st.sampled_from(SetCookie),
    heuristic=st.sampled_from([0.0, 0.1]),
    stale_while_revalidate=st.sampled_from([0.0, 30.0]),
    stale_if_error=st.sampled_from([0.0, 30.0]),
    heed_clients=st.booleans(),
    per_user=st.booleans(),
)
STATUSES = st.sampled_from([200, 204, 206, 301, 302, 304, 404, 416, 429, 500])
TIMES = st.floats(min_value=-10000, max_value=100000)


@st.composite
def requests(draw: st.DrawFn, methods: tuple[str, ...] = ("GET", "HEAD")) -> Request:
    request = asking(method=draw(st.sampled_from(methods)))
    for name, value in draw(st.lists(_OWN, max_size=3)):
        request.headers.add(name, value)
    return request


def _says(headers: Headers, word: bytes) -> bool:
    return any(
        member.strip().lower() == word for value in headers.get_all(b"cache-control") for member in value.split(b",")
    )


@given(ANY_VALUE, ANY_VALUE)
def test_nothing_that_comes_makes_a_parser_raise(value: bytes, other: bytes) -> None:
    for name in (b"Cache-Control", b"CDN-Cache-Control", b"Pragma"):
        headers = Headers([(name, value), (name, other)])
        request_directives(headers)
        response_directives(headers)
        targeted_directives(headers, (b"cdn-cache-control",))
    members([value, other])
    names([value])
    unquoted(value)
    dictionary(value)
    tags_of([value])
    part_of(value, 10)
    parse_date(value, T0)
    fields = [b"If-None-Match", b"If-Modified-Since", b"If-Range", b"Range", b"Accept-Encoding", b"Pragma"]
    request = asking(query=value.decode("latin-1"))
    for name in fields:
        request.headers.add(name, value)
    CacheKey(only=("a",), in_order=True).of(request, "http")
    invalidated(asking(method="POST"), 201, Headers([(b"Location", value)]), "http")
    answers = [b"Cache-Control", b"Vary", b"Age", b"Date", b"Expires", b"Last-Modified", b"ETag", b"Connection"]
    for rules in (STRICT, CachingRules(ttl={200: 60}, heuristic=0.1)):
        stored = store(request, 200, Headers([(name, other) for name in answers]), T0, T0, rules)
        if isinstance(stored, Stored):
            decide(request, [stored], T0, rules)
            answer(request, stored, 10, T0)
            to_validate(request.headers, stored)


@given(st.binary(max_size=80))
def test_bytes_that_no_parser_lets_through_do_no_harm_either(value: bytes) -> None:
    headers = Headers()
    headers.put_parsed(b"Cache-Control", value)
    request_directives(headers)
    response_directives(headers)
    members([value])
    dictionary(value)
    tags_of([value])
    part_of(value, 10)
    parse_date(value, T0)


@settings(max_examples=400)
@given(requests(), STATUSES, ANSWERS, requests(), TIMES, RULES)
def test_what_is_given_may_be_given(
    first: Request, status: int, headers: Headers, second: Request, seconds: float, rules: CachingRules
) -> None:
    stored = store(first, status, headers, T0, T0, rules)
    if isinstance(stored, NotStored):
        return
    now = T0 + seconds
    assert stored.age(now) >= 0
    assert not _says(first.headers, b"no-store")
    assert not _says(headers, b"private") or b"cdn-cache-control" in headers.index
    assert b"*" not in b",".join(headers.get_all(b"vary"))
    assert rules.set_cookie is SetCookie.KEEP or b"set-cookie" not in stored.headers
    assert b"age" not in stored.headers
    said = b"cache-control" in headers or b"cdn-cache-control" in headers or b"expires" in headers
    if stored.life.lifetime > 0:
        assert said or status in rules.ttl or (rules.heuristic and status in HEURISTIC)
    decision = decide(second, [stored], now, rules)
    if not decision.gives:
        return
    assert decision.stored is stored
    assert not stored.life.no_cache
    if second.headers.get(b"authorization") != first.headers.get(b"authorization"):
        assert not rules.per_user
    if b"authorization" in first.headers and not rules.per_user:
        assert (
            any(_says(headers, word) for word in (b"public", b"must-revalidate"))
            or b"s-maxage" in repr(headers).encode()
        )
    if rules.heed_clients:
        assert not _says(second.headers, b"no-cache")
    if stored.ttl(now) <= 0:
        assert not stored.life.strict or stored.life.while_revalidate > 0
        assert stored.life.while_revalidate > 0 or b"max-stale" in second.headers.index[b"cache-control"]
    given = answer(second, stored, 10, now)
    assert 0 <= given.begin <= given.end <= 10
    assert given.status in (status, 304, 206, 416)
    assert given.status == 416 or int(given.headers.index[b"age"]) >= 0


@given(requests(), ANSWERS, ANSWERS, TIMES, RULES)
def test_a_304_never_makes_kept_what_may_not_be(
    request: Request, headers: Headers, new: Headers, seconds: float, rules: CachingRules
) -> None:
    first = asking("Accept: a")
    stored = store(first, 200, headers, T0, T0, rules)
    if isinstance(stored, NotStored):
        return
    changes = freshened(request, new, [stored], T0 + seconds, T0 + seconds, rules)
    head = updated_by_head(asking("Accept: a", method="HEAD"), new, [stored], T0 + seconds, T0 + seconds, rules)
    for change in [*changes, *([head] if head else [])]:
        assert change.old is stored
        if isinstance(change.kept, NotStored) or change.kept is stored or change.kept.invalid:
            continue
        kept = change.kept.headers
        assert change.kept.age(T0 + seconds) >= 0
        assert not _says(new, b"private") or b"cdn-cache-control" in kept
        assert rules.set_cookie is SetCookie.KEEP or b"set-cookie" not in kept
        assert kept.get(b"content-length") == stored.headers.get(b"content-length") or b"connection" in new


@given(ANSWERS, ANSWERS)
def test_merging_the_same_twice_is_merging_it_once(old: Headers, new: Headers) -> None:
    once = merged(old, new)
    assert sorted(merged(once, new)) == sorted(once)


@given(ANSWERS, st.lists(TIMES, min_size=2, max_size=2).map(sorted))
def test_nothing_stale_grows_fresh_again(headers: Headers, times: list[float]) -> None:
    stored = store(asking(), 200, headers, T0, T0, STRICT)
    if isinstance(stored, Stored):
        sooner, later = (stored.ttl(T0 + seconds) for seconds in times)
        assert later <= sooner
        early, late = (may_stand_in(stored, asking(), T0 + seconds, STRICT) for seconds in times)
        assert early or not late


@pytest.mark.parametrize(
    "value",
    [
        b'"' * 60000,
        b'\\"' * 30000,
        b'"\\' * 30000,
        b'a="' + b"\\" * 60000,
        b"a," * 30000,
        b'"a",' * 15000,
        b"(" * 60000,
        b"a=(" + b"1 " * 30000,
        b"a;" * 30000,
        b'a="\\"' * 12000,
        b"a=" + b"1" * 60000,
        b" " * 60000,
    ],
)
def test_long_values_take_time_by_their_length_alone(value: bytes) -> None:
    begin = time.process_time()
    request_directives(Headers([(b"Cache-Control", value)]))
    response_directives(Headers([(b"Cache-Control", value)]))
    dictionary(value)
    tags_of([value])
    part_of(value, 10)
    parse_date(value, T0)
    store(asking(), 200, Headers([(b"Vary", value), (b"Age", value), (b"Expires", value)]), T0, T0, STRICT)
    assert time.process_time() - begin < 2  # what is quadratic takes a minute
