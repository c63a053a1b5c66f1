"""What is asked to validate, what a 304 changes, and what HEAD and unsafe methods do (RFC 9111 sections 4.3, 4.4)."""

from __future__ import annotations

import pytest

from portico.caching.invalidation import invalidated
from portico.caching.reuse import decide
from portico.caching.rules import STRICT, CachingRules, SetCookie
from portico.caching.status import Forward
from portico.caching.stored import NotStored, Stored
from portico.caching.storing import store
from portico.caching.validation import MAX_TAGS, freshened, to_fetch, to_validate, updated_by_head
from tests.harness.caching import T0, answering, asking, at, keep, lines

MINUTE = "Cache-Control: max-age=60"
OLD = f"Last-Modified: {at(-1000)}"

# section, what is kept, the client's own headers, and the conditions that the service is sent
CONDITIONS: list[tuple[str, str, str, str]] = [
    ("4.3.1", 'ETag: "1"', "", 'If-None-Match: "1"'),
    ("4.3.1", 'ETag: W/"1"', "", 'If-None-Match: W/"1"'),
    ("4.3.1", OLD, "", f"If-Modified-Since: {at(-1000)}"),
    ("4.3.1", f'ETag: "1" | {OLD}', "", f'If-None-Match: "1" | If-Modified-Since: {at(-1000)}'),
    ("4.3.1", MINUTE, "", ""),
    ("4.3.1", f"{MINUTE} | ETag: broken", "", ""),
    ("4.3.2", 'ETag: "1"', 'If-None-Match: "0"', 'If-None-Match: "1"'),
    ("4.3.2", 'ETag: "1"', f"If-Modified-Since: {at(0)}", 'If-None-Match: "1"'),
    ("4.3.2", MINUTE, 'If-None-Match: "0" | If-Range: "0" | Range: bytes=0-', ""),
    ("5.2.1", 'ETag: "1"', "Cache-Control: no-cache", 'Cache-Control: no-cache | If-None-Match: "1"'),
]


@pytest.mark.parametrize(("section", "answer", "own", "expected"), CONDITIONS)
def test_what_a_service_is_asked(section: str, answer: str, own: str, expected: str) -> None:
    sent = to_validate(lines(own), keep(answer))
    assert sorted(sent) == sorted(lines(expected)), section


def test_what_is_kept_for_others_is_shown_as_well() -> None:
    one, two, three = (keep(f'ETag: "{tag}" | {OLD} | Vary: Accept', asking(f"Accept: {tag}")) for tag in "123")
    assert to_validate(lines(""), one, [two, three, two]) == lines('If-None-Match: "1", "2", "3"')
    assert to_validate(lines(""), None, [two]) == lines('If-None-Match: "2"')
    many = [keep(f'ETag: "{number}"') for number in range(MAX_TAGS + 5)]
    assert to_validate(lines(""), None, many).text(b"if-none-match").count(",") == MAX_TAGS - 1  # type: ignore[union-attr]


def test_all_of_an_answer_is_fetched_whatever_the_client_has() -> None:
    own = lines('If-None-Match: "1" | If-Modified-Since: x | If-Range: "1" | Range: bytes=0-1 | Accept: a/a')
    assert to_fetch(own) == lines("Accept: a/a")
    assert len(own) == 5


# section, what is kept, the 304, and what is kept then: all its headers, or why it is not any more
FRESHENED: list[tuple[str, str, str, str | NotStored]] = [
    ("3.2", f'ETag: "1" | {MINUTE}', 'ETag: "1" | Cache-Control: max-age=9', 'ETag: "1" | Cache-Control: max-age=9'),
    ("3.2", f'ETag: "1" | {MINUTE}', 'ETag: "1"', f'ETag: "1" | {MINUTE}'),
    ("3.2", 'ETag: "1" | A: 1 | A: 2 | B: 3', 'ETag: "1" | a: 4', 'B: 3 | ETag: "1" | a: 4'),
    ("3.2", 'ETag: "1" | A: 1', 'ETag: "1" | A: 2 | A: 3', 'ETag: "1" | A: 2 | A: 3'),
    ("3.2", 'ETag: "1" | Content-Length: 5', 'ETag: "1" | Content-Length: 0', 'ETag: "1" | Content-Length: 5'),
    (
        "3.2",
        'ETag: "1" | Content-Encoding: br',
        'ETag: "1" | Content-Encoding: gzip',
        'ETag: "1" | Content-Encoding: br',
    ),
    ("3.2", 'ETag: "1"', 'ETag: "1" | Content-Range: bytes 0-1/2', 'ETag: "1"'),
    ("3.2", 'ETag: "1"', 'ETag: "1" | Content-Digest: x', 'ETag: "1"'),
    ("3.1", 'ETag: "1"', 'ETag: "1" | Connection: X-A | X-A: 1 | Keep-Alive: 1', 'ETag: "1"'),
    (
        "3.1",
        'ETag: "1"',
        'ETag: "1" | Cache-Control: private="X-A" | X-A: 1',
        'ETag: "1" | Cache-Control: private="X-A"',
    ),
    ("7.3", 'ETag: "1"', 'ETag: "1" | Set-Cookie: a=1', 'ETag: "1"'),
    ("3", 'ETag: "1"', 'ETag: "1" | Cache-Control: no-store', NotStored.FORBIDDEN),
    ("3", 'ETag: "1"', 'ETag: "1" | Cache-Control: private', NotStored.PRIVATE),
    ("4.1", 'ETag: "1"', 'ETag: "1" | Vary: *', NotStored.VARIES),
    ("4.3.4", 'ETag: W/"1"', 'ETag: W/"1"', 'ETag: W/"1"'),
    ("4.3.4", 'ETag: "1"', 'ETag: W/"1"', 'ETag: W/"1"'),
    ("4.3.4", f'ETag: "1" | {OLD}', OLD, f'ETag: "1" | {OLD}'),
    ("4.3.4", 'ETag: "1"', "A: 1", 'ETag: "1" | A: 1'),
    ("4.3.4", OLD, "", OLD),
]


@pytest.mark.parametrize(("section", "answer", "new", "expected"), FRESHENED)
def test_what_a_304_changes(section: str, answer: str, new: str, expected: str | NotStored) -> None:
    later = T0 + 100
    stored = keep(answer)
    headers = answering(f"Date: {at(100)} | {new}")
    (change,) = freshened(asking(), headers, [stored], later, later, STRICT)
    assert change.old is stored
    assert change.new.received == later
    assert change.new.age(later) == 0
    if isinstance(expected, NotStored):
        assert change.kept is expected, section
    else:
        assert change.kept is change.new
        assert sorted(change.new.headers) == sorted(lines(f"{expected} | Date: {at(100)}")), section


# section, the entity tags that were shown, the 304, and which of them it speaks of
NAMED: list[tuple[str, list[str], str, list[int]]] = [
    ("4.3.4", ['ETag: "1"'], 'ETag: "2"', []),
    ("4.3.4", ['ETag: W/"1"'], 'ETag: "1"', []),
    ("4.3.4", ['ETag: "1"', 'ETag: "2"', 'ETag: "1"'], 'ETag: "1"', [0, 2]),
    ("4.3.4", ['ETag: "1"', 'ETag: "2"'], 'ETag: "2"', [1]),
    ("4.3.4", ['ETag: W/"1"', 'ETag: W/"2"'], 'ETag: W/"2"', [1]),
    ("4.3.4", ['ETag: W/"1"', 'ETag: W/"1"'], 'ETag: W/"1"', [0]),
    ("4.3.4", ['ETag: "0"', 'ETag: W/"1"', f'Date: {at(9)} | ETag: W/"1"'], 'ETag: W/"1"', [2]),
    ("4.3.4", ['ETag: W/"1"'], 'ETag: W/"2"', []),
    ("4.3.4", ['ETag: "1"', 'ETag: "2"'], "", []),
    ("4.3.4", [f'ETag: "1" | {OLD}', f'ETag: "2" | {OLD}'], OLD, []),
    ("4.3.4", [f'ETag: "1" | {OLD}'], f"Last-Modified: {at(-5)}", []),
]


@pytest.mark.parametrize(("section", "shown", "new", "expected"), NAMED)
def test_which_ones_a_304_speaks_of(section: str, shown: list[str], new: str, expected: list[int]) -> None:
    kept = [keep(answer) for answer in shown]
    changes = freshened(asking(), answering(new), kept, T0, T0, STRICT)
    assert [id(change.old) for change in changes] == [id(kept[at]) for at in expected], section


def test_a_304_makes_young_what_was_old() -> None:
    stored = keep(f'{MINUTE} | ETag: "1" | Age: 50')
    assert decide(asking(), [stored], T0 + 20, STRICT).why is Forward.STALE
    later = T0 + 20
    (change,) = freshened(asking(), answering(f'Date: {at(20)} | ETag: "1"'), [stored], later - 1, later, STRICT)
    assert isinstance(change.kept, Stored)
    assert change.kept.age(later) == 1  # the Age that was kept counts no more
    assert decide(asking(), [change.kept], later + 58, STRICT).gives
    aged = answering(f'Date: {at(20)} | ETag: "1" | Age: 7')
    assert freshened(asking(), aged, [stored], later, later, STRICT)[0].new.age(later) == 7


def test_a_304_without_date_gives_the_time_at_which_it_came() -> None:
    (change,) = freshened(asking(), answering("Date:"), [keep('ETag: "1"')], T0 + 50, T0 + 50, STRICT)
    assert change.new.headers.text(b"date") == at(50)
    assert change.new.age(T0 + 50) == 0


def test_a_304_for_another_variant_makes_it_the_one_of_the_request() -> None:
    other = keep(f'{MINUTE} | ETag: "1" | Vary: Accept', asking("Accept: a/a"))
    request = asking("Accept: b/b")
    assert decide(request, [other], T0, STRICT).why is Forward.VARY_MISS
    (change,) = freshened(request, answering('ETag: "1"'), [other], T0, T0, STRICT)
    assert isinstance(change.kept, Stored)
    assert decide(request, [change.kept], T0, STRICT).gives
    assert decide(asking("Accept: a/a"), [other, change.kept], T0, STRICT).stored is other


def test_others_with_the_same_tag_stay_what_they_are_for() -> None:
    one, two = (keep(f'{MINUTE} | ETag: "1" | Vary: Accept', asking(f"Accept: {name}")) for name in "ab")
    request = asking("Accept: a")
    changes = freshened(request, answering('ETag: "1" | X-New: 1'), [one, two], T0, T0, STRICT)
    kept = [change.kept for change in changes]
    assert [each.variant for each in kept if isinstance(each, Stored)] == [one.variant, two.variant]
    assert all(change.new.headers.get(b"x-new") == b"1" for change in changes)
    changes = freshened(request, answering('ETag: "1" | Vary: Cookie'), [one, two], T0, T0, STRICT)
    assert isinstance(changes[0].kept, Stored)
    assert changes[0].kept.vary == (b"cookie",)
    assert changes[1].kept is NotStored.VARIES


@pytest.mark.parametrize("own", ["Authorization: Basic bWU6bWU=", "Cache-Control: no-store"])
def test_what_is_learnt_for_one_user_changes_nothing_for_the_others(own: str) -> None:
    stored = keep(f'{MINUTE} | ETag: "1"')
    (change,) = freshened(asking(own), answering('ETag: "1" | X-Name: me'), [stored], T0, T0, STRICT)
    assert change.kept is stored
    assert change.new.headers.get(b"x-name") == b"me"


def test_cookies_of_a_304_are_kept_by_choice_alone() -> None:
    rules = CachingRules(set_cookie=SetCookie.KEEP)
    (change,) = freshened(asking(), answering('ETag: "1" | Set-Cookie: a=1'), [keep('ETag: "1"')], T0, T0, rules)
    assert change.new.headers.get(b"set-cookie") == b"a=1"


# section, what is kept, the answer to HEAD, and whether it is good, bad, or no more kept
HEADS: list[tuple[str, str, str, str]] = [
    ("4.3.5", f'{MINUTE} | ETag: "1"', 'ETag: "1"', "good"),
    ("4.3.5", f'{MINUTE} | ETag: "1"', "", "good"),
    ("4.3.5", f'{MINUTE} | ETag: "1"', 'ETag: "2"', "bad"),
    ("4.3.5", MINUTE, 'ETag: "2"', "bad"),
    ("4.3.5", f"{MINUTE} | {OLD}", OLD, "good"),
    ("4.3.5", f"{MINUTE} | {OLD}", f"Last-Modified: {at(-5)}", "bad"),
    ("4.3.5", f'{MINUTE} | ETag: "1" | {OLD}', f'ETag: "1" | Last-Modified: {at(-5)}', "bad"),
    ("4.3.5", f"{MINUTE} | Content-Length: 5", "Content-Length: 5", "good"),
    ("4.3.5", f"{MINUTE} | Content-Length: 5", "Content-Length: 6", "bad"),
    ("4.3.5", f"{MINUTE} | Content-Length: 5", "", "good"),
    ("4.3.5", MINUTE, "Cache-Control: no-store", "gone"),
]


@pytest.mark.parametrize(("section", "answer", "new", "expected"), HEADS)
def test_what_the_answer_to_head_changes(section: str, answer: str, new: str, expected: str) -> None:
    stored = keep(answer)
    headers = answering(f"Date: {at(30)} | X-New: 1 | {new}")
    change = updated_by_head(asking(method="HEAD"), headers, [stored], T0 + 30, T0 + 30, STRICT)
    assert change is not None
    if expected == "gone":
        assert change.kept is NotStored.FORBIDDEN
        return
    assert isinstance(change.kept, Stored)
    decision = decide(asking(), [change.kept], T0 + 80, STRICT)
    assert decision.gives is (expected == "good"), section
    assert (change.kept.headers.get(b"x-new") == b"1") is (expected == "good")
    assert decision.why is (None if expected == "good" else Forward.STALE)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_does_not_say_how_long_is_made_anew_all_the_same(method: str) -> None:
    rules = CachingRules(ttl={200: 60})
    for kept_by in (STRICT, rules):
        stored = keep('ETag: "1"', rules=kept_by)
        headers = answering(f'Date: {at(90)} | ETag: "1"')
        (change,) = freshened(asking(method=method), headers, [stored], T0 + 90, T0 + 90, kept_by)
        assert change.kept is change.new
        assert change.new.life == stored.life
    change = updated_by_head(asking(method="HEAD"), headers, [stored], T0 + 90, T0 + 90, rules) or change
    assert isinstance(change.kept, Stored)
    assert decide(asking(), [change.kept], T0 + 149, rules).gives


def test_head_says_nothing_of_what_is_for_others() -> None:
    stored = keep(f'{MINUTE} | ETag: "1" | Vary: Accept', asking("Accept: a"))
    assert updated_by_head(asking(method="HEAD"), answering('ETag: "2"'), [stored], T0, T0, STRICT) is None
    assert store(asking(method="HEAD"), 200, answering(MINUTE), T0, T0, STRICT) is NotStored.METHOD


def test_what_is_invalid_has_to_be_validated_whatever_its_age() -> None:
    invalid = keep(f'{MINUTE} | ETag: "1", stale-if-error=99').invalidated()
    assert decide(asking("Cache-Control: max-stale"), [invalid], T0, STRICT).why is Forward.STALE
    (change,) = freshened(asking(), answering('ETag: "1"'), [keep('ETag: "1"').invalidated()], T0, T0, STRICT)
    assert change.new.invalid is False


# section, method, status, answer, and what is invalidated of http://example.com/a?b
OWN = "/a?b"
INVALIDATED: list[tuple[str, str, int, str, list[str]]] = [
    ("4.4", "POST", 200, "", [OWN]),
    ("4.4", "PUT", 204, "", [OWN]),
    ("4.4", "DELETE", 303, "", [OWN]),
    ("4.4", "PATCH", 200, "", [OWN]),
    ("4.4", "MKCOL", 201, "", [OWN]),
    ("4.4", "post", 201, "", [OWN]),
    ("4.4", "POST", 400, "Location: /b", []),
    ("4.4", "POST", 500, "", []),
    ("4.4", "GET", 200, "Location: /b", []),
    ("4.4", "HEAD", 200, "", []),
    ("4.4", "OPTIONS", 200, "", []),
    ("4.4", "POST", 201, "Location: /b", [OWN, "/b"]),
    ("4.4", "POST", 201, "Location: b?c", [OWN, "/b?c"]),
    ("4.4", "POST", 201, "Location: /b#part", [OWN, "/b"]),
    ("4.4", "POST", 201, "Location: http://example.com/b", [OWN, "/b"]),
    ("4.4", "POST", 201, "Location: http://EXAMPLE.com:80", [OWN, "/"]),
    ("4.4", "POST", 201, "Location: //example.com/b", [OWN, "/b"]),
    ("4.4", "POST", 201, "Content-Location: /b | Location: /c", [OWN, "/c", "/b"]),
    ("4.4", "POST", 201, "Location: /a?b", [OWN]),
    ("4.4", "POST", 201, "Location: /x/../b", [OWN, "/b"]),
    ("4.4", "POST", 201, "Location: http://other.example/b", [OWN]),
    ("4.4", "POST", 201, "Location: https://example.com/b", [OWN]),
    ("4.4", "POST", 201, "Location: http://example.com:81/b", [OWN]),
    ("4.4", "POST", 201, "Location: http://user@example.com/b", [OWN]),
    ("4.4", "POST", 201, "Location: http://[::1/b", [OWN]),
    ("4.4", "POST", 201, "Location: mailto:me@example.com", [OWN]),
    ("4.4", "POST", 201, "Location: /%zz", [OWN]),
    ("4.4", "POST", 201, "Location: /\xff", [OWN]),
]


@pytest.mark.parametrize(("section", "method", "status", "answer", "expected"), INVALIDATED)
def test_what_is_invalidated(section: str, method: str, status: int, answer: str, expected: list[str]) -> None:
    places = invalidated(asking(method=method, query="b"), status, lines(answer), "http")
    assert [path if query is None else f"{path}?{query}" for path, query in places] == expected, section


def test_another_port_is_another_origin() -> None:
    request = asking(method="POST")
    request.headers.set(b"Host", b"example.com:8080")
    places = [place.path for place in invalidated(request, 201, lines("Location: http://example.com/b"), "http")]
    assert places == ["/a"]
    places = [place.path for place in invalidated(request, 201, lines("Location: http://example.com:8080/b"), "http")]
    assert places == ["/a", "/b"]


POSTS = CachingRules(posts=True)


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (f"{MINUTE} | Content-Location: /a", True),
        (f"{MINUTE} | Content-Location: http://example.com/a", True),
        (f"{MINUTE} | Content-Location: http://other.example/a", False),
        (f"{MINUTE} | Content-Location: http://[/a", False),
        (f"{MINUTE} | Content-Location: /b", False),
        (f"{MINUTE} | Content-Location: a", False),
        (MINUTE, False),
        ('ETag: "1" | Content-Location: /a', False),
    ],
)
def test_answers_to_post_are_kept_by_choice_where_they_are_of_the_target(answer: str, kept: bool) -> None:
    request = asking(method="POST")  # RFC 9110 section 9.3.3
    assert isinstance(store(request, 200, answering(answer), T0, T0, POSTS), Stored) is kept
    assert store(request, 200, answering(answer), T0, T0, STRICT) is NotStored.METHOD
    if kept:
        assert decide(asking(), [keep(answer, request, POSTS)], T0, POSTS).gives
