from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from portico.http.body import Body
from portico.plugin import BodyTooLarge, ConfigError, Refusal, Request, RequestTimeout, StoreUnavailable, User
from portico.policies.hmac_auth import HmacAuth
from portico.state.memory import MemorySpace, MemoryStore
from portico.testing import Gateway, Reply
from tests.harness.policy import Pieces, rest
from tests.harness.signing import (
    ALGORITHMS,
    COVERED,
    GOOD,
    LINES,
    NOW,
    SECRET,
    URL,
    Fields,
    SigningEnv,
    by_hand,
    found,
    input_of,
    made,
    request_of,
    signed,
    signer_of,
)
from tests.harness.tokens import key, public

BODY = b'{"hello": "world"}'
CLIENT = User("k", kind="hmac-auth")


def sha256(content: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"


def sha512(content: bytes) -> str:
    return f"sha-512=:{base64.b64encode(hashlib.sha512(content).digest()).decode()}:"


def reason(policy_settings: dict[str, Any], request: Request) -> str:
    """Return why a signature is refused, as the log is told."""
    refusal = found(made(**policy_settings), request)
    assert isinstance(refusal, Refusal), refusal
    assert (refusal.status, refusal.type) == (401, "invalid-signature")
    return refusal.reason


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("body", [b"", BODY])
def test_every_algorithm(algorithm: str, body: bytes) -> None:
    policy = made(keys={"k": signer_of(algorithm)})
    method = "POST" if body else "GET"
    fields = signed(method, algorithm=algorithm, body=body or None)
    assert found(policy, request_of(fields, method, body=body)) == CLIENT
    assert (
        found(
            policy,
            request_of(signed(method, algorithm=algorithm, body=body or None, include_alg=False), method, body=body),
        )
        == CLIENT
    )
    other = request_of(fields, method, URL + "&c=1", body)
    assert found(policy, other).reason == "it is wrong"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_key_is_for_its_own_algorithm_alone(algorithm: str) -> None:
    for other in ALGORITHMS:
        if other == algorithm:
            continue
        for said in (True, False):
            request = request_of(signed(algorithm=algorithm, include_alg=said))
            why = reason({"keys": {"k": signer_of(other)}}, request)
            assert why == ("its algorithm is not that of its key" if said else "it is wrong")


def test_a_public_key_is_no_secret() -> None:
    """Nobody signs by HMAC with a key that everybody knows."""
    pem = key("RSA").as_pem(private=False).decode()  # type: ignore[union-attr]
    fields = by_hand(f'{COVERED};created={NOW};keyid="k"', *LINES, secret=pem)
    assert reason({"keys": {"k": signer_of("rsa-pss-sha512")}}, request_of(fields)) == "it is wrong"


TAKEN: list[tuple[dict[str, Any], dict[str, Any], Fields]] = [
    ({}, {"created": NOW - 359}, []),
    ({}, {"created": NOW + 60}, []),
    ({"max_age": 5, "leeway": 0}, {"created": NOW - 4}, []),
    ({}, {"expires": NOW - 59}, []),
    ({"expires": "required"}, {"expires": NOW + 60}, []),
    ({"tag": "hooks"}, {"tag": "hooks"}, []),
    ({}, {"tag": "hooks"}, []),
    ({"label": "mine"}, {"label": "mine"}, []),
    ({"nonce": "required"}, {"nonce": "1"}, []),
    ({}, {"nonce": "n" * 256}, []),
    ({}, {"components": ["@method", "@authority", "@path", "@query"]}, []),
    ({}, {"components": ["@method", "@authority", "@request-target"]}, []),
    ({"components": ["@path", "@authority", "@scheme"]}, {"components": ["@target-uri"]}, []),
    ({"components": "@query"}, {"components": ["@request-target"]}, []),
    ({"components": ["@method", "Date"]}, {"components": ["date", "@method", "@scheme"]}, [("Date", "today")]),
    ({"components": "priority"}, {"components": ['"priority";sf']}, [("Priority", "u=3,  i")]),
    ({"components": "x"}, {"components": ['"x";bs']}, [("X", "1")]),
    ({}, {"components": ["@method", "@target-uri", '"x";key="a"']}, [("X", "a=(1  2);b, c")]),
    ({}, {"components": ["@method", "@target-uri", '"@query-param";name="b"']}, []),
    ({"content": False}, {}, []),
]


@pytest.mark.parametrize(("configured", "said", "headers"), TAKEN)
def test_what_is_taken(configured: dict[str, Any], said: dict[str, Any], headers: Fields) -> None:
    assert found(made(**configured), request_of(signed("GET", URL, *headers, **said))) == CLIENT


EXPIRED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"created": NOW - 360}),
    ({"leeway": 0}, {"created": NOW - 300}),
    ({"max_age": 5, "leeway": 1}, {"created": NOW - 6}),
    ({}, {"created": 0}),
    ({}, {"created": NOW - 100, "expires": NOW - 60}),
    ({"leeway": 0}, {"created": NOW - 100, "expires": NOW}),
]


@pytest.mark.parametrize(("configured", "said"), EXPIRED)
def test_what_is_too_old(configured: dict[str, Any], said: dict[str, Any]) -> None:
    refusal = found(made(**configured), request_of(signed(**said)))
    assert (refusal.status, refusal.type, refusal.title) == (401, "signature-expired", "Signature expired")


def test_two_lines_are_one_field() -> None:
    one, other = signed(label="one"), signed(label="other", created=NOW - 9999)
    assert found(made(), request_of(other + one)) == CLIENT
    assert found(made(label="one"), request_of(other + one)) == CLIENT
    assert found(made(label="other"), request_of(other + one)).type == "signature-expired"
    headers = [("X", " a "), ("X", "b")]
    lines = (*LINES, '"x": a, b', '"x";bs: :YQ==:, :Yg==:')
    fields = by_hand(input_of(GOOD, '("@method" "@target-uri" "x" "x";bs)'), *lines)
    assert found(made(), request_of(fields + headers)) == CLIENT
    assert found(made(), request_of(fields + headers[::-1])).reason == "it is wrong"


def test_one_that_is_wrong_is_the_last_that_is_looked_at() -> None:
    wrong = by_hand(f'{COVERED};created={NOW};keyid="k"', *LINES[::-1], label="wrong")
    good = signed(label="good")
    assert found(made(), request_of(wrong + good)).reason == "it is wrong"
    assert found(made(), request_of(good + wrong)) == CLIENT
    assert found(made(label="good"), request_of(wrong + good)) == CLIENT


def test_those_that_are_for_others_are_passed_over() -> None:
    theirs = signed(tag="other", key_id="of-somebody-else", label="them")
    assert found(made(tag="ours"), request_of(theirs)) is None
    assert found(made(label="us"), request_of(theirs)) is None
    assert found(made(tag="ours"), request_of(theirs + signed(tag="ours"))) == CLIENT
    assert found(made(), request_of(theirs + signed(tag="ours"))) == CLIENT
    assert found(made(), request_of(theirs)).reason == "its key is not known"
    odd = by_hand(f"{COVERED}{GOOD};tag=ours", *LINES)
    assert found(made(tag="ours"), request_of(odd)).reason == "its tag is no text, is empty, or too long"


def test_what_must_be_said() -> None:
    assert reason({"nonce": "required"}, request_of(signed())) == "it has no nonce"
    assert reason({"expires": "required"}, request_of(signed())) == "it does not say when it expires"
    assert reason({"components": ["@method", "date"]}, request_of(signed())) == "it does not cover date"


def test_clocks() -> None:
    env = SigningEnv()
    policy = made(env)
    request = request_of(signed())
    for now, good in ((NOW - 61, False), (NOW - 60, True), (NOW + 359, True), (NOW + 360, False)):
        env.now = now
        assert isinstance(found(policy, request), User) is good


# Content.


def content(digest: str | None, *, covered: str = '"content-digest"', length: str = "") -> Fields:
    fields = [("Content-Digest", digest)] if digest is not None else []
    lines = ('"@method": POST', f'"@target-uri": {URL}', f"{covered}: {length or digest}")
    return fields + by_hand(input_of(GOOD, f'("@method" "@target-uri" {covered})'), *lines)


DIGESTS: list[tuple[str, bool]] = [
    (sha256(BODY), True),
    (sha512(BODY), True),
    (f"{sha256(BODY)}, {sha512(BODY)}", True),
    (f"md5=:AAAA:, {sha512(BODY)}", True),
    (sha256(BODY + b"\n"), False),
    (sha512(b""), False),
    (f"{sha256(BODY)}, {sha512(b'')}", False),
    (f"{sha256(b'')}, {sha512(BODY)}", False),
    (sha256(BODY).replace("sha-256", "sha-512"), False),
    (sha256(BODY)[:-5] + ":", False),
    ("sha-256=::", False),
    ("sha-256", False),
    ('sha-256="AAAA"', False),
    ("sha-256=(:AAAA:)", False),
    ("md5=:AAAA:", False),
    ("sha-1=:AAAA:", False),
    ("", False),
    ("=", False),
    (f"{sha256(b'')}, {sha256(BODY)}", False),
]


@pytest.mark.parametrize(("digest", "good"), DIGESTS)
@pytest.mark.parametrize("streamed", [False, True])
def test_content_is_what_was_signed(digest: str, good: bool, streamed: bool) -> None:
    pieces = Pieces([BODY[:5], BODY[5:]])
    body = Body.stream(pieces, None) if streamed else Body(BODY)
    request = request_of(content(digest), "POST", body=body)
    verdict = found(made(), request)
    if good:
        assert verdict == CLIENT
        assert request.body.whole == BODY
    else:
        assert (verdict.status, verdict.type) == (401, "content-digest-mismatch")


def test_content_has_to_be_covered() -> None:
    for body in (Body(BODY), Body.stream(Pieces([BODY]), None), Body.stream(Pieces([]), None)):
        assert reason({}, request_of(signed("POST"), "POST", body=body)) == "it does not cover content-digest"
        assert not body.touched
    member = content(sha256(BODY), covered='"content-digest";key="sha-256"', length=sha256(BODY)[8:])
    assert reason({}, request_of(member, "POST", body=BODY)) == "it does not cover content-digest"
    other = [("Content_Digest", sha256(BODY)), *content(None, covered='"content_digest"', length=sha256(BODY))]
    assert reason({}, request_of(other, "POST", body=BODY)) == "it does not cover content-digest"


def test_content_that_is_not_covered_passes_where_that_is_said() -> None:
    body = Body.stream(Pieces([BODY]), None)
    policy = made(content="off")
    assert found(policy, request_of(signed("POST"), "POST", body=body)) == CLIENT
    assert not body.touched
    assert found(policy, request_of(content(sha256(b"")), "POST", body=BODY)) == CLIENT


def test_no_content_may_be_covered_as_well() -> None:
    assert found(made(components=["@method", "content-digest"]), request_of(content(sha256(b"")), "POST")) == CLIENT
    verdict = found(made(), request_of(content(sha256(BODY)), "POST"))
    assert verdict.type == "content-digest-mismatch"


def test_nothing_is_read_before_the_signature_was_right() -> None:
    pieces = Pieces([BODY])
    fields = [
        (name, value.replace("=:", "=:AAAA", 1) if name == "Signature" else value)
        for name, value in content(sha256(BODY))
    ]
    body = Body.stream(pieces, None)
    assert reason({}, request_of(fields, "POST", body=body)) == "it is wrong"
    assert not body.touched
    assert pieces.left == [BODY]


def test_content_is_held_up_to_a_limit() -> None:
    large = b"x" * 300_000
    fields = content(sha256(large))
    assert found(made(max_body=300_000), request_of(fields, "POST", body=large)) == CLIENT
    for body in (Body(large), Body.stream(Pieces([large[:9], large[9:]]), None), Body.stream(Pieces([large]), 300_000)):
        with pytest.raises(BodyTooLarge):
            found(made(max_body=299_999), request_of(fields, "POST", body=body))


def test_trailers_do_not_stand_for_what_was_signed() -> None:
    fields = by_hand(input_of(GOOD, '("@method" "@target-uri" "x-role")'), '"@method": POST', LINES[1], '"x-role": a')
    trailers = [(b"X_Role", b"admin"), (b"x-role", b"admin"), (b"X-Sum", b"1")]
    body = Body.stream(Pieces([BODY], trailers), None)
    assert found(made(content=False), request_of([*fields, ("X-Role", "a")], "POST", body=body)) == CLIENT
    assert body.trailers() == [(b"X-Sum", b"1")]
    body = Body.stream(Pieces([BODY], [(b"Content-Digest", b"x"), (b"X-Sum", b"1")]), None)
    assert found(made(), request_of(content(sha256(BODY)), "POST", body=body)) == CLIENT
    assert (body.whole, body.trailers()) == (BODY, [(b"X-Sum", b"1")])


@pytest.mark.parametrize(("covered", "other"), [("x-role", "X_Role"), ("x_role", "X-Role")])
def test_other_spellings_do_not_stand_for_what_was_signed(covered: str, other: str) -> None:
    said = input_of(GOOD, f'("@method" "@target-uri" "{covered}")')
    fields = by_hand(said, *LINES, f'"{covered}": a')
    request = request_of([*fields, (other, "admin"), (covered, "a"), ("X_Sum", "1")])
    assert found(made(), request) == CLIENT
    assert request.headers.get(covered.encode()) == b"a"
    assert request.headers.get(other.lower().encode()) is None
    assert request.headers.get(b"x_sum") == b"1"


# Nonces.


def test_a_nonce_is_taken_once() -> None:
    env = SigningEnv()
    policy = made(env)
    request = request_of(signed(nonce="1"))
    assert found(policy, request) == CLIENT
    replayed = found(policy, request)
    assert (replayed.status, replayed.type, replayed.title) == (401, "signature-replayed", "Signature already used")
    assert found(policy, request_of(signed(nonce="1", created=NOW - 1))) == replayed
    assert found(policy, request_of(signed(nonce="2"))) == CLIENT
    assert found(made(env, realm="other"), request) == replayed  # after a reload as well
    assert found(made(env, keys={"k": {"secret": SECRET + "2"}}), request).reason == "it is wrong"
    other = by_hand(f'{COVERED}{GOOD};nonce="1"', *LINES, secret=SECRET[::-1])
    assert (
        found(made(env, keys={"k": {"secret": SECRET[::-1]}}), request_of(other)) == CLIENT
    )  # the id is another key's
    for now, type_ in ((NOW + 359, "signature-replayed"), (NOW + 360, "signature-expired")):
        env.now = now
        assert found(policy, request).type == type_


def test_only_what_was_right_uses_a_nonce_up() -> None:
    policy = made(nonce="required")
    fields = [
        ("Content-Digest", sha256(BODY)),
        *by_hand(
            input_of(GOOD + ';nonce="1"', '("@method" "@target-uri" "content-digest")'),
            '"@method": POST',
            LINES[1],
            f'"content-digest": {sha256(BODY)}',
        ),
    ]
    assert found(policy, request_of(fields, "POST", URL + "&c", BODY)).reason == "it is wrong"
    assert found(policy, request_of(fields, "POST", body=BODY + b" ")).type == "content-digest-mismatch"
    assert found(policy, request_of(fields, "POST", body=BODY)) == CLIENT
    assert found(policy, request_of(fields, "POST", body=BODY)).type == "signature-replayed"


def test_nonces_are_forgotten_when_their_signatures_are_over() -> None:
    env = SigningEnv()
    policy = made(env, max_nonces=2, keys={"k": {"secret": SECRET}, "l": {"secret": SECRET}})
    assert found(policy, request_of(signed(nonce="1", expires=NOW + 10))) == CLIENT
    assert found(policy, request_of(signed(nonce="2"))) == CLIENT
    full = found(policy, request_of(signed(nonce="3")))
    assert (full.status, full.type) == (503, "authentication-busy")
    assert found(policy, request_of(signed(nonce="1", expires=NOW + 10))).type == "signature-replayed"
    assert found(policy, request_of(signed(nonce="3", key_id="l"))) == User("l", kind="hmac-auth")
    assert found(policy, request_of(signed())) == CLIENT  # which needs no nonce
    env.now = NOW + 70
    assert found(policy, request_of(signed(nonce="3"))) == CLIENT


def test_all_workers_together_take_a_nonce_once_where_it_is_required() -> None:
    one, other = SigningEnv(), SigningEnv()
    one.store = other.store = MemoryStore(one.wall)
    request = request_of(signed(nonce="1"))
    for settings in ({"nonce": "required"}, {"shared": True}):
        assert found(made(one, **settings), request) == CLIENT
        assert found(made(other, **settings), request).type == "signature-replayed"
        assert found(made(other, **settings), request).type == "signature-replayed"
        assert found(made(other, **settings, keys={"l": {"secret": SECRET}}), request_of(signed(nonce="1", key_id="l")))
        request = request_of(signed(nonce="2"))
    for settings in ({}, {"nonce": "required", "shared": False}):
        request = request_of(signed(nonce=str(settings)))
        assert [found(made(env, **settings), request) for env in (one, other)] == [CLIENT] * 2
    body = request_of(signed("POST", body=BODY, nonce="3"), "POST", body=BODY)
    assert found(made(one, shared=True), body) == CLIENT
    assert found(made(other, shared=True), body).type == "signature-replayed"


def test_a_nonce_is_known_to_all_for_as_long_as_its_signature_is_good_anywhere() -> None:
    one, other = SigningEnv(), SigningEnv()
    other.store = one.store = MemoryStore(one.wall)
    request = request_of(signed(nonce="1"))
    assert found(made(one, shared=True), request) == CLIENT
    one.now = NOW + 419.0  # by its own clock this worker has 59 seconds less
    other.now = NOW + 359.0
    assert found(made(other, shared=True), request).type == "signature-replayed"


def test_what_the_store_keeps_of_nonces_tells_neither_them_nor_the_key() -> None:
    env = SigningEnv()
    env.store = MemoryStore(env.wall)
    assert found(made(env, shared=True), request_of(signed(nonce="a-nonce"))) == CLIENT
    (kept,) = env.store.volatile._records
    assert b"a-nonce" not in kept
    assert SECRET.encode() not in kept
    assert hashlib.blake2b(b"a-nonce", digest_size=20).digest() not in kept


@pytest.mark.parametrize("on_failure", ["deny", "local"])
def test_while_the_store_does_not_answer(
    on_failure: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def down(*_: object) -> None:
        raise StoreUnavailable("it is down")

    env = SigningEnv()
    policy = made(env, nonce="required", on_store_failure=on_failure)
    request = request_of(signed(nonce="1"))
    with monkeypatch.context() as patch:
        patch.setattr(MemorySpace, "claim", down)
        for _ in range(2):
            answer = found(policy, request)
            if on_failure == "deny":
                assert (answer.status, answer.type, answer.retry_after) == (503, "authentication-unavailable", 1)
        if on_failure == "local":
            assert answer.type == "signature-replayed"
    assert "nonces cannot be looked up: it is down" in caplog.text
    after = found(policy, request)
    assert after == CLIENT if on_failure == "deny" else after.type == "signature-replayed"


def test_nonces_may_be_of_no_interest() -> None:
    policy = made(nonce="off")
    request = request_of(signed(nonce="1"))
    assert [found(policy, request) for _ in range(3)] == [CLIENT] * 3


# The whole of it.

FILE = f"""
services: {{s: "http://s"}}
routes:
  - path: /**
    service: s
    policies:
      - hmac-auth:
          keys:
            k: {{secret: "{SECRET}", user: billing, roles: [machine]}}
          realm: shop
      - authorize: machine
      - user-headers
"""


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with Gateway(text=FILE, services={"s": Reply()}) as gateway:
        yield gateway


def test_through_a_gateway(gateway: Gateway) -> None:
    now = gateway.clock.wall()
    for target in ("/a", "/a?b", "/a//b/../%7ec?d=%zz", "/a?", "/?a=b?c"):
        url = f"http://localhost{target}"
        answer = gateway.get(
            target, headers=by_hand(f'{COVERED};created={int(now)};keyid="k"', LINES[0], f'"@target-uri": {url}')
        )
        assert answer.status == 200, target
        seen = gateway.services["s"].requests[-1]
        assert (seen.headers["x-user-id"], seen.headers["x-user-roles"]) == ("billing", "machine")
    body = gateway.post("/a", headers=signed("POST", "http://localhost/a", body=BODY, created=now), body=BODY)
    assert body.status == 200
    assert gateway.services["s"].requests[-1].body == BODY


@pytest.mark.parametrize("components", [["@method", "@target-uri"], ["@method", "@authority", "@request-target"]])
def test_a_proxy_is_believed_where_it_is_trusted(components: list[str]) -> None:
    said = [("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "Shop.example:443"), ("X-Forwarded-For", "192.0.2.1")]
    for trusted, status in (("[127.0.0.1]", 200), ("[10.0.0.1]", 401)):
        with Gateway(text=f"trusted_proxies: {trusted}\n{FILE}", services={"s": Reply()}) as gateway:
            created = gateway.clock.wall()
            fields = signed("GET", "https://Shop.example:443/a", components=components, created=created)
            assert gateway.get("/a", headers=[*fields, *said], host="10.1.2.3:8000").status == status


def test_what_a_refusal_says(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    now = gateway.clock.wall()
    answer = gateway.get("/a")
    assert (answer.status, answer.problem) == (401, "authentication-required")
    assert answer.headers["www-authenticate"] == 'Signature realm="shop"'
    assert answer.headers["accept-signature"] == 'sig=("@method" "@target-uri");created'
    answer = gateway.post("/a", body="x")
    assert answer.headers["accept-signature"] == 'sig=("@method" "@target-uri" "content-digest");created'
    with caplog.at_level(logging.WARNING, "portico.security"):
        answer = gateway.get("/b", headers=signed("GET", "http://localhost/a", created=now, nonce="the-nonce"))
    assert (answer.status, answer.problem) == (401, "invalid-signature")
    assert answer.headers["accept-signature"] == 'sig=("@method" "@target-uri");created'
    assert "refused hmac-auth: it is wrong, client 127.0.0.1, route all" in caplog.text
    for hidden in (SECRET, "the-nonce"):
        assert hidden not in caplog.text + answer.text


def test_the_invitation_is_what_would_be_taken() -> None:
    policy = made(components=["Date", "@method"], tag="hooks", label="h", expires="required")
    invitation = policy.challenge_headers(request_of())
    assert invitation.pairs[0][1] == b'h=("@method" "date");created;expires;tag="hooks"'


def test_too_much_content_is_no_refusal(gateway: Gateway) -> None:
    """What was read is gone, so nobody else may let the request pass."""
    large = b"x" * (1024 * 1024 + 1)
    fields = signed("POST", "http://localhost/a", body=large, created=gateway.clock.wall())
    assert gateway.post("/a", headers=fields, body=large).problem == "content-too-large"
    assert not gateway.services["s"].requests


def test_content_that_does_not_come(gateway: Gateway) -> None:
    async def never() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.sleep(10_000)

    fields = signed("POST", "http://localhost/a", body=b"xy", created=gateway.clock.wall())
    before = gateway.clock()
    answer = gateway.post("/a", headers=fields, body=never())
    assert (answer.status, answer.problem) == (408, "request-timeout")
    assert gateway.clock() - before == pytest.approx(30, abs=1)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"keys": {}}, "at least 1"),
    ({"keys": {"": {"secret": SECRET}}}, "cannot be the id of a key"),
    ({"keys": {"ä": {"secret": SECRET}}}, "cannot be the id of a key"),
    ({"keys": {"k" * 257: {"secret": SECRET}}}, "cannot be the id of a key"),
    ({"keys": {"k": {}}}, "there is no key"),
    ({"keys": {"k": {"secret": SECRET, "jwk": public(key("Ed25519"))}}}, "the key is in secret and in jwk"),
    ({"keys": {"k": {"secret": "base64:!"}}}, "what follows base64: is not base64"),
    ({"keys": {"k": {"jwk": {"kty": "oct", "k": "AAAA"}}}}, "jwk is a secret or a private key"),
    ({"keys": {"k": {"jwk": key("Ed25519").as_dict(private=True)}}}, "jwk is a secret or a private key"),
    ({"keys": {"k": {"secret": SECRET, "algorithm": "none"}}}, "Input should be"),
    ({"keys": {"k": {"secret": SECRET, "user": "a\nb"}}}, "cannot be the name of a user"),
    ({"keys": {"k": {"secret": SECRET, "user": " "}}}, "cannot be the name of a user"),
    ({"keys": {"k": {"public_key_file": "/nowhere.pem"}}}, "cannot read"),
    ({"components": []}, "at least 1"),
    ({"components": ["@status"]}, "cannot be asked for"),
    ({"components": ["@query-param"]}, "cannot be asked for"),
    ({"components": ["Signature"]}, "no signature covers signature"),
    ({"components": ["a b"]}, "match pattern"),
    ({"components": ["content-digest"], "content": False}, "content-digest is to be covered"),
    ({"nonce": "never"}, "Input should be"),
    ({"max_age": 0}, "greater than 0"),
    ({"max_nonces": 0}, "greater than or equal to 1"),
    ({"nonce": "off", "shared": True}, "leave one of them out"),
    ({"on_store_failure": "allow"}, "Input should be 'deny' or 'local'"),
    ({"label": "A"}, "match pattern"),
    ({"tag": "ä"}, "match pattern"),
    ({"realm": 'a"b'}, "match pattern"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        HmacAuth.model_validate({"keys": {"k": {"secret": SECRET}}} | settings)
    assert any(message in error["msg"] for error in caught.value.errors()), caught.value
    assert SECRET not in str([error["msg"] for error in caught.value.errors()])


UNUSABLE: list[tuple[dict[str, Any], str]] = [
    ({"secret": "short"}, "a secret has at least 32 bytes, and this one has 5"),
    ({"secret": "base64:AAAA"}, "a secret has at least 32 bytes, and this one has 3"),
    ({"secret": SECRET, "algorithm": "ed25519"}, "the key is not for ed25519; it is for hmac-sha256"),
    ({"jwk": public(key("Ed25519")), "algorithm": "hmac-sha256"}, "the key is not for hmac-sha256; it is for ed25519"),
    ({"jwk": public(key("P-521"))}, "no algorithm for signatures of requests is one of this key"),
    ({"jwk": public(key("RSA"), alg="PS256")}, "no algorithm for signatures of requests is one of this key"),
    ({"jwk": public(key("RSA-1024"))}, "a key of RSA has from 2048 to 8192 bits"),
    ({"jwk": {"kty": "none"}}, "it is of no known kind"),
]


@pytest.mark.parametrize(("signer", "message"), UNUSABLE)
def test_keys_that_cannot_be_used(signer: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        made(keys={"partner": signer})
    assert "hmac-auth: the key partner: " in str(caught.value)
    assert message in str(caught.value)


def test_keys_in_files(tmp_path: Any) -> None:
    file = tmp_path / "key.pem"
    for kind, algorithm in (("P-256", "ecdsa-p256-sha256"), ("RSA", "rsa-pss-sha512")):
        file.write_bytes(key(kind).as_pem(private=False))  # type: ignore[union-attr]
        policy = made(keys={"k": {"public_key_file": str(file)}})
        assert found(policy, request_of(signed(algorithm=algorithm))) == CLIENT
    file.write_bytes(key("P-256").as_pem(private=True))  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match="this is a private key"):
        made(keys={"k": {"public_key_file": str(file)}})


def test_a_jwk_may_say_what_it_is_for() -> None:
    jwk = public(key("RSA"), alg="RS256")
    assert found(made(keys={"k": {"jwk": jwk}}), request_of(signed(algorithm="rsa-v1_5-sha256"))) == CLIENT
    jwk = public(key("Ed25519"), alg="Ed25519")
    assert found(made(keys={"k": {"jwk": jwk}}), request_of(signed(algorithm="ed25519"))) == CLIENT


def test_requests_are_left_as_they_came() -> None:
    request = request_of([*signed(), ("X", "1"), ("X", "2")])
    before = request.headers.copy()
    policy = made()
    assert found(policy, request) == CLIENT
    policy.conceal(request)
    assert request.headers == before


def test_a_body_that_breaks_off_is_nobodys_fault_here() -> None:
    body = Body.stream(Pieces([b"x", RequestTimeout("slow")]), None)
    with pytest.raises(RequestTimeout):
        found(made(), request_of(content(sha256(BODY)), "POST", body=body))


def test_what_was_held_streams_to_the_service_whole() -> None:
    body = Body.stream(Pieces([BODY[:5], BODY[5:]]), len(BODY))
    request = request_of(content(sha256(BODY)), "POST", body=body)
    assert found(made(), request) == CLIENT
    assert asyncio.run(rest(request.body)) == BODY
