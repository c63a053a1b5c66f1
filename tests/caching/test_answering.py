"""What a client is sent of what is kept: its conditions (RFC 9110 section 13) and its ranges (section 14)."""

from __future__ import annotations

import pytest

from portico.caching.answering import answer
from portico.caching.validators import is_strong, is_tag, same_strongly, same_weakly, tags_of
from tests.harness.caching import T0, asking, at, keep, lines

OLD = f"Last-Modified: {at(-1000)}"
KEPT = f'Cache-Control: max-age=60 | ETag: "1" | {OLD}'
LENGTH = 10

# section, what is kept, the request, and what it is answered with: the status, or the part of the content
CONDITIONS: list[tuple[str, str, str, int]] = [
    ("13.1.2", KEPT, 'If-None-Match: "1"', 304),
    ("13.1.2", KEPT, 'If-None-Match: W/"1"', 304),
    ("13.1.2", KEPT, 'If-None-Match: "2"', 200),
    ("13.1.2", KEPT, 'If-None-Match: "0", "1", "2"', 304),
    ("13.1.2", KEPT, 'If-None-Match: "0" | If-None-Match: "1"', 304),
    ("13.1.2", KEPT, "If-None-Match: *", 304),
    ("13.1.2", OLD, "If-None-Match: *", 304),
    ("13.1.2", OLD, 'If-None-Match: "1"', 200),
    ("13.1.2", KEPT, "If-None-Match: 1", 200),
    ("13.1.2", KEPT, "If-None-Match:", 200),
    ("13.1.2", KEPT, 'If-None-Match: w/"1"', 200),
    ("13.1.2", 'ETag: W/"1"', 'If-None-Match: "1"', 304),
    ("13.1.2", 'ETag: "a,b"', 'If-None-Match: "a,b"', 304),
    ("13.1.2", 'ETag: "a\\"', 'If-None-Match: "a\\", "b"', 304),
    ("13.1.3", KEPT, f"If-Modified-Since: {at(-1000)}", 304),
    ("13.1.3", KEPT, f"If-Modified-Since: {at(0)}", 304),
    ("13.1.3", KEPT, f"If-Modified-Since: {at(-1001)}", 200),
    ("13.1.3", KEPT, "If-Modified-Since: Fri Jan 15 08:00:00 2027", 304),
    ("13.1.3", KEPT, "If-Modified-Since: never", 200),
    ("13.1.3", KEPT, f"If-Modified-Since: {at(0)} | If-Modified-Since: {at(0)}", 200),
    ("13.1.3", KEPT, f'If-None-Match: "2" | If-Modified-Since: {at(0)}', 200),
    ("13.1.3", KEPT, f'If-None-Match: "1" | If-Modified-Since: {at(-9999)}', 304),
    ("RFC 9111 4.3.2", 'ETag: "1"', f"If-Modified-Since: {at(0)}", 304),
    ("RFC 9111 4.3.2", 'ETag: "1"', f"If-Modified-Since: {at(-1)}", 200),
    ("RFC 9111 4.3.2", 'Date: | ETag: "1"', f"If-Modified-Since: {at(0)}", 304),
    ("13.2.2", KEPT, 'If-None-Match: "1" | Range: bytes=0-1', 304),
    ("13.2.2", KEPT, 'If-None-Match: "2" | Range: bytes=0-1', 206),
]


@pytest.mark.parametrize(("section", "kept", "request_lines", "status"), CONDITIONS)
def test_conditions_of_the_client(section: str, kept: str, request_lines: str, status: int) -> None:
    given = answer(asking(request_lines), keep(kept), LENGTH, T0)
    assert given.status == status, section
    assert (given.begin, given.end) == {200: (0, LENGTH), 206: (0, 2), 304: (0, 0)}[status]


@pytest.mark.parametrize(("kept", "expected"), [(404, 404), (204, 304), (301, 301)])
def test_conditions_are_for_what_would_have_succeeded(kept: int, expected: int) -> None:
    stored = keep(KEPT, status=kept)  # RFC 9110 section 13.2.1
    assert answer(asking('If-None-Match: "1"'), stored, 0, T0).status == expected


# section, the request, and the part that is given; None is all of it, and () is 416
RANGES: list[tuple[str, str, tuple[int, int] | tuple[()] | None]] = [
    ("14.1.2", "Range: bytes=0-0", (0, 1)),
    ("14.1.2", "Range: bytes=2-4", (2, 5)),
    ("14.1.2", "Range: bytes=5-", (5, 10)),
    ("14.1.2", "Range: bytes=5-99", (5, 10)),
    ("14.1.2", "Range: bytes=-3", (7, 10)),
    ("14.1.2", "Range: bytes=-99", (0, 10)),
    ("14.1.2", "Range: bytes=0-9", (0, 10)),
    ("14.1.2", "Range: bytes=0-99999999999999999999999", (0, 10)),
    ("14.1.2", "Range: bytes=-99999999999999999999999", (0, 10)),
    ("14.1.2", f"Range: bytes=0-{'9' * 5000}", (0, 10)),
    ("14.1.2", "Range: bytes=10-", ()),
    ("14.1.2", "Range: bytes=10-12", ()),
    ("14.1.2", "Range: bytes=99999999999999999999999-", ()),
    ("14.1.2", "Range: bytes=-0", ()),
    ("14.1.1", "Range: bytes=4-2", None),
    ("14.1.1", "Range: bytes=", None),
    ("14.1.1", "Range: bytes=-", None),
    ("14.1.1", "Range: bytes=a-b", None),
    ("14.1.1", "Range: bytes=+1-2", None),
    ("14.1.1", "Range: bytes 0-1", None),
    ("14.1.1", "Range: items=0-1", None),
    ("14.1.1", "Range: Bytes=0-1", (0, 2)),
    ("14.1.1", "Range: bytes= 0-1 ", (0, 2)),
    ("14.2", "Range: bytes=0-1,3-4", None),
    ("14.2", "Range: bytes=0-1 | Range: bytes=3-4", None),
    ("13.1.5", 'Range: bytes=0-1 | If-Range: "1"', (0, 2)),
    ("13.1.5", 'Range: bytes=0-1 | If-Range: "2"', None),
    ("13.1.5", 'Range: bytes=0-1 | If-Range: W/"1"', None),
    ("13.1.5", 'Range: bytes=99- | If-Range: "2"', None),
    ("13.1.5", "Range: bytes=0-1 | If-Range: 1", None),
    ("13.1.5", f"Range: bytes=0-1 | If-Range: {at(-1000)}", (0, 2)),
    ("13.1.5", f"Range: bytes=0-1 | If-Range: {at(-999)}", None),
    ("13.1.5", f"Range: bytes=0-1 | If-Range: {at(-1001)}", None),
    ("13.1.5", 'Range: bytes=0-1 | If-Range: "1" | If-Range: "1"', None),
    ("13.1.5", 'If-Range: "2"', None),
]


@pytest.mark.parametrize(("section", "request_lines", "part"), RANGES)
def test_ranges(section: str, request_lines: str, part: tuple[int, int] | tuple[()] | None) -> None:
    given = answer(asking(request_lines), keep(f"{KEPT} | Content-Length: 10 | Content-Digest: x"), LENGTH, T0)
    headers = given.headers
    if part is None:
        assert (given.status, given.begin, given.end) == (200, 0, LENGTH), section
        assert headers.get(b"content-length") == b"10"
        assert b"content-range" not in headers
        assert b"content-digest" in headers
    elif not part:
        assert (given.status, given.begin, given.end) == (416, 0, 0), section
        assert headers == lines(f"Date: {at(0)} | Content-Range: bytes */10")
    else:
        begin, end = part
        assert (given.status, given.begin, given.end) == (206, begin, end), section
        assert headers.text(b"content-length") == str(end - begin)
        assert headers.text(b"content-range") == f"bytes {begin}-{end - 1}/10"
        assert headers.get(b"etag") == b'"1"'
        assert b"content-digest" not in headers


@pytest.mark.parametrize(
    ("kept", "request_lines"),
    [
        ('ETag: W/"1"', 'Range: bytes=0-1 | If-Range: W/"1"'),
        ("", f"Range: bytes=0-1 | If-Range: {at(-1000)}"),
        (f"Last-Modified: {at(0)}", f"Range: bytes=0-1 | If-Range: {at(0)}"),
        (f"Last-Modified: {at(1)}", f"Range: bytes=0-1 | If-Range: {at(1)}"),
    ],
)
def test_what_is_no_strong_validator_makes_no_part(kept: str, request_lines: str) -> None:
    stored = keep(f"Cache-Control: max-age=60 | {kept}")  # RFC 9110 section 13.1.5, 8.8.2.2
    assert answer(asking(request_lines), stored, LENGTH, T0).status == 200


def test_a_date_is_strong_once_it_was_past_by_a_second() -> None:
    stored = keep(f"Last-Modified: {at(-1)}")
    assert answer(asking(f"Range: bytes=0-1 | If-Range: {at(-1)}"), stored, LENGTH, T0).status == 206


@pytest.mark.parametrize("asked", ["bytes=-5", "bytes=-1"])
def test_no_part_of_nothing(asked: str) -> None:
    assert answer(asking(f"Range: {asked}"), keep(KEPT), 0, T0).status == 200
    assert answer(asking("Range: bytes=0-"), keep(KEPT), 0, T0).status == 416


def test_parts_are_of_200_to_get_alone() -> None:
    ranged = "Range: bytes=0-1"
    assert answer(asking(ranged), keep(KEPT, status=404), LENGTH, T0).status == 404
    given = answer(asking(ranged, method="HEAD"), keep(KEPT).completed(LENGTH), LENGTH, T0)  # section 14.2
    assert (given.status, given.begin, given.end) == (200, 0, 0)
    assert given.headers.get(b"content-length") == b"10"


def test_what_a_304_has() -> None:
    stored = keep(f"{KEPT} | Content-Type: a/a | Vary: Cookie | Content-Location: /a | X-A: 1 | Content-Length: 10")
    given = answer(asking('If-None-Match: "1"'), stored, LENGTH, T0 + 5)
    assert sorted(given.headers) == sorted(
        lines(f"Date: {at(0)} | {KEPT} | Vary: Cookie | Content-Location: /a | X-A: 1 | Age: 5")
    )


@pytest.mark.parametrize("request_lines", ["", 'If-None-Match: "1"', "Range: bytes=0-1"])
def test_every_answer_has_its_age_and_none_changes_what_is_kept(request_lines: str) -> None:
    stored = keep(f"{KEPT} | Age: 7")  # RFC 9111 section 4
    before = list(stored.headers)
    assert answer(asking(request_lines), stored, LENGTH, T0 + 5.9).headers.get_all(b"age") == [b"12"]
    assert list(stored.headers) == before


def test_the_length_is_known_once_all_has_come() -> None:
    assert keep(KEPT).completed(10).headers.get(b"content-length") == b"10"
    assert keep(f"{KEPT} | Content-Length: 10").completed(10).headers.get_all(b"content-length") == [b"10"]
    assert b"content-length" not in keep(KEPT, status=204).completed(0).headers  # RFC 9110 section 8.6


# RFC 9110 section 8.8.3.2: the table of comparisons
TAGS = [('W/"1"', 'W/"1"', False, True), ('W/"1"', 'W/"2"', False, False), ('W/"1"', '"1"', False, True)]


@pytest.mark.parametrize(("one", "other", "strong", "weak"), [*TAGS, ('"1"', '"1"', True, True)])
def test_comparing_tags(one: str, other: str, strong: bool, weak: bool) -> None:
    assert same_strongly(one.encode(), other.encode()) is strong
    assert same_weakly(one.encode(), other.encode()) is weak


def test_reading_tags() -> None:
    assert tags_of([b', "a",,W/"b" , *,"c', b'"d"x"e"']) == [b'"a"', b'W/"b"', b"*", b'"d"']
    assert is_tag(b'""')
    assert not is_tag(b'"a"b"')
    assert not is_tag(b'"a b"')
    assert not is_strong(b'W/"a"')
    assert not is_strong(b'"a b"')
