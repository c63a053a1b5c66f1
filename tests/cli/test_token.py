from __future__ import annotations

import json
import stat
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from portico.cli.commands import app
from portico.jose.compact import decode, json_object
from portico.jose.keys import KeySet
from tests.harness.gateway import portico_here
from tests.harness.tokens import SECRET


def test_a_token_by_a_secret() -> None:
    done = portico_here(
        *("token", "--secret", SECRET, "--sub", "ada", "--roles", "admin,dev", "--scope", "read write"),
        *("--issuer", "me", "--audience", "you", "--expires", "2h", "--claim", "n=7", "--claim", "tenant=x=y"),
    )
    assert done.code == 0
    compact = decode(done.out.strip().encode())
    assert KeySet.of_secret(SECRET).check(compact)
    claims = json_object(compact.payload, "payload")
    assert abs(claims.pop("exp") - time.time() - 7200) < 60
    assert abs(claims.pop("iat") - time.time()) < 60
    assert claims == {
        "sub": "ada",
        "roles": ["admin", "dev"],
        "scope": "read write",
        "iss": "me",
        "aud": "you",
        "n": 7,
        "tenant": "x=y",
    }


def test_a_secret_that_nobody_sees_in_the_list_of_processes() -> None:
    result = CliRunner().invoke(app, ["token", "--secret", "-", "--claim", "n=NaN"], input=f"{SECRET}\n")
    compact = decode(result.stdout.strip().encode())
    assert KeySet.of_secret(SECRET).check(compact)
    assert json_object(compact.payload, "payload")["n"] == "NaN"
    result = CliRunner().invoke(app, ["token", "--secret", "-"], input=b"\xff\n")
    assert (result.exit_code, result.stderr) == (1, "the secret is not UTF-8\n")


def test_a_new_key_and_a_token_by_it(tmp_path: Path) -> None:
    key = tmp_path / "dev.pem"
    done = portico_here("token", "--new-key", str(key))
    assert done.code == 0
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    jwks = tmp_path / "dev.jwks.json"
    assert "d" not in json.loads(jwks.read_text())["keys"][0]
    made = portico_here("token", "--key", str(key)).out.strip()
    assert KeySet.of_json(jwks.read_bytes()).check(decode(made.encode()))
    again = portico_here("token", "--new-key", str(key))
    assert (again.code, "cannot be written: File exists" in again.err) == (1, True)
    key.unlink()
    again = portico_here("token", "--new-key", str(key))
    assert (again.code, again.err) == (1, f"{jwks} cannot be written: File exists\n")
    assert not key.exists()  # or it would be in the way of the next try


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give one of --secret and --key"),
        (("--secret", SECRET, "--key", __file__), "give one of"),
        (("--secret", "hunter2"), "at least 32 bytes"),
        (("--key", "/nowhere"), "cannot be read"),
        (("--key", __file__), "this is no key"),
        (("--secret", SECRET, "--expires", "soon"), "not a duration"),
        (("--secret", SECRET, "--claim", "x"), "is no name with a value"),
        (("--secret", SECRET, "--claim", 'x="\\ud800"'), "cannot be in a token"),
        (("--secret", SECRET, "--claim", "x=" + "9" * 30), "cannot be in a token"),
    ],
)
def test_wrong_calls(arguments: tuple[str, ...], message: str) -> None:
    done = portico_here("token", *arguments)
    assert (done.code, done.out) == (1, "")
    assert message in done.err
    assert "hunter2" not in done.err
