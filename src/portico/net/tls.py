"""What TLS is spoken with: certificates, their keys, and who is trusted, made into contexts of the `ssl` module."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from portico.errors import ConfigError
from portico.net.pem import KeyPair, Stamp, load_authorities, load_pair, reason, stamp

logger = logging.getLogger("portico.tls")

CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""The suites of TLS 1.2: forward secrecy and authenticated encryption, nothing else. Those of TLS 1.3 are all sound."""

PROTOCOLS: Final = ("http/1.1",)
"""What is agreed on by ALPN (RFC 7301)."""

_SERVER: Final = ssl.PROTOCOL_TLS_SERVER
_X509_V_FLAG_NO_CHECK_TIME: Final = 0x200000  # of OpenSSL's x509_vfy.h; the ssl module has no name for it

_SOON: Final = 14 * 86400.0
"""So many seconds before its end a certificate is warned of, unless it is one for a short time."""


class Expiry(NamedTuple):
    """Until when a certificate's file is of use: the earliest end in it, in seconds since the epoch."""

    certificate: str
    not_after: float


class Remark(NamedTuple):
    """What is odd about a certificate that can be used, and what can be done about it."""

    message: str
    hint: str


class AcceptedTls(ssl.SSLObject):
    """The TLS of one accepted connection."""

    server_name: str | None = None
    """The name that the client asks for (SNI, RFC 6066 section 3), in lower case."""


class _Loaded(NamedTuple):
    context: ssl.SSLContext
    expires: tuple[Expiry, ...]
    remarks: tuple[Remark, ...]


class _Span(NamedTuple):
    """From when until when a certificate is valid, in seconds since the epoch."""

    ends: float
    begins: float


class _Seen(NamedTuple):
    """A certificate's file, as the other side sees it: its names, and how long it and those after it are valid."""

    names: list[str]
    spans: list[_Span]


class TlsFiles:
    """What was made of certificate files, and is made anew when they change."""

    __slots__ = ("__weakref__", "_failure", "_paths", "_stamps")

    def __init__(self, paths: Iterable[str | None]) -> None:
        """Make it of the files at `paths`. Raises ConfigError."""
        self._paths = tuple(path for path in paths if path is not None)
        self._failure = ""
        self._stamps = self._stamps_now()  # before the files are read: what changes meanwhile is read again
        self.load()

    def load(self) -> None:
        """Read the files, and take what was made of them into use at once. Raises ConfigError, and changes nothing."""
        raise NotImplementedError

    def remarks(self) -> tuple[Remark, ...]:
        """Return what is odd about the certificates that were loaded; `refresh` logs it, `load` does not."""
        raise NotImplementedError

    def refresh(self) -> bool:
        """Load everything anew where a file has changed, and tell whether that was done.

        Where it cannot be loaded, what was loaded before stays, and each distinct failure is logged once.
        """
        stamps = self._stamps_now()
        if stamps == self._stamps:
            if self._failure:
                self._failure = ""
                logger.info("certificates are as they were: %s", ", ".join(self._paths))
            return False
        try:
            self.load()
        except ConfigError as error:
            if str(error) != self._failure:
                self._failure = str(error)
                logger.error("certificates were not read again, the old ones stay in use: %s", error)  # noqa: TRY400
            return False
        self._stamps = stamps
        self._failure = ""
        logger.info("certificates were read again: %s", ", ".join(self._paths))
        for remark in self.remarks():
            logger.warning("%s; %s", *remark)
        return True

    def _stamps_now(self) -> tuple[Stamp, ...]:
        return tuple(stamp(path) for path in self._paths)


class ServerTls(TlsFiles):
    """The TLS of a listener: its certificates, which are chosen by name, and what it asks of clients.

    Whether clients need a certificate, and who may have signed it, is the same for all names: what a client is shown
    can be chosen once its name for us is known, but not what it is asked for.

    Sessions are resumed by tickets, whose key is made anew with each load: resumption never outlives the client CA.
    """

    __slots__ = ("_client_ca", "_client_certificates", "_loaded", "_minimum", "_pairs")

    def __init__(
        self,
        pairs: Sequence[KeyPair],
        minimum: ssl.TLSVersion,
        client_ca: str | None,
        client_certificates: ssl.VerifyMode,
    ) -> None:
        """Load everything; the first of `pairs` is shown where no name matches. Raises ConfigError."""
        self._pairs = tuple(pairs)
        self._minimum = minimum
        self._client_ca = client_ca
        self._client_certificates = client_certificates
        super().__init__([*(path for pair in pairs for path in pair), client_ca])

    @property
    def context(self) -> ssl.SSLContext:
        """The context for the next connection; those that are open keep theirs."""
        return self._loaded.context

    @property
    def expires(self) -> tuple[Expiry, ...]:
        """Until when each certificate is of use, in the order of the pairs."""
        return self._loaded.expires

    def remarks(self) -> tuple[Remark, ...]:
        """Return which certificates are not valid, or not for long, are for no name, or are never shown."""
        return self._loaded.remarks

    def load(self) -> None:
        """Load all pairs, and the authorities that sign for clients."""
        by_name: dict[str, ssl.SSLContext] = {}
        expires: list[Expiry] = []
        remarks: list[Remark] = []
        contexts: list[ssl.SSLContext] = []
        for pair in self._pairs:
            context = _context(ssl.PROTOCOL_TLS_SERVER, self._minimum)
            # Whatever is offered is sound, so the client decides: it knows whether it has AES in hardware.
            context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
            load_pair(context, pair)
            seen = _as_a_client_sees_it(context, pair)
            expires.append(Expiry(pair.certificate, min(seen.spans).ends))
            remarks += _on_names(pair, seen.names, by_name.keys() if contexts else None)
            remarks += _on_time(pair, seen, "clients refuse it")
            for name in seen.names:
                by_name.setdefault(name, context)
            if self._client_ca is not None:  # all alike, since a client is verified with the one of its name
                load_authorities(context, self._client_ca)
            context.verify_mode = self._client_certificates
            contexts.append(context)
        front = contexts[0]
        front.sslobject_class = AcceptedTls
        front.sni_callback = _chooser(front, by_name)
        self._loaded = _Loaded(front, tuple(expires), tuple(remarks))


class ClientTls(TlsFiles):
    """How TLS is spoken with a service; `server_name` is the name to ask for where that is not the target's host."""

    __slots__ = ("_ca", "_minimum", "_pair", "_verify", "context", "server_name")

    def __init__(
        self, ca: str | None, pair: KeyPair | None, verify: bool, minimum: ssl.TLSVersion, server_name: str | None
    ) -> None:
        """Load everything; see `client_context`. Raises ConfigError."""
        self._ca = ca
        self._pair = pair
        self._verify = verify
        self._minimum = minimum
        self.server_name = server_name
        super().__init__([ca, *(pair or ())])

    def load(self) -> None:
        """Load the authorities, and the certificate to show."""
        self.context = client_context(self._ca, self._pair, self._verify, self._minimum)

    def remarks(self) -> tuple[Remark, ...]:
        """Return whether the certificate to show is not valid, or not for long."""
        return remarks_on(self._pair)


def client_context(
    ca: str | None, pair: KeyPair | None, verify: bool, minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
) -> ssl.SSLContext:
    """Return the context for connections to a service. Raises ConfigError.

    Its certificate must be signed by one of `ca` (a PEM file; the system's authorities unless given) and have the name
    it is asked for, unless `verify` is false. Where it asks for a certificate it is shown that of `pair`.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT, minimum)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif ca is None:
        context.load_default_certs()
    else:
        load_authorities(context, ca)
    if pair is not None:
        load_pair(context, pair)
    return context


def _context(protocol: int, minimum: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = minimum
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(PROTOCOLS)
    return context


def _chooser(
    front: ssl.SSLContext, by_name: dict[str, ssl.SSLContext]
) -> Callable[[ssl.SSLObject, str | None, ssl.SSLContext], None]:
    """Return what is asked, in each handshake, for the context of a name; nobody would see what it raised."""

    def choose(tls: ssl.SSLObject, asked: str | None, _: ssl.SSLContext) -> None:
        if asked is None:
            return
        name = asked.lower().removesuffix(".")
        if isinstance(tls, AcceptedTls) and name.isprintable():  # it goes into logs
            tls.server_name = name
        found = by_name.get(name) or by_name.get("*." + name.partition(".")[2])
        if found is not None and found is not front:
            tls.context = found

    return choose


def _names(certificate: dict[str, Any]) -> list[str]:
    """Return the names that a certificate is for, of hosts, their wildcards for one label, and addresses."""
    names = []
    for kind, value in certificate.get("subjectAltName", ()):
        if kind == "DNS":
            names.append(value.lower())
        elif kind == "IP Address":
            with contextlib.suppress(ValueError):  # of a wrong length: nobody can ask for it
                names.append(str(ipaddress.ip_address(value)))
    return names


def _as_a_client_sees_it(context: ssl.SSLContext, pair: KeyPair) -> _Seen:
    """Return what is in a certificate's file; raise ConfigError where no client would take it.

    The ssl module has no public way to look into a certificate's file, but it decodes what a peer has shown. So a
    client that trusts just this file is let shake hands with `context` in memory, for about a millisecond. Were it the
    `cryptography` library, each worker would take 11 MiB more, and all to read three fields; and this way a certificate
    that no client would take is found at load.
    """
    client = _context(ssl.PROTOCOL_TLS_CLIENT, ssl.TLSVersion.TLSv1_2)
    return _meet(client, context, pair, shown_by_server=True)


def remarks_on(pair: KeyPair | None) -> tuple[Remark, ...]:
    """Return what is odd about the certificate that services are shown; nothing where there is none."""
    if pair is None:
        return ()
    client, server = (_context(kind, ssl.TLSVersion.TLSv1_2) for kind in (ssl.PROTOCOL_TLS_CLIENT, _SERVER))
    try:
        for context in (client, server):  # the server needs one of its own, and nobody looks at it
            load_pair(context, pair)
        seen = _meet(client, server, pair, shown_by_server=False)
    except ConfigError as error:
        return (Remark(str(error), "name another certificate"),)
    return tuple(_on_time(pair, seen, "services refuse it"))


def _meet(client: ssl.SSLContext, server: ssl.SSLContext, pair: KeyPair, *, shown_by_server: bool) -> _Seen:
    """Have one side see the certificate of `pair`, which the other one shows."""
    seeing = client if shown_by_server else server
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    seeing.verify_mode = ssl.CERT_REQUIRED
    seeing.verify_flags = seeing.verify_flags | ssl.VERIFY_X509_PARTIAL_CHAIN | _X509_V_FLAG_NO_CHECK_TIME
    load_authorities(seeing, pair.certificate)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server)
    answering = server.wrap_bio(to_server, to_client, server_side=True)
    try:
        for side in (asking, answering, asking, answering):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    except ssl.SSLCertVerificationError as error:
        other = "client" if shown_by_server else "service"
        raise ConfigError(f"{pair.certificate}: no {other} would accept it: {error.verify_message}") from error
    except ssl.SSLError as error:
        raise ConfigError(f"{pair.certificate}: it cannot be used: {reason(error)}") from error
    shown = (asking if shown_by_server else answering).getpeercert()
    assert shown
    above: Iterable[dict[str, Any]] = seeing.get_ca_certs()
    return _Seen(_names(shown), [_span(each) for each in (shown, *above)])


def _span(certificate: dict[str, Any]) -> _Span:
    return _Span(*(ssl.cert_time_to_seconds(certificate[each]) for each in ("notAfter", "notBefore")))


def _on_names(pair: KeyPair, names: list[str], taken: Iterable[str] | None) -> Iterator[Remark]:
    """Say whether a certificate is for no name, or for such only as others were for before; None before the first."""
    path = pair.certificate
    if not names:
        refused = "browsers and curl refuse it" if taken is None else "it is never shown"
        yield Remark(
            f"{path} has no host in its subjectAltName: {refused}", "have one issued that names its hosts there"
        )
    elif taken is not None and set(names) <= set(taken):
        yield Remark(f"{path} is never shown: another certificate comes first for each of its names", "leave it out")


def _on_time(pair: KeyPair, seen: _Seen, refused: str) -> Iterator[Remark]:
    """Say whether a certificate, or one after it in its file, is not valid, or will soon be so no more."""
    now = time.time()
    first, late = min(seen.spans), max(seen.spans, key=lambda span: span.begins)
    # What is renewed each week would be warned of for ever.
    soon = min(_SOON, (first.ends - first.begins) / 3)
    if first.ends <= now:
        yield Remark(f"{_which(pair, seen, first)} expired on {_day(first.ends)}: {refused}", "renew it")
    elif late.begins > now:
        what = f"{_which(pair, seen, late)} is not valid before {_day(late.begins)}: {refused}"
        yield Remark(what, "use another until then; or is the clock wrong?")
    elif first.ends < now + soon:
        yield Remark(f"{_which(pair, seen, first)} expires on {_day(first.ends)}", "renew it")


def _which(pair: KeyPair, seen: _Seen, span: _Span) -> str:
    return pair.certificate if span == seen.spans[0] else f"a certificate after the first in {pair.certificate}"


def _day(when: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(when))
