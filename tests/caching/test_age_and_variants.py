"""How old an answer is (RFC 9111 section 4.2.3), and for whom it is (section 4.1)."""

from __future__ import annotations

import pytest

from portico.caching.reuse import select
from portico.caching.rules import STRICT, CachingRules
from portico.caching.stored import Stored
from portico.caching.storing import store
from portico.caching.variants import MAX_NAMES, variant_of
from portico.http.user import USER, User
from tests.harness.caching import T0, answering, asking, at, keep

# section, answer, seconds from asking to answer, and how old it is at the least when it comes at T0
AGES: list[tuple[str, str, float, float]] = [
    ("4.2.3", "", 0, 0),
    ("4.2.3", "", 2, 2),
    ("4.2.3", "Age: 10", 0, 10),
    ("4.2.3", "Age: 10", 2, 12),
    ("4.2.3", f"Date: {at(-30)} | Age: 10", 2, 30),
    ("4.2.3", f"Date: {at(-5)} | Age: 10", 2, 12),
    ("4.2.3", f"Date: {at(30)}", 0, 0),
    ("4.2.3", "Date:", 1, 1),
    ("4.2.3", "Date: never | Age: 3", 1, 4),
    ("4.2.3", "", -5, 0),
    ("5.1", "Age: 7, 20", 0, 7),
    ("5.1", "Age: 7 | Age: 20", 0, 7),
    ("5.1", "Age: -7", 0, 0),
    ("5.1", "Age: 7.5", 0, 0),
    ("5.1", "Age: old", 0, 0),
    ("5.1", "Age:", 0, 0),
    ("1.2.2", "Age: 99999999999999999999", 0, 2**31),
]


@pytest.mark.parametrize(("section", "answer", "delay", "expected"), AGES)
def test_age_of_what_comes(section: str, answer: str, delay: float, expected: float) -> None:
    stored = store(asking(), 200, answering(f"{answer} | ETag: x"), T0 - delay, T0, STRICT)
    assert isinstance(stored, Stored)
    assert stored.age(T0) == expected, section


def test_age_goes_on_and_never_back() -> None:
    stored = keep("Cache-Control: max-age=60 | Age: 10")
    assert [stored.age(T0 + seconds) for seconds in (0, 5, -5)] == [10, 15, 10]
    assert stored.stale_at == T0 + 50
    assert stored.ttl(T0 + 60) == -10


# section, Vary, and two requests that share an answer or do not
SHARED: list[tuple[str, str, str, str, bool]] = [
    ("4.1", "", "Accept: a/a", "Accept: b/b", True),
    ("4.1", "Accept", "", "", True),
    ("4.1", "Accept", "", "Accept: */*", False),
    ("4.1", "Accept", "Accept: */*", "", False),
    ("4.1", "X-A", "X-A:", "", False),
    ("4.1", "X-A", "X-A: 1", "x-a: 1", True),
    ("4.1", "X-A", "X-A: one", "X-A: One", False),
    ("4.1", "X-A", "X-A: 1 | X-A: 2", "X-A: 1, 2", True),
    ("4.1", "X-A", "X-A: 1 | X-A: 2", "X-A: 2, 1", False),
    ("4.1", "X-A, X-B", "X-A: 1 | X-B: 2", "X-B: 2 | X-A: 1", True),
    ("4.1", "X-A, X-B", "X-A: 1", "X-B: 1", False),
    ("4.1", "X-A | Vary: X-B", "X-A: 1 | X-B: 2", "X-A: 1 | X-B: 3", False),
    ("4.1", "Accept", "Accept: text/html,  text/plain", "Accept: text/html,text/plain", True),
    ("4.1", "Accept", "Accept: text/html | Accept: text/plain", "Accept: text/html,text/plain", True),
    ("4.1", "Accept", 'Accept: a/b;c="d,  e"', 'Accept: a/b;c="d, e"', False),
    ("4.1", "Accept-Encoding", "Accept-Encoding: gzip, br", "Accept-Encoding: BR,gzip", True),
    ("4.1", "Accept-Encoding", "Accept-Encoding: x-gzip", "Accept-Encoding: gzip", True),
    ("4.1", "Accept-Encoding", "Accept-Encoding: gzip; q=0.5", "Accept-Encoding: gzip;q=0.5", True),
    ("4.1", "Accept-Encoding", "Accept-Encoding: gzip;q=0.5", "Accept-Encoding: gzip", False),
    ("4.1", "Accept-Encoding", "Accept-Encoding:", "", False),
    ("4.1", "Accept-Language", "Accept-Language: de, EN", "Accept-Language: DE,en", True),
    ("4.1", "Accept-Language", "Accept-Language: de, en", "Accept-Language: en, de", False),
    ("4.1", "User-Agent", "User-Agent: a  b", "User-Agent: a b", False),
]


@pytest.mark.parametrize(("section", "vary", "one", "other", "shared"), SHARED)
def test_who_shares_an_answer(section: str, vary: str, one: str, other: str, shared: bool) -> None:
    stored = keep(f"Cache-Control: max-age=60{f' | Vary: {vary}' if vary else ''}", asking(one))
    assert (select(asking(other), [stored], T0, STRICT) is stored) is shared, section


def test_no_two_requests_come_to_the_same_bytes() -> None:
    names = (b"x-a", b"x-b")
    requests = ["X-A: 1", "X-B: 1", "X-A: 1 | X-B:", "X-A: 1:x-b=1:2", "", "X-A: -", "X-B: -", "X-A: 0:"]
    assert len({variant_of(names, asking(text), STRICT) for text in requests}) == len(requests)


def test_the_last_one_that_was_made_is_given() -> None:
    kept = [keep(f"Date: {at(age)} | Cache-Control: max-age=999") for age in (-20, -5, -10)]
    assert select(asking(), kept, T0, STRICT) is kept[1]  # section 4


def test_who_forgets_to_vary_is_not_believed_while_others_are_fresh() -> None:
    request = asking("Accept: a/a")
    varied = keep("Cache-Control: max-age=60 | Vary: Accept", asking("Accept: b/b"))
    plain = keep(f"Date: {at(5)} | Cache-Control: max-age=600")
    assert select(request, [varied, plain], T0 + 59, STRICT) is None  # section 4.1
    assert select(request, [varied, plain], T0 + 61, STRICT) is plain
    assert select(asking("Accept: b/b"), [varied, plain], T0, STRICT) is varied


def test_fields_that_make_no_difference_by_choice() -> None:
    rules = CachingRules(unvaried=frozenset((b"user-agent", b"*")))
    stored = keep("Cache-Control: max-age=60 | Vary: User-Agent, Accept", asking("User-Agent: a"), rules)
    assert stored.vary == (b"accept",)
    assert stored.headers.get(b"vary") == b"User-Agent, Accept"
    assert select(asking("User-Agent: b"), [stored], T0, rules) is stored
    assert select(asking("Accept: a/a"), [stored], T0, rules) is None
    assert not isinstance(_try("Cache-Control: max-age=60 | Vary: *", rules), Stored)


def test_more_than_anyone_varies_by() -> None:
    names = [f"x-{number}" for number in range(MAX_NAMES + 1)]
    assert len(keep(f"Cache-Control: max-age=60 | Vary: {', '.join(names[1:])}").vary) == MAX_NAMES
    assert not isinstance(_try(f"Cache-Control: max-age=60 | Vary: {', '.join(names)}", STRICT), Stored)


def _try(answer: str, rules: CachingRules) -> object:
    return store(asking(), 200, answering(answer), T0, T0, rules)


def test_users_have_their_own() -> None:
    rules = CachingRules(per_user=True)
    ann, bob, nobody = asking(), asking(), asking()
    ann[USER], bob[USER] = User("ann", kind="jwt"), User("bob", kind="jwt")
    stored = keep("Cache-Control: max-age=60", ann, rules)
    assert select(ann, [stored], T0, rules) is stored
    for other in (bob, nobody, asking("Authorization: Bearer a")):
        assert select(other, [stored], T0, rules) is None
    for whoever in (User("ann", kind="basic-auth"), User("ann", kind="jwt", claims={"iss": "https://other.example"})):
        named_alike = asking()
        named_alike[USER] = whoever
        assert select(named_alike, [stored], T0, rules) is None
    public = keep("Cache-Control: max-age=60", nobody, rules)
    assert select(asking(), [public], T0, rules) is public


def test_no_secret_is_kept_of_what_an_answer_depends_on() -> None:
    rules = CachingRules(per_user=True)
    request = asking("Authorization: Bearer s3cret | Cookie: s3cret")
    stored = keep("Cache-Control: max-age=60 | Vary: Cookie, Authorization", request, rules)
    assert b"s3cret" not in repr(stored).encode()
    assert len(stored.variant) == 32
