from __future__ import annotations

import base64
import logging
import os
import re
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID

from portico.errors import ConfigError
from portico.net.pem import KeyPair, reason, reason_of_service
from portico.net.tls import AcceptedTls, ClientTls, ServerTls, TlsFiles, _names, client_context, remarks_on
from tests.harness.certificates import (
    Authority,
    _in_one_file,
    _self_signed,
    for_clients_only,
    meet,
    root_that_ends_in,
    without_names,
)

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def others(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "others")


def serving(*pairs: KeyPair, minimum: ssl.TLSVersion = V12) -> ServerTls:
    return ServerTls(pairs, minimum, None, ssl.CERT_NONE)


def asking(authority: Authority, pair: KeyPair, clients: ssl.VerifyMode, *more: KeyPair) -> ServerTls:
    return ServerTls([pair, *more], V12, authority.path, clients)


def shown(server: ServerTls, client: ssl.SSLContext, name: str | None) -> str:
    """Return the file that a client is shown who asks for `name`; it is also the common name."""
    client.check_hostname = False
    certificate = meet(server.context, client, name).client.getpeercert()
    assert certificate is not None
    subject = dict(part for (part,) in certificate["subject"])
    return str(subject["commonName"])


@pytest.mark.parametrize(
    ("name", "file"),
    [
        (None, "default"),
        ("default.test", "default"),
        ("nobody.test", "default"),
        ("test", "default"),
        ("a.test", "a"),
        ("A.Test", "a"),
        ("a.test.", "a"),
        ("also-a.test", "a"),
        ("wild.test", "default"),
        ("x.wild.test", "wildcard"),
        ("X.WILD.test", "wildcard"),
        ("one.wild.test", "exact"),
        ("one.one.wild.test", "default"),
        ("*.wild.test", "wildcard"),
        ("xn--bcher-kva.test", "a"),
        ("twice.test", "a"),
    ],
)
def test_the_name_that_a_client_asks_for_chooses_the_certificate(
    authority: Authority, name: str | None, file: str
) -> None:
    server = serving(
        authority.issue("default", "default.test"),
        authority.issue("wildcard", "*.wild.test"),
        authority.issue("a", "a.test", "also-a.test", "xn--bcher-kva.test", "twice.test"),
        authority.issue("exact", "one.wild.test", "twice.test"),
    )
    assert shown(server, authority.client(), name) == file


def test_names_are_compared_in_one_form() -> None:
    names = (("DNS", "A.Test"), ("IP Address", "0:0:0:0:0:0:0:1"), ("IP Address", "<invalid>"), ("email", "a@a.test"))
    assert _names({"subjectAltName": names}) == ["a.test", "::1"]


def test_the_name_that_was_asked_for_is_known(authority: Authority) -> None:
    server = serving(authority.issue("a", "a.test"), authority.issue("b", "b.test"))
    for name, known in (("A.test", "a.test"), ("b.test", "b.test")):
        side = meet(server.context, authority.client(), name).server
        assert isinstance(side, AcceptedTls)
        assert side.server_name == known
    client = authority.client()
    client.check_hostname = False
    nameless = meet(server.context, client).server
    assert isinstance(nameless, AcceptedTls)
    assert nameless.server_name is None


def said_of(made: TlsFiles) -> list[str]:
    """Return what is odd about files, without where they are."""
    assert all(remark.hint for remark in made.remarks())
    return [re.sub(r"\S*/", "", remark.message) for remark in made.remarks()]


def test_a_certificate_that_is_never_shown_is_told_of(authority: Authority) -> None:
    pairs = [authority.issue("a", "a.test", "b.test"), authority.issue("b", "b.test"), authority.issue("c", "c.test")]
    assert said_of(serving(*pairs)) == ["b.crt is never shown: another certificate comes first for each of its names"]


@pytest.mark.parametrize("only", [V12, V13])
@pytest.mark.parametrize("name", ["a.test", "b.test"])
@pytest.mark.parametrize("clients", [ssl.CERT_NONE, ssl.CERT_OPTIONAL, ssl.CERT_REQUIRED])
def test_sessions_are_resumed(authority: Authority, only: ssl.TLSVersion, name: str, clients: ssl.VerifyMode) -> None:
    pairs = [authority.issue("a", "a.test"), authority.issue("b", "b.test")]
    ca = None if clients is ssl.CERT_NONE else authority.path
    server = ServerTls(pairs, V12, ca, clients)
    client = authority.client(authority.issue("client", "client.test"), only)
    first = meet(server.context, client, name)
    assert not first.server.session_reused
    second = meet(server.context, client, name, first.client.session)
    assert second.server.session_reused
    assert second.client.session_reused
    assert second.server.getpeercert(True) == first.server.getpeercert(True)
    assert (second.server.getpeercert(True) is None) == (clients is ssl.CERT_NONE)


def test_a_session_does_not_outlive_the_authority_that_let_it_in(authority: Authority, others: Authority) -> None:
    pair = authority.issue("a", "a.test")
    server = asking(authority, pair, ssl.CERT_REQUIRED)
    client = authority.client(authority.issue("client", "client.test"))
    first = meet(server.context, client, "a.test")
    Path(authority.path).write_bytes(Path(others.path).read_bytes())
    assert server.refresh()
    with pytest.raises(ssl.SSLCertVerificationError):
        meet(server.context, client, "a.test", first.client.session)


@pytest.mark.parametrize("only", [V12, V13])
@pytest.mark.parametrize("name", ["a.test", "b.test"])
@pytest.mark.parametrize(
    ("clients", "who", "let_in"),
    [
        (ssl.CERT_OPTIONAL, "nobody", True),
        (ssl.CERT_OPTIONAL, "known", True),
        (ssl.CERT_OPTIONAL, "stranger", False),
        (ssl.CERT_OPTIONAL, "expired", False),
        (ssl.CERT_REQUIRED, "nobody", False),
        (ssl.CERT_REQUIRED, "known", True),
        (ssl.CERT_REQUIRED, "stranger", False),
        (ssl.CERT_REQUIRED, "expired", False),
    ],
)
def test_clients_are_asked_for_certificates_whatever_name_they_ask_for(
    authority: Authority,
    others: Authority,
    clients: ssl.VerifyMode,
    who: str,
    let_in: bool,
    name: str,
    only: ssl.TLSVersion,
) -> None:
    server = asking(authority, authority.issue("a", "a.test"), clients, authority.issue("b", "b.test"))
    cards = {
        "nobody": None,
        "known": authority.issue("known", "known.test"),
        "stranger": others.issue("stranger", "stranger.test"),
        "expired": authority.issue("expired", "expired.test", days=-1),
    }
    client = authority.client(cards[who], only)
    if not let_in:
        with pytest.raises(ssl.SSLError):
            meet(server.context, client, name)
        return
    seen = meet(server.context, client, name).server.getpeercert()
    assert seen is None if who == "nobody" else seen["subjectAltName"] == (("DNS", "known.test"),)  # type: ignore[index]


def test_the_lowest_version_is_kept_to(authority: Authority) -> None:
    server = serving(authority.issue("a", "a.test"), minimum=V13)
    assert meet(server.context, authority.client(), "a.test").server.version() == "TLSv1.3"
    with pytest.raises(ssl.SSLError, match=r"(?i)unsupported protocol"):
        meet(server.context, authority.client(only=V12), "a.test")


@pytest.mark.parametrize("suites", ["ECDHE-ECDSA-AES256-SHA384", "ECDHE-ECDSA-AES128-SHA", "AES128-GCM-SHA256", "DHE"])
def test_suites_without_forward_secrecy_or_authenticated_encryption_are_refused(
    authority: Authority, suites: str
) -> None:
    server = serving(authority.issue("a", "a.test"))
    client = authority.client(only=V12)
    client.set_ciphers(suites)
    with pytest.raises(ssl.SSLError, match=r"(?i)no shared cipher"):
        meet(server.context, client, "a.test")


@pytest.mark.parametrize("suite", ["ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-ECDSA-AES128-GCM-SHA256"])
def test_the_client_chooses_among_sound_suites(authority: Authority, suite: str) -> None:
    server = serving(authority.issue("a", "a.test"))
    client = authority.client(only=V12)
    client.set_ciphers(f"{suite}:ECDHE+AESGCM:ECDHE+CHACHA20")
    cipher = meet(server.context, client, "a.test").server.cipher()
    assert cipher is not None
    assert cipher[0] == suite


@pytest.mark.parametrize("name", ["a.test", "b.test"])
def test_http_1_is_agreed_on(authority: Authority, name: str) -> None:
    server = serving(authority.issue("a", "a.test"), authority.issue("b", "b.test"))
    for offered, agreed in ((["h2", "http/1.1"], "http/1.1"), (["h2"], None)):
        client = authority.client()
        client.set_alpn_protocols(offered)
        assert meet(server.context, client, name).client.selected_alpn_protocol() == agreed


def test_a_certificate_without_a_name_is_told_of(tmp_path: Path) -> None:
    pair = without_names(tmp_path)
    first = "nameless.pem has no host in its subjectAltName: browsers and curl refuse it"
    assert said_of(serving(pair)) == [first]
    assert said_of(serving(pair, pair)) == [
        first,
        "nameless.pem has no host in its subjectAltName: it is never shown",
    ]


# What is wrong with files is said at load.


def encrypted(pair: KeyPair) -> None:
    key = serialization.load_pem_private_key(Path(pair.key).read_bytes(), None)
    secret = serialization.BestAvailableEncryption(b"secret")
    text = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret)
    Path(pair.key).write_bytes(text)


def swap(pair: KeyPair) -> None:
    certificate, key = (Path(path).read_bytes() for path in pair)
    Path(pair.certificate).write_bytes(key)
    Path(pair.key).write_bytes(certificate)


def as_der(path: str) -> None:
    lines = Path(path).read_text().splitlines()
    end = next(index for index, line in enumerate(lines) if line.startswith("-----END"))
    Path(path).write_bytes(base64.b64decode("".join(lines[1:end])))


def as_pkcs12(pair: KeyPair) -> None:
    certificate = x509.load_pem_x509_certificate(Path(pair.certificate).read_bytes())
    key = serialization.load_pem_private_key(Path(pair.key).read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    none = serialization.NoEncryption()
    content = pkcs12.serialize_key_and_certificates(None, key, certificate, None, none)
    Path(pair.certificate).write_bytes(content)


def damaged(path: str) -> None:
    lines = Path(path).read_text().splitlines()
    lines[2] = lines[2][::-1]
    del lines[3]
    Path(path).write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda pair, _: Path(pair.certificate).unlink(), r"a\.crt: cannot be read: No such file"),
        (lambda pair, _: Path(pair.key).unlink(), r"a\.key: cannot be read: No such file"),
        (lambda pair, _: Path(pair.certificate).write_bytes(b"\x30\x82"), r"a\.crt: there is no certificate in it in"),
        (lambda pair, _: Path(pair.key).write_text(""), r"a\.key: there is no private key in it in PEM form"),
        (
            lambda pair, _: swap(pair),
            r"a\.crt: there is no certificate in it in PEM form; are certificate and key swapped, or is the key's file",
        ),
        (
            lambda pair, _: Path(pair.key).write_bytes(Path(pair.certificate).read_bytes()),
            r"a\.key: there is no private key in it in PEM form; are certificate and key swapped, or is the key's file",
        ),
        (lambda pair, _: Path(pair.certificate).write_text("text"), r"a\.crt: there is no certificate .* PEM form$"),
        (lambda pair, _: as_der(pair.certificate), r"; convert it to PEM: openssl x509 -inform der -in \S*a\.crt$"),
        (lambda pair, _: as_der(pair.key), r"; convert it to PEM: openssl pkey -inform der -in \S*a\.key$"),
        (lambda pair, _: as_pkcs12(pair), r"; convert it to PEM: openssl pkcs12 -nodes -in \S*a\.crt$"),
        (lambda pair, _: damaged(pair.certificate), r"a\.crt: a certificate in it is damaged"),
        (lambda pair, _: damaged(pair.key), r"a\.key: the private key is damaged"),
        (lambda pair, _: encrypted(pair), r"a\.key: the key is encrypted"),
        (
            lambda pair, other: Path(pair.key).write_bytes(Path(other.key).read_bytes()),
            r"a\.key: the key does not belong to the certificate .*a\.crt",
        ),
    ],
)
def test_files_that_are_of_no_use_are_named(authority: Authority, harm, message: str) -> None:  # type: ignore[no-untyped-def]
    pair, other = authority.issue("a", "a.test"), authority.issue("other", "other.test")
    harm(pair, other)
    for load in (lambda: serving(other, pair), lambda: client_context(None, pair, verify=True)):
        with pytest.raises(ConfigError, match=message):
            load()


def test_a_certificate_that_no_client_would_take_is_refused(authority: Authority, tmp_path: Path) -> None:
    pair = for_clients_only(tmp_path)
    with pytest.raises(
        ConfigError, match=r"clients-only\.pem: no client would accept it: unsuitable certificate purpose"
    ):
        serving(pair)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        (b"text", "there is no certificate in it in PEM form"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "a certificate in it is damaged"),
    ],
)
def test_authorities_that_are_of_no_use_are_named(
    authority: Authority, tmp_path: Path, content: bytes | None, message: str
) -> None:
    pair = authority.issue("a", "a.test")
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    for load in (
        lambda: ServerTls([pair], V12, str(path), ssl.CERT_REQUIRED),
        lambda: client_context(str(path), None, verify=True),
    ):
        with pytest.raises(ConfigError, match=f"ca.pem: {message}"):
            load()


def test_certificate_and_key_may_be_in_one_file(authority: Authority, tmp_path: Path) -> None:
    pair = authority.issue("a", "a.test")
    both = tmp_path / "both.pem"
    both.write_bytes(Path(pair.key).read_bytes() + Path(pair.certificate).read_bytes())
    server = serving(KeyPair(str(both), str(both)))
    assert shown(server, authority.client(), "a.test") == "a"


def test_when_certificates_end_is_known(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    soon, over = authority.issue("soon", "a.test", days=2), authority.issue("over", "b.test", days=-3)
    server = serving(soon, over)
    assert [expiry.certificate for expiry in server.expires] == [soon.certificate, over.certificate]
    for expiry, days in zip(server.expires, (2, -3), strict=True):
        assert abs(expiry.not_after - (time.time() + days * 86400)) < 120
    assert caplog.records == []  # each worker loads them: it is said by what looks at the file for all of them


def minute(days: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(time.time() + days * 86400)) + r" \d\d:\d\d UTC"


@pytest.mark.parametrize("side", ["clients", "services"])
@pytest.mark.parametrize(
    ("ends", "moved", "said"),
    [
        (30, 0, None),
        (14.1, 0, None),
        (13.9, 0, "a.crt expires on {}"),
        (-3, 0, "a.crt expired on {}: {side} refuse it"),
        (30, 31, "a.crt expired on {}: {side} refuse it"),
        (30, -59.9, None),
        (30, -60.1, "a.crt is not valid before {begin}: {side} refuse it"),
        (-50, -53.4, None),  # one for ten days only is renewed in its last third
        (-50, -53.2, "a.crt expires on {}"),
    ],
)
def test_a_certificate_that_is_not_valid_or_not_for_long_is_told_of(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, side: str, ends: float, moved: float, said: str | None
) -> None:
    pair = authority.issue("a", "a.test", days=ends)
    pattern = said and re.escape(said).replace(r"\{side\}", side).replace(r"\{\}", minute(ends))
    pattern = pattern and pattern.replace(r"\{begin\}", minute(-60))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + moved * 86400)
    made = serving(pair) if side == "clients" else ClientTls(None, pair, True, V12, None)
    found = said_of(made)
    assert len(found) == (pattern is not None)
    assert pattern is None or re.fullmatch(pattern, found[0])


def test_what_stands_after_a_certificate_may_not_be_valid_either(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = authority.issue("a", "a.test", days=30)
    Path(pair.certificate).write_bytes(Path(pair.certificate).read_bytes() + root_that_ends_in(20))
    assert said_of(serving(pair)) == []
    now = time.time()
    for moved, said in ((19, "expires on"), (21, "expired on"), (-2, "is not valid before")):
        monkeypatch.setattr(time, "time", lambda moved=moved: now + moved * 86400)
        (found,) = said_of(serving(pair))
        assert found.startswith(f"a certificate after the first in a.crt {said}")


def test_what_services_are_shown_may_be_for_clients_only_and_not_for_servers_only(tmp_path: Path) -> None:
    assert remarks_on(None) == ()
    assert remarks_on(for_clients_only(tmp_path)) == ()
    key, builder = _self_signed("server", 30)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    pair = _in_one_file(tmp_path / "servers-only.pem", key, builder)
    (remark,) = remarks_on(pair)
    assert remark.message.endswith("servers-only.pem: no service would accept it: unsuitable certificate purpose")
    assert said_of(ClientTls(None, pair, True, V12, None)) == [Path(remark.message).name]


def test_the_first_certificate_of_a_file_to_end_counts(authority: Authority, tmp_path: Path) -> None:
    pair = authority.issue("a", "a.test", days=30)
    above = root_that_ends_in(5)
    Path(pair.certificate).write_bytes(Path(pair.certificate).read_bytes() + above)
    (expiry,) = serving(pair).expires
    assert abs(expiry.not_after - (time.time() + 5 * 86400)) < 120


# Files change while they are in use.


def later(*paths: str) -> None:
    """Have files look as if they had been written a minute from now: a test is quicker than a file's clock."""
    for path in paths:
        when = time.time() + 60
        os.utime(path, (when, when))


def test_nothing_is_loaded_where_nothing_has_changed(authority: Authority) -> None:
    server = serving(authority.issue("a", "a.test"))
    context = server.context
    assert not server.refresh()
    assert server.context is context


def test_a_file_that_has_changed_is_used_for_the_next_connection(authority: Authority) -> None:
    server = serving(authority.issue("first", "default.test"), authority.issue("a", "a.test"))
    client = authority.client()
    old = meet(server.context, client, "a.test")
    authority.issue("a", "b.test", replaces=True)
    assert server.refresh()
    assert shown(server, client, "b.test") == "a"
    assert shown(server, client, "a.test") == "first"
    old.client.write(b"still there")
    assert old.server.read(100) == b"still there"
    assert not server.refresh()


def test_what_cannot_be_loaded_leaves_the_old_in_use_and_is_said_once(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    pair = authority.issue("a", "a.test")
    server = serving(pair)
    context, expires = server.context, server.expires
    key = Path(pair.key).read_bytes()

    def messages() -> list[str]:
        said = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        caplog.clear()
        return said

    authority.issue("a", "a.test", days=90, replaces=True)
    new_key = Path(pair.key).read_bytes()
    Path(pair.key).write_bytes(key)  # the certificate comes first, its key a moment later
    for _ in range(3):
        assert not server.refresh()
    (message,) = messages()
    assert "a.key: the key does not belong to the certificate" in message
    assert (server.context, server.expires) == (context, expires)
    Path(pair.key).unlink()
    for _ in range(3):
        assert not server.refresh()
    (message,) = messages()
    assert "a.key: cannot be read" in message
    Path(pair.key).write_bytes(new_key)
    assert server.refresh()
    assert messages() == []
    assert server.context is not context
    assert server.expires != expires


def test_files_that_come_back_as_they_were_are_told_of(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    pair = authority.issue("a", "a.test")
    server = serving(pair)
    context = server.context
    away = Path(pair.key).rename(Path(pair.key).with_suffix(".away"))
    assert not server.refresh()
    away.rename(pair.key)
    for _ in range(3):
        assert not server.refresh()
    assert server.context is context
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("certificates were not read again")
    assert second == f"certificates are as they were: {pair.certificate}, {pair.key}"
    Path(pair.key).rename(away)
    assert not server.refresh()  # the same failure is told of again after that
    assert caplog.records[2].getMessage() == first


@pytest.mark.parametrize(
    "make", [serving, lambda pair: ClientTls(None, pair, True, V12, None)], ids=["server", "client"]
)
def test_what_is_odd_about_a_new_certificate_is_logged(
    authority: Authority, caplog: pytest.LogCaptureFixture, make: Callable[[KeyPair], TlsFiles]
) -> None:
    made = make(authority.issue("a", "a.test"))
    authority.issue("a", "a.test", days=2, replaces=True)
    assert made.refresh()
    assert not made.refresh()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert re.search(r"a\.crt expires on .*; renew it", record.getMessage())


def test_a_symbolic_link_that_leads_elsewhere_is_a_change(authority: Authority, tmp_path: Path) -> None:
    for version, name in (("v1", "a.test"), ("v2", "b.test")):
        (tmp_path / version).mkdir()
        pair = authority.issue(version, name)
        Path(pair.certificate).rename(tmp_path / version / "tls.crt")
        Path(pair.key).rename(tmp_path / version / "tls.key")
    data = tmp_path / "data"
    data.symlink_to("v1")
    for file in ("tls.crt", "tls.key"):
        (tmp_path / file).symlink_to(f"data/{file}")
    server = serving(KeyPair(str(tmp_path / "tls.crt"), str(tmp_path / "tls.key")))
    (tmp_path / "next").symlink_to("v2")
    (tmp_path / "next").rename(data)
    assert server.refresh()
    assert shown(server, authority.client(), None) == "v2"


def test_the_authority_of_clients_is_read_again_as_well(authority: Authority, others: Authority) -> None:
    server = asking(authority, authority.issue("a", "a.test"), ssl.CERT_REQUIRED)
    client = authority.client(others.issue("client", "client.test"))
    with pytest.raises(ssl.SSLError):
        meet(server.context, client, "a.test")
    Path(authority.path).write_bytes(Path(authority.path).read_bytes() + Path(others.path).read_bytes())
    assert server.refresh()
    assert meet(server.context, client, "a.test").server.getpeercert()


def test_a_file_that_was_only_touched_does_no_harm(authority: Authority) -> None:
    pair = authority.issue("a", "a.test")
    server = serving(pair)
    later(*pair)
    assert server.refresh()
    assert shown(server, authority.client(), "a.test") == "a"


# Toward services.


def test_a_service_is_verified(authority: Authority, others: Authority) -> None:
    server = serving(authority.issue("a", "a.test", "127.0.0.1")).context
    client = client_context(authority.path, None, verify=True)
    assert meet(server, client, "a.test").client.selected_alpn_protocol() == "http/1.1"
    meet(server, client, "127.0.0.1")
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        meet(server, client, "b.test")
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
        meet(server, client_context(others.path, None, verify=True), "a.test")
    with pytest.raises(ssl.SSLCertVerificationError):
        meet(server, client_context(None, None, verify=True), "a.test")
    meet(server, client_context(None, None, verify=False), "b.test")


def test_the_authorities_of_the_system_are_trusted_unless_others_are_named(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serving(authority.issue("a", "a.test")).context
    monkeypatch.setenv("SSL_CERT_FILE", authority.path)
    meet(server, client_context(None, None, verify=True), "a.test")


def test_a_service_is_shown_a_certificate(authority: Authority) -> None:
    server = asking(authority, authority.issue("a", "a.test"), ssl.CERT_REQUIRED).context
    client = client_context(authority.path, authority.issue("gateway", "gateway.test"), verify=True)
    assert meet(server, client, "a.test").server.getpeercert()
    with pytest.raises(ssl.SSLError):
        meet(server, client_context(authority.path, None, verify=True), "a.test")


def test_a_service_that_speaks_an_old_version_is_refused(authority: Authority) -> None:
    server = serving(authority.issue("a", "a.test")).context
    server.maximum_version = V12
    meet(server, client_context(authority.path, None, verify=True), "a.test")
    with pytest.raises(ssl.SSLError):
        meet(server, client_context(authority.path, None, verify=True, minimum=V13), "a.test")


# Why it fails.


def failure(server: ssl.SSLContext, client: ssl.SSLContext, name: str = "a.test") -> ssl.SSLError:
    with pytest.raises(ssl.SSLError) as caught:
        meet(server, client, name)
    return caught.value


def test_who_signed_a_service_s_certificate_can_be_named(authority: Authority, others: Authority) -> None:
    server = serving(authority.issue("a", "a.test")).context
    error = failure(server, client_context(others.path, None, verify=True))
    assert reason(error) == "certificate verify failed: unable to get local issuer certificate"
    assert reason_of_service(error) == f"{reason(error)}; name who signed it with tls.ca"
    for other in (
        failure(server, client_context(authority.path, None, verify=True), "b.test"),
        failure(serving(authority.issue("over", "a.test", days=-1)).context, authority.client()),
    ):
        assert reason_of_service(other) == reason(other)


def test_a_certificate_that_signs_itself_is_named_with_tls_ca(authority: Authority, tmp_path: Path) -> None:
    error = failure(serving(without_names(tmp_path)).context, client_context(authority.path, None, verify=True))
    assert reason_of_service(error) == (
        "certificate verify failed: self-signed certificate; name who signed it with tls.ca"
    )


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "connection refused"),
        (socket.gaierror(-2, "Name or service not known"), "name or service not known"),
        (OSError("Multiple exceptions"), "multiple exceptions"),
        (OSError(), "OSError"),
    ],
)
def test_why_there_is_no_connection_is_said_in_words(error: OSError, said: str) -> None:
    assert reason_of_service(error) == said


def test_plain_http_is_told_of_in_plain_words(authority: Authority) -> None:
    for context, server_side, said in (
        (serving(authority.issue("a", "a.test")).context, True, "the client speaks plain HTTP"),
        (authority.client(), False, "what came is not TLS; is plain HTTP spoken there?"),
    ):
        incoming = ssl.MemoryBIO()
        name = None if server_side else "a.test"
        side = context.wrap_bio(incoming, ssl.MemoryBIO(), server_side, name)
        with pytest.raises(ssl.SSLWantReadError):
            side.do_handshake()
        incoming.write(b"GET / HTTP/1.1\r\n\r\n" if server_side else b"HTTP/1.1 400 Bad Request\r\n\r\n")
        with pytest.raises(ssl.SSLError) as caught:
            side.do_handshake()
        assert reason(caught.value) == reason_of_service(caught.value) == said
