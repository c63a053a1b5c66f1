"""Certificates for tests, and TLS spoken in memory."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from portico.net.pem import KeyPair


class Authority:
    """Who signs certificates, into the files of one directory."""

    def __init__(self, directory: Path, name: str = "authority") -> None:
        self._ca = trustme.CA(organization_name=name)
        self._directory = directory
        self.path = str(directory / f"{name}.pem")
        self._ca.cert_pem.write_to_path(self.path)

    def issue(self, file: str, *names: str, days: float = 30, replaces: bool = False) -> KeyPair:
        """Write a certificate for `names`, and its key; it ends in so many `days`."""
        now = datetime.now(UTC)
        leaf = self._ca.issue_cert(
            *names, not_before=now - timedelta(days=60), not_after=now + timedelta(days=days), common_name=file
        )
        pair = KeyPair(str(self._directory / f"{file}.crt"), str(self._directory / f"{file}.key"))
        assert replaces or not Path(pair.certificate).exists()
        Path(pair.certificate).write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(pair.key)
        return pair

    def client(self, pair: KeyPair | None = None, only: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        """Return what a client that trusts this authority speaks, and shows."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.path)
        if pair is not None:
            context.load_cert_chain(*pair)
        if only is not None:
            context.minimum_version = context.maximum_version = only
        return context


class Meeting(NamedTuple):
    """Both sides of a connection in memory."""

    server: ssl.SSLObject
    client: ssl.SSLObject


def meet(
    server: ssl.SSLContext, client: ssl.SSLContext, name: str | None = None, session: ssl.SSLSession | None = None
) -> Meeting:
    """Shake hands in memory, and pass a byte each way; what either side finds wrong is raised."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server, server_hostname=name, session=session)
    answering = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (asking, answering):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    answering.write(b"s")
    assert asking.read(1) == b"s"  # and the tickets that came before it
    asking.write(b"c")
    assert answering.read(1) == b"c"
    return Meeting(answering, asking)


def root_that_ends_in(days: float) -> bytes:
    """Return the certificate of an authority that is none any more after so many `days`."""
    key, builder = _self_signed("root", days)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def for_clients_only(directory: Path) -> KeyPair:
    """Write a certificate that says that no server may use it, and its key, into one file."""
    key, builder = _self_signed("client", 30)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    return _in_one_file(directory / "clients-only.pem", key, builder)


def without_names(directory: Path) -> KeyPair:
    """Write a certificate that is for no host, and its key, into one file."""
    return _in_one_file(directory / "nameless.pem", *_self_signed("nameless", 30))


def _in_one_file(path: Path, key: ec.EllipticCurvePrivateKey, builder: x509.CertificateBuilder) -> KeyPair:
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(text + builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    return KeyPair(str(path), str(path))


def _self_signed(name: str, days: float) -> tuple[ec.EllipticCurvePrivateKey, x509.CertificateBuilder]:
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(who).issuer_name(who).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now - timedelta(days=1))
    return key, builder.not_valid_after(now + timedelta(days=days))
