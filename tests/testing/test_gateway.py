"""A gateway in memory does what a real one does; the clock is the test's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from portico.plugin import (
    ConfigError,
    Endpoint,
    Env,
    Exchange,
    Handler,
    Key,
    Outcome,
    Policy,
    PolicyConfig,
    Request,
    Response,
    Stage,
)
from portico.testing import Cut, Gateway, NothingToAnswer, Refuse, Reply, ServiceRequest, Silence
from tests.harness.gateway import portico_here

USER: Key[str] = Key("user")

SHOP = """
listen: 127.0.0.1:8000
trusted_proxies: 10.0.0.0/8
limits: {body: 1KiB}
services:
  orders:
    targets: [10.1.0.1:80, 10.1.0.2:80]
    timeout: {first_byte: 5s, idle: 2s, total: 20s}
  users: http://users:81/v1
routes:
  - {path: /shop/**, service: orders, strip_prefix: /shop}
  - {path: "/users/{id}", service: users}
  - {path: /ping, respond: pong}
"""


class Tag(PolicyConfig):
    word: str = "a"
    """What it says."""


class TagPolicy(Policy[Tag], name="tag", stages=(Stage.TRANSFORM, Stage.OBSERVE)):
    """Knows a user, counts, and says its word."""

    def setup(self, env: Env) -> None:
        self.clock = env.clock
        self.ended: list[tuple[str, Outcome | None]] = []
        self.closed = 0

    def request(self, request: Request) -> Response | None:
        assert request.exchange is not None
        request.exchange.on_end(self._ended)
        request.headers.set(b"X-User", (request.get(USER) or "nobody").encode())
        return None

    def response(self, request: Request, response: Response) -> Response:
        response.headers.add(b"X-Tag", self.config.word.encode())
        response.headers.set(b"X-At", str(self.clock()).encode())
        return response

    def close(self) -> None:
        self.closed += 1

    def _ended(self, exchange: Exchange) -> None:
        self.ended.append((exchange.route, exchange.outcome))


class Nap(Endpoint[Tag], name="nap"):
    async def handle(self, request: Request) -> Response:
        await asyncio.sleep(90)
        return Response(200, body=self.config.word.encode())


def test_a_configuration_answers_as_its_file_says(tmp_path: Path) -> None:
    file = tmp_path / "portico.yaml"
    file.write_text(SHOP)
    with Gateway(file, services={"orders": Reply(200, {"X-A": "1"}, json={"id": 7})}) as gateway:
        answer = gateway.get("/shop/orders/7?full=1", headers={"X-Forwarded-For": "192.0.2.1"}, client="10.0.0.1")
        assert (answer.status, answer.json(), answer.headers["x-a"]) == (200, {"id": 7}, "1")
        assert (answer.problem, answer.whole, answer.outcome) == ("", True, Outcome.COMPLETE)
        (request,) = gateway.services["orders"].requests
        assert (request.method, request.path, request.query) == ("GET", "/orders/7", "full=1")
        assert request.headers["X-Forwarded-For"] == "192.0.2.1, 10.0.0.1"
        assert (request.address, request.headers["host"]) == ("10.1.0.1:80", "10.1.0.1")
        assert (answer.route, answer.exchange.service, answer.exchange.tries) == ("shop", "orders", 1)
        assert gateway.get("/ping").text == "pong"
        missed = gateway.get("/nothing")
        assert (missed.status, missed.problem, missed.headers["content-type"]) == (
            404,
            "no-route",
            "application/problem+json",
        )
        assert gateway.request("TRACE", "/ping").problem == "method-not-allowed"
        assert gateway.get("/%zz").problem == "malformed-request"
        assert gateway.get("/" + "x" * 9000).status == 414
        assert gateway.get("/health").json()["status"] == "healthy"


def test_what_a_broken_file_is_told_is_what_check_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text in (SHOP.replace("respond: pong", "respnd: pong"), SHOP.replace("strip_prefix: /shop", "rewrite: x")):
        Path("portico.yaml").write_text(text)
        told = portico_here("check", "portico.yaml").err
        with pytest.raises(ConfigError) as raised, Gateway("portico.yaml"):
            pass
        assert f"{raised.value}\n" == told
    with Gateway(text=SHOP) as gateway:
        Path("portico.yaml").write_text(SHOP)
        assert [str(each) for each in gateway.findings] == portico_here("check", "portico.yaml").err.splitlines()


def test_services_that_are_not_there_or_have_no_answer_are_told() -> None:
    with pytest.raises(ConfigError, match=r"has no service 'order'; did you mean 'orders'\?"):
        Gateway(text=SHOP, services={"order": Reply()})
    with pytest.raises(ConfigError, match="has no service 'x'; it has orders and users"):
        Gateway(text=SHOP, services={"x": Reply()})
    with Gateway(text=SHOP) as gateway:
        with pytest.raises(NothingToAnswer, match=r"GET /v1/users/1 was sent to the service 'users', .*Reply\(200\)"):
            gateway.get("/users/1")
        gateway.services["users"].plays = lambda request: Reply(200, body=request.path)
        assert gateway.get("/users/1").text == "/v1/users/1"
    with pytest.raises(TypeError, match="takes one of"):
        Gateway()
    with pytest.raises(RuntimeError, match="with Gateway"):
        gateway.get("/")


def test_what_a_service_does_instead_of_answering() -> None:
    with Gateway(text=SHOP) as gateway:
        orders = gateway.services["orders"]
        orders.plays = [Refuse, Reply(200)]
        answer = gateway.get("/shop/a")
        assert (answer.status, answer.exchange.tries, answer.exchange.target) == (200, 1, "10.1.0.2:80")
        orders.plays = Refuse
        assert gateway.get("/shop/a").problem == "service-unreachable"
        assert gateway.get("/health").json()["services"]["orders"] == "unhealthy"
        began = gateway.clock()
        orders.plays = Silence
        assert gateway.get("/shop/a").problem == "service-timeout"
        assert gateway.clock() - began == pytest.approx(5)

        def breaks(request: ServiceRequest) -> Reply:
            raise Cut

        orders.plays = breaks
        assert gateway.get("/shop/a").problem == "service-closed-connection"

        async def slow(request: ServiceRequest) -> Reply:
            await asyncio.sleep(4)
            return Reply(200, body="late")

        orders.plays = slow
        assert gateway.get("/shop/a").text == "late"

        def mistaken(request: ServiceRequest) -> Reply:
            assert request.path == "/b"
            return Reply()

        orders.plays = mistaken
        with pytest.raises(AssertionError, match="/b"):
            gateway.get("/shop/a")


def test_bodies_stream_and_break_off() -> None:
    def broken() -> Iterator[bytes]:
        yield b"ab"
        raise Cut

    async def stalling() -> AsyncIterator[bytes]:
        yield b"ab"
        await asyncio.sleep(3)
        yield b"cd"

    with Gateway(text=SHOP) as gateway:
        orders = gateway.services["orders"]
        orders.plays = Reply(200, body=[b"ab", b"", b"cd"], trailers={"X-T": "1"}, interim=[(103, {"Link": "<a>"})])
        answer = gateway.post("/shop/a", body=[b"x", b"yz"], trailers={"X-U": "2"})
        assert (answer.chunks, answer.whole, answer.trailers["x-t"]) == ([b"ab", b"cd"], True, "1")
        assert answer.interim[0][0] == 103
        assert (orders.requests[0].body, orders.requests[0].trailers["x-u"]) == (b"xyz", "2")
        assert orders.requests[0].headers["transfer-encoding"] == "chunked"
        for body in (broken(), stalling()):
            orders.plays = Reply(200, body=body)
            answer = gateway.get("/shop/a")
            assert (answer.status, answer.body, answer.whole, answer.outcome) == (200, b"ab", False, Outcome.TRUNCATED)
        assert gateway.post("/shop/a", body="x" * 1025).problem == "content-too-large"
        assert gateway.post("/shop/a", body=[b"x" * 1000] * 2).problem == "content-too-large"
        assert gateway.post("/shop/a", json={"a": 1}).status == 200
        assert orders.requests[-1].json() == {"a": 1}
        assert orders.requests[-1].headers["content-type"] == "application/json"


def test_policies_by_themselves() -> None:
    outer, inner = TagPolicy(Tag(word="outer")), TagPolicy(Tag(word="inner"))
    with Gateway(policies=[outer, inner], path="/users/{id}") as gateway:
        answer = gateway.get("/users/7", slots={USER: "ada"})
        assert answer.headers.all("X-Tag") == ["inner", "outer"]
        assert gateway.services["service"].requests[0].headers["X-User"] == "ada"
        assert answer.headers["X-At"] == "1000.0"
        gateway.clock.advance(60)
        assert gateway.get("/users/7").headers["X-At"] == "1060.0"
        assert outer.ended == inner.ended == [("tested", Outcome.COMPLETE)] * 2
        assert gateway.get("/other").problem == "no-route"
    assert (outer.closed, inner.closed) == (1, 1)
    with Gateway(policies=[outer], services={"a": Refuse, "b": Reply()}) as gateway:
        assert gateway.get("/").status == 502
    with pytest.raises(ConfigError, match="names no stage"):
        Gateway(policies=[Policy(PolicyConfig())])


def test_an_endpoint_by_itself_and_classes_for_a_configuration() -> None:
    with Gateway(endpoint=Nap(Tag())) as gateway:
        answer = gateway.get("/")
        assert (answer.text, gateway.clock()) == ("a", 1090.0)
        assert answer.exchange.ended - answer.exchange.started == 90
        left = gateway.get("/", leaves_after=1)
        assert (left.status, left.outcome, left.exchange.status) == (0, Outcome.CLIENT_LEFT, 499)
    text = "policies: [tag: {word: x}]\nroutes: [{path: /, nap: b}]\n"
    with Gateway(text=text, classes=[TagPolicy, Nap]) as gateway:
        assert gateway.get("/").headers["x-tag"] == "x"
    with pytest.raises(ConfigError, match="tag"):
        Gateway(text=text)


def test_several_requests_at_once() -> None:
    with Gateway(endpoint=Nap(Tag())) as gateway:

        async def both() -> list[int]:
            answers = await asyncio.gather(gateway.ask("GET", "/a"), gateway.ask("GET", "/b"))
            return [answer.status for answer in answers]

        assert gateway.run(both) == [200, 200]
        assert gateway.clock() == 1090.0


def test_a_policy_that_raises_and_one_that_never_ends(caplog: pytest.LogCaptureFixture) -> None:
    class Raises(Policy[Tag], name="raises", stages=(Stage.LIMIT,)):
        def request(self, request: Request) -> Response | None:
            raise LookupError(self.config.word)

    class Waits(Policy[Tag], name="waits", stages=(Stage.LIMIT,)):
        async def handle(self, request: Request, next: Handler) -> Response:  # noqa: A002 - the field's word
            await asyncio.Event().wait()
            return await next(request)

    with caplog.at_level(logging.ERROR), Gateway(policies=[Raises(Tag())]) as gateway:
        assert gateway.get("/").problem == "internal-error"
    assert "LookupError" in caplog.text
    with Gateway(policies=[Waits(Tag())]) as gateway:
        with pytest.raises(AssertionError, match="had no end"):
            gateway.get("/")
        assert gateway.get("/", leaves_after=1).outcome is Outcome.CLIENT_LEFT


def test_a_gateway_is_not_for_use_within_a_loop() -> None:
    with Gateway(text=SHOP) as gateway:

        async def within() -> None:
            with pytest.raises(RuntimeError, match="loop of its own"):
                gateway.get("/ping")
            with pytest.raises(RuntimeError, match="loop of its own"), Gateway(text=SHOP):
                pass

        gateway.run(within)
        assert gateway.get("/ping").status == 200


def test_time_does_not_go_back() -> None:
    with Gateway(text=SHOP) as gateway, pytest.raises(ValueError, match="back"):
        gateway.clock.advance(-1)


def test_years_pass_at_once_too() -> None:
    with Gateway(text=SHOP) as gateway:
        gateway.clock.advance(3 * 365 * 86400)
        assert gateway.clock() == pytest.approx(1000 + 3 * 365 * 86400)
        assert gateway.get("/nowhere").status == 404


def test_threads_are_waited_for_in_their_own_time() -> None:
    class Threaded(Policy[Tag], name="threaded", stages=(Stage.LIMIT,)):
        async def handle(self, request: Request, next: Handler) -> Response:  # noqa: A002 - the field's word
            async with asyncio.timeout(1):
                said = await asyncio.to_thread(lambda: b"".join([b"x"] * 100_000)[:1])
            request.headers.set(b"X-Said", said)
            return await next(request)

    with Gateway(policies=[Threaded(Tag())]) as gateway:
        assert gateway.get("/").status == 200
        assert (gateway.clock(), gateway.services["service"].requests[0].headers["x-said"]) == (1000.0, "x")


def test_listeners_hosts_and_heads() -> None:
    text = """
listen: [{address: ":80", redirect_https: 443}]
routes: [{path: /, hosts: shop.example, respond: hi}]
"""
    with Gateway(text=text) as gateway:
        answer = gateway.get("/", host="shop.example")
        assert (answer.status, answer.headers["location"]) == (308, "https://shop.example/")
    with Gateway(text=SHOP, services={"orders": Reply(200, {"X-A": "1"}, "abc")}) as gateway:
        for answer in (
            gateway.head("/shop/a"),
            gateway.request("HEAD", "/shop/a", headers=[("Accept", "a"), ("Accept", "b")]),
        ):
            assert (answer.status, answer.body, answer.headers["x-a"]) == (200, b"", "1")
        assert gateway.services["orders"].requests[1].headers.all("accept") == ["a", "b"]
        assert {gateway.put("/ping").status, gateway.patch("/ping").status, gateway.delete("/ping").status} == {200}
        assert gateway.options("*").status == 404


def test_a_client_may_have_shown_a_certificate() -> None:
    class Shown(Endpoint[Tag], name="shown"):
        async def handle(self, request: Request) -> Response:
            assert request.client is not None
            tls = request.client.encryption
            shown = "none" if tls is None or tls.certificate is None else tls.certificate.decode()
            return Response(200, None, f"{request.client.scheme} {shown}".encode())

    with Gateway(endpoint=Shown(Tag())) as gateway:
        assert gateway.get("/").text == "http none"
        assert gateway.get("/", certificate=b"der").text == "https der"
