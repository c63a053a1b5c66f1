"""`portico hash`: what a configuration keeps of a key, or of a password."""

from __future__ import annotations

import re
import sys
from enum import StrEnum

import typer

from portico.config.consumers import SHORTEST_KEY, digest_of
from portico.errors import PorticoError


class What(StrEnum):
    """What can be hashed."""

    KEY = "key"
    PASSWORD = "password"  # noqa: S105 - the word, not one


class NotHashed(PorticoError):
    """Nothing was hashed; the message says why."""


def asked_for(what: str) -> str:
    """Return what was typed twice at a terminal, without showing it, or else the one line that comes by stdin."""
    if sys.stdin.isatty():
        text: str = typer.prompt(what.capitalize(), hide_input=True, confirmation_prompt=True, err=True)
        return text
    lines = sys.stdin.buffer.read(1 << 20).removesuffix(b"\n").removesuffix(b"\r")
    try:
        return lines.decode()
    except UnicodeDecodeError:
        raise NotHashed(f"the {what} is not UTF-8") from None


def hash_of(what: What, text: str) -> str:
    """Return the hash as the file has it; raise NotHashed for what no client could send."""
    if re.search(r"[\x00-\x1f\x7f]", text) is not None:
        raise NotHashed(f"a {what} is one line, without control characters")
    if not text:
        raise NotHashed(f"the {what} is empty")
    if what is What.PASSWORD:
        from argon2 import PasswordHasher

        return PasswordHasher().hash(text)
    if text != text.strip():
        raise NotHashed("a key has no spaces around it: no client could send them")
    return f"sha256:{digest_of(text.encode()).hex()}"


def warning_about(what: What, text: str) -> str:
    """Return what is odd about it, or an empty text."""
    if what is What.KEY and len(text) < SHORTEST_KEY:
        return f"a key of less than {SHORTEST_KEY} characters can be found by trying: take a longer one"
    return ""
