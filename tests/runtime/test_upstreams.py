"""Splits as a whole gateway has them."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from portico.config.source import TextSource
from portico.errors import ConfigError
from portico.runtime.loading import read_in
from portico.testing import Gateway, Refuse, Reply, Silence

SERVICES = """
services:
  orders:
    split:
      to:
        - {service: v1, weight: 95}
        - {service: v2, weight: 5, when: 'headers["x-canary"] == "1"'}
      by: {cookie: visitor}
  v1: {url: "http://v1.test/one"}
  v2: {url: "http://v2.test/two"}
"""
ROUTES = "routes: [{path: /**, service: orders}]"
PLAYS = {"v1": Reply(200, body="v1"), "v2": Reply(200, body="v2")}


@contextmanager
def gateway_of(text: str, **plays: Reply) -> Iterator[Gateway]:
    with Gateway(text=text, services=plays or PLAYS) as gateway:
        yield gateway


def test_a_canary_is_reached_by_a_header() -> None:
    with gateway_of(SERVICES + ROUTES) as gateway:
        assert [gateway.get("/a", headers={"X-Canary": "1"}).text for _ in range(20)] == ["v2"] * 20
        assert gateway.services["v2"].requests[0].target == "/two/a"
        assert not gateway.findings  # what a split leads to is used


def test_a_visitor_stays_where_they_are() -> None:
    with gateway_of(SERVICES + ROUTES) as gateway:
        seen = Counter(
            tuple(gateway.get("/", headers={"Cookie": f"visitor={number}"}).text for _ in range(3))
            for number in range(200)
        )
        assert set(seen) == {("v1",) * 3, ("v2",) * 3}
        assert seen[("v2",) * 3] < 30


def test_paths_change_on_the_way_to_every_part_and_back() -> None:
    moved = {name: Reply(302, {"Location": f"http://{name}.test/x/{name}"}) for name in ("v1", "v2")}
    services = SERVICES.replace("/one", "/x").replace("/two", "/x")
    routes = "routes: [{path: /shop/**, service: orders, strip_prefix: /shop}]"
    with gateway_of(services + routes, **moved) as gateway:
        for headers, part in (({"X-Canary": "1"}, "v2"), ({"Cookie": "visitor=2"}, "v1")):
            answer = gateway.get("http://a.test/shop/7", headers=headers)
            assert gateway.services[part].requests[-1].target == "/x/7"
            assert answer.headers["location"] == f"http://a.test/shop/{part}"


def test_a_split_of_splits_and_services_that_come_later() -> None:
    text = """
services:
  all: {split: [{service: mobile, weight: 0, when: 'host.startsWith("m.")'}, web]}
  mobile: {split: [v1]}
  web: {split: [v2]}
  v1: http://v1.test
  v2: http://v2.test
routes: [{path: /**, service: all}]
"""
    with gateway_of(text) as gateway:
        assert [gateway.get(f"http://{host}/").text for host in ("m.a.test", "a.test")] == ["v1", "v2"]


def test_a_condition_may_speak_of_captures_that_some_routes_do_not_have() -> None:
    services = """
services:
  orders: {split: [v1, {service: v2, weight: 0, when: 'captures["id"] == "7"'}]}
  v1: http://v1.test
  v2: http://v2.test
routes:
  - {path: "/a/{id}", service: orders}
  - {path: /b, service: orders}
"""
    with gateway_of(services) as gateway:
        assert [gateway.get(path).text for path in ("/a/7", "/a/8", "/b")] == ["v2", "v1", "v1"]


@pytest.mark.parametrize(
    ("condition", "message", "hint"),
    [
        ("headers['a'] = 1", "when: column 14", ""),
        ("heders['a'] == '1'", "there is no 'heders'", "did you mean 'headers'?"),
        ("path", "a condition is true or false", ""),
    ],
)
def test_a_wrong_condition_is_refused_at_its_place(condition: str, message: str, hint: str) -> None:
    text = f"""
services:
  orders:
    split:
      - {{service: v1}}
      - {{service: v2, when: "{condition}"}}
  v1: http://v1.test
  v2: http://v2.test
{ROUTES}
"""
    with pytest.raises(ConfigError) as caught, gateway_of(text):
        pass
    assert ":6:29" in str(caught.value)
    assert message in str(caught.value)
    assert hint in str(caught.value)


def test_where_a_condition_is_written_is_not_for_the_file_to_say_and_makes_no_difference() -> None:
    with pytest.raises(ConfigError, match="origin"), gateway_of(SERVICES.replace("weight: 5", "origin: a") + ROUTES):
        pass
    services = {}
    for text in (SERVICES + ROUTES, "\n\n" + SERVICES + ROUTES):
        loaded = read_in(TextSource(text))
        assert loaded.config is not None
        packed = pickle.dumps(loaded.config.services["orders"])
        services[text] = pickle.loads(packed)
    one, two = services.values()
    assert one == two
    assert one.split.to[1].origin.endswith(":7:42")
    assert two.split.to[1].origin.endswith(":9:42")


def test_a_test_plays_the_parts_and_not_the_split() -> None:
    with pytest.raises(ConfigError, match="'orders' is divided among v1 and v2"):
        Gateway(text=SERVICES + ROUTES, services={"orders": Reply()})


def test_a_split_is_as_well_as_its_worst_part() -> None:
    with Gateway(text=SERVICES + ROUTES, services={"v1": Refuse, "v2": Reply()}) as gateway:
        states = gateway.get("/health").json()["services"]
        assert states == {"orders": "unhealthy", "v1": "unhealthy", "v2": "healthy"}


MIRRORED = """
services:
  orders: {split: [v1], mirror: {service: shadow, body: 1KiB}}
  shadow: {split: [v2]}
  v1: http://v1.test
  v2: http://v2.test
routes: [{path: /**, service: orders, strip_prefix: /a}]
"""


def test_requests_are_copied_as_they_would_be_sent() -> None:
    with gateway_of(MIRRORED) as gateway:
        assert gateway.post("/a/b?c=d", body=b"whole", headers={"X-A": "b"}).text == "v1"
        assert gateway.post("/a/b", body=[b"in ", b"pieces"]).text == "v1"
        assert gateway.post("/a/b", body=b"a" * 1025).text == "v1"
        gateway.clock.advance(1)
        first, second = gateway.services["v2"].requests
        assert (first.target, first.body, first.headers["x-a"]) == ("/b?c=d", b"whole", "b")
        assert first.headers["x-forwarded-for"] == "127.0.0.1"
        assert second.body == b"in pieces"
        assert len(gateway.services["v1"].requests) == 3


def test_a_mirror_that_is_silent_or_down_costs_the_client_nothing() -> None:
    for trouble in (Silence, Refuse):
        with Gateway(text=MIRRORED, services={"v1": Reply(), "v2": trouble}) as gateway:
            begin = gateway.clock()
            assert [gateway.get("/").status for _ in range(5)] == [200] * 5
            assert gateway.clock() == begin
