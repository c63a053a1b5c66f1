from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from portico.config.consumers import Consumer, Consumers
from portico.http.forwarded import Encryption
from portico.plugin import USER, Body, Client, Request, User
from portico.policies import mtls
from portico.policies.mtls import MOST_REMEMBERED, Known, Memory, Mtls, MtlsPolicy
from portico.testing import Gateway, Reply
from portico.x509.certificate import LONGEST, read_certificate
from tests.harness.client_certificates import NOW, Names, Signer, dns, email, uri
from tests.harness.policies import Asked, request_of
from tests.harness.policy import Pieces, TestEnv

SIGNER = Signer()
ADA = SIGNER.der((("CN", "ada"), ("OU", "dev"), ("OU", "ops"), ("O", "Acme"), ("C", "CH")))
DAY = timedelta(days=1)
MISSING, NOT_ALLOWED, EXPIRED, INVALID = (
    "authentication-required",
    "client-certificate-not-allowed",
    "client-certificate-expired",
    "invalid-client-certificate",
)


class World(TestEnv):
    """Where the policy is set up: a time of day, consumers, and what is shared."""

    def __init__(self, known: Any = None) -> None:
        super().__init__()
        self.now = NOW.timestamp()
        self.consumers = known or Consumers()
        self.shared: dict[tuple[object, ...], Any] = {}

    def wall(self) -> float:
        return self.now

    def share(self, key: tuple[object, ...], make: Callable[[], Any]) -> Any:
        if key not in self.shared:
            self.shared[key] = make()
        return self.shared[key]

    def policy(self, **settings: object) -> MtlsPolicy:
        policy = MtlsPolicy(Mtls.model_validate(settings))
        policy.setup(self)
        return policy


def client(der: bytes | None) -> Client:
    made = Client("192.0.2.7", 50_000, 443, "https")
    made.encryption = Encryption("TLSv1.3", "TLS_AES_128_GCM_SHA256", "", der)
    return made


def ask(policy: MtlsPolicy, der: bytes | None, *headers: tuple[str, str]) -> tuple[Asked, Request]:
    request = request_of("GET", *headers, client=client(der))
    return Asked(policy, request), request


def verdict(der: bytes | None, world: World | None = None, /, **settings: object) -> str:
    """Return who it is, or the type of the problem."""
    asked, request = ask((world or World()).policy(**settings), der)
    if not asked.reached:
        assert request.get(USER) is None
        assert asked.problem[0] == 401
        assert asked.response.headers.get_all(b"www-authenticate") == []
        return asked.problem[1]
    return request[USER].name


def test_who_it_is() -> None:
    der = SIGNER.der((("CN", "ada"), ("OU", "dev"), ("O", "Acme")), uri("x:y"), dns("A.example"), email("ada@b"))
    asked, request = ask(World().policy(), der)
    assert asked.reached
    user = request[USER]
    assert (user.name, user.kind, user.consumer) == ("ada", "mtls", "")
    assert user.roles == user.groups == user.scopes == user.permissions == frozenset()
    assert user.claims == {
        "subject": "CN=ada,OU=dev,O=Acme",
        "issuer": "CN=Test CA,O=Acme",
        "serial": read_certificate(der).serial,
        "fingerprint": hashlib.sha256(der).hexdigest(),
        "uris": ["x:y"],
        "dns": ["a.example"],
        "emails": ["ada@b"],
    }


def test_there_is_no_certificate() -> None:
    for who in (None, Client("192.0.2.7", 50_000, 80, "http"), client(None)):
        for required in (False, True):
            asked = Asked(World().policy(required=required), request_of("GET", client=who))
            assert asked.problem == (401, MISSING)
            assert asked.response.problem_value is not None
            assert asked.response.problem_value.title == "Missing client certificate"
            assert asked.response.headers.get_all(b"www-authenticate") == []


def test_organizational_units_may_be_roles_or_groups() -> None:
    units = frozenset({"dev", "ops"})
    for settings, roles, groups in (
        ({"roles": "ou"}, units, frozenset()),
        ({"groups": "ou"}, frozenset(), units),
        ({"roles": "ou", "groups": "ou"}, units, units),
    ):
        _, request = ask(World().policy(**settings), ADA)
        assert (request[USER].roles, request[USER].groups) == (roles, groups)


FULL = SIGNER.der(
    (("CN", "ada"), ("CN", "Users"), ("O", "Acme")),
    uri("spiffe://x/a"),
    uri("spiffe://y/b"),
    dns("one.example"),
    dns("two.example"),
    email("ada@x.example"),
    email("ada@y.example"),
)
PRINT_OF_FULL = hashlib.sha256(FULL).hexdigest()
BARE = SIGNER.der((("O", "Acme"),))
NOBODY = SIGNER.der((("CN", " \n"),), dns("a\0b"))


@pytest.mark.parametrize(
    ("der", "settings", "name"),
    [
        (FULL, {}, "ada"),
        (FULL, {"identity": "cn"}, "ada"),
        (FULL, {"identity": "subject"}, "CN=ada,CN=Users,O=Acme"),
        (FULL, {"identity": "uri"}, "spiffe://x/a"),
        (FULL, {"identity": "dns"}, "one.example"),
        (FULL, {"identity": "email"}, "ada@x.example"),
        (FULL, {"identity": "fingerprint"}, PRINT_OF_FULL),
        (FULL, {"identity": ["uri", "cn"]}, "spiffe://x/a"),
        (BARE, {"identity": ["uri", "email", "subject"]}, "O=Acme"),
        (BARE, {"identity": ["uri", "email", "cn"]}, NOT_ALLOWED),
        (BARE, {}, NOT_ALLOWED),
        (NOBODY, {"identity": ["cn", "dns"]}, NOT_ALLOWED),
        (SIGNER.der(()), {"identity": ["subject", "cn"]}, NOT_ALLOWED),
        # of several, one that is allowed
        (FULL, {"identity": "uri", "uris": "spiffe://y/**"}, "spiffe://y/b"),
        (FULL, {"identity": "dns", "dns": "two.*"}, "two.example"),
        (FULL, {"identity": "email", "emails": "*@y.example"}, "ada@y.example"),
        (FULL, {"identity": "dns", "emails": "*@y.example"}, "one.example"),
        (FULL, {"identity": "subject", "subjects": "CN=*,CN=Users,O=Acme"}, "CN=ada,CN=Users,O=Acme"),
        (
            FULL,
            {"identity": "fingerprint", "fingerprints": hashlib.sha256(FULL).hexdigest()},
            hashlib.sha256(FULL).hexdigest(),
        ),
    ],
    ids=itertools.count(),  # and not by the names, of which some are those of this run
)
def test_the_name(der: bytes, settings: dict[str, Any], name: str) -> None:
    assert verdict(der, **settings) == name


WEB = SIGNER.der(
    (("CN", "web"), ("O", "Acme")), uri("spiffe://x/ns/shop/sa/web"), dns("web.x.example"), email("w@x.example")
)
PRINT = hashlib.sha256(WEB).hexdigest().upper()
COLONS = ":".join(PRINT[at : at + 2] for at in range(0, 64, 2))


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        ({"subjects": "CN=web,O=Acme"}, True),
        ({"subjects": ["CN=db,O=Acme", "CN=*,O=Acme"]}, True),
        ({"subjects": "CN=*"}, False),
        ({"uris": ["spiffe://x/ns/*/sa/web"]}, True),
        ({"uris": ["spiffe://x/ns/*"]}, False),
        ({"dns": "*.x.example"}, True),
        ({"dns": "*.example"}, False),
        ({"emails": "*@x.example"}, True),
        ({"emails": "*@y.example"}, False),
        ({"fingerprints": COLONS}, True),
        ({"fingerprints": ["0" * 64, PRINT]}, True),
        ({"fingerprints": ["0" * 64]}, False),
        ({"issuers": "CN=Test CA,O=Acme"}, True),
        ({"issuers": "CN=Test CA,O=*"}, True),
        ({"issuers": "CN=Test CA"}, False),
        ({"subjects": "CN=web,O=Acme", "issuers": "CN=*,O=Acme", "dns": "*.x.example", "fingerprints": PRINT}, True),
        ({"subjects": "CN=web,O=Acme", "issuers": "CN=*,O=Acme", "dns": "*.y.example", "fingerprints": PRINT}, False),
        ({"subjects": "CN=web,O=Acme", "issuers": "CN=Other,O=Acme"}, False),
    ],
)
def test_who_is_allowed(settings: dict[str, Any], allowed: bool) -> None:
    assert verdict(WEB, **settings) == ("web" if allowed else NOT_ALLOWED)


@pytest.mark.parametrize("part", ["uris", "dns", "emails"])
def test_who_has_no_name_of_a_kind_is_not_allowed_by_it(part: str) -> None:
    pattern = {"uris": "x:**", "dns": "*", "emails": "*@*"}[part]
    assert verdict(ADA, **{part: pattern}) == NOT_ALLOWED


@pytest.mark.parametrize(
    "subject",
    [
        (("CN", "eve,O=Acme"), ("O", "Evil")),
        (("CN", "eve,O=Acme"),),
        ((("CN", "eve"), ("OU", "x")), ("O", "Acme")),
        (("CN", "eve+O=Acme"), ("O", "Acme\\,")),
        (("CN", "eve"), ("O", "Acme"), ("O", "Evil")),
        (("CN", "eve"), ("O", "Acme,O=Evil")),
        (("O", "Acme"), ("CN", "eve")),
    ],
)
def test_no_value_passes_for_a_part(subject: Names) -> None:
    assert verdict(SIGNER.der(subject), subjects="CN=*,O=Acme") == NOT_ALLOWED


def test_another_issuer() -> None:
    other = Signer((("CN", "Other CA"), ("O", "Acme"))).der()
    assert verdict(other, issuers="CN=Test CA,O=Acme") == NOT_ALLOWED
    assert verdict(other, issuers=["CN=Test CA,O=Acme", "CN=Other CA,O=Acme"]) == "ada"


def test_a_certificate_that_ends_while_its_connection_lives() -> None:
    world, der = World(), SIGNER.der(until=NOW + DAY, since=NOW - DAY)
    policy, who = world.policy(), client(der)
    for days, status in ((-1.0, 200), (0.0, 200), (1.0, 200), (1.001, 401), (-1.001, 401), (0.5, 200)):
        world.now = (NOW + days * DAY).timestamp()
        asked = Asked(policy, request_of("GET", client=who))
        assert asked.response.status == status, days
        if status == 401:
            assert asked.problem == (401, EXPIRED)
    assert len(next(iter(world.shared.values()))) == 1


@pytest.mark.parametrize("der", [b"", b"x", ADA[:-1], b"\x30" * (LONGEST + 1)])
def test_what_cannot_be_read_is_refused(der: bytes) -> None:
    assert verdict(der) == INVALID


ALICE = Consumer(
    "ada", roles=frozenset({"r"}), groups=frozenset({"g"}), permissions=frozenset({"p"}), metadata={"m": 1}
)
KNOWN = Consumers([ALICE, Consumer("O=Acme", roles=frozenset({"acme"}))])


class Database:
    """Consumers that take a while to be found."""

    decoy = ""

    def by_key(self, digest: bytes) -> None:
        return None

    def by_name(self, name: str) -> Awaitable[Consumer | None]:
        async def found() -> Consumer | None:
            await asyncio.sleep(0)
            return KNOWN.by_name(name)

        return found()


@pytest.mark.parametrize("known", [KNOWN, Database()])
def test_consumers(known: Any) -> None:
    world = World(known)
    _, request = ask(world.policy(consumers=True), ADA)
    assert request[USER] == ALICE.user("mtls")
    _, request = ask(world.policy(consumers=True, roles="ou", groups="ou"), ADA)
    assert (request[USER].roles, request[USER].groups) == ({"r", "dev", "ops"}, {"g", "dev", "ops"})
    assert (request[USER].permissions, request[USER].consumer) == ({"p"}, "ada")
    assert verdict(SIGNER.der((("CN", "eve"),)), world, consumers=True) == NOT_ALLOWED
    assert verdict(BARE, world, consumers=True) == NOT_ALLOWED
    assert verdict(BARE, world, consumers=True, identity=["cn", "subject"]) == "O=Acme"
    assert verdict(ADA, world, consumers=True, fingerprints="0" * 64) == NOT_ALLOWED
    assert verdict(SIGNER.der((("CN", "eve"),)), world) == "eve"


def test_users_of_consumers_are_kept_while_they_are_the_same() -> None:
    world = World(KNOWN)
    policy = world.policy(consumers=True)
    first, again = ask(policy, ADA)[1][USER], ask(policy, SIGNER.der())[1][USER]
    assert first is again
    policy._consumers = Consumers([Consumer("ada", roles=frozenset({"other"}))])
    assert ask(policy, ADA)[1][USER].roles == {"other"}
    many = [SIGNER.der((("CN", f"c{number}"),)) for number in range(3)]
    policy._consumers = Consumers([Consumer(f"c{number}") for number in range(MOST_REMEMBERED + 3)])
    for number in range(3, MOST_REMEMBERED + 2):  # ada is there as well
        policy._users.of(Consumer(f"c{number}"))
    assert len(policy._users) == MOST_REMEMBERED
    assert [ask(policy, der)[1][USER].name for der in many] == ["c0", "c1", "c2"]
    assert len(policy._users) == 3


FORGED = [
    ("Client-Cert", ":AAAA:"),
    ("client-cert", ":AAAA:"),
    ("Client_Cert", ":AAAA:"),
    ("CLIENT-CERT-CHAIN", ":AAAA:, :AAAA:"),
    ("Client_Cert_Chain", ":AAAA:"),
    ("Client-Cert_Chain", ":AAAA:"),
    ("Client_Cert-Chain", ":AAAA:"),
]


def test_a_client_cannot_say_what_it_has_shown() -> None:
    others = [("X-Client-Cert", "a"), ("Client-Certs", "b"), ("ClientCert", "c"), ("Client-Cert-Chains", "d")]
    for forged in (*([each] for each in FORGED), FORGED, FORGED * 2):
        _, request = ask(World().policy(), ADA, *forged, *others)
        assert [(name.decode(), value.decode()) for name, value in request.headers] == others
        _, request = ask(World().policy(forward=True), ADA, *forged)
        assert list(request.headers) == [(b"Client-Cert", b":" + base64.b64encode(ADA) + b":")]


@pytest.mark.parametrize("buffered", [False, True])
def test_nor_in_trailers(buffered: bool) -> None:
    trailers = [*((name.encode(), value.encode()) for name, value in FORGED), (b"X-Sum", b"1")]
    request = request_of("POST", client=client(ADA))
    request.body = Body.stream(Pieces([b"content"], trailers), None)
    if buffered:
        assert asyncio.run(request.body.read(100)) == b"content"
    assert Asked(World().policy(), request).reached
    assert asyncio.run(request.body.read(100)) == b"content"
    assert request.body.trailers() == [(b"X-Sum", b"1")]


CONFIG = """
consumers: {bob: {keys: bob-has-a-long-key}}
listen:
  - 127.0.0.1:80
services: {s: "http://s"}
routes: [{path: /**, service: s, policies: [POLICIES]}]
"""
KEY = {"X-API-Key": "bob-has-a-long-key"}


def gateway(policies: str) -> Gateway:
    return Gateway(text=CONFIG.replace("POLICIES", policies), services={"s": Reply(200)})


def test_beside_others() -> None:
    with gateway("mtls: {forward: on}, key-auth, user-headers: {kind: X-Kind}") as world:
        told = world.services["s"].requests
        assert world.get("/", certificate=ADA).status == 200
        assert (told[-1].headers["X-User-ID"], told[-1].headers["X-Kind"]) == ("ada", "mtls")
        assert world.get("/", headers=KEY).status == 200
        assert (told[-1].headers["X-User-ID"], "client-cert" in told[-1].headers) == ("bob", False)
        assert world.get("/", headers={**KEY, "Client_Cert": ":AAAA:"}).status == 200
        assert not {"client-cert", "client_cert"} & set(told[-1].headers)
        assert world.get("/", certificate=BARE, headers=KEY).status == 200
        assert (told[-1].headers["X-User-ID"], "client-cert" in told[-1].headers) == ("bob", False)
        answer = world.get("/")
        assert (answer.problem, answer.json()["title"]) == (MISSING, "Missing authentication")
        assert answer.headers["WWW-Authenticate"] == 'Key realm="api"'


def test_the_certificate_is_sent_only_where_the_caller_was_found_out_by_it() -> None:
    with gateway("key-auth, mtls: {forward: on}") as world:
        told = world.services["s"].requests
        assert world.get("/", certificate=ADA, headers=KEY).status == 200
        assert "client-cert" not in told[-1].headers
        assert world.get("/", certificate=ADA).status == 200
        assert "client-cert" in told[-1].headers


def test_two_of_them_and_one_sends_it() -> None:
    first, second = "mtls: {forward: on, required: on}", "{mtls: {required: on}, name: again}"
    for policies in (f"{{{first}}}, {second}", f"{second}, {{{first}}}"):
        with gateway(policies) as world:
            assert world.get("/", certificate=ADA, headers={"Client-Cert": ":AAAA:"}).status == 200
            said = world.services["s"].requests[-1].headers.all("Client-Cert")
            assert said == [f":{base64.b64encode(ADA).decode()}:"]


def test_what_is_required_has_to_be_there_beside_a_key() -> None:
    with gateway("key-auth, mtls: {required: on}") as world:
        answer = world.get("/", headers=KEY)
        assert (answer.status, answer.json()["title"]) == (401, "Missing client certificate")
        assert world.get("/", headers=KEY, certificate=ADA).status == 200


def test_a_gateway_s_time_of_day_counts() -> None:
    with gateway("mtls") as world:
        assert world.get("/", certificate=ADA).status == 200
        world.clock.advance(DAY.total_seconds() + 1)
        assert world.get("/", certificate=ADA).problem == EXPIRED


def test_the_log_says_what_was_shown(caplog: pytest.LogCaptureFixture) -> None:
    shown = SIGNER.der((("CN", "e\nve"), ("O", "x" * 60)), *(dns(f"{'a' * 60}.{number}") for number in range(20)))
    cases: list[tuple[dict[str, Any], str]] = [
        ({"subjects": "CN=ada"}, rf"its subject is not allowed: CN=e\0Ave,O={'x' * 60}"),
        ({"uris": "x:y"}, "its uri is not allowed: it has none"),
        ({"dns": "x"}, f"its dns is not allowed: {'a' * 60}.0, {'a' * 60}.1, "),
        ({"issuers": "CN=x"}, "its issuer is not allowed: CN=Test CA,O=Acme"),
        ({}, "it has no cn"),
        ({"identity": ["uri", "email"]}, "it has no uri and no email"),
        ({"identity": "dns", "consumers": True}, f"there is no consumer {'a' * 60}.0"),
    ]
    for settings, reason in cases:
        caplog.clear()
        with caplog.at_level(logging.WARNING, "portico.security"):
            assert verdict(shown, **settings) == NOT_ALLOWED
        (line,) = caplog.messages
        assert line.startswith(f"refused mtls: {reason}"), line
        assert line.isprintable()
        assert len(line) < 300


# What is remembered.


def test_a_certificate_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []

    def counted(der: bytes) -> Any:
        read.append(der)
        return read_certificate(der)

    monkeypatch.setattr(mtls, "certificate_reader", lambda: counted)
    world = World()
    policy, who = world.policy(), client(ADA)
    for _ in range(3):
        assert Asked(policy, request_of("GET", client=who)).reached
    assert Asked(policy, request_of("GET", client=client(bytes(bytearray(ADA))))).reached  # another connection
    assert Asked(world.policy(required=True), request_of("GET", client=who)).reached  # the same lists elsewhere
    assert len(read) == 1
    assert not Asked(world.policy(issuers="CN=x"), request_of("GET", client=who)).reached
    assert len(read) == 2
    for _ in range(3):
        assert not Asked(policy, request_of("GET", client=client(b"x"))).reached
    assert len(read) == 3


def test_so_many_are_remembered_and_no_more() -> None:
    memory = Memory()
    for number in range(MOST_REMEMBERED + 10):
        memory.keep(b"%d" % number, Known(User("a"), 0.0, 0.0))
    assert len(memory) == MOST_REMEMBERED
    assert memory.recall(b"9") is None
    assert memory.recall(b"10") is not None
    memory.close()
    assert len(memory) == 0


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"identity": []}, "at least 1"),
    ({"identity": "name"}, "'subject', 'cn'"),
    ({"subjects": []}, "at least 1"),
    ({"fingerprints": []}, "at least 1"),
    ({"subjects": "ada"}, "is no attribute such as CN=ada"),
    ({"issuers": "/CN=x"}, "is no attribute"),
    ({"uris": "x"}, "is no URI"),
    ({"dns": "a b"}, "is no host name"),
    ({"emails": "x"}, "is no address"),
    ({"fingerprints": "abc"}, "64 hexadecimal digits"),
    ({"roles": "o"}, "'ou'"),
    ({"consumers": True, "identity": ["cn", "uri"]}, "every URI has a colon"),
    ({"allow": "x"}, "Extra inputs"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Mtls.model_validate(settings)
    assert any(message in error["msg"] for error in caught.value.errors()), caught.value
