"""Texts that only the gateway can read and make, for cookies."""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import re
from collections.abc import Sequence
from typing import Final

_VERSION: Final = b"portico cookie 1"
"""Has what another version of this has sealed be none of ours."""
_SALT: Final = 12
_NONCE: Final = 12
_TAG: Final = 16
_TEXT: Final = re.compile(rb"[A-Za-z0-9_-]+")


class Seal:
    """Encrypts by the first of some secrets, and decrypts by any of them.

    Each text has a key of its own (HKDF, RFC 5869, of the secret and a random salt), so that the random nonces of
    AES-256-GCM never come near the number at which two of them could be one. Nothing is compressed: how long a text is
    must not tell what of it a client could guess.
    """

    __slots__ = ("_cipher", "_context", "_roots")

    def __init__(self, secrets: Sequence[str], context: Sequence[str]) -> None:
        """What was sealed in another `context` cannot be opened."""
        from cryptography.exceptions import InvalidTag  # only who has sessions needs it
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._cipher = AESGCM, InvalidTag
        self._roots = [hmac.digest(_VERSION, secret.encode(), "sha256") for secret in secrets]
        self._context = b"".join(_framed(text.encode()) for text in context)

    def seal(self, purpose: bytes, content: bytes) -> bytes:
        """Return a text that says `content` to who opens it for the same purpose."""
        about, salt, nonce = self._about(purpose), os.urandom(_SALT), os.urandom(_NONCE)
        sealed = self._cipher[0](_key(self._roots[0], about, salt)).encrypt(nonce, content, about)
        return base64.urlsafe_b64encode(salt + nonce + sealed).rstrip(b"=")

    def open(self, purpose: bytes, text: bytes) -> bytes | None:
        """Return what a text says, or None where it is not one of ours, or for something else."""
        if _TEXT.fullmatch(text) is None:
            return None
        try:
            data = base64.urlsafe_b64decode(text + b"==="[: -len(text) % 4])
        except binascii.Error:
            return None
        if len(data) < _SALT + _NONCE + _TAG or base64.urlsafe_b64encode(data).rstrip(b"=") != text:
            return None  # it may be written in one way only
        about, salt, rest = self._about(purpose), data[:_SALT], data[_SALT:]
        cipher, wrong = self._cipher
        for root in self._roots:
            try:
                return cipher(_key(root, about, salt)).decrypt(rest[:_NONCE], rest[_NONCE:], about)
            except wrong:
                continue
        return None

    def _about(self, purpose: bytes) -> bytes:
        return _VERSION + _framed(purpose) + self._context


def _key(root: bytes, about: bytes, salt: bytes) -> bytes:
    return hmac.digest(root, about + salt + b"\x01", "sha256")  # HKDF-Expand for one block


def _framed(part: bytes) -> bytes:
    return len(part).to_bytes(4, "big") + part
