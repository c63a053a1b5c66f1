"""What a client's certificate says: names, issuer, fingerprint, and from when until when it is valid.

It was verified in the handshake, long before anyone looks here; so this reads, and judges nothing.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from cryptography import x509

LONGEST: Final = 16 * 1024
"""Bytes of a certificate that is read at all; usual ones have one or two thousand."""
LONGEST_NAME: Final = 2048
"""Characters of an alternative name; SPIFFE allows no more (SPIFFE-ID section 2.3), and host names have 253."""

COMMON_NAME: Final = "2.5.4.3"
UNIT: Final = "2.5.4.11"

_KEYWORDS: Final = {
    COMMON_NAME: "CN",
    "2.5.4.4": "SN",
    "2.5.4.5": "serialNumber",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.9": "street",
    "2.5.4.10": "O",
    UNIT: "OU",
    "2.5.4.12": "title",
    "2.5.4.42": "GN",
    "0.9.2342.19200300.100.1.1": "UID",
    "0.9.2342.19200300.100.1.25": "DC",
    "1.2.840.113549.1.9.1": "emailAddress",
}
"""How kinds of attributes are written: as RFC 4514 section 3 has it, and OpenSSL where that has no word for it."""
_KINDS: Final = {keyword.lower(): kind for kind, keyword in _KEYWORDS.items()}
_SPECIAL: Final = frozenset('"+,;<>\\')

Attribute: TypeAlias = tuple[str, str]
"""A kind, as the digits of its object identifier, and a value."""
Rdn: TypeAlias = tuple[Attribute, ...]
"""A part of a name: one attribute, rarely several, which have no order and are sorted."""


class UnreadableCertificate(ValueError):
    """A certificate cannot be read, though TLS has taken it; the message says why."""


class DistinguishedName:
    """The name of a subject or an issuer, most specific part first, as its text has it (RFC 4514)."""

    __slots__ = ("rdns", "text")

    def __init__(self, rdns: Sequence[Rdn]) -> None:
        self.rdns = tuple(rdns)
        self.text = ",".join("+".join(f"{_keyword(kind)}={_escaped(value)}" for kind, value in rdn) for rdn in rdns)
        """All of it can be printed, and stands on one line."""

    def values(self, kind: str) -> list[str]:
        """Return the values of all attributes of a kind, the most specific first."""
        return [value for rdn in self.rdns for each, value in rdn if each == kind]

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """What is read of a certificate. Alternative names that cannot be printed, or are too long, are left out."""

    subject: DistinguishedName
    issuer: DistinguishedName
    serial: str
    """The number that its issuer gave it, hexadecimal."""
    fingerprint: str
    """SHA-256 of all of it, hexadecimal."""
    not_before: float
    """From when on it is valid, in seconds since the epoch."""
    not_after: float
    uris: tuple[str, ...]
    """Alternative names of the subject (RFC 5280 section 4.2.1.6): such as the one of SPIFFE."""
    dns: tuple[str, ...]
    """In lower case."""
    emails: tuple[str, ...]
    """With the domain in lower case."""


def attribute_kind(text: str) -> str | None:
    """Return the kind of attribute that a text names, by keyword or by digits; None where it is none."""
    known = _KINDS.get(text.lower())
    if known is None and text.replace(".", "").isdecimal() and text.isascii() and "." in text:
        return text
    return known


def lowered_domain(email: str) -> str:
    """Return an address with its domain in lower case; what is before the @ may differ by case (RFC 5321 2.4)."""
    local, at, domain = email.rpartition("@")
    return f"{local}{at}{domain.lower()}"


def certificate_reader() -> Callable[[bytes], ClientCertificate]:
    """Return `read_certificate` once what it needs is there, which takes a tenth of a second and 11 MiB: a worker does
    that at load, and only where somebody is to read certificates."""
    import cryptography.x509  # noqa: F401

    return read_certificate


def read_certificate(der: bytes) -> ClientCertificate:
    """Return what a certificate says; raise UnreadableCertificate."""
    from cryptography import x509

    if len(der) > LONGEST:
        raise UnreadableCertificate(f"it has more than {LONGEST} bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the library's opinion of how it was made
            return _read(x509.load_der_x509_certificate(der), der)
    except (ValueError, x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType) as error:
        raise UnreadableCertificate(str(error)) from None


def _read(read: x509.Certificate, der: bytes) -> ClientCertificate:
    from cryptography import x509

    alternatives = _alternatives(read)
    return ClientCertificate(
        subject=_name(read.subject),
        issuer=_name(read.issuer),
        serial=f"{read.serial_number:x}",
        fingerprint=hashlib.sha256(der).hexdigest(),
        not_before=read.not_valid_before_utc.timestamp(),
        not_after=read.not_valid_after_utc.timestamp(),
        uris=_printable(alternatives, x509.UniformResourceIdentifier, str),
        dns=_printable(alternatives, x509.DNSName, str.lower),
        emails=_printable(alternatives, x509.RFC822Name, lowered_domain),
    )


def _alternatives(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    from cryptography import x509

    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None


def _printable(
    names: x509.SubjectAlternativeName | None,
    kind: type[x509.UniformResourceIdentifier | x509.DNSName | x509.RFC822Name],
    plain: Callable[[str], str],
) -> tuple[str, ...]:
    found = [] if names is None else names.get_values_for_type(kind)
    return tuple(plain(name) for name in found if 0 < len(name) <= LONGEST_NAME and name.isprintable())


def _name(name: x509.Name) -> DistinguishedName:
    return DistinguishedName([tuple(sorted(_attributes(rdn))) for rdn in reversed(name.rdns)])


def _attributes(rdn: x509.RelativeDistinguishedName) -> Iterator[Attribute]:
    for attribute in rdn:
        value = attribute.value
        yield attribute.oid.dotted_string, value if isinstance(value, str) else f"#{value.hex()}"


def _keyword(kind: str) -> str:
    return _KEYWORDS.get(kind, kind)


def _escaped(value: str) -> str:
    """Return a value as it stands in a text (RFC 4514 section 2.4)."""
    last = len(value) - 1
    return "".join(_escape(char, first=at == 0, last=at == last) for at, char in enumerate(value))


def _escape(char: str, *, first: bool, last: bool) -> str:
    if char in _SPECIAL or (char == "#" and first) or (char == " " and (first or last)):
        return f"\\{char}"
    if char.isprintable():
        return char
    return "".join(f"\\{byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))
