"""What is kept of an API key in a database, and the keys that Portico makes.

A key is kept as an HMAC of its digest, under a key that is in a file beside the database: who has a copy of the one
without the other can try no keys against it, not even short ones that came from elsewhere.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
import stat
from pathlib import Path
from typing import Final

from portico.consumers.store import StoreFailed

SIZE: Final = 32
"""Bytes of the key of a database."""
PREFIX: Final = "ptk_"
"""What the keys that Portico makes begin with, so that who searches code and logs for secrets finds them."""
_BINDING: Final = b"portico consumer database"


def new_api_key() -> str:
    """Return a key for a client, which nobody can guess."""
    return PREFIX + secrets.token_urlsafe(SIZE)


def kept(key: bytes, digest: bytes) -> bytes:
    """Return what a database whose key this is keeps of an API key with that digest."""
    return hmac.digest(key, digest, "sha256")


def binding_of(key: bytes) -> bytes:
    """Return what is in a database to know its key by."""
    return hmac.digest(key, _BINDING, "sha256")


def key_file(database: str) -> str:
    """Return the path of the file with the key of a database."""
    return f"{database}.key"


def new_key() -> bytes:
    """Return a key for a database."""
    return secrets.token_bytes(SIZE)


def write_key(path: str, key: bytes) -> None:
    """Write the key of a database to a file that is not there yet, and that only its owner may read. Raises OSError."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
        file.write(key.hex() + "\n")


def read_key(path: str) -> bytes:
    """Return the key in a file; raise StoreFailed where there is none."""
    try:
        text = Path(path).read_text("ascii").strip()
    except OSError as error:
        hint = "it was made with the database, and belongs to its backup"
        raise StoreFailed(f"the key of the database, {path}, cannot be read: {error.strerror}", hint) from None
    except UnicodeDecodeError:
        text = ""
    if re.fullmatch(f"[0-9a-f]{{{2 * SIZE}}}", text) is None:
        raise StoreFailed(f"{path} is not the key of a database", f"it has {2 * SIZE} hexadecimal digits")
    return bytes.fromhex(text)


def is_exposed(path: str) -> bool:
    """Return whether others than the owner of a file may read it."""
    return bool(os.stat(path).st_mode & (stat.S_IRWXG | stat.S_IRWXO))  # noqa: PTH116 - plain
