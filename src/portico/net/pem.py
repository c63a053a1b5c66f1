"""Certificates and keys in PEM files: taken into contexts of the `ssl` module, with what is wrong in plain words."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final, NamedTuple

from portico.errors import ConfigError

_OTHER_KEY: Final = frozenset(("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"))
_NOT_SIGNED_BY_THESE: Final = frozenset((18, 19, 20))  # self-signed, by itself or above it; its issuer is not known

_CERTIFICATE: Final = b"CERTIFICATE-----"
_KEY: Final = b"PRIVATE KEY-----"
_KINDS: Final = {_CERTIFICATE: "certificate", _KEY: "private key"}
"""By how their lines in a PEM file end."""

_WORDS: Final = {
    "HTTP_REQUEST": "the client speaks plain HTTP",
    "WRONG_VERSION_NUMBER": "what came is not TLS; is plain HTTP spoken there?",
}
"""For what OpenSSL says in words that only its authors understand."""

Stamp = tuple[int, int, int] | None
"""What changes with a file: when it was written, its size, and which file it is; None where there is none."""


class KeyPair(NamedTuple):
    """The paths of a certificate's file (PEM, those between it and the root after it) and of its key's."""

    certificate: str
    key: str


def load_pair(context: ssl.SSLContext, pair: KeyPair) -> None:
    """Have `context` show the certificate of `pair`; raise ConfigError, which names the file that is at fault."""
    _expect(pair.certificate, _CERTIFICATE, other=_KEY)
    _expect(pair.key, _KEY, other=_CERTIFICATE)
    try:
        context.load_cert_chain(pair.certificate, pair.key, password=_no_password)
    except _PasswordAsked as error:
        raise ConfigError(f"{pair.key}: the key is encrypted; give one without a password") from error
    except ssl.SSLError as error:
        raise ConfigError(_why_not(pair, error)) from error
    except OSError as error:
        raise ConfigError(f"{pair.certificate}: cannot be read: {error.strerror}") from error


class _PasswordAsked(Exception):
    """OpenSSL asks for the password of a key."""


def _no_password() -> str:
    raise _PasswordAsked


def _why_not(pair: KeyPair, error: ssl.SSLError) -> str:
    """Say which of two files is at fault, which OpenSSL does not."""
    if error.reason in _OTHER_KEY:
        return f"{pair.key}: the key does not belong to the certificate {pair.certificate}"
    load_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), pair.certificate)
    if error.reason and error.reason != "PEM_LIB":
        return f"{pair.certificate}: it cannot be used: {reason(error)}"
    return f"{pair.key}: the private key is damaged, or of a kind that is not known"


def load_authorities(context: ssl.SSLContext, path: str) -> None:
    """Have `context` trust the certificates at `path`; raise ConfigError where there are none."""
    _expect(path, _CERTIFICATE)
    try:
        context.load_verify_locations(cafile=path)
    except ssl.SSLError as error:
        raise ConfigError(f"{path}: a certificate in it is damaged") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


def _expect(path: str, mark: bytes, other: bytes | None = None) -> None:
    """Raise ConfigError where a file is not there, or is not PEM of the right kind; `other` belongs beside it."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    if mark not in content:
        remedy = _conversion(path, content, mark)
        if other is not None and other in content:
            remedy = "; are certificate and key swapped, or is the key's file not named?"
        raise ConfigError(f"{path}: there is no {_KINDS[mark]} in it in PEM form{remedy}")


def _conversion(path: str, content: bytes, mark: bytes) -> str:
    """Say how PEM is made of DER, and of what browsers export (PKCS #12): both are a SEQUENCE of ASN.1."""
    if not content.startswith(b"\x30"):
        return ""
    if b"\x02\x01\x03" in content[2:9]:  # RFC 7292 section 4: the version is 3, of which DER's length is before it
        return f"; convert it to PEM: openssl pkcs12 -nodes -in {path}"
    return f"; convert it to PEM: openssl {'x509' if mark is _CERTIFICATE else 'pkey'} -inform der -in {path}"


def stamp(path: str) -> Stamp:
    """Return what tells a file from what it was before."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def reason(error: ssl.SSLError) -> str:
    """Say why TLS failed, mostly in OpenSSL's words, such as `unsupported protocol`."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    if not error.reason:
        return str(error)
    return _WORDS.get(error.reason) or error.reason.lower().replace("_", " ")


def reason_of_service(error: OSError) -> str:
    """Say why there is no connection to a service, without its address, and what of its `tls` would mend that."""
    if not isinstance(error, ssl.SSLError):
        said = error.strerror if error.errno is not None and error.strerror is not None else str(error)
        return said[:1].lower() + said[1:] if said else type(error).__name__
    said = reason(error)
    if isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in _NOT_SIGNED_BY_THESE:
        return f"{said}; name who signed it with tls.ca"
    return said
