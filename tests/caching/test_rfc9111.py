"""RFC 9111, row by row: what is kept and for how long, and what a later request is answered with."""

from __future__ import annotations

import pytest

from portico.caching.reuse import ERRORS, decide, may_stand_in, passes_by
from portico.caching.rules import STRICT, CachingRules, SetCookie
from portico.caching.status import Forward
from portico.caching.stored import NotStored, Stored
from portico.caching.storing import store
from portico.http.body import Body
from portico.http.message import Request
from portico.http.user import USER, User
from tests.harness.caching import T0, answering, asking, at, keep

ME = "Authorization: Basic bWU6bWU="
TAG = 'ETag: "1"'
OLD = f"Last-Modified: {at(-1000)}"

METHOD, ASKED, STATUS = NotStored.METHOD, NotStored.ASKED, NotStored.STATUS
FORBIDDEN, PRIVATE, AUTHORIZED = NotStored.FORBIDDEN, NotStored.PRIVATE, NotStored.AUTHORIZED
VARIES, COOKIE, SILENT, USELESS = NotStored.VARIES, NotStored.COOKIE, NotStored.SILENT, NotStored.USELESS

# section, request, status, answer, and the lifetime with which it is kept, or why it is not
KEPT: list[tuple[str, str, int, str, float | NotStored]] = [
    # Section 3: which answers may be kept.
    ("3", "", 200, "Cache-Control: max-age=60", 60),
    ("3", "", 200, "Cache-Control: s-maxage=60", 60),
    ("3", "", 200, f"Expires: {at(60)}", 60),
    ("3", "", 200, f"Cache-Control: public | {TAG}", 0),
    ("3", "", 200, TAG, 0),
    ("3", "", 200, OLD, 0),
    ("3", "", 200, "", USELESS),
    ("3", "", 404, TAG, 0),
    ("3", "", 302, TAG, SILENT),
    ("3", "", 500, TAG, SILENT),
    ("3", "", 500, f"Cache-Control: public | {TAG}", 0),
    ("3", "", 302, "Cache-Control: max-age=60", 60),
    ("3", "", 500, "Cache-Control: max-age=60", 60),
    ("3", "", 599, "Cache-Control: max-age=60", 60),
    ("3", "", 100, "Cache-Control: max-age=60", STATUS),
    ("3", "", 199, "Cache-Control: max-age=60", STATUS),
    ("3", "", 600, "Cache-Control: max-age=60", STATUS),
    ("3", "", 206, "Cache-Control: max-age=60 | Content-Range: bytes 0-1/9", STATUS),
    ("3", "", 304, "Cache-Control: max-age=60", STATUS),
    ("3", "", 412, "Cache-Control: max-age=60", STATUS),
    ("3", "", 416, "Cache-Control: max-age=60", STATUS),
    ("3.1", "", 407, "Cache-Control: max-age=60", STATUS),
    ("RFC 6585 3", "", 428, "Cache-Control: max-age=60", STATUS),
    ("RFC 6585 4", "", 429, "Cache-Control: max-age=60", STATUS),
    ("RFC 6585 5", "", 431, "Cache-Control: max-age=60", STATUS),
    ("RFC 6585 6", "", 511, "Cache-Control: max-age=60", STATUS),
    ("3", "Range: bytes=0-1", 200, "Cache-Control: max-age=60", 60),
    ("3", 'If-None-Match: "0"', 200, "Cache-Control: max-age=60", 60),
    # Section 3.5: answers to requests with Authorization.
    ("3.5", ME, 200, "Cache-Control: max-age=60", AUTHORIZED),
    ("3.5", ME, 200, f"Expires: {at(60)}", AUTHORIZED),
    ("3.5", ME, 200, "Cache-Control: max-age=60, public", 60),
    ("3.5", ME, 200, "Cache-Control: max-age=60, must-revalidate", 60),
    ("3.5", ME, 200, "Cache-Control: s-maxage=60", 60),
    ("3.5", ME, 200, "Cache-Control: max-age=60, proxy-revalidate", AUTHORIZED),
    ("3.5", ME, 200, "Cache-Control: max-age=60, immutable", AUTHORIZED),
    ("3.5", ME, 200, "Cache-Control: private, s-maxage=60", PRIVATE),
    # Section 4.2.1: the lifetime.
    ("4.2.1", "", 200, "Cache-Control: max-age=60, s-maxage=90", 90),
    ("4.2.1", "", 200, "Cache-Control: max-age=90, s-maxage=60", 60),
    ("4.2.1", "", 200, f"Cache-Control: max-age=60 | Expires: {at(999)}", 60),
    ("4.2.1", "", 200, f"Cache-Control: s-maxage=60 | Expires: {at(-999)}", 60),
    ("4.2.1", "", 200, f"Cache-Control: max-age=0 | Expires: {at(999)} | {TAG}", 0),
    ("4.2.1", "", 200, f"Date: {at(-30)} | Expires: {at(30)}", 60),
    ("4.2.1", "", 200, f"Date: {at(30)} | Expires: {at(40)}", 10),
    ("4.2.1", "", 200, f"Date: | Expires: {at(30)}", 30),
    ("4.2.1", "", 200, f"Date: yesterday | Expires: {at(30)}", 30),
    ("4.2.1", "", 200, "Cache-Control: max-age=60, max-age=10", 10),
    ("4.2.1", "", 200, "Cache-Control: max-age=10 | Cache-Control: max-age=60", 10),
    ("4.2.1", "", 200, f"Cache-Control: max-age=60, max-age=soon | {TAG}", 0),
    ("4.2.1", "", 200, f"Cache-Control: max-age=1.5 | {TAG}", 0),
    ("4.2.1", "", 200, f"Cache-Control: max-age=-1 | {TAG}", 0),
    ("4.2.1", "", 200, f"Cache-Control: max-age | {TAG}", 0),
    ("4.2.1", "", 200, f"Cache-Control: max-age= | {TAG}", 0),
    ("4.2.1", "", 200, "Cache-Control: max-age=60s", USELESS),
    ("4.2.1", "", 200, f"Cache-Control: s-maxage=x, max-age=60 | {TAG}", 0),
    ("1.2.2", "", 200, "Cache-Control: max-age=2147483648", 2**31),
    ("1.2.2", "", 200, f"Cache-Control: max-age={'9' * 5000}", 2**31),
    ("1.2.2", "", 200, "Cache-Control: max-age=000000000000060", 60),
    ("1.2.2", "", 200, f"Cache-Control: max-age=+60 | {TAG}", 0),
    # Section 4.2.2: heuristics, which are off unless they are asked for; see HEURISTICS.
    ("4.2.2", "", 200, f"{OLD}", 0),
    # Section 5.2: the form of directives.
    ("5.2", "", 200, "Cache-Control: MAX-AGE=60", 60),
    ("5.2", "", 200, 'Cache-Control: max-age="60"', 60),
    ("5.2", "", 200, 'Cache-Control: max-age="6\\0"', 60),
    ("5.2", "", 200, f"Cache-Control: max-age='60' | {TAG}", 0),
    ("5.2", "", 200, "Cache-Control: , ,max-age=60,,", 60),
    ("5.2", "", 200, "Cache-Control: max-age = 60", 60),
    ("5.2", "", 200, 'Cache-Control: ext="a, no-store", max-age=60', 60),
    ("5.2", "", 200, 'Cache-Control: ext="a, no-store, max-age=60', FORBIDDEN),
    ("5.2", "", 200, 'Cache-Control: ext="\\", no-store, \\"", max-age=60', 60),
    ("5.2", "", 200, "Cache-Control: No-Store", FORBIDDEN),
    ("5.2.3", "", 200, "Cache-Control: community=UCI, max-age=60", 60),
    ("5.2.3", "", 200, f"Cache-Control: x-no-store, nostore | {TAG}", 0),
    # Section 5.2.1.5: no-store of the request.
    ("5.2.1.5", "Cache-Control: no-store", 200, "Cache-Control: max-age=60", ASKED),
    ("5.2.1.5", "Cache-Control: max-age=0, No-Store", 200, "Cache-Control: public, max-age=60", ASKED),
    ("5.2.1.4", "Cache-Control: no-cache", 200, "Cache-Control: max-age=60", 60),
    ("5.4", "Pragma: no-cache", 200, "Cache-Control: max-age=60", 60),
    ("5.4", "", 200, "Cache-Control: max-age=60 | Pragma: no-cache", 60),
    # Section 5.2.2: what answers forbid.
    ("5.2.2.3", "", 200, "Cache-Control: must-understand, no-store, max-age=60", 60),
    ("5.2.2.3", "", 299, "Cache-Control: must-understand, max-age=60", STATUS),
    ("5.2.2.3", "", 299, "Cache-Control: max-age=60", 60),
    ("5.2.2.3", "", 505, "Cache-Control: must-understand, max-age=60", 60),
    ("5.2.2.3", "", 506, "Cache-Control: must-understand, max-age=60", STATUS),
    ("5.2.2.3", "", 200, "Cache-Control: must-understand, private, max-age=60", PRIVATE),
    ("5.2.2.3", "", 206, "Cache-Control: must-understand, no-store, max-age=60", STATUS),
    ("5.2.2.4", "", 200, f"Cache-Control: no-cache | {TAG}", 0),
    ("5.2.2.4", "", 200, "Cache-Control: no-cache", USELESS),
    ("5.2.2.4", "", 200, "Cache-Control: no-cache, max-age=60", USELESS),
    ("5.2.2.4", "", 302, f"Cache-Control: no-cache | {TAG}", SILENT),
    ("5.2.2.5", "", 200, "Cache-Control: no-store, max-age=60", FORBIDDEN),
    ("5.2.2.5", "", 200, "Cache-Control: max-age=60 | Cache-Control: no-store", FORBIDDEN),
    ("5.2.2.5", "", 200, "Cache-Control: no-store=x, max-age=60", FORBIDDEN),
    ("5.2.2.7", "", 200, "Cache-Control: private, max-age=60", PRIVATE),
    ("5.2.2.7", "", 200, 'Cache-Control: private="X-Mine", max-age=60', 60),
    ("5.2.2.7", "", 200, "Cache-Control: private=X-Mine, max-age=60", 60),
    ("5.2.2.7", "", 200, 'Cache-Control: private="X-Mine", private, max-age=60', PRIVATE),
    ("5.2.2.7", "", 200, 'Cache-Control: private="", max-age=60', PRIVATE),
    ("5.2.2.7", "", 200, 'Cache-Control: private="not a name", max-age=60', PRIVATE),
    ("5.2.2.7", "", 200, 'Cache-Control: private="Vary", max-age=60 | Vary: Cookie', PRIVATE),
    ("5.2.2.7", "", 200, "Cache-Control: private, public, max-age=60", PRIVATE),
    # Section 4.1: an answer that varies by everything does for nobody.
    ("4.1", "", 200, "Cache-Control: max-age=60 | Vary: *", VARIES),
    ("4.1", "", 200, "Cache-Control: max-age=60 | Vary: Accept, *", VARIES),
    ("4.1", "", 200, "Cache-Control: max-age=60 | Vary: Accept | Vary: *", VARIES),
    ("4.1", "", 200, "Cache-Control: max-age=60 | Vary: what ever", VARIES),
    ("4.1", "", 200, "Cache-Control: max-age=60 | Vary: Accept, Cookie", 60),
    # Section 5.3: Expires.
    ("5.3", "", 200, f"Expires: 0 | {TAG}", 0),
    ("5.3", "", 200, f"Expires: -1 | {TAG}", 0),
    ("5.3", "", 200, f"Expires: | {TAG}", 0),
    ("5.3", "", 200, f"Expires: {at(-60)} | {TAG}", 0),
    ("5.3", "", 200, f"Expires: {at(60)} | Expires: 0 | {TAG}", 0),
    ("5.3", "", 200, f"Expires: {at(60)} | Expires: {at(30)}", 30),
    ("5.3", "", 200, "Expires: Fri, 15 Jan 2027 08:01:00 EST", USELESS),
    ("5.3", "", 200, "Expires: Friday, 15-Jan-27 08:01:00 GMT", 60),
    ("5.3", "", 200, "Expires: Fri Jan 15 08:01:00 2027", 60),
    ("5.3", "", 200, "Expires: Fri, 31 Feb 2027 08:01:00 GMT", USELESS),
    ("5.3", "", 200, "Expires: Fri, 15 Jan 9999 08:01:00 GMT", 2**31),
    # Section 7.3: cookies.
    ("7.3", "", 200, "Cache-Control: max-age=60 | Set-Cookie: a=1", COOKIE),
    ("7.3", "", 200, "Cache-Control: public, max-age=60 | Set-Cookie: a=1", COOKIE),
    ("7.3", "", 200, 'Cache-Control: private="Set-Cookie", max-age=60 | Set-Cookie: a=1', 60),
    ("7.3", "", 200, 'Cache-Control: no-cache="Set-Cookie", max-age=60 | Set-Cookie: a=1', 60),
    ("7.3", "Cookie: a=1", 200, "Cache-Control: max-age=60", 60),
    # RFC 9213: targeted fields.
    ("RFC 9213 2.2", "", 200, "CDN-Cache-Control: max-age=90 | Cache-Control: max-age=60", 90),
    ("RFC 9213 2.2", "", 200, "CDN-Cache-Control: max-age=90 | Cache-Control: no-store", 90),
    ("RFC 9213 2.2", "", 200, f"CDN-Cache-Control: max-age=0 | Expires: {at(60)} | {TAG}", 0),
    ("RFC 9213 2.2", "", 200, f"CDN-Cache-Control: public | Expires: {at(60)} | {TAG}", 0),
    ("RFC 9213 2.2", "", 200, "CDN-Cache-Control: no-store | Cache-Control: max-age=60", FORBIDDEN),
    ("RFC 9213 2.2", "", 200, "CDN-Cache-Control: private | Cache-Control: max-age=60", PRIVATE),
    ("RFC 9213 2.2", "", 200, f"CDN-Cache-Control: none | Cache-Control: no-store | {TAG}", 0),
    ("RFC 9213 2.2", "", 200, "Other-Cache-Control: max-age=90 | Cache-Control: max-age=60", 60),
    ("RFC 9213 2.1", "", 200, "CDN-Cache-Control: | Cache-Control: max-age=60", 60),
    ("RFC 9213 2.1", "", 200, "CDN-Cache-Control: Max-Age=90 | Cache-Control: max-age=60", 60),
    ("RFC 9213 2.1", "", 200, "CDN-Cache-Control: max-age=90, | Cache-Control: max-age=60", 60),
    ("RFC 9213 2.1", "", 200, "CDN-Cache-Control: max-age=90; a=1", 90),
    ("RFC 9213 2.1", "", 200, f"CDN-Cache-Control: max-age=90.5 | {TAG}", 0),
    ("RFC 9213 2.1", "", 200, f'CDN-Cache-Control: max-age="90" | {TAG}', 0),
    ("RFC 9213 2.1", "", 200, "CDN-Cache-Control: max-age=5 | CDN-Cache-Control: max-age=90", 90),
    ("RFC 9213 2.1", "", 200, 'CDN-Cache-Control: max-age=90, private="X-Mine"', 90),
]


@pytest.mark.parametrize(("section", "request_lines", "status", "answer", "expected"), KEPT)
def test_what_is_kept(section: str, request_lines: str, status: int, answer: str, expected: float | NotStored) -> None:
    kept = store(asking(request_lines), status, answering(answer), T0, T0, STRICT)
    assert (kept.life.lifetime if isinstance(kept, Stored) else kept) == expected, section


# section, the answer that is kept, how many seconds ago, the request, and what becomes of it
GIVE, RENEW, VALIDATE, FETCH, PASS, REFUSE = "give", "give-and-renew", "validate", "fetch", "pass", "refuse"
MINUTE = "Cache-Control: max-age=60"
REUSED: list[tuple[str, str, float, str, str]] = [
    # Section 4 and 4.2: fresh or stale.
    ("4", MINUTE, 0, "", GIVE),
    ("4.2", MINUTE, 59.9, "", GIVE),
    ("4.2", MINUTE, 60, "", VALIDATE),
    ("4.2", MINUTE, -999, "", GIVE),
    ("4.2.1", f"{MINUTE}, s-maxage=5", 6, "", VALIDATE),
    ("4.2.3", f"{MINUTE} | Age: 50", 9, "", GIVE),
    ("4.2.3", f"{MINUTE} | Age: 50", 10, "", VALIDATE),
    ("4.2.3", f"{MINUTE} | Date: {at(-50)}", 10, "", VALIDATE),
    ("4.2.3", f"{MINUTE} | Date: {at(50)}", 59, "", GIVE),
    ("4", f"Cache-Control: no-cache, max-age=60 | {TAG}", 0, "", VALIDATE),
    ("4", TAG, 0, "", VALIDATE),
    ("5.2.2.4", f'Cache-Control: no-cache="X-A", max-age=60 | {TAG}', 1, "", GIVE),
    # Section 5.2.1: what clients ask.
    ("5.2.1.1", MINUTE, 10, "Cache-Control: max-age=10", GIVE),
    ("5.2.1.1", MINUTE, 10.5, "Cache-Control: max-age=10", VALIDATE),
    ("5.2.1.1", MINUTE, 1, "Cache-Control: max-age=0", VALIDATE),
    ("5.2.1.1", MINUTE, 10, 'Cache-Control: max-age="5"', VALIDATE),
    ("5.2.1.1", MINUTE, 10, "Cache-Control: max-age=soon", GIVE),
    ("5.2.1.1", MINUTE, 10, "Cache-Control: max-age=50, max-age=5", VALIDATE),
    ("5.2.1.1", f"{MINUTE}, stale-while-revalidate=30", 61, "Cache-Control: max-age=999", VALIDATE),
    ("5.2.1.1", MINUTE, 70, "Cache-Control: max-age=999, max-stale=20", GIVE),
    ("5.2.1.1", MINUTE, 70, "Cache-Control: max-age=65, max-stale=20", VALIDATE),
    ("5.2.1.2", MINUTE, 999, "Cache-Control: max-stale", GIVE),
    ("5.2.1.2", MINUTE, 70, "Cache-Control: max-stale=10", GIVE),
    ("5.2.1.2", MINUTE, 71, "Cache-Control: max-stale=10", VALIDATE),
    ("5.2.1.2", MINUTE, 71, "Cache-Control: max-stale=much", VALIDATE),
    ("5.2.1.2", MINUTE, 71, "Cache-Control: max-stale, max-stale=10", VALIDATE),
    ("5.2.1.3", MINUTE, 50, "Cache-Control: min-fresh=10", GIVE),
    ("5.2.1.3", MINUTE, 51, "Cache-Control: min-fresh=10", VALIDATE),
    ("5.2.1.3", MINUTE, 51, "Cache-Control: min-fresh=5, min-fresh=10", VALIDATE),
    ("5.2.1.3", MINUTE, 61, "Cache-Control: min-fresh=1, max-stale", VALIDATE),
    ("5.2.1.4", MINUTE, 0, "Cache-Control: no-cache", VALIDATE),
    ("5.2.1.4", MINUTE, 0, "Cache-Control: No-Cache=x", VALIDATE),
    ("5.2.1.5", MINUTE, 0, "Cache-Control: no-store", GIVE),
    ("5.2.1.6", MINUTE, 0, "Cache-Control: no-transform", GIVE),
    ("5.2.1.7", MINUTE, 0, "Cache-Control: only-if-cached", GIVE),
    ("5.2.1.7", MINUTE, 61, "Cache-Control: only-if-cached", REFUSE),
    ("5.2.1.7", MINUTE, 61, "Cache-Control: only-if-cached, max-stale", GIVE),
    ("5.2.1.7", MINUTE, 0, "Cache-Control: only-if-cached, no-cache", REFUSE),
    ("5.2.1.7", "", 0, "Cache-Control: only-if-cached", REFUSE),
    ("5.2.1.7", MINUTE, 0, 'Cache-Control: only-if-cached | If-Match: "1"', REFUSE),
    ("5.2.3", MINUTE, 0, "Cache-Control: something=else", GIVE),
    ("5.4", MINUTE, 0, "Pragma: no-cache", VALIDATE),
    ("5.4", MINUTE, 0, "Pragma: No-Cache", VALIDATE),
    ("5.4", MINUTE, 0, "Pragma: no-cache | Cache-Control: max-age=5", GIVE),
    ("5.4", MINUTE, 0, "Pragma: other", GIVE),
    # Section 4.2.4: what must not be stale.
    ("4.2.4", f"{MINUTE}, must-revalidate", 59, "", GIVE),
    ("4.2.4", f"{MINUTE}, must-revalidate", 61, "Cache-Control: max-stale", VALIDATE),
    ("4.2.4", f"{MINUTE}, proxy-revalidate", 61, "Cache-Control: max-stale", VALIDATE),
    ("4.2.4", "Cache-Control: s-maxage=60", 61, "Cache-Control: max-stale", VALIDATE),
    ("4.2.4", f"Cache-Control: no-cache | {TAG}", 61, "Cache-Control: max-stale", VALIDATE),
    ("4.2.4", f"{MINUTE}, must-revalidate", 61, "Cache-Control: max-stale, only-if-cached", REFUSE),
    # RFC 5861 and RFC 8246.
    ("RFC 5861 3", f"{MINUTE}, stale-while-revalidate=30", 59, "", GIVE),
    ("RFC 5861 3", f"{MINUTE}, stale-while-revalidate=30", 60, "", RENEW),
    ("RFC 5861 3", f"{MINUTE}, stale-while-revalidate=30", 89, "", RENEW),
    ("RFC 5861 3", f"{MINUTE}, stale-while-revalidate=30", 90, "", VALIDATE),
    ("RFC 5861 3", f"{MINUTE}, stale-while-revalidate=soon", 60.5, "", VALIDATE),
    ("RFC 5861 3", f"{MINUTE}, stale-while-revalidate=30, must-revalidate", 61, "", VALIDATE),
    ("RFC 5861 3", "Cache-Control: s-maxage=60, stale-while-revalidate=30", 61, "", RENEW),
    ("RFC 5861 3", f"{MINUTE}, stale-while-revalidate=30", 61, "Cache-Control: no-cache", VALIDATE),
    ("RFC 5861 3", f"{MINUTE}, stale-while-revalidate=30", 61, "Cache-Control: max-stale=9", GIVE),
    ("RFC 8246 2", f"{MINUTE}, immutable", 5, "Cache-Control: max-age=0", GIVE),
    ("RFC 8246 2", f"{MINUTE}, immutable", 5, "Cache-Control: no-cache", VALIDATE),
    ("RFC 8246 2", f"{MINUTE}, immutable", 61, "Cache-Control: max-age=0", VALIDATE),
    ("RFC 8246 2", f"{MINUTE}, immutable", 55, "Cache-Control: min-fresh=10", VALIDATE),
    # What no cache may decide on, and nothing kept.
    ("4.3.2", MINUTE, 0, 'If-Match: "1"', PASS),
    ("4.3.2", MINUTE, 0, f"If-Unmodified-Since: {at(0)}", PASS),
    ("4.3.2", MINUTE, 0, 'If-None-Match: "1"', GIVE),
    ("4", MINUTE, 0, ME, GIVE),
    ("4", "", 0, "", FETCH),
    ("4", "", 0, "Cache-Control: no-cache", FETCH),
    ("5.2.1.5", "", 0, "Cache-Control: no-store", PASS),
    ("5.2.1.5", f"{MINUTE} | Vary: Accept", 0, "Cache-Control: no-store | Accept: a", PASS),
    ("5.2.1.5", "", 0, "Cache-Control: no-store, only-if-cached", REFUSE),
    # Section 4.1: for whom it is.
    ("4.1", f"{MINUTE} | Vary: Accept", 0, "Accept: */*", FETCH),
    ("4.1", f"{MINUTE} | Vary: Accept", 0, "", GIVE),
    ("4.1", f"{MINUTE} | Vary: Accept", 0, "Accept:", FETCH),
    ("4.1", f"{MINUTE} | Vary: Cookie", 0, "Accept: */*", GIVE),
    ("4.1", f"{MINUTE} | Vary: AUTHORIZATION", 0, ME, FETCH),
]


@pytest.mark.parametrize(("section", "answer", "seconds", "request_lines", "expected"), REUSED)
def test_what_a_request_is_answered_with(
    section: str, answer: str, seconds: float, request_lines: str, expected: str
) -> None:
    kept = [keep(answer)] if answer else []
    decision = decide(asking(request_lines), kept, T0 + seconds, STRICT)
    assert decision.verdict.value == expected, section
    assert decision.gives is (expected in (GIVE, RENEW))


WHY: list[tuple[str, str, float, Request, Forward | None]] = [
    ("uri-miss", "", 0, asking(), Forward.URI_MISS),
    ("vary-miss", f"{MINUTE} | Vary: Accept", 0, asking("Accept: */*"), Forward.VARY_MISS),
    ("stale", MINUTE, 61, asking(), Forward.STALE),
    ("stale", f"Cache-Control: no-cache | {TAG}", 0, asking(), Forward.STALE),
    ("request", MINUTE, 1, asking("Cache-Control: max-age=0"), Forward.REQUEST),
    ("request", MINUTE, 1, asking("Cache-Control: no-cache"), Forward.REQUEST),
    ("request", MINUTE, 59, asking("Cache-Control: min-fresh=9"), Forward.REQUEST),
    ("method", MINUTE, 0, asking(method="POST"), Forward.METHOD),
    ("method", MINUTE, 0, asking(method="OPTIONS"), Forward.METHOD),
    ("bypass", MINUTE, 0, asking('If-Match: "1"'), Forward.BYPASS),
    ("hit", MINUTE, 0, asking(method="HEAD"), None),
]


@pytest.mark.parametrize(("section", "answer", "seconds", "request_", "why"), WHY)
def test_why_a_service_is_asked(section: str, answer: str, seconds: float, request_: Request, why: Forward) -> None:
    decision = decide(request_, [keep(answer)] if answer else [], T0 + seconds, STRICT)
    assert decision.why == why
    assert decision.status.text("p").decode() == (f"p; fwd={section}" if why else "p; hit; ttl=60")


TTL = CachingRules(ttl={200: 60, 302: 30, 404: 0})
TENTH = CachingRules(heuristic=0.1)
BOTH = CachingRules(ttl={200: 60}, ignored=frozenset((b"cache-control", b"expires")))
CHOSEN: list[tuple[str, CachingRules, str, int, str, float | NotStored]] = [
    ("4.2.2", TENTH, "", 200, OLD, 100),
    ("4.2.2", TENTH, "", 404, OLD, 100),
    ("4.2.2", TENTH, "", 302, OLD, SILENT),
    ("4.2.2", TENTH, "", 302, f"Cache-Control: public | {OLD}", 100),
    ("4.2.2", TENTH, "", 200, f"Cache-Control: max-age=5 | {OLD}", 5),
    ("4.2.2", TENTH, "", 200, f"Expires: 0 | {OLD}", 0),
    ("4.2.2", TENTH, "", 200, f"Cache-Control: no-cache | {OLD}", 0),
    ("4.2.2", TENTH, "", 200, f"Last-Modified: {at(1000)}", 0),
    ("4.2.2", TENTH, "", 200, f"Last-Modified: long ago | {TAG}", 0),
    ("4.2.2", TENTH, "", 200, "Last-Modified: Thu, 01 Jan 1970 00:00:00 GMT", 86400),
    ("4.2.2", TENTH, ME, 200, OLD, AUTHORIZED),
    ("nginx proxy_cache_valid", TTL, "", 200, "", 60),
    ("nginx proxy_cache_valid", TTL, "", 302, "", 30),
    ("nginx proxy_cache_valid", TTL, "", 404, "", USELESS),
    ("nginx proxy_cache_valid", TTL, "", 301, "", USELESS),
    ("nginx proxy_cache_valid", TTL, "", 200, "Cache-Control: max-age=5", 5),
    ("nginx proxy_cache_valid", TTL, "", 200, f"Expires: {at(5)}", 5),
    ("nginx proxy_cache_valid", TTL, "", 200, "Cache-Control: no-store", FORBIDDEN),
    ("nginx proxy_cache_valid", TTL, "", 200, "Cache-Control: private", PRIVATE),
    ("nginx proxy_cache_valid", TTL, "", 200, "Cache-Control: no-cache", USELESS),
    ("nginx proxy_cache_valid", TTL, "", 200, "Vary: *", VARIES),
    ("nginx proxy_cache_valid", TTL, "", 200, "Set-Cookie: a=1", COOKIE),
    ("nginx proxy_cache_valid", TTL, ME, 200, "", AUTHORIZED),
    ("nginx proxy_cache_valid", TTL, "Cache-Control: no-store", 200, "", ASKED),
    ("nginx proxy_ignore_headers", BOTH, "", 200, "Cache-Control: no-store | Expires: 0", 60),
    ("nginx proxy_ignore_headers", BOTH, "", 200, "Cache-Control: no-cache, max-age=0", 60),
    ("nginx proxy_ignore_headers", BOTH, "", 200, "Cache-Control: private, max-age=0", PRIVATE),
    ("nginx proxy_ignore_headers", BOTH, ME, 200, "Cache-Control: public", AUTHORIZED),
    ("7.3", CachingRules(set_cookie=SetCookie.STRIP), "", 200, f"{MINUTE} | Set-Cookie: a=1", 60),
    ("7.3", CachingRules(set_cookie=SetCookie.KEEP), "", 200, f"{MINUTE} | Set-Cookie: a=1", 60),
    ("3.5", CachingRules(per_user=True), ME, 200, MINUTE, 60),
    ("3.5", CachingRules(per_user=True), ME, 200, f"{MINUTE}, private", PRIVATE),
    ("RFC 9213 2.2", CachingRules(targeted=()), "", 200, f"CDN-Cache-Control: max-age=9 | {MINUTE}", 60),
    (
        "RFC 9213 2.2",
        CachingRules(targeted=(b"portico-cache-control", b"cdn-cache-control")),
        "",
        200,
        "CDN-Cache-Control: max-age=9 | Portico-Cache-Control: max-age=7",
        7,
    ),
    (
        "RFC 9213 2.2",
        CachingRules(targeted=(b"portico-cache-control", b"cdn-cache-control")),
        "",
        200,
        "CDN-Cache-Control: max-age=9 | Portico-Cache-Control: =",
        9,
    ),
]


@pytest.mark.parametrize(("section", "rules", "request_lines", "status", "answer", "expected"), CHOSEN)
def test_what_is_kept_by_choice(
    section: str, rules: CachingRules, request_lines: str, status: int, answer: str, expected: float | NotStored
) -> None:
    kept = store(asking(request_lines), status, answering(answer), T0, T0, rules)
    assert (kept.life.lifetime if isinstance(kept, Stored) else kept) == expected, section


HOUR = CachingRules(stale_if_error=3600, stale_while_revalidate=3600)
STANDS_IN: list[tuple[str, CachingRules, str, float, str, bool]] = [
    ("RFC 5861 4", STRICT, f"{MINUTE}, stale-if-error=30", 89, "", True),
    ("RFC 5861 4", STRICT, f"{MINUTE}, stale-if-error=30", 90, "", False),
    ("RFC 5861 4", STRICT, f"{MINUTE}, stale-if-error=30", 61, "Cache-Control: max-age=0", True),
    ("RFC 5861 4", STRICT, MINUTE, 61, "", False),
    ("RFC 5861 4", STRICT, MINUTE, 61, "Cache-Control: stale-if-error=30", True),
    ("RFC 5861 4", STRICT, f"{MINUTE}, must-revalidate", 61, "Cache-Control: stale-if-error=30", False),
    ("RFC 5861 4", STRICT, f"{MINUTE}, stale-if-error=30", 61, "Cache-Control: no-cache", False),
    ("4.2.4", STRICT, MINUTE, 1, "Cache-Control: max-age=0", True),
    ("4.2.4", HOUR, MINUTE, 61, "", True),
    ("4.2.4", HOUR, f"{MINUTE}, stale-if-error=0", 61, "", False),
    ("4.2.4", HOUR, f"{MINUTE}, must-revalidate", 61, "", False),
    ("5.2.2.10", HOUR, "Cache-Control: s-maxage=60", 60.5, "", False),
    ("5.2.2.10", HOUR, "Cache-Control: s-maxage=60, stale-if-error=9", 61, "", True),
    ("5.2.2.4", HOUR, f"Cache-Control: no-cache | {TAG}", 0, "", False),
]


@pytest.mark.parametrize(("section", "rules", "answer", "seconds", "request_lines", "expected"), STANDS_IN)
def test_what_stands_in_for_an_error(
    section: str, rules: CachingRules, answer: str, seconds: float, request_lines: str, expected: bool
) -> None:
    stored = keep(answer, rules=rules)
    assert may_stand_in(stored, asking(request_lines), T0 + seconds, rules) is expected, section


@pytest.mark.parametrize("status", range(200, 600))
def test_which_statuses_need_not_say_that_they_may_be_kept(status: int) -> None:
    kept = store(asking(), status, answering(TAG), T0, T0, STRICT)
    heuristic = {200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501}  # RFC 9110 section 15.1
    never = {206, 304, 407, 412, 416, 417, 428, 429, 431, 511}
    assert isinstance(kept, Stored) is (status in heuristic - never)
    assert isinstance(store(asking(), status, answering(MINUTE), T0, T0, STRICT), Stored) is (status not in never)


def test_which_statuses_are_understood() -> None:
    said = answering(f"{MINUTE}, must-understand")
    kept = {status for status in range(200, 600) if store(asking(), status, said, T0, T0, STRICT) is not STATUS}
    unknown = {412, 416, 417, 407}
    assert kept == {
        *(200, 201, 202, 203, 204, 205, 226),
        *(300, 301, 302, 303, 305, 307, 308),
        *(set(range(400, 419)) - unknown | {421, 422, 426, 451}),
        *(500, 501, 502, 503, 504, 505),
    }


def test_head_is_answered_with_what_get_was_and_nothing_else() -> None:
    head = asking(method="HEAD")
    assert decide(head, [keep(MINUTE)], T0, STRICT).verdict.value == GIVE
    assert decide(head, [keep(MINUTE)], T0 + 61, STRICT).verdict.value == VALIDATE
    assert decide(head, [], T0, STRICT).verdict.value == PASS
    assert decide(head, [], T0, STRICT).why is Forward.URI_MISS


def test_a_get_with_content_and_a_change_of_protocol_are_none_of_a_cache() -> None:
    fat, changing = asking(), asking()
    fat.body = Body(b"x")
    changing.upgrade = b"websocket"
    for request in (fat, changing):
        assert decide(request, [keep(MINUTE)], T0, STRICT).verdict.value == PASS
        assert passes_by(request) is Forward.BYPASS
    assert passes_by(asking()) is None


def test_what_counts_as_an_error() -> None:
    assert {500, 502, 503, 504} == ERRORS  # RFC 5861 section 4


def test_what_was_asked_for_by_a_known_user_is_theirs_without_authorization_too() -> None:
    request = asking()
    request[USER] = User("ann", kind="key-auth")
    assert store(request, 200, answering(MINUTE), T0, T0, STRICT) is AUTHORIZED
    request[USER] = User("anonymous", kind="anonymous")
    assert isinstance(store(request, 200, answering(MINUTE), T0, T0, STRICT), Stored)


def test_clients_that_are_not_heeded() -> None:
    deaf = CachingRules(heed_clients=False)
    kept = [keep(MINUTE)]
    for asked in ("Cache-Control: no-cache", "Cache-Control: max-age=0", "Pragma: no-cache"):
        assert decide(asking(asked), kept, T0 + 1, deaf).verdict.value == GIVE
    assert decide(asking("Cache-Control: only-if-cached"), [], T0, deaf).verdict.value == FETCH
    assert decide(asking("Cache-Control: no-store"), [], T0, deaf).verdict.value == PASS
    assert decide(asking("Cache-Control: no-store"), kept, T0, deaf).verdict.value == GIVE
    assert decide(asking("Cache-Control: max-stale"), kept, T0 + 61, deaf).verdict.value == VALIDATE
