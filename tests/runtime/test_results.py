"""A request's record says what came of it at limits, caches and the like, as the metrics of these count it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable

import pytest

from portico.plugin import StoreUnavailable
from portico.state.memory import MemorySpace
from portico.testing import Answer, Gateway, Reply, ServiceRequest

ROUTE = "services: {s: http://s}\nroutes: [{path: /**, service: s}]\n"
STALE = {"Cache-Control": "max-age=1, stale-while-revalidate=5, stale-if-error=60"}
KEY = {"Idempotency-Key": '"k"'}


def gateway(policies: str, *plays: object) -> Gateway:
    service = list(plays) if plays else (lambda _: Reply(200, {"Cache-Control": "max-age=60"}, b"x"))
    return Gateway(text=f"policies: [{policies}]\n{ROUTE}", services={"s": service})  # type: ignore[dict-item]


def results(answer: Answer) -> list[tuple[str, str, str]]:
    return [(each.kind.value, each.policy, each.result) for each in answer.exchange.results]


def told(answer: Answer) -> list[str]:
    return [*(result for _, _, result in results(answer)), answer.exchange.stopped_by]


def are_counted(gateway: Gateway, answers: Iterable[Answer]) -> bool:
    """Return whether the metrics say the same as the records."""
    counted = {
        tuple(name.split('"')[1::2]): count
        for name, count in gateway.counters.items()
        if name.partition("{")[0].endswith("_requests_total") and count
    }
    return counted == dict(Counter((policy, result) for answer in answers for _, policy, result in results(answer)))


def test_limits_tell_what_they_have_decided() -> None:
    policies = "rate-limit: 2/1h, {quota: {requests: 1/day, dry_run: true}, name: trial}, concurrency-limit: 5"
    with gateway(policies) as gw:
        answers = [gw.get("/") for _ in range(3)]
        assert results(answers[0]) == [
            ("limit", "rate-limit", "allowed"),
            ("limit", "trial", "allowed"),
            ("limit", "concurrency-limit", "allowed"),
        ]
        assert told(answers[1]) == ["allowed", "dry-run", "allowed", ""]
        assert told(answers[2]) == ["limited", "rate-limit"]
        assert are_counted(gw, answers)


def test_who_waits_for_a_turn_is_told_of_once() -> None:
    with gateway("rate-limit: {limits: [{requests: 1, window: 1s, algorithm: gcra, burst: 2, delay: true}]}") as gw:

        async def many() -> list[Answer]:
            return await asyncio.gather(*(gw.ask("GET", "/") for _ in range(3)))

        answers = gw.run(many)
        assert sorted(told(answer) for answer in answers) == [
            ["allowed", ""],
            ["allowed", ""],
            ["limited", "rate-limit"],
        ]
        assert are_counted(gw, answers)


def test_who_is_one_too_many_at_once_is_told_of() -> None:
    async def slow(_: ServiceRequest) -> Reply:
        await asyncio.sleep(1)
        return Reply(200)

    for dry_run, more in (("false", ["limited", "concurrency-limit"]), ("true", ["dry-run", ""])):
        with gateway(f"concurrency-limit: {{requests: 1, dry_run: {dry_run}}}", *[slow] * 2) as gw:

            async def both(gw: Gateway = gw) -> list[Answer]:
                return await asyncio.gather(*(gw.ask("GET", "/") for _ in range(2)))

            answers = gw.run(both)
            assert sorted(map(told, answers)) == sorted([["allowed", ""], more])
            assert are_counted(gw, answers)


@pytest.mark.parametrize("limit", ["rate-limit: {limits: 5/1h,", "concurrency-limit: {requests: 5,"])
@pytest.mark.parametrize("on_failure", ["allow", "deny"])
def test_what_a_store_could_not_say_is_unchecked(limit: str, on_failure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    is_down = True
    for name in ("hold", "take"):
        works = getattr(MemorySpace, name)

        def asked(*given: object, works: Callable[..., object] = works) -> object:
            if is_down:
                raise StoreUnavailable("it is down")
            return works(*given)

        monkeypatch.setattr(MemorySpace, name, asked)
    with gateway(f"{limit} on_store_failure: {on_failure}}}") as gw:
        assert told(gw.get("/")) == ["unchecked", "" if on_failure == "allow" else limit.partition(":")[0]]
        is_down = False
        assert told(gw.get("/")) == ["allowed", ""]


@pytest.mark.parametrize(
    ("limit", "on_failure"),
    [
        *(("rate-limit: {limits: 2/1h,", how) for how in ("allow", "deny")),
        *(("concurrency-limit: {requests: 2,", how) for how in ("allow", "deny", "local")),
    ],
)
def test_metrics_and_records_agree_while_the_store_is_down(
    limit: str, on_failure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: object) -> None:
        raise StoreUnavailable("it is down")

    for name in ("hold", "take"):
        monkeypatch.setattr(MemorySpace, name, down)

    async def slow(_: ServiceRequest) -> Reply:
        await asyncio.sleep(1)
        return Reply(200)

    with gateway(f"{limit} on_store_failure: {on_failure}}}") as gw:
        gw.services["s"].plays = slow

        async def some() -> list[Answer]:
            return await asyncio.gather(*(gw.ask("GET", "/") for _ in range(4)))

        answers = gw.run(some)
        assert {answer.status for answer in answers} == {"allow": {200}, "deny": {503}, "local": {200, 429}}[on_failure]
        assert are_counted(gw, answers)


def test_who_was_counted_is_so_though_the_store_did_not_answer_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[bytes] = []
    works = MemorySpace.hold

    def hold(space: MemorySpace, key: bytes, *given: object) -> object:
        keys.append(key)
        if key != keys[0]:
            raise StoreUnavailable("it is down")
        return works(space, key, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(MemorySpace, "hold", hold)
    with gateway("concurrency-limit: {requests: 1, wait: 5s, key: \"headers['x-key']\"}") as gw:
        others: list[Answer] = []

        async def slow(request: ServiceRequest) -> Reply:
            if request.headers["x-key"] == "a":
                await asyncio.sleep(1)
                others.append(await gw.ask("GET", "/", headers={"X-Key": "b"}))
            return Reply(200)

        gw.services["s"].plays = slow

        async def both() -> list[Answer]:
            return await asyncio.gather(*(gw.ask("GET", "/", headers={"X-Key": "a"}) for _ in range(2)))

        answers = gw.run(both)
        assert [told(answer) for answer in answers] == [["allowed", ""]] * 2
        assert [told(answer) for answer in others] == [["unchecked", ""]] * 2
        assert are_counted(gw, [*answers, *others])


def test_a_cache_tells_what_it_did_and_that_it_has_answered() -> None:
    plays = [Reply(200, STALE, b"1"), Reply(200, STALE, b"2"), Reply(503), Reply(200, {}, b"3")]
    with gateway("{cache: {}, name: near}", *plays) as gw:
        answers = [gw.get("/a"), gw.get("/a"), gw.get("/a", headers={"Range": "bytes=0-0"})]
        gw.clock.advance(2)
        answers.append(gw.get("/a"))  # while it is renewed
        gw.clock.advance(30)
        answers.append(gw.get("/a"))  # instead of the 503
        answers.append(gw.post("/a"))
        answers.append(gw.get("/b", headers={"Cache-Control": "only-if-cached"}))
        assert [told(answer) for answer in answers] == [
            ["miss", ""],
            ["hit", "near"],
            ["hit", "near"],
            ["stale", "near"],
            ["stale", "near"],
            ["pass", ""],
            ["miss", "near"],
        ]
        assert results(answers[0]) == [("cache", "near", "miss")]
        assert [answer.status for answer in answers] == [200, 200, 206, 200, 200, 200, 504]
        assert [answer.exchange.tries for answer in answers] == [1, 0, 0, 0, 1, 1, 0]
        assert are_counted(gw, answers)


async def failing(_: ServiceRequest) -> Reply:
    await asyncio.sleep(1)
    return Reply(503)


def test_all_who_are_given_what_is_stale_instead_of_an_error_are_told_of() -> None:
    with gateway("cache", Reply(200, STALE, b"x"), failing) as gw:
        first = gw.get("/")
        gw.clock.advance(30)

        async def both() -> list[Answer]:
            return await asyncio.gather(*(gw.ask("GET", "/") for _ in range(2)))

        answers = gw.run(both)
        assert [told(answer) for answer in answers] == [["stale", "cache"], ["stale", "cache"]]
        assert sorted(answer.exchange.tries for answer in answers) == [0, 1]
        assert are_counted(gw, [first, *answers])


def test_what_is_stale_stands_in_where_nobody_shares_the_fetch() -> None:
    plays = [Reply(200, STALE, b"x"), Reply(501), Reply(503)]  # after what is not kept, each asks for itself
    with gateway("cache", *plays) as gw:
        answers = [gw.get("/")]
        gw.clock.advance(30)
        answers += [gw.get("/"), gw.get("/")]
        assert [told(answer) for answer in answers] == [["miss", ""], ["miss", ""], ["stale", "cache"]]
        assert are_counted(gw, answers)


def test_what_a_route_answers_itself_is_not_told_to_be_of_the_cache() -> None:
    """Nothing has to be tried at a target for that."""
    answer = "{status: 200, headers: {Cache-Control: max-age=60}, body: x}"
    with Gateway(text=f"routes: [{{path: /a, respond: {answer}, policies: [cache]}}]\n") as gw:
        asked = {"If-None-Match": '"another"'}  # is answered when all of it has come, as it may be by a 304
        assert [told(gw.get("/a", headers=asked)) for _ in range(2)] == [["miss", ""], ["hit", "cache"]]


def test_of_two_caches_the_inner_one_is_told_of_last() -> None:
    with gateway("{cache: {}, name: outer}, {cache: {}, name: inner}", Reply(200), Reply(200)) as gw:
        for _ in range(2):  # the second asks for itself, as the first answer was not kept
            assert [policy for _, policy, _ in results(gw.get("/"))] == ["outer", "inner"]


def test_who_shares_a_fetch_is_answered_by_the_cache() -> None:
    async def slow(_: ServiceRequest) -> Reply:
        await asyncio.sleep(1)
        return Reply(200, {"Cache-Control": "max-age=60"}, b"x")

    with gateway("cache", slow) as gw:

        async def both() -> list[Answer]:
            return await asyncio.gather(*(gw.ask("GET", "/") for _ in range(2)))

        answers = sorted(gw.run(both), key=lambda answer: answer.exchange.tries)
        assert [told(answer) for answer in answers] == [["miss", "cache"], ["miss", ""]]
        (step,) = answers[0].exchange.steps or ()
        assert (step.name, step.what) == ("cache", "waited for another request's fetch")
        assert step.ended - step.began == pytest.approx(1.0, abs=0.1)
        (one,) = answers[1].exchange.all_tries()
        assert (one.service, one.outcome) == ("s", "answered")


def test_all_tries_of_a_fetch_are_told() -> None:
    text = (
        "services: {s: {url: http://s, retry: {attempts: 2}}}\npolicies: [cache]\nroutes: [{path: /**, service: s}]\n"
    )
    with Gateway(text=text, services={"s": [Reply(503), Reply(200, STALE, b"x")]}) as gw:
        tries = gw.get("/").exchange.all_tries()
        assert [each.outcome for each in tries] == ["status-503", "answered"]


def test_a_key_that_comes_again_is_answered_by_its_policy() -> None:
    with gateway("{idempotency-key: {required: true}, name: once}, headers: {}") as gw:
        answers = [gw.post("/", headers=KEY), gw.post("/", headers=KEY), gw.post("/other", headers=KEY), gw.post("/")]
        assert [told(answer) for answer in answers] == [
            ["first", ""],
            ["replayed", "once"],
            ["reused", "once"],
            ["missing", "once"],
        ]
        assert results(answers[0]) == [("idempotency", "once", "first")]
        assert [step.what for step in answers[1].exchange.steps or ()] == ["asked the store for its key"]
        assert are_counted(gw, answers)


@pytest.mark.parametrize(
    ("status", "settles", "what"),
    [
        (200, True, "had the store keep what became of it"),
        (503, True, "had the store free its key"),
        (200, False, "found its key to be another's"),
    ],
)
def test_what_the_store_was_told_of_a_key_is_a_step_where_it_took_time(
    status: int, settles: bool, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle, release = MemorySpace.settle, MemorySpace.release
    takes = 1.0

    async def settled(space: MemorySpace, *given: object) -> bool:
        await asyncio.sleep(takes)
        return settles and await settle(space, *given)  # type: ignore[arg-type]

    async def released(space: MemorySpace, *given: object) -> bool:
        await asyncio.sleep(takes)
        return await release(space, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(MemorySpace, "settle", settled)
    monkeypatch.setattr(MemorySpace, "release", released)
    with gateway("{idempotency-key: {}, name: once}", Reply(status), Reply(status)) as gw:
        steps = gw.post("/", headers=KEY).exchange.steps or ()
        assert [(step.name, step.what) for step in steps] == [("once", "asked the store for its key"), ("once", what)]
        assert steps[1].ended - steps[1].began >= 1.0
        takes = 0.0
        steps = gw.post("/", headers={"Idempotency-Key": '"another"'}).exchange.steps or ()
        assert [step.what for step in steps] == ["asked the store for its key"]


def test_a_service_that_says_itself_that_it_replays_was_asked_all_the_same() -> None:
    with gateway("idempotency-key", Reply(200, {"Idempotency-Replayed": "true"})) as gw:
        answers = [gw.post("/", headers=KEY) for _ in range(2)]
        assert [told(answer) for answer in answers] == [["first", ""], ["replayed", "idempotency-key"]]
        assert are_counted(gw, answers)


def test_what_a_route_says_itself_to_be_a_replay_is_none() -> None:
    answer = "{status: 200, headers: {Idempotency-Replayed: 'true'}}"
    text = f"routes: [{{path: /, methods: [POST], respond: {answer}, policies: [idempotency-key]}}]\n"
    with Gateway(text=text) as gw:
        assert told(gw.post("/", headers=KEY)) == ["first", ""]


def test_what_is_further_in_is_told_of_too() -> None:
    with gateway("{idempotency-key: {}, stage: limit}, rate-limit: 1/1h, cache") as gw:
        first, second = gw.post("/", headers=KEY), gw.post("/", headers={"Idempotency-Key": '"other"'})
        assert told(first) == ["allowed", "pass", "first", ""]
        assert told(second) == ["limited", "first", "rate-limit"]


def test_who_waits_for_the_first_with_their_key_is_told_for_what() -> None:
    async def slow(_: ServiceRequest) -> Reply:
        await asyncio.sleep(1)
        return Reply(200)

    with gateway("idempotency-key: {wait: 5s}", slow) as gw:

        async def both() -> list[Answer]:
            return await asyncio.gather(*(gw.ask("POST", "/", headers=KEY) for _ in range(2)))

        answers = {told(answer)[0]: answer for answer in gw.run(both)}
        assert set(answers) == {"first", "replayed"}
        (step,) = answers["replayed"].exchange.steps or ()
        assert step.what == "waited for the first request with its key"
        assert step.ended - step.began >= 1.0
