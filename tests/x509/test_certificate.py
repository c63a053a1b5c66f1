"""What is read of a certificate; OpenSSL says whether names are written as others write them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from portico.x509.certificate import (
    COMMON_NAME,
    LONGEST,
    LONGEST_NAME,
    UNIT,
    UnreadableCertificate,
    attribute_kind,
    read_certificate,
)
from portico.x509.patterns import name_pattern
from tests.harness.client_certificates import Names, Signer, dns, email, name_of, uri
from tests.harness.tools import program

SIGNER = Signer()


def test_what_is_read() -> None:
    since, until = datetime(2026, 12, 31, 23, tzinfo=UTC), datetime(2050, 1, 1, tzinfo=UTC)
    made = SIGNER.sign(
        (("CN", "ada"), ("OU", "dev"), ("OU", "ops"), ("O", "Acme"), ("C", "CH")),
        dns("A.Example.com"),
        uri("spiffe://x/First"),
        email("Ada@Example.COM"),
        uri("spiffe://x/second"),
        dns("*.b.example"),
        since=since,
        until=until,
    )
    der = made.public_bytes(Encoding.DER)
    read = read_certificate(der)
    assert read.subject.text == "CN=ada,OU=dev,OU=ops,O=Acme,C=CH"
    assert read.issuer.text == "CN=Test CA,O=Acme"
    assert read.subject.values(UNIT) == ["dev", "ops"]
    assert read.subject.values(COMMON_NAME) == ["ada"]
    assert read.uris == ("spiffe://x/First", "spiffe://x/second")
    assert read.dns == ("a.example.com", "*.b.example")
    assert read.emails == ("Ada@example.com",)
    assert read.fingerprint == hashlib.sha256(der).hexdigest()
    assert int(read.serial, 16) == made.serial_number
    assert (read.not_before, read.not_after) == (since.timestamp(), until.timestamp())


def test_a_certificate_may_have_no_names() -> None:
    read = read_certificate(SIGNER.der(()))
    assert (read.subject.text, read.subject.rdns) == ("", ())
    assert read.uris == read.dns == read.emails == ()


def test_names_that_nobody_could_read_are_left_out() -> None:
    long = "a" * (LONGEST_NAME - 3)
    names = [dns("a\0.b"), dns("good"), uri("x:a\nb"), uri(f"x://{long}"), uri(f"x:1{long}"), email("a\r@b")]
    read = read_certificate(SIGNER.der((("CN", "ada"),), *names))
    assert (read.dns, read.uris, read.emails) == (("good",), (f"x:1{long}",), ())


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ((("CN", "a,b+c"), ("O", 'd"e\\f<g>h;i=j')), r"CN=a\,b\+c,O=d\"e\\f\<g\>h\;i=j"),
        ((("CN", " a "), ("O", "#b#")), r"CN=\ a\ ,O=\#b#"),
        ((("CN", "ada,O=Acme"), ("O", "Evil")), r"CN=ada\,O=Acme,O=Evil"),
        ((("CN", "a\nb\0"),), r"CN=a\0Ab\00"),
        ((("CN", "Zoë 東"),), "CN=Zoë 東"),
        ((("CN", "a\u202eb"),), r"CN=a\E2\80\AEb"),
        (((("CN", "ada"), ("OU", "dev")), ("O", "Acme")), "OU=dev+CN=ada,O=Acme"),
        ((("E", "ada@example.com"), ("DC", "example")), "emailAddress=ada@example.com,DC=example"),
        ((("X", "a"), ("CN", "b")), "1.3.6.1.4.1.99999.1=a,CN=b"),
    ],
)
def test_names_as_text(subject: Names, text: str) -> None:
    der = SIGNER.der(subject)
    read = read_certificate(der)
    assert read.subject.text == str(read.subject) == text
    assert name_pattern(text)(read.subject)
    asked = [program("openssl"), "x509", "-inform", "der", "-noout", "-subject", "-nameopt", "RFC2253"]
    said = subprocess.run(asked, input=der, capture_output=True, check=True).stdout.decode()
    if not said.startswith("subject=1."):  # of what it does not know, OpenSSL prints the bytes
        assert name_pattern(said.strip("\n").removeprefix("subject="))(read.subject)


def test_the_library_is_loaded_only_for_who_reads_certificates() -> None:
    """And then at load, where a worker has the time."""
    code = """
import sys, portico.plugin, portico.policies.mtls
assert not any(name.startswith("cryptography") for name in sys.modules)
portico.plugin.certificate_reader()
assert "cryptography.x509" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def broken() -> list[bytes]:
    good = SIGNER.der((("CN", "ada"),), dns("example.com"))
    key_usage = bytes.fromhex("0603551d11")  # the identifier of the alternative names
    return [
        b"",
        b"no certificate",
        good[:-1],
        good + b"x",
        good.replace(b"example.com", b"ex\xffmple.com"),
        good.replace(key_usage, bytes.fromhex("0603551d13")),  # and now they are said to be something else
        b"\x30" * LONGEST,
        b"x" * (LONGEST + 1),
    ]


def test_what_is_too_long_is_not_read() -> None:
    names = [dns(f"{'a' * 50}{number}.example") for number in range(300)]
    assert len(read_certificate(SIGNER.der((), *names[:200])).dns) == 200
    with pytest.raises(UnreadableCertificate, match="more than 16384 bytes"):
        read_certificate(SIGNER.der((), *names))


@pytest.mark.parametrize("der", broken())
def test_what_cannot_be_read(der: bytes) -> None:
    with pytest.raises(UnreadableCertificate):
        read_certificate(der)


def test_an_extension_twice() -> None:
    """Readers differ in which of the two they take."""
    since, until = datetime(2026, 1, 1, tzinfo=UTC), datetime(2028, 1, 1, tzinfo=UTC)
    builder = SIGNER._begun(SIGNER._key, name_of((("CN", "ada"),)), since, until)
    builder = builder.add_extension(x509.SubjectAlternativeName([dns("a.example")]), critical=False)
    builder = builder.add_extension(x509.IssuerAlternativeName([dns("b.example")]), critical=False)
    der = builder.sign(SIGNER._key, hashes.SHA256()).public_bytes(Encoding.DER)
    assert read_certificate(der).dns == ("a.example",)
    with pytest.raises(UnreadableCertificate, match=r"2\.5\.29\.17"):
        read_certificate(der.replace(bytes.fromhex("0603551d12"), bytes.fromhex("0603551d11")))


@pytest.mark.parametrize(
    ("text", "kind"),
    [("CN", COMMON_NAME), ("cn", COMMON_NAME), ("2.5.4.3", "2.5.4.3"), ("1", None), ("", None), ("x", None)],
)
def test_kinds_of_attributes(text: str, kind: str | None) -> None:
    assert attribute_kind(text) == kind


@pytest.mark.parametrize("at", range(0, 320, 5))
def test_damaged_certificates_are_read_or_refused(at: int) -> None:
    """Whatever stands in a certificate that was signed, nothing else is raised."""
    good = SIGNER.der((("CN", "ada"), ("O", "Acme")), dns("example.com"), uri("x:y"))
    for change in (0x01, 0x80, 0xFF):
        data = bytearray(good)
        data[at] ^= change
        try:
            read_certificate(bytes(data))
        except UnreadableCertificate:
            continue
