"""A cache of a few lines, made of these decisions, before a service whose content changes."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from portico.plugin import Headers, Request, caching
from tests.harness.caching import T0, asking, at, lines

RULES = caching.CachingRules()


@dataclass
class Service:
    """Answers with its version, of which the entity tag is made; every change makes another."""

    said: str
    version: int = 0
    changed: list[float] = field(default_factory=lambda: [T0])
    asked: int = 0

    def change(self, now: float) -> None:
        self.version += 1
        self.changed.append(now)

    def respond(self, headers: Headers, now: float) -> tuple[int, Headers, bytes]:
        self.asked += 1
        tag = b'"%d"' % self.version
        answer = lines(f"Date: {at(now - T0)} | {self.said}")
        answer.set(b"ETag", tag)
        if headers.get(b"if-none-match") == tag:
            return 304, answer, b""
        return 200, answer, b"%d" % self.version


@dataclass
class Cache:
    """Keeps what it may, one answer for each variant."""

    service: Service
    key: caching.CacheKey = field(default_factory=caching.CacheKey)
    kept: dict[str, dict[bytes, tuple[caching.Stored, bytes]]] = field(default_factory=dict)

    def ask(self, request: Request, now: float) -> tuple[int, Headers, bytes, str]:
        key = self.key.of(request, "http")
        variants = self.kept.setdefault(key, {})
        decision = caching.decide(request, [stored for stored, _ in variants.values()], now, RULES)
        stored, status = decision.stored, decision.status.text("c").decode()
        if decision.verdict is caching.Verdict.REFUSE:
            return 504, Headers(), b"", status
        if decision.verdict is caching.Verdict.PASS:
            code, headers, content = self.service.respond(request.headers, now)
            for place in caching.invalidated(request, code, headers, "http"):
                self.kept.pop(self.key.of_place(request, "http", *place), None)
            return code, headers, content, status
        if decision.gives:
            assert stored is not None
            return self._given(request, stored, variants[stored.variant][1], now, status)
        sent = caching.to_fetch(request.headers) if stored is None else caching.to_validate(request.headers, stored)
        code, headers, content = self.service.respond(sent, now)
        made: caching.Stored | caching.NotStored
        if code == 304 and stored is not None:
            (change,) = caching.freshened(request, headers, [stored], now, now, RULES)
            content, made = variants[stored.variant][1], change.kept
        else:
            made = caching.store(request, code, headers, now, now, RULES)
        if not isinstance(made, caching.Stored):
            return code, headers, content, status
        variants[made.variant] = made, content
        return self._given(request, made, content, now, status)

    def _given(
        self, request: Request, stored: caching.Stored, content: bytes, now: float, status: str
    ) -> tuple[int, Headers, bytes, str]:
        given = caching.answer(request, stored, len(content), now)
        return given.status, given.headers, content[given.begin : given.end], status


def test_a_day_in_the_life_of_an_answer() -> None:
    service = Service("Cache-Control: max-age=60")
    cache = Cache(service)
    assert cache.ask(asking(), T0)[2:] == (b"0", "c; fwd=uri-miss")
    assert cache.ask(asking(), T0 + 30)[2:] == (b"0", "c; hit; ttl=30")
    assert cache.ask(asking(method="HEAD"), T0 + 30)[0] == 200
    assert cache.ask(asking('If-None-Match: "0"'), T0 + 30)[0] == 304
    assert service.asked == 1
    assert cache.ask(asking(), T0 + 60)[2:] == (b"0", "c; fwd=stale")  # 304
    assert cache.ask(asking(), T0 + 119)[2:] == (b"0", "c; hit; ttl=1")
    service.change(T0 + 120)
    assert cache.ask(asking(), T0 + 119)[2:] == (b"0", "c; hit; ttl=1")
    assert cache.ask(asking("Cache-Control: no-cache"), T0 + 121)[2:] == (b"1", "c; fwd=request")
    assert cache.ask(asking(method="POST"), T0 + 122)[3] == "c; fwd=method"
    assert cache.ask(asking(), T0 + 123)[2:] == (b"1", "c; fwd=uri-miss")
    assert cache.ask(asking("Cache-Control: only-if-cached"), T0 + 999)[0] == 504


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["", "Cache-Control: max-age=3", "Cache-Control: no-cache", "Accept: a", 'If-None-Match: "1"'])
        | st.just("change"),
        st.integers(min_value=0, max_value=9),
    ),
    max_size=25,
)


LIFETIMES = {
    "max-age=5": 5,
    "max-age=5, must-revalidate": 5,
    "max-age=5, stale-while-revalidate=3": 8,
    "s-maxage=7, max-age=1": 7,
    "no-cache": 0,
    "no-store": 0,
    "max-age=0": 0,
}


@given(st.sampled_from(list(LIFETIMES)), st.sampled_from(["", " | Vary: Accept"]), STEPS)
def test_nobody_is_given_what_was_replaced_longer_ago_than_it_lives(
    said: str, vary: str, steps: list[tuple[str, int]]
) -> None:
    lifetime = LIFETIMES[said]
    service = Service(f"Cache-Control: {said}{vary}")
    cache, now = Cache(service), T0
    for step, seconds in steps:
        now += seconds
        if step == "change":
            service.change(now)
            continue
        status, headers, content, told = cache.ask(asking(step), now)
        tag = headers.get(b"etag")
        assert tag is not None
        version = int(tag.strip(b'"'))
        assert content == (b"%d" % version if status == 200 else b"")
        assert status == 200 or (status == 304 and step == f"If-None-Match: {tag.decode()}")
        current = version == service.version
        if not current:
            replaced = service.changed[version + 1]
            assert "hit" in told
            assert "no-cache" not in step
            assert now - replaced < (min(lifetime, 3) + 1 if "max-age=3" in step else lifetime)
