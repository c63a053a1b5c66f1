"""`portico hash`: what it prints can be written into a file."""

from __future__ import annotations

import argon2
import pytest
from typer.testing import CliRunner

from portico.cli.commands import app
from portico.config.consumers import digest_of
from tests.config.kinds import config_of


def hashed(what: str, text: bytes) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["hash", what], input=text)
    return result.exit_code, result.stdout.removesuffix("\n"), result.stderr


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_key(end: bytes) -> None:
    code, line, said = hashed("key", b"ada-has-a-long-key" + end)
    assert (code, said) == (0, "")
    assert config_of(f"consumers: {{ada: '{line}'}}").consumers.by_key(digest_of(b"ada-has-a-long-key"))


def test_a_password() -> None:
    code, line, said = hashed("password", "swordfish ä\n".encode())
    assert (code, said) == (0, "")
    assert argon2.PasswordHasher().verify(line, "swordfish ä")
    consumer = config_of(f"consumers: {{ada: {{password: '{line}'}}}}").consumers.by_name("ada")
    assert consumer is not None
    assert consumer.password == line


def test_a_short_key_is_hashed_with_a_warning() -> None:
    code, line, said = hashed("key", b"short")
    assert code == 0
    assert line.startswith("sha256:")
    assert "less than 16 characters" in said
    assert "short" not in said


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("key", b""),
        ("password", b"\n"),
        ("key", b" a key "),
        ("key", b"a\nb"),
        ("password", b"\xff"),
        ("password", b"a\tb"),
    ],
)
def test_what_no_client_could_send(what: str, text: bytes) -> None:
    code, line, said = hashed(what, text)
    assert (code, line) == (1, "")
    assert said


def test_nothing_else() -> None:
    assert hashed("pin", b"1234")[0] == 2
