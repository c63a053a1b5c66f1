"""What stands where a secret belongs is in no message of `portico check`, however wrong it is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from portico.config.annotations import file_keys, holds_secret
from portico.runtime.plugins import registry_of
from tests.harness.gateway import portico_here

S = "hunter2"
RSA = {"kty": "RSA", "e": "AQAB", "n": "AAAA"}
VALUES: list[Any] = [
    S,
    [S],
    [S, S],
    [[S]],
    [[[S]]],
    {"a": S},
    {"a": [S]},
    {"a": {"b": S}},
    {"a": [{"b": S}]},
    {"hash": S},
    {"hash": [S]},
    {"hash": {"a": S}},
    {"a": {"hash": S, "more": S}},
    [{"hash": S}],
    [{"hash": f"sha256:{S}"}],
    {"kty": "oct", "k": S},
    [{"kty": "oct", "k": S}],
    [{"kty": "oct", "k": [S]}],
    [RSA | {"d": S}],
    [RSA | {"p": S}],
    [RSA | {"oth": [{"r": S}]}],
    [RSA | {"d": {"a": S}}],
    [{"kty": "OKP", "crv": "Ed25519", "x": "AAAA", "d": S}],
    f"sha256:{S}",
    f" {S}-and-enough-of-it",
    f"{S}\ttab-and-enough-of-it",
    f"{S}\nbreak-and-enough-of-it",
    f"-----BEGIN PRIVATE KEY-----\n{S}",
    f"$argon2id$v=19${S}",
    f"$2b$12${S}",
    f"${{{S}",
    f"${{1{S}}}",
    f"${{A:?{S}}}",
]
RAW = (f"*{S}", f"!{S}", f"!{S} x", f"!!{S}", f"@{S}", f"%{S}", f"`{S}", f"'{S}", f'"\\{S}"', f"| {S}", f"- {S}")


def places() -> Iterator[tuple[str, str]]:
    """Iterate over the settings in which a secret may stand, each with a file that has it as VALUE."""
    registry = registry_of(())
    kinds = [*registry.policies.values(), *(kind for kind in registry.endpoints.values() if kind.in_file)]
    for kind in kinds:
        for key, field in file_keys(kind.config_class).items():
            if not holds_secret([field.annotation]):
                continue
            use = f"{kind.name}: {{{key}: VALUE}}"
            routes = f"[{{path: /, {use}}}]" if kind.name in registry.endpoints else "[{path: /, respond: x}]"
            policies = "" if kind.name in registry.endpoints else f"policies:\n- {use}\n"
            yield f"{kind.name}.{key}", f"{policies}routes: {routes}\n"
    for name, use in (("keys", "{keys: VALUE}"), ("password", "{password: VALUE}"), ("ada", "VALUE")):
        yield f"consumers.{name}", f"consumers:\n  ada: {use}\nroutes: [{{path: /, respond: x}}]\n"


PLACES = dict(places())


def test_the_places_are_those_of_secrets() -> None:
    assert {"jwt.secret", "jwt.keys", "key-auth.keys", "internal-jwt.secret", "consumers.keys"} <= PLACES.keys()


@pytest.mark.parametrize("place", PLACES)
def test_no_message_repeats_it(place: str, tmp_path: Path) -> None:
    file, wrong = tmp_path / "portico.yaml", 0
    written = itertools.chain((orjson.dumps(value).decode() for value in VALUES), RAW)
    for value in written:
        text = PLACES[place].replace("VALUE", value)
        file.write_text(text)
        done = portico_here("check", str(file))
        wrong += done.code != 0
        assert S not in done.out + done.err, text
    assert wrong > len(VALUES) // 2
