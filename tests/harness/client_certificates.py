"""Certificates of clients that say whatever a test wants, and the files that a client shows them from."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

NOW = datetime.now(UTC).replace(microsecond=0)
"""The time of day when the tests begin; certificates tell whole seconds."""

KINDS = {
    "CN": NameOID.COMMON_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "C": NameOID.COUNTRY_NAME,
    "DC": NameOID.DOMAIN_COMPONENT,
    "E": NameOID.EMAIL_ADDRESS,
    "X": x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"),
}

Names = Sequence[tuple[str, str] | Sequence[tuple[str, str]]]
"""Most specific first, as a text has them: a kind and a value, or several of one part."""


def name_of(names: Names) -> x509.Name:
    rdns = []
    for part in reversed(names):
        pairs = [part] if isinstance(part[0], str) else part
        rdns.append(x509.RelativeDistinguishedName([x509.NameAttribute(KINDS[kind], value) for kind, value in pairs]))  # type: ignore[index, misc]
    return x509.Name(rdns)


class Shown(NamedTuple):
    """A certificate, and the file from which curl shows it."""

    der: bytes
    file: str


class Signer:
    """An authority that signs anything."""

    def __init__(self, names: Names = (("CN", "Test CA"), ("O", "Acme"))) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = name_of(names)
        now = datetime.now(UTC)
        builder = self._begun(self._key, self._name, now - timedelta(days=9), now + timedelta(days=9))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.pem = builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def _begun(
        self, key: ec.EllipticCurvePrivateKey, subject: x509.Name, since: datetime, until: datetime
    ) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key.public_key())
        return builder.serial_number(x509.random_serial_number()).not_valid_before(since).not_valid_after(until)

    def sign(
        self,
        subject: Names = (("CN", "ada"),),
        *alternatives: x509.GeneralName,
        since: datetime = NOW - timedelta(days=1),
        until: datetime = NOW + timedelta(days=1),
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> x509.Certificate:
        builder = self._begun(key or self._key, name_of(subject), since, until)
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def der(self, subject: Names = (("CN", "ada"),), *alternatives: x509.GeneralName, **times: datetime) -> bytes:
        return self.sign(subject, *alternatives, **times).public_bytes(Encoding.DER)

    def issue(
        self, folder: Path, file: str, subject: Names, *alternatives: x509.GeneralName, lives: float = 3600.0
    ) -> Shown:
        """Write a certificate that is valid for so many seconds, with its key, into one file."""
        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
        until = now + timedelta(seconds=lives)
        made = self.sign(subject, *alternatives, since=now - timedelta(days=1), until=until, key=key)
        path = folder / file
        text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path.write_bytes(text + made.public_bytes(Encoding.PEM))
        return Shown(made.public_bytes(Encoding.DER), str(path))


def uri(value: str) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(value)


def dns(value: str) -> x509.GeneralName:
    return x509.DNSName(value)


def email(value: str) -> x509.GeneralName:
    return x509.RFC822Name(value)
