"""Consumers: what may be written, what is kept of it, and what is said about mistakes."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import pytest

from portico.config.consumers import NEVER, Consumer, Consumers, digest_of
from portico.policies.key_auth import KeyAuth
from portico.runtime.shared import Leases
from portico.runtime.snapshot import pack, unpack
from tests.config.kinds import config_of, findings_of, messages_of

KEY = "ada-has-a-long-key"
HASHED = "sha256:" + hashlib.sha256(KEY.encode()).hexdigest()
ARGON = "$argon2id$v=19$m=8,t=1,p=1$bm9ib2R5IGlzIGhlcmU$DFYKyX5mrcvWqWAydvHb1kD3IaZ0vGYdA4mVbXo0tA0"
BCRYPT = "$2b$12$" + "a" * 53


def consumers_of(text: str, **environment: str) -> Consumers[object]:
    return config_of(f"consumers: {text}\n", **environment).consumers  # type: ignore[return-value]


@pytest.mark.parametrize(
    "written",
    [
        f"{{ada: {KEY}}}",
        f"{{ada: [{KEY}]}}",
        f"{{ada: {{keys: {KEY}}}}}",
        f'{{ada: "{HASHED}"}}',
        f'{{ada: {{keys: ["{HASHED.upper().replace("SHA", "sha")}"]}}}}',
        f'{{ada: {{keys: [{{hash: "{HASHED}"}}]}}}}',
        "{ada: '${K}'}",
    ],
)
def test_a_key_can_be_written_in_many_ways(written: str) -> None:
    credential = consumers_of(written, K=KEY).by_key(digest_of(KEY.encode()))
    assert credential is not None
    assert (credential.consumer.name, credential.expires) == ("ada", NEVER)


def test_where_a_database_is() -> None:
    assert config_of("routes: []\n").consumer_database is None
    assert config_of("consumer_database:\n").consumer_database is None
    for text in ("consumer_database: a/b.db", "consumer_database: {file: ./a//b.db}"):
        database = config_of(f"watch: on\n{text}\n").consumer_database
        assert database is not None
        assert database.file == str(Path("a/b.db").absolute())
        assert database.origin == "portico.yaml:2:20"
    absolute = config_of("consumer_database: ${DB}\n", DB="/var/a.db").consumer_database
    assert absolute is not None
    assert absolute.file == "/var/a.db"
    assert absolute == config_of("watch: on\nconsumer_database: /var/a.db\n").consumer_database


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("''", "1:20 file: an empty text is not the path of a database (leave it out, or write a path)"),
        ("postgresql://db/portico", "1:20 file: a database of consumers is an SQLite file"),
        ("{file: 'postgresql://db'}", "1:27 file: a database of consumers is an SQLite file"),
        ("[a.db]", "1:20"),
        ("{}", "1:20"),
        ("{file: a.db, origin: x}", "unknown key 'origin'"),
        ("${file:path}", "the path of a database cannot come out of a file"),
    ],
)
def test_where_no_database_can_be(written: str, message: str) -> None:
    said = [
        f"{each.line}:{each.column} {each.message} ({each.hint})"
        for each in findings_of({"portico.yaml": f"consumer_database: {written}\n", "path": "a.db"})
    ]
    assert len(said) == 1
    assert message in said[0]


def test_a_consumer_is_a_user() -> None:
    text = "{ada: {roles: [admin, staff], groups: g, scopes: s, permissions: [p], metadata: {plan: gold, n: 1}}}"
    consumer = consumers_of(text).by_name("ada")
    assert consumer is not None
    user = consumer.user("key-auth")
    assert (user.name, user.consumer, user.kind) == ("ada", "ada", "key-auth")
    assert (user.roles, user.groups) == ({"admin", "staff"}, {"g"})
    assert (user.scopes, user.permissions) == ({"s"}, {"p"})
    assert user.claims == {"plan": "gold", "n": 1}


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("2027-01-01", 1798761600.0),
        ("2027-01-01T00:00:00Z", 1798761600.0),
        ("2027-01-01T01:00:00+01:00", 1798761600.0),
        ("2027-01-01T00:00:01", 1798761601.0),
    ],
)
def test_a_key_expires(written: str, seconds: float) -> None:
    known = consumers_of(f"{{ada: {{keys: [{{hash: {KEY}, expires: '{written}'}}, another-key-of-ada]}}}}")
    first, second = (known.by_key(digest_of(key)) for key in (KEY.encode(), b"another-key-of-ada"))
    assert first is not None
    assert second is not None
    assert (first.expires, second.expires) == (seconds, NEVER)


WRONG = [
    ("{ada: short-key}", "1:18 keys: a key has 16 or more characters"),
    ("{ada: sha256:123}", "1:18 keys: after sha256: there are 64 hexadecimal digits"),
    ("{ada: 'a key with a\ttab in it'}", "1:18 keys: a key has no line breaks, no tabs, and no spaces around it"),
    ("{ada: ' a key with a space'}", "1:18 keys: a key has no line breaks, no tabs, and no spaces around it"),
    ("{ada: {password: hunter2hunter2}}", "1:29 password: a password stands here as its hash, of argon2id or bcrypt"),
    ("{ada: {keys: [{hash: 1234567890123456, expires: soon}]}}", "1:60 expires: 'soon' is not a date or a time"),
    ("{ada: {keys: [{hash: 1234567890123456, expires: .nan}]}}", "1:60 expires: nan is not a date or a time"),
    ("{ada: {key: x}}", "1:19 unknown key 'key' in consumer ada"),
    ("{a:b: x}", "1:13 'a:b' cannot be the name of a consumer"),
    ("[ada]", "1:12 consumers: expected a mapping, not a list"),
    (f"{{ada: {KEY}, bob: {KEY}}}", "1:43 a key of bob is one of ada as well"),
]


@pytest.mark.parametrize(("written", "message"), WRONG)
def test_mistakes(written: str, message: str) -> None:
    assert message in messages_of(f"consumers: {written}")


def test_no_message_repeats_a_key_or_a_password() -> None:
    text = """
consumers:
  a: {keys: [hunter2, {hash: "${K}", expire: 1}]}
  b: {password: hunter2hunter2, keys: "sha256:hunter2"}
  c: {password: "${K}", keys: {hash: [hunter2]}}
policies: [{jwt: {audience: x, secret: hunter2}}]
"""
    said = "\n".join(map(str, findings_of(text, K="hunter2 hunter2")))
    assert said.count("\n") > 4
    assert "hunter2" not in said


def test_what_is_kept_has_no_key() -> None:
    config = config_of("consumers: {ada: '${K}', bob: {keys: ['${K2}']}}", K=KEY, K2=KEY + "2")
    for text in (repr(config), str(config.model_dump()), repr(list(config.consumers))):
        assert KEY not in text
    for data in (pickle.dumps(config), pack(config, ())):
        assert KEY.encode() not in data
    policy = KeyAuth.model_validate({"keys": {"ada": KEY}})
    assert KEY not in f"{policy!r} {policy.model_dump()} {policy.model_dump_json()}"
    assert KEY.encode() not in pickle.dumps(policy)


def test_they_come_through_a_snapshot() -> None:
    config = config_of(f"consumers: {{{', '.join(f'u{i}: key-number-{i:09}' for i in range(1000))}}}")
    steps = unpack(pack(config, ()), Leases().lease())
    count = 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            arrived = end.value.config
            break
        count += 1
    assert count >= 1000 // 128
    assert arrived == config
    assert len(arrived.consumers) == 1000
    assert arrived.consumers.by_key(digest_of(b"key-number-000000777")).consumer.name == "u777"


def test_they_can_stand_in_many_files() -> None:
    files = {
        "portico.yaml": "include: [c*.yaml]\nconsumers: {ada: ada-has-a-long-key}",
        "c1.yaml": "consumers: {b: {}}",
    }
    assert [each.name for each in config_of(files).consumers] == ["ada", "b"]
    files["c2.yaml"] = "consumers: {b: {}}"
    assert "'b' is given twice" in str(findings_of(files))


def test_unknown_users_are_compared_with_a_hash_like_the_others() -> None:
    assert consumers_of("{ada: {}}").decoy.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert consumers_of(f"{{ada: {{}}, bob: {{password: '{BCRYPT}'}}}}").decoy == BCRYPT
    assert Consumers([Consumer("ada", password=ARGON)]).decoy == ARGON


def test_hashes_that_take_seconds_are_warned_of() -> None:
    hashes = {f"c{cost}": f"$2b${cost:02}$" + "a" * 53 for cost in (4, 12, 14, 15, 20)}
    hashes["argon"] = "$argon2id$v=19$m=65536,t=3,p=4$c29tZSBmcmVzaCBzYWx0$DFYKyX5mrcvWqWAydvHb1kD3IaZ0vGYdA4mVbXo0tA0"
    text = "consumers:\n" + "".join(f"  {name}: {{password: '{each}'}}\n" for name, each in hashes.items())
    found = findings_of(text)
    assert [each.message.split(" takes ")[0] for each in found] == [
        f"the password of {name}" for name in ("c15", "c20")
    ]
    assert not any("aaaa" in str(each) for each in found)
