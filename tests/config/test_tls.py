"""Listeners and services that speak TLS: what may be written, what comes of it, and what is said about mistakes."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from portico.config.schema import Config, Listener
from portico.config.tls import KeyPair, ListenerTls, ServiceTls
from portico.config.upstream import Service
from tests.config.kinds import cases, load, said_of

FILES = ("a.crt", "a.key", "b.pem", "ca.pem", "tls/c.pem")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tls").mkdir()
    for name in FILES:
        (tmp_path / name).write_text(name)
    return tmp_path


def config_in(folder: Path, text: str) -> Config:
    """Load what has no mistakes, as if it stood in a file of `folder`."""
    loaded = load({str(folder / "portico.yaml"): text})
    assert loaded.findings == []
    assert loaded.config is not None
    return loaded.config


def said_in(folder: Path, text: str) -> list[str]:
    """Load what has mistakes; return what is said of its first line, which has nothing of where the folder is."""
    loaded = load({str(folder / "portico.yaml"): text})
    assert loaded.config is None
    return [line.replace(f"{folder}/", "FOLDER/") for line in said_of(loaded.findings)]


def listener_tls(folder: Path, settings: str) -> ListenerTls:
    tls = config_in(folder, f"listen: {{address: ':443', tls: {settings}}}").listen[0].tls
    assert tls is not None
    return tls


def service_tls(folder: Path, settings: str) -> ServiceTls:
    tls = config_in(folder, f"services: {{a: {{url: 'https://a', tls: {settings}}}}}").services["a"].tls
    assert tls is not None
    return tls


def pairs(folder: Path, *names: tuple[str, str]) -> tuple[KeyPair, ...]:
    return tuple(KeyPair(str(folder / certificate), str(folder / key)) for certificate, key in names)


# Listeners


def test_there_is_no_tls_unless_given(folder: Path) -> None:
    listener = config_in(folder, "listen: :80").listen[0]
    assert (listener.tls, listener.proxy_protocol, listener.redirect_https) == (None, None, None)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ("{certificate: a.crt, key: a.key}", [("a.crt", "a.key")]),
        ("{certificate: b.pem}", [("b.pem", "b.pem")]),
        ("{certificates: [{certificate: a.crt, key: a.key}]}", [("a.crt", "a.key")]),
        (
            "{certificates: [b.pem, {certificate: a.crt, key: a.key}, {certificate: tls/c.pem}]}",
            [("b.pem", "b.pem"), ("a.crt", "a.key"), ("tls/c.pem", "tls/c.pem")],
        ),
    ],
)
def test_certificates_come_in_pairs(folder: Path, settings: str, names: list[tuple[str, str]]) -> None:
    assert listener_tls(folder, settings).pairs == pairs(folder, *names)


@pytest.mark.parametrize("given", ["1.3", "'1.3'"])
def test_versions_may_look_like_numbers(folder: Path, given: str) -> None:
    assert listener_tls(folder, f"{{certificate: b.pem, min_version: {given}}}").min_version == "1.3"
    assert service_tls(folder, f"{{min_version: {given}}}").min_version == "1.3"
    assert listener_tls(folder, "{certificate: b.pem, min_version: 1.2}").min_version == "1.2"
    assert listener_tls(folder, "{certificate: b.pem}").min_version == "1.2"
    assert service_tls(folder, "{}").min_version == "1.2"


@pytest.mark.parametrize(
    ("settings", "clients"),
    [
        ("", "off"),
        (", client_certificates: off", "off"),
        (", client_certificates: false", "off"),
        (", client_ca: ca.pem", "required"),
        (", client_ca: ca.pem, client_certificates: required", "required"),
        (", client_certificates: optional, client_ca: ca.pem", "optional"),
    ],
)
def test_certificates_of_clients(folder: Path, settings: str, clients: str) -> None:
    tls = listener_tls(folder, f"{{certificate: b.pem{settings}}}")
    assert tls.client_certificates == clients
    assert tls.client_ca == (str(folder / "ca.pem") if "client_ca" in settings else None)


LISTENERS = """
{}
    32 tls: nothing says which certificate is shown
    hint: write {certificate: server.crt, key: server.key}
{certificates: []}
    47 certificates: nothing says which certificate is shown
    hint: write {certificate: server.crt, key: server.key}
{certificate: b.pem, certificates: [b.pem]}
    67 certificates: there is a certificate beside the list as well
    hint: move it into the list, as the first
{key: a.key, certificates: [b.pem]}
    38 key: there is no certificate for this key
    hint: add certificate:, or move it to its certificate in certificates:
{certificates: b.pem}
    47 certificates: expected a list, not 'b.pem'
    hint: write certificates: [b.pem]
{certificates: [{key: a.key}]}
    48 certificates needs 'certificate'
    hint: A PEM file with the certificate, and those between it and the root after it.
{certificate: b.pem, certficates: [b.pem]}
    53 unknown key 'certficates' in tls
    hint: did you mean 'certificates'?
{certificates: [{certificate: b.pem, kye: a.key}]}
    69 unknown key 'kye' in certificates
    hint: did you mean 'key'?
{certificate: b.pem, min_version: 1.1}
    66 min_version: expected '1.2' or '1.3', not 1.1
{certificate: b.pem, min_version: TLSv1.3}
    66 min_version: expected '1.2' or '1.3', not 'TLSv1.3'
{certificate: b.pem, client_certificates: required}
    74 client_certificates: nothing says who signs the certificates of clients
    hint: add client_ca: clients.pem
{certificate: b.pem, client_certificates: optional}
    74 client_certificates: nothing says who signs the certificates of clients
    hint: add client_ca: clients.pem
{certificate: b.pem, client_ca: ca.pem, client_certificates: off}
    93 client_certificates: there is a client_ca, and nobody is asked for a certificate
    hint: leave one of them out
{certificate: b.pem, client_ca: ca.pem, client_certificates: optinal}
    93 client_certificates: expected 'off', 'optional' or 'required', not 'optinal'
    hint: did you mean 'optional'?
{certificate: x.crt, key: [], client_ca: x.pem, client_certificates: optional}
    46 certificate: cannot read FOLDER/x.crt: No such file or directory
    58 key: expected a text, not a list
    73 client_ca: cannot read FOLDER/x.pem: No such file or directory
true
    32 tls: expected a mapping, not true
"""


@pytest.mark.parametrize(("settings", "said"), cases(LISTENERS))
def test_what_is_said_about_a_listener_s_tls(folder: Path, settings: str, said: list[str]) -> None:
    assert said_in(folder, f"listen: {{address: ':443', tls: {settings}}}") == said


# Services


def test_tls_of_a_service(folder: Path) -> None:
    assert service_tls(folder, "{}") == ServiceTls()
    tls = service_tls(folder, "{ca: ca.pem, certificate: a.crt, key: a.key, server_name: Orders.Internal}")
    assert (tls.ca, tls.pair) == (str(folder / "ca.pem"), pairs(folder, ("a.crt", "a.key"))[0])
    assert (tls.verify, tls.server_name) == (True, "orders.internal")
    assert service_tls(folder, "{certificate: b.pem}").pair == pairs(folder, ("b.pem", "b.pem"))[0]
    tls = service_tls(folder, "{verify: false}")
    assert (tls.verify, tls.ca, tls.pair, tls.server_name) == (False, None, None, None)


def test_tls_where_one_target_speaks_it(folder: Path) -> None:
    config = config_in(folder, "services: {a: {targets: ['a:80', 'https://b'], tls: {ca: ca.pem}}}")
    assert config.services["a"].tls == ServiceTls.model_construct(ca=str(folder / "ca.pem"))
    assert config_in(folder, "services: {a: 'https://a'}").services["a"].tls is None


SERVICES = """
url: 'http://orders', tls: {}
    43 tls: TLS is spoken to none of the service's targets
    hint: write https://orders:443, or leave tls out
targets: ['o:8080', 'p:8080'], tls: {}
    52 tls: TLS is spoken to none of the service's targets
    hint: write https://o:8080, or leave tls out
url: 'https://o', tls: {key: a.key}
    45 key: there is no certificate for this key
    hint: add certificate:
url: 'https://o', tls: {verify: maybe}
    48 verify: expected true or false, not 'maybe'
url: 'https://o', tls: {ca: ca.pem, verify: false}
    60 verify: with verify: false the ca is not looked at
    hint: leave one of them out
url: 'https://o', tls: {verfy: false}
    40 unknown key 'verfy' in tls
    hint: did you mean 'verify'?
url: 'https://o', tls: {server_name: 'https://o'}
    53 server_name: 'https://o' is not the name of a server
    hint: write orders.internal, without scheme, port or path
url: 'https://o', tls: {server_name: 10.0.0.7}
    53 server_name: '10.0.0.7' is not the name of a server
    hint: write orders.internal, without scheme, port or path
url: 'https://o', tls: {min_version: 1}
    53 min_version: expected '1.2' or '1.3', not 1
url: 'https://o', tls: {ca: none.pem}
    44 ca: cannot read FOLDER/none.pem: No such file or directory
url: 'ftp://a', tls: {}
    21 url: 'ftp://a' is not a URL of http or https
    hint: write http://orders:8080 or https://orders.example.com/api
"""


@pytest.mark.parametrize(("settings", "said"), cases(SERVICES))
def test_what_is_said_about_a_service_s_tls(folder: Path, settings: str, said: list[str]) -> None:
    assert said_in(folder, f"services: {{a: {{{settings}}}}}") == said


# Redirects


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("[{address: ':80', redirect_https: true}, {address: ':1', tls: T}, {address: ':2', tls: T}]", [1, None, None]),
        ("[{address: ':443', tls: T}, {address: ':80', redirect_https: true}, ':81']", [None, 443, None]),
        ("[{address: ':80', redirect_https: 443}, {address: ':81', redirect_https: '8443'}]", [443, 8443]),
        ("[{address: ':80', redirect_https: false}, {address: ':81', redirect_https: off}]", [None, None]),
        ("[{address: ':443', tls: T, redirect_https: off}]", [None]),
    ],
)  # fmt: skip
def test_redirects_know_the_port(folder: Path, text: str, ports: list[int | None]) -> None:
    config = config_in(folder, f"listen: {text.replace('T', '{certificate: b.pem}')}")
    assert [listener.redirect_https for listener in config.listen] == ports
    assert Config.model_validate(config.model_dump()) == config


REDIRECTS = """
[{address: ':80', redirect_https: true}, ':81', {address: ':82', redirect_https: true}]
    43 redirect_https: no listener has tls
    hint: give one tls: {certificate: ..., key: ...}, or write the port here
    90 redirect_https: no listener has tls
    hint: give one tls: {certificate: ..., key: ...}, or write the port here
[{address: ':80', redirect_https: true}, {address: ':0', tls: {certificate: b.pem}}]
    43 redirect_https: the listener with tls takes any free port
    hint: give it a port, or write one here
{address: ':443', tls: {certificate: b.pem}, redirect_https: true}
    70 redirect_https: this listener has tls itself
    hint: leave one out, or give plain HTTP a listener of its own
{address: ':443', redirect_https: 443, tls: {certificate: b.pem}}
    43 redirect_https: this listener has tls itself
    hint: leave one out, or give plain HTTP a listener of its own
{address: ':80', redirect_https: 0}
    42 redirect_https: expected 1 or more, not 0
{address: ':80', redirect_https: 65536}
    42 redirect_https: expected 65535 or less, not 65536
{address: ':80', redirect_https: https}
    42 redirect_https: expected a whole number, not 'https'
{address: ':80', redirect_htps: true}
    26 unknown key 'redirect_htps' in listen
    hint: did you mean 'redirect_https'?
[{address: ':80', redirect_https: true}, {address: ':443', tls: {certificate: x.pem}}]
    87 certificate: cannot read FOLDER/x.pem: No such file or directory
"""


@pytest.mark.parametrize(("text", "said"), cases(REDIRECTS))
def test_what_is_said_about_redirects(folder: Path, text: str, said: list[str]) -> None:
    assert said_in(folder, f"listen: {text}") == said


# All of it


def test_listeners_know_where_they_are_written(folder: Path) -> None:
    listen = config_in(folder, "listen:\n  - :80\n  - address: :81\n").listen
    assert [listener.origin for listener in listen] == [f"{folder}/portico.yaml:{line}:5" for line in (2, 3)]
    assert config_in(folder, "listen: ':80'").listen[0].origin == f"{folder}/portico.yaml:1:9"
    assert config_in(folder, "{}").listen[0].origin == ""


def test_what_has_tls_survives_a_pickle_and_compares_by_what_it_says(folder: Path) -> None:
    text = (
        "listen:\n  - {address: ':443', tls: {certificates: [b.pem], client_ca: ca.pem, min_version: 1.3}}\n"
        "  - {address: ':80', redirect_https: true, proxy_protocol: true}\n"
        "services: {a: {url: 'https://a', tls: {certificate: a.crt, key: a.key, server_name: a.b}}}\n"
    )
    config = config_in(folder, text)
    copy: Config = pickle.loads(pickle.dumps(config))
    assert copy == config
    tls = copy.listen[0].tls
    assert tls is not None
    assert tls.pairs == pairs(folder, ("b.pem", "b.pem"))
    moved = config_in(folder, "# moved down\n" + text)
    assert moved == config
    assert moved.listen[0].origin != config.listen[0].origin
    for change in (
        ("1.3", "1.2"),
        ("a.b", "a.c"),
        ("[b.pem]", "[tls/c.pem]"),
        ("protocol: true", "protocol: ['::/0']"),
    ):
        assert config_in(folder, text.replace(*change)) != config


def test_models_can_be_made_in_python(folder: Path) -> None:
    tls = ListenerTls(certificate=str(folder / "b.pem"), client_ca=str(folder / "ca.pem"))
    assert tls.client_certificates == "required"
    plain = Listener.model_validate({"address": ":80", "redirect_https": True})
    secure = Listener.model_validate({"address": ":443", "tls": tls})
    assert [listener.redirect_https for listener in Config(listen=(plain, secure)).listen] == [443, None]
    service = Service.model_validate({"url": "https://a/b", "tls": {"verify": False}})
    assert Service.model_validate(service.model_dump()) == service
