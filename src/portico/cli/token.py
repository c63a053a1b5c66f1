"""`portico token`: tokens for development, and keys that sign them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from portico.config.values import BadValue, parse_duration
from portico.errors import PorticoError
from portico.jose.keys import UnusableKey


class NoToken(PorticoError):
    """There is no token, or no key; the message says why."""


def make_token(
    secret: str | None, key: Path | None, said: Mapping[str, Any], expires: str, claims: Sequence[str]
) -> str:
    """Return a token that says what is not empty of `said`, and `claims`, each a name and a value; raise NoToken."""
    from portico.jose.mint import private_key, secret_key, sign  # what it needs is large

    if (secret is None) == (key is None):
        raise NoToken("a token is signed with a secret or with a key: give one of --secret and --key")
    now = int(time.time())
    try:
        says = {name: value for name, value in said.items() if value}
        says |= {"iat": now, "exp": now + int(parse_duration(expires))}
        says |= dict(map(named_value, claims))
        signs = private_key(key.read_bytes()) if key is not None else secret_key(secret or "")
    except OSError as error:
        raise NoToken(f"{key} cannot be read: {error.strerror}") from None
    except (BadValue, UnusableKey) as error:
        raise NoToken(str(error) if secret is not None or isinstance(error, BadValue) else f"{key}: {error}") from None
    try:
        return sign(says, signs)
    except (TypeError, ValueError):  # half of a surrogate pair, for instance
        raise NoToken("a claim has a value that cannot be in a token") from None


def write_key(file: Path) -> Path:
    """Write a private key that only its owner may read, and its JWKS, whose path is returned; raise NoToken."""
    from portico.jose.mint import new_key

    private, jwks = new_key()
    beside = file.with_name(f"{file.stem}.jwks.json")
    made: list[Path] = []
    try:
        for path, content, mode in ((file, private, 0o600), (beside, jwks, 0o644)):
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as target:
                made.append(path)
                target.write(content)
    except OSError as error:
        for path in made:
            path.unlink(missing_ok=True)
        raise NoToken(f"{error.filename or file} cannot be written: {error.strerror}") from None
    return beside


def named_value(text: str) -> tuple[str, object]:
    """Return what `name=value` says, the value being JSON or a text; raise BadValue where it is no such thing."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise BadValue(f"{text!r} is no name with a value", "write name=value")
    try:
        return name, json.loads(value, parse_constant=_no_json)
    except ValueError:
        return name, value


def _no_json(text: str) -> object:
    """Refuse NaN and the like, which are no JSON, and would become null."""
    raise ValueError(text)
