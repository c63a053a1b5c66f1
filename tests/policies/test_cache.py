"""The policy `cache` at work, before services that a test plays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from portico.errors import ConfigError
from portico.plugin import USER, User
from portico.testing import Answer, Cut, Gateway, Refuse, Reply, ServiceRequest

MINUTE = {"Cache-Control": "max-age=60"}


class Counting:
    """A service that answers with the number of the request."""

    def __init__(self, headers: dict[str, str] | None = None, status: int = 200) -> None:
        self.headers = MINUTE if headers is None else headers
        self.status = status
        self.asked: list[ServiceRequest] = []

    def __call__(self, request: ServiceRequest) -> Reply:
        self.asked.append(request)
        return Reply(self.status, self.headers, str(len(self.asked)))


def gateway(service: object, settings: str = "{}", more: str = "") -> Gateway:
    text = f"""
services: {{s: {{url: "http://s"}}}}
policies: [cache: {settings}{more}]
routes: [{{name: all, path: /**, service: s}}]
"""
    return Gateway(text=text, services={"s": service})  # type: ignore[dict-item]


def told(answer: Answer) -> str:
    return answer.headers.get("cache-status", "")


def test_what_may_be_kept_is_given_again_until_it_is_stale() -> None:
    service = Counting()
    with gateway(service) as gw:
        first = gw.get("/a")
        assert (first.status, first.text, told(first)) == (200, "1", "portico; fwd=uri-miss; stored")
        gw.clock.advance(59)
        second = gw.get("/a")
        assert (second.text, told(second), second.headers["age"]) == ("1", "portico; hit; ttl=1", "59")
        gw.clock.advance(1)
        third = gw.get("/a")
        assert (third.text, told(third)) == ("2", "portico; fwd=uri-miss; stored")


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (200, {}),
        (200, {"Cache-Control": "no-store"}),
        (200, {"Cache-Control": "private, max-age=60"}),
        (200, {"Cache-Control": "max-age=60", "Set-Cookie": "a=b"}),
        (200, {"Cache-Control": "max-age=60", "Vary": "*"}),
        (206, {"Cache-Control": "max-age=60", "Content-Range": "bytes 0-0/9"}),
        (200, {"Cache-Control": "max-age=60", "Cache-Tag": ",".join(f"t{n}" for n in range(200))}),
    ],
)
def test_what_may_not_be_kept_is_not(status: int, headers: dict[str, str]) -> None:
    service = Counting(headers, status)
    with gateway(service) as gw:
        assert [gw.get("/a").text for _ in range(3)] == ["1", "2", "3"]


def test_a_ttl_is_for_answers_that_say_nothing() -> None:
    with gateway(Counting({}), "{ttl: 60s}") as gw:
        assert [gw.get("/a").text for _ in range(2)] == ["1", "1"]
    with gateway(Counting({}, 404), "{ttl: 60s}") as gw:
        assert [gw.get("/a").text for _ in range(2)] == ["1", "2"]
    with gateway(Counting({}, 404), "{ttl: {404: 60s}}") as gw:
        assert [gw.get("/a").text for _ in range(2)] == ["1", "1"]
    with gateway(Counting({"Cache-Control": "no-store"}), "{ttl: 60s}") as gw:
        assert [gw.get("/a").text for _ in range(2)] == ["1", "2"]
    with gateway(Counting({"Cache-Control": "no-store"}), "{ttl: 60s, ignore: [cache-control]}") as gw:
        assert [gw.get("/a").text for _ in range(2)] == ["1", "1"]


def test_parts_conditions_and_heads_are_answered_by_what_is_kept() -> None:
    headers = {**MINUTE, "ETag": '"x"', "Last-Modified": "Fri, 15 Jan 2021 08:00:00 GMT"}
    replies = [Reply(200, headers, b"0123456789")]
    with gateway(replies) as gw:
        assert gw.get("/a").body == b"0123456789"
        part = gw.get("/a", headers={"Range": "bytes=2-4"})
        assert (part.status, part.body, part.headers["content-range"]) == (206, b"234", "bytes 2-4/10")
        assert gw.get("/a", headers={"Range": "bytes=20-"}).status == 416
        assert gw.get("/a", headers={"If-None-Match": '"x"'}).status == 304
        assert gw.get("/a", headers={"If-Modified-Since": "Fri, 15 Jan 2021 08:00:00 GMT"}).status == 304
        head = gw.head("/a")
        assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "10")
        assert len(gw.services["s"].requests) == 1


def test_a_first_request_with_conditions_has_all_of_it_fetched() -> None:
    with gateway([Reply(200, {**MINUTE, "ETag": '"x"'}, b"0123456789")]) as gw:
        part = gw.get("/a", headers={"Range": "bytes=2-4"})
        assert (part.status, part.body) == (206, b"234")
        assert gw.get("/a", headers={"If-None-Match": '"x"'}).status == 304
        (asked,) = gw.services["s"].requests
        assert "range" not in asked.headers


def test_a_part_of_what_is_not_kept_is_left_to_the_service() -> None:
    def says(request: ServiceRequest) -> Reply:
        if "range" in request.headers:
            return Reply(206, {"Content-Range": "bytes 2-4/10"}, b"234")
        return Reply(200, {}, b"0123456789")

    with gateway(says) as gw:
        for _ in range(2):
            part = gw.get("/a", headers={"Range": "bytes=2-4"})
            assert (part.status, part.body) == (206, b"234")
        assert len(gw.services["s"].requests) == 3


def test_what_is_stale_is_validated() -> None:
    version = ["1"]

    def says(request: ServiceRequest) -> Reply:
        tag = f'"{version[0]}"'
        headers = {**MINUTE, "ETag": tag}
        return (
            Reply(304, headers)
            if request.headers.get("if-none-match") == tag
            else Reply(200, headers, b"v" + tag.encode())
        )

    with gateway(says, "{header: X-Cache}") as gw:
        words = []
        for change, seconds in (("1", 0), ("1", 30), ("1", 60), ("1", 30), ("2", 60), ("2", 0)):
            version[0] = change
            gw.clock.advance(seconds)
            answer = gw.get("/a")
            assert answer.status == 200
            words.append((answer.headers["x-cache"], answer.text))
        assert words == [
            ("MISS", 'v"1"'),
            ("HIT", 'v"1"'),
            ("REVALIDATED", 'v"1"'),
            ("HIT", 'v"1"'),
            ("EXPIRED", 'v"2"'),
            ("HIT", 'v"2"'),
        ]


def test_variants_are_told_apart() -> None:
    def says(request: ServiceRequest) -> Reply:
        return Reply(200, {**MINUTE, "Vary": "Accept-Language"}, request.headers.get("accept-language", "none"))

    with gateway(says) as gw:
        for _ in range(2):
            for language in ("de", "en", "fr"):
                assert gw.get("/a", headers={"Accept-Language": language}).text == language
        assert len(gw.services["s"].requests) == 3


def test_a_url_has_a_bounded_number_of_variants() -> None:
    def says(request: ServiceRequest) -> Reply:
        return Reply(200, {**MINUTE, "Vary": "X-Any"}, request.headers["x-any"])

    with gateway(says) as gw:
        for number in range(40):
            gw.clock.advance(0.1)
            assert gw.get("/a", headers={"X-Any": str(number)}).text == str(number)
        assert told(gw.get("/a", headers={"X-Any": "39"})).startswith("portico; hit")
        assert "fwd=vary-miss" in told(gw.get("/a", headers={"X-Any": "0"}))


def test_what_changes_something_has_go_what_is_kept() -> None:
    service = Counting()
    with gateway(service) as gw:
        assert gw.get("/a").text == "1"
        assert gw.get("/b").text == "2"
        gw.clock.advance(1)
        assert gw.post("/a").text == "3"
        gw.clock.advance(1)
        assert gw.get("/a").text == "4"
        assert gw.get("/b").text == "2"


def test_a_request_that_has_failed_changes_nothing() -> None:
    def says(request: ServiceRequest) -> Reply:
        return Reply(200, MINUTE, b"kept") if request.method == "GET" else Reply(409)

    with gateway(says) as gw:
        gw.get("/a")
        gw.clock.advance(1)
        assert gw.put("/a").status == 409
        assert told(gw.get("/a")).startswith("portico; hit")


@pytest.mark.parametrize("what", ["url", "tag", "everything"])
@pytest.mark.parametrize("at_hand", [True, False])
def test_what_was_purged_is_fetched_anew(what: str, at_hand: bool) -> None:
    service = Counting({**MINUTE, "Cache-Tag": "one, two"})
    with gateway(service, "{}" if at_hand else "{memory: 0}") as gw:
        answer = gw.get("/a?x=1")
        assert "cache-tag" not in answer.headers
        assert gw.get("/a?x=1").text == "1"
        gw.clock.advance(1)
        if what == "url":
            gw.purge(["http://localhost/a"])
        elif what == "tag":
            gw.purge(tags=["two"])
        else:
            gw.purge(everything=True)
        gw.clock.advance(1)
        assert gw.get("/a?x=1").text == "2"
        gw.purge(["http://localhost/other"], tags=["three"])
        assert gw.get("/a?x=1").text == "2"


def test_a_purge_without_a_query_is_for_those_too_that_the_key_has_otherwise() -> None:
    with gateway(Counting(), "{key: {without: [tracking], sorted: true}}") as gw:
        assert gw.get("/a?y=1&x=2&gclid=3").text == "1"
        gw.clock.advance(1)
        gw.purge(["http://localhost/a"])
        gw.clock.advance(1)
        assert gw.get("/a?y=1&x=2&gclid=3").text == "2"


def test_only_if_cached_is_answered_504_by_a_miss() -> None:
    with gateway(Counting()) as gw:
        answer = gw.get("/a", headers={"Cache-Control": "only-if-cached"})
        assert (answer.status, answer.problem) == (504, "not-cached")
        gw.get("/a")
        assert gw.get("/a", headers={"Cache-Control": "only-if-cached"}).text == "1"


def test_a_stale_answer_stands_in_for_a_failure() -> None:
    plays = [
        Reply(200, {"Cache-Control": "max-age=1, stale-if-error=60"}, b"kept"),
        Reply(503),
        Refuse,
        Cut,
        Reply(404),
    ]
    with gateway(plays) as gw:
        gw.get("/a")
        gw.clock.advance(2)
        for status in (503, 502, 502):
            answer = gw.get("/a")
            assert (answer.status, answer.text) == (200, "kept")
            assert told(answer) == f"portico; fwd=stale; fwd-status={status}; detail=stale-if-error"
        assert gw.get("/a").status == 404


def test_what_is_stale_for_too_long_stands_in_for_nothing() -> None:
    plays = [Reply(200, {"Cache-Control": "max-age=1, stale-if-error=60"}, b"kept"), Reply(503)]
    with gateway(plays) as gw:
        gw.get("/a")
        gw.clock.advance(62)
        assert gw.get("/a").status == 503


def test_what_is_stale_is_given_while_it_is_renewed_once() -> None:
    service = Counting({"Cache-Control": "max-age=1, stale-while-revalidate=60"})
    with gateway(service, "{header: X-Cache}") as gw:
        gw.get("/a")
        gw.clock.advance(2)

        async def many() -> list[Answer]:
            return await asyncio.gather(*(gw.ask("GET", "/a") for _ in range(5)))

        assert {(answer.text, answer.headers["x-cache"]) for answer in gw.run(many)} == {("1", "UPDATING")}
        gw.clock.advance(0.1)
        assert len(service.asked) == 2
        assert gw.get("/a").text == "2"


@pytest.mark.parametrize("status", [200, 404, 304])
def test_what_is_not_kept_any_more_is_not_given_until_it_is_renewed(status: int) -> None:
    service = Counting({"Cache-Control": "max-age=1, stale-while-revalidate=3600", "ETag": '"x"'})
    with gateway(service) as gw:
        gw.get("/a")
        gw.clock.advance(2)
        service.headers, service.status = {"Cache-Control": "no-store", "ETag": '"x"'}, status
        assert gw.get("/a").text == "1"
        gw.clock.advance(0.1)
        assert len(service.asked) == 2
        service.status = 200
        assert gw.get("/a").text == "3"


# Those who ask.


def as_user(name: str) -> User:
    return User(name, kind="key-auth")


def test_what_one_user_was_answered_is_for_no_other() -> None:
    service = Counting()
    with gateway(service) as gw:
        assert gw.get("/a", slots={USER: as_user("ada")}).text == "1"
        assert gw.get("/a", slots={USER: as_user("bob")}).text == "2"
        assert gw.get("/a", headers={"Authorization": "x"}).text == "3"
        assert gw.get("/a").text == "4"
        assert gw.get("/a").text == "4"


def test_what_others_may_have_is_for_all_users() -> None:
    with gateway(Counting({"Cache-Control": "public, max-age=60"})) as gw:
        assert gw.get("/a", slots={USER: as_user("ada")}).text == "1"
        assert gw.get("/a", slots={USER: as_user("bob")}).text == "1"


def test_users_may_be_answered_apart() -> None:
    with gateway(Counting(), "{users: apart}") as gw:
        for _ in range(2):
            assert gw.get("/a", slots={USER: as_user("ada")}).text == "1"
            assert gw.get("/a", slots={USER: as_user("bob")}).text == "2"
            assert gw.get("/a").text == "3"
        gw.clock.advance(1)
        assert gw.post("/a", slots={USER: as_user("ada")}).text == "4"
        gw.clock.advance(1)
        assert gw.get("/a", slots={USER: as_user("bob")}).text == "5"


def test_users_of_the_same_name_of_two_issuers_are_answered_apart() -> None:
    ours, theirs = (User("ada", kind="jwt", claims={"iss": f"https://{name}.example"}) for name in ("a", "b"))
    with gateway(Counting(), "{users: apart}") as gw:
        for _ in range(2):
            assert gw.get("/a", slots={USER: ours}).text == "1"
            assert gw.get("/a", slots={USER: theirs}).text == "2"


def test_users_may_be_answered_alike() -> None:
    with gateway(Counting(), "{users: alike}") as gw:
        assert gw.get("/a", slots={USER: as_user("ada")}).text == "1"
        assert gw.get("/a", headers={"Authorization": "x"}).text == "1"


def test_a_cookie_has_nothing_to_do_with_what_is_fresh_by_a_ttl() -> None:
    cookie = {"Cookie": "session=ada"}
    with gateway(Counting({}), "{ttl: 60s}") as gw:
        assert [gw.get("/a", headers=cookie).text for _ in range(2)] == ["1", "2"]
        assert [gw.get("/a").text for _ in range(2)] == ["3", "3"]
        assert gw.get("/a", headers=cookie).text == "4"
    with gateway(Counting({}), "{ttl: 60s, cookies: ignore}") as gw:
        assert [gw.get("/a", headers=cookie).text for _ in range(2)] == ["1", "1"]
    with gateway(Counting()) as gw:
        assert [gw.get("/a", headers=cookie).text for _ in range(2)] == ["1", "1"]


def test_somebody_has_nothing_to_do_with_what_is_fresh_by_a_ttl_and_was_answered_nobody() -> None:
    with gateway(Counting({}), "{ttl: 60s}") as gw:
        assert [gw.get("/a").text for _ in range(2)] == ["1", "1"]
        assert gw.get("/a", slots={USER: as_user("ada")}).text == "2"
        assert gw.get("/a", headers={"Authorization": "x"}).text == "3"
        assert gw.get("/a").text == "1"
    for headers, settings in (({"Cache-Control": "public"}, "{ttl: 60s}"), ({}, "{ttl: 60s, users: alike}")):
        with gateway(Counting(headers), settings) as gw:
            assert gw.get("/a").text == "1"
            assert gw.get("/a", slots={USER: as_user("ada")}).text == "1"
            assert gw.get("/a", headers={"Authorization": "x"}).text == "1"


def test_what_says_no_more_for_how_long_it_is_fresh_has_nothing_to_do_with_cookies() -> None:
    service = Counting({"Cache-Control": "max-age=10", "ETag": '"x"'})
    with gateway(service, "{ttl: 60s}") as gw:
        assert gw.get("/a", headers={"Cookie": "session=ada"}).text == "1"
        gw.clock.advance(11)
        service.headers, service.status = {"Cache-Control": "public", "ETag": '"x"'}, 304
        assert gw.get("/a").text == "1"
        service.status = 200
        assert gw.get("/a").text == "1"
        assert gw.get("/a", headers={"Cookie": "session=ada"}).text == "3"


def test_a_cookie_may_be_kept_without() -> None:
    with gateway(Counting({**MINUTE, "Set-Cookie": "a=b"}), "{set_cookie: strip}") as gw:
        assert gw.get("/a").headers["set-cookie"] == "a=b"
        again = gw.get("/a")
        assert (again.text, "set-cookie" in again.headers) == ("1", False)


# The key.


@pytest.mark.parametrize(
    ("key", "one", "other", "alike"),
    [
        ("{}", "/a?x=1", "/a?x=2", False),
        ("{}", "/a?x=1&y=2", "/a?y=2&x=1", False),
        ("{sorted: true}", "/a?x=1&y=2", "/a?y=2&x=1", True),
        ("{query: []}", "/a?x=1", "/a", True),
        ("{query: [x]}", "/a?x=1&y=2", "/a?x=1", True),
        ("{without: [tracking]}", "/a?utm_source=1&x=1", "/a?x=1&gclid=7", True),
        ("{without: [tracking]}", "/a?x=1", "/a?x=2", False),
        ("{without: [tracking]}", "/a?x=1&utm_source=1;x=2", "/a?x=1", False),
        ("{query: [x]}", "/a?x=1&y=2;x=2", "/a?x=1", False),
        ("{}", "/%61", "/a", True),
        ("{}", "/b/../a", "/a", True),
        ("{}", "/A", "/a", False),
    ],
)
def test_urls_that_are_alike(key: str, one: str, other: str, alike: bool) -> None:
    with gateway(Counting(), f"{{key: {key}}}") as gw:
        assert gw.get(one).text == "1"
        assert gw.get(other).text == ("1" if alike else "2")


def test_headers_and_expressions_may_be_part_of_the_key() -> None:
    with gateway(Counting(), "{key: {headers: [X-Country]}}") as gw:
        for country in ("ch", "de", "ch"):
            gw.get("/a", headers={"X-Country": country})
        assert len(gw.services["s"].requests) == 2
    with gateway(Counting(), """{key: {by: ["cookies['currency']"]}}""") as gw:
        for currency in ("chf", "eur", "chf"):
            gw.get("/a", headers={"Cookie": f"currency={currency}"})
        assert len(gw.services["s"].requests) == 2


@pytest.mark.parametrize("name", ["X-Original-URL", "X-HTTP-Method-Override", "X_Original_Url", "X-Forwarded-Prefix"])
def test_nobody_poisons_it_by_headers_that_mislead_services(name: str) -> None:
    service = Counting()
    with gateway(service) as gw:
        assert told(gw.get("/a", headers={name: "/evil"})) == "portico; fwd=bypass"
        assert gw.get("/a").text == "2"
        assert gw.get("/a", headers={name: "/evil"}).text == "3"
        assert gw.get("/a").text == "2"
    with gateway(service, f"{{key: {{headers: [{name}]}}}}") as gw:
        assert told(gw.get("/a", headers={name: "/b"})) == "portico; fwd=uri-miss; stored"
        assert told(gw.get("/a")) == "portico; fwd=uri-miss; stored"


def test_the_host_with_its_port_is_part_of_the_key() -> None:
    with gateway(Counting()) as gw:
        assert gw.get("/a", host="shop.example").text == "1"
        assert gw.get("/a", host="shop.example:1337").text == "2"
        assert gw.get("/a", host="shop.example:80").text == "1"
        assert gw.get("/a", host="SHOP.example").text == "1"
        assert gw.get("/a", host="other.example").text == "3"


def test_what_one_route_has_answered_is_given_on_no_other() -> None:
    text = """
services: {one: {url: "http://one"}, two: {url: "http://two"}}
policies: [cache]
routes:
  - {path: /**, headers: {X-Version: "2"}, service: two, priority: 1}
  - {path: /**, methods: [GET], service: one}
  - {path: /**, methods: [POST], service: one}
"""
    with Gateway(text=text, services={"one": Counting(), "two": Counting()}) as gw:
        for _ in range(2):
            assert gw.get("/a").text == "1"
            assert gw.get("/a", headers={"X-Version": "2"}).text == "1"
        assert [len(gw.services[name].requests) for name in ("one", "two")] == [1, 1]
        gw.clock.advance(1)
        gw.post("/a")
        gw.clock.advance(1)
        assert gw.get("/a").text == "3"
        assert gw.get("/a", headers={"X-Version": "2"}).text == "2"


def test_a_condition_goes_past_it() -> None:
    with gateway(Counting(), """{bypass: "headers['x-preview'] != ''"}""") as gw:
        assert gw.get("/a").text == "1"
        assert gw.get("/a", headers={"X-Preview": "1"}).text == "2"
        assert gw.get("/a").text == "1"


# Many at once.


def slow(content: bytes = b"x", headers: dict[str, str] | None = None) -> Callable[[ServiceRequest], Reply]:
    async def pieces() -> AsyncIterator[bytes]:
        for at in range(len(content)):
            await asyncio.sleep(0.1)
            yield content[at : at + 1]

    return lambda _: Reply(200, MINUTE if headers is None else headers, pieces())


def together(gw: Gateway, count: int, **options: object) -> list[Answer]:
    async def ask() -> list[Answer]:
        return await asyncio.gather(*(gw.ask("GET", "/a", **options) for _ in range(count)))  # type: ignore[arg-type]

    return gw.run(ask)


def test_many_at_once_have_the_service_asked_once() -> None:
    with gateway(slow(b"hello")) as gw:
        answers = together(gw, 20)
        assert {(answer.status, answer.body, answer.whole) for answer in answers} == {(200, b"hello", True)}
        assert len(gw.services["s"].requests) == 1
        assert sum("collapsed" in told(answer) for answer in answers) == 19
        assert [len(answer.chunks) for answer in answers if "collapsed" not in told(answer)] == [5]


def test_what_is_not_kept_is_fetched_by_each_and_nobody_waits_the_next_time() -> None:
    with gateway(slow(b"hello", {})) as gw:
        before = gw.clock()
        assert len({id(answer) for answer in together(gw, 10)}) == 10
        assert len(gw.services["s"].requests) == 10
        assert gw.clock() - before < 2
        before = gw.clock()
        together(gw, 10)
        assert gw.clock() - before < 0.6


def test_what_is_too_large_passes_to_the_one_who_began_and_the_others_ask_for_themselves() -> None:
    content = b"0123456789" * 3
    with gateway(slow(content), "{max_size: 10B}") as gw:
        answers = together(gw, 3)
        assert {(answer.body, answer.whole) for answer in answers} == {(content, True)}
        assert len(gw.services["s"].requests) == 3
        assert "hit" not in told(gw.get("/a"))
        assert gw._compiled is not None


def test_what_says_that_it_is_too_large_is_not_gathered() -> None:
    with gateway(slow(b"0123456789", {**MINUTE, "Content-Length": "10"}), "{max_size: 9B}") as gw:
        assert gw.get("/a").body == b"0123456789"
        assert told(gw.get("/a")) == "portico; fwd=uri-miss"


def test_who_waits_too_long_asks_for_himself() -> None:
    with gateway(slow(b"0123456789"), "{wait: 500ms}") as gw:
        assert {answer.body for answer in together(gw, 3)} == {b"0123456789"}
        assert len(gw.services["s"].requests) == 3


def test_the_client_who_began_may_leave() -> None:
    with gateway(slow(b"hello")) as gw:

        async def ask() -> list[Answer]:
            return await asyncio.gather(gw.ask("GET", "/a", leaves_after=0.25), gw.ask("GET", "/a"))

        first, second = gw.run(ask)
        assert not first.whole
        assert (second.body, second.whole) == (b"hello", True)
        assert len(gw.services["s"].requests) == 1


def test_a_fetch_that_nobody_waits_for_comes_to_its_end() -> None:
    with gateway(slow(b"hello")) as gw:
        assert not gw.get("/a", leaves_after=0.05).whole
        gw.clock.advance(1)
        assert told(gw.get("/a")).startswith("portico; hit")


def test_a_fetch_that_nobody_waits_for_has_half_a_minute() -> None:
    with gateway(slow(b"x" * 400)) as gw:
        assert not gw.get("/a", leaves_after=0.05).whole
        gw.clock.advance(60)
        assert "uri-miss" in told(gw.get("/a"))


def test_what_breaks_off_is_not_kept() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"hel"
        await asyncio.sleep(0.1)
        raise Cut

    turns = 0

    def says(_: ServiceRequest) -> Reply:
        nonlocal turns
        turns += 1
        return Reply(200, MINUTE, broken()) if turns == 1 else Reply(200, MINUTE, b"hello")

    with gateway(says) as gw:
        first = gw.get("/a")
        assert (first.body, first.whole) == (b"hel", False)
        assert (gw.get("/a").body, gw.get("/a").body) == (b"hello", b"hello")
        assert turns == 2


def test_those_who_wait_for_what_breaks_off_ask_for_themselves() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"hel"
        await asyncio.sleep(0.1)
        raise Cut

    turns = 0

    def says(_: ServiceRequest) -> Reply:
        nonlocal turns
        turns += 1
        return Reply(200, MINUTE, broken()) if turns == 1 else Reply(200, MINUTE, b"hello")

    with gateway(says) as gw:
        answers = together(gw, 4)
        assert sorted((answer.body, answer.whole) for answer in answers) == [(b"hel", False)] + [(b"hello", True)] * 3
        assert turns == 2


def test_a_large_content_is_kept_in_parts() -> None:
    content = bytes(range(256)) * 4096 * 3
    with gateway([Reply(200, MINUTE, content)], "{max_size: 4MiB, memory: 1MiB}") as gw:
        assert gw.get("/a").body == content
        again = gw.get("/a")
        assert told(again).startswith("portico; hit")
        assert again.body == content
        assert len(gw.services["s"].requests) == 1


def test_a_record_of_a_request_tells_of_its_fetch() -> None:
    with gateway(Counting()) as gw:
        first, second = gw.get("/a").exchange, gw.get("/a").exchange
        assert (first.service, first.tries, first.first_byte > 0) == ("s", 1, True)
        assert (second.service, second.tries, second.first_byte) == ("", 0, 0)
        assert first.bytes_out == second.bytes_out == 1


def test_a_head_has_what_is_stale_renewed_as_a_get() -> None:
    service = Counting({"Cache-Control": "max-age=1, stale-while-revalidate=60"})
    with gateway(service) as gw:
        gw.get("/a")
        gw.clock.advance(2)
        assert gw.head("/a", headers={"Cache-Control": "only-if-cached"}).status == 200
        gw.clock.advance(0.1)
        assert "cache-control" not in service.asked[-1].headers
        assert [request.method for request in service.asked] == ["GET", "GET"]
        assert gw.get("/a").text == "2"


def test_what_a_head_tells_is_taken_in() -> None:
    headers = {"Cache-Control": "max-age=10", "ETag": '"1"', "Content-Length": "4"}

    def says(request: ServiceRequest) -> Reply:
        return Reply(200, headers, b"kept")

    with gateway(says) as gw:
        gw.get("/a")
        gw.clock.advance(11)
        assert gw.head("/a").status == 200  # it makes what is kept fresh again
        assert told(gw.get("/a")).startswith("portico; hit")
        headers["ETag"] = '"2"'
        gw.clock.advance(11)
        assert gw.head("/a").headers["etag"] == '"2"'
        assert gw.get("/a").headers["etag"] == '"2"'
        assert [request.method for request in gw.services["s"].requests] == ["GET", "HEAD", "HEAD", "GET"]


def test_a_client_that_wants_it_anew_has_it_as_it_comes_and_the_others_with_it() -> None:
    with gateway(slow(b"hello")) as gw:
        gw.get("/a")
        again = gw.get("/a", headers={"Cache-Control": "no-cache"})
        assert (told(again), again.chunks) == ("portico; fwd=request; stored", [b"h", b"e", b"l", b"l", b"o"])
        assert told(gw.get("/a")).startswith("portico; hit")
        assert len(gw.services["s"].requests) == 2
    with gateway(Counting(), "{clients: ignore}") as gw:
        gw.get("/a")
        assert gw.get("/a", headers={"Cache-Control": "no-cache"}).text == "1"
        assert gw.get("/b", headers={"Cache-Control": "no-store"}).text == "2"
        assert gw.get("/b").text == "3"


def test_who_asks_for_himself_is_given_what_is_stale_where_the_service_fails_too() -> None:
    turns = 0

    async def says(_: ServiceRequest) -> Reply:
        nonlocal turns
        turns += 1
        if turns == 1:
            return Reply(200, {"Cache-Control": "max-age=1, stale-if-error=60"}, b"kept")
        await asyncio.sleep(2)
        return Reply(503)

    with gateway(says, "{wait: 1s}") as gw:
        gw.get("/a")
        gw.clock.advance(2)
        assert {(answer.status, answer.text) for answer in together(gw, 3)} == {(200, "kept")}
        assert turns == 4


def test_a_request_that_has_no_time_left_waits_for_nobody() -> None:
    text = """
services: {s: {url: "http://s", timeout: {total: 30s}}}
policies: [cache, timeout: {after: 1s, total: true}]
routes: [{path: /**, service: s}]
"""

    async def says(_: ServiceRequest) -> Reply:
        await asyncio.sleep(3)
        return Reply(200, MINUTE, b"late")

    with Gateway(text=text, services={"s": says}) as gw:
        assert {answer.status for answer in together(gw, 3)} == {504}
        gw.clock.advance(3)
        assert gw.get("/a").text == "late"  # that nobody waited for it was no reason to throw it away


def test_routes_that_no_file_has_written_keep_nothing() -> None:
    text = """
services: {s: {url: "http://s"}}
policies: [cache: {ttl: {404: 1h}}]
routes: [{path: /a, service: s}]
"""
    with Gateway(text=text, services={"s": Reply(200)}) as gw:
        answer = gw.get("/nowhere")
        assert (answer.status, answer.problem, "cache-status" in answer.headers) == (404, "no-route", False)
        assert "cache-status" not in gw.get("/livez").headers


def test_problems_are_not_kept() -> None:
    with gateway([Refuse, Reply(200)], "{ttl: {502: 1h}}") as gw:
        assert [gw.get("/a").status for _ in range(2)] == [502, 200]


def test_what_is_said_may_be_left_out_or_named_otherwise() -> None:
    with gateway(
        Counting({**MINUTE, "Surrogate-Key": "a", "Cache-Status": "other; hit"}), "{name: off, header: X-C}"
    ) as gw:
        first, second = gw.get("/a"), gw.get("/a")
        assert (first.headers["x-c"], told(first)) == ("MISS", "other; hit")
        assert (second.headers["x-c"], told(second)) == ("HIT", "")
        assert "surrogate-key" not in first.headers
    with gateway(Counting({**MINUTE, "Surrogate-Key": "a"}), "{name: edge, show_tags: true}") as gw:
        first, second = gw.get("/a"), gw.get("/a")
        assert (told(first), told(second)) == ("edge; fwd=uri-miss; stored", "edge; hit; ttl=60")
        assert first.headers["surrogate-key"] == second.headers["surrogate-key"] == "a"


def test_counters() -> None:
    with gateway(Counting({"Cache-Control": "max-age=1, stale-while-revalidate=9"})) as gw:
        gw.get("/a")
        gw.get("/a")
        gw.clock.advance(2)
        gw.get("/a")
        gw.post("/a")
        counted = gw.counters
        assert {name: value for name, value in counted.items() if "cache" in name} == {
            'portico_cache_requests_total{policy="cache",result="hit"}': 1,
            'portico_cache_requests_total{policy="cache",result="miss"}': 1,
            'portico_cache_requests_total{policy="cache",result="pass"}': 1,
            'portico_cache_requests_total{policy="cache",result="stale"}': 1,
            "portico_cache_stored_total": 2,
            "portico_cache_evicted_total": 0,
            "portico_cache_store_failures_total": 0,
        }


def test_a_path_is_looked_for_as_the_service_sees_it() -> None:
    """Nobody is led to what looks like a picture and is somebody's account (web cache deception)."""
    service = Counting({"Cache-Control": "private"})
    with gateway(service, "{ttl: 60s}") as gw:
        for path in ("/account/..%61.png", "/account%2Fx.png", "/account/./a.png", "/account;a.png"):
            assert gw.get(path).text != gw.get(path).text
        assert [request.path for request in service.asked[:8:2]] == [
            "/account/..a.png",
            "/account%2Fx.png",
            "/account/a.png",
            "/account;a.png",
        ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("{max_size: 17MiB}", "max_size"),
        ("{bypass: nonsense}", "bypass"),
        ("{key: {by: ['1 +']}}", "by"),
        ("{ttl: {99: 1m}}", "ttl"),
        ("{ttl: soon}", "'soon' is not a duration"),
        ("{users: all}", "users"),
        ("{header: 'a b'}", "is not a header name"),
    ],
)
def test_bad_configs(settings: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        gateway(Counting(), settings)
