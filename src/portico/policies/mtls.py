"""Know callers by the certificate that they show in the TLS handshake (mutual TLS).

```yaml
listen:
  - address: ":8443"
    tls: {certificate: tls/server.pem, client_ca: tls/clients.pem, client_certificates: optional}
services: {orders: "http://127.0.0.1:9002"}
routes:
  - {path: /orders/**, service: orders, policies: [mtls]}
  - path: /mesh/**
    service: orders
    policies:
      - mtls: {identity: uri, uris: "spiffe://example.org/ns/*/sa/web"}
  - path: /partners/**
    service: orders
    policies:
      - mtls:
          identity: [email, subject]
          subjects: ["CN=*,OU=partners,O=Example"]
          issuers: CN=Example Issuing CA,O=Example
          roles: ou
          forward: on
```

It is the listener that asks for a certificate, and that verifies it, by `client_ca` of its
[tls](../configuration.md#listenertls). With `client_certificates: optional` clients without one can connect, and each
route says by this policy whether it takes them. Whoever has a certificate of such an authority passes, unless lists say
more: of each list that is given, one pattern must match. Where listeners trust different authorities, `issuers` tells
their certificates apart.

`identity` says which part of the certificate is the user's name: the first of these that it has. Where it has several
of a kind, that is the first that the list of this kind allows. Names of all kinds are names of users; so have several
kinds only where the authority checks each, or the common name of one may be the address of another.

In patterns `*` stands for one character or more: in `dns`, and after the `@` of `emails`, within a label; in `uris`
within a segment, with `**` at the end for all the rest; in `subjects` and `issuers` within a value. The latter are
written as `openssl x509 -in FILE -noout -subject -issuer -nameopt RFC2253` prints them, most specific part first, and
have as many parts as the certificate has: what is in a value never passes for a part of its own. No wildcard matches a
URI with empty segments, `.`, `..`, or an encoded `/` or `.`.

With `consumers`, the name is that of one of the file's [consumers](../configuration.md#consumers), who gives roles,
groups and all else; whoever is none of them is refused. Without, conditions find under `user.claims` what the
certificate says: `subject`, `issuer`, `serial`, `fingerprint`, `uris`, `dns` and `emails`.

Without a certificate the answer is 401 with the title `Missing client certificate`; with one that is not meant here,
`Client certificate not allowed`; and where it ends while its connection lives, `Client certificate expired`. The log
`portico.security` says more.

Nobody but the gateway can say who has shown what: `Client-Cert` and `Client-Cert-Chain` (RFC 9440) are taken from
whatever a client sends, with dashes or underscores, also from trailers; only a policy whose `when` does not hold leaves
them. With `forward` the service is sent `Client-Cert` with the certificate by which the caller was found out. A proxy's
certificate is not its client's: where a trusted proxy says whom it speaks for, or a balancer says by the PROXY protocol
that it has ended TLS, there is none.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import Field, model_validator

from portico.plugin import (
    COMMON_NAME,
    UNIT,
    Authenticator,
    AuthenticatorConfig,
    BadValue,
    ClientCertificate,
    Consumer,
    ConsumerUsers,
    DnsPattern,
    EmailPattern,
    Env,
    Fingerprint,
    Found,
    Key,
    NamePattern,
    OneOrMany,
    Refusal,
    Request,
    ReservedHeaders,
    Stage,
    UnreadableCertificate,
    UriPattern,
    User,
    certificate_reader,
    dns_pattern,
    email_pattern,
    name_pattern,
    shown,
    uri_pattern,
)

MOST_REMEMBERED: Final = 1024
"""Certificates that are read and judged once; beyond them the one that came first is read again."""

INVALID: Final = Refusal("invalid-client-certificate", "Invalid client certificate")
"""TLS has taken the certificate of the client, but it cannot be read."""
NOT_ALLOWED: Final = Refusal("client-certificate-not-allowed", "Client certificate not allowed")
"""The certificate of the client is good, and is none of those that are taken here."""
EXPIRED: Final = Refusal("client-certificate-expired", "Client certificate expired")
"""The certificate of the client is not valid now; mostly it has ended while its connection lived."""

CLIENT_CERT: Final[Key[bytes]] = Key("client-cert")
"""What the service is told, where a policy of the route has it so."""
_OURS: Final = ReservedHeaders(("Client-Cert", "Client-Cert-Chain"))
"""What only the gateway has to say of certificates (RFC 9440)."""

Named = Literal["subject", "cn", "uri", "dns", "email", "fingerprint"]

_PARTS: Final[Mapping[Named, Callable[[ClientCertificate], Sequence[str]]]] = {
    "subject": lambda certificate: (certificate.subject.text,),
    "cn": lambda certificate: certificate.subject.values(COMMON_NAME)[:1],
    "uri": lambda certificate: certificate.uris,
    "dns": lambda certificate: certificate.dns,
    "email": lambda certificate: certificate.emails,
    "fingerprint": lambda certificate: (certificate.fingerprint,),
}
_SEVERAL: Final = frozenset(("uri", "dns", "email"))
"""Of which a certificate may have several, of which only some are allowed."""
_Names = Annotated[tuple[NamePattern, ...], OneOrMany(), Field(min_length=1)]


class Mtls(AuthenticatorConfig):
    """Whose certificates are taken. Of each list that is given, one pattern must match; an empty one is refused."""

    identity: Annotated[tuple[Named, ...], OneOrMany(), Field(min_length=1)] = ("cn",)
    """Which part is the user's name, the first of these that is there: the whole `subject`, its common name (`cn`, the
    most specific one), an alternative name (`uri`, `dns`, `email`), or the `fingerprint`."""
    subjects: _Names = ()
    """Whom it may be for, such as `CN=*,OU=partners,O=Example`."""
    uris: Annotated[tuple[UriPattern, ...], OneOrMany(), Field(min_length=1)] = ()
    """A URI among its alternative names, such as `spiffe://example.org/ns/shop/**`."""
    dns: Annotated[tuple[DnsPattern, ...], OneOrMany(), Field(min_length=1)] = ()
    """A host name among its alternative names, such as `*.clients.example.com`."""
    emails: Annotated[tuple[EmailPattern, ...], OneOrMany(), Field(min_length=1)] = ()
    """An address among its alternative names, such as `*@example.com`."""
    fingerprints: Annotated[tuple[Fingerprint, ...], OneOrMany(), Field(min_length=1)] = ()
    """The very certificates: the SHA-256 of each, with or without colons."""
    issuers: _Names = ()
    """Who must have signed it, such as `CN=Example Issuing CA,O=Example`."""
    consumers: bool = False
    """Whether the name must be that of one of the file's consumers."""
    roles: Literal["ou"] | None = None
    """What the roles are taken from: `ou`, the organizational units of the subject. A consumer's own come on top."""
    groups: Literal["ou"] | None = None
    """What the groups are taken from, in the same way."""
    forward: bool = False
    """Whether the service is sent the certificate, as `Client-Cert`."""

    @model_validator(mode="after")
    def _consumers_have_such_names(self) -> Mtls:
        if self.consumers and "uri" in self.identity:
            raise BadValue("every URI has a colon, and no consumer's name has one", "take another identity")
        return self


class Known(NamedTuple):
    """What was found out about a certificate, once for all requests."""

    found: User | Refusal
    not_before: float
    not_after: float
    field: bytes = b""
    """As `Client-Cert` has it."""


class Memory:
    """What is known of certificates, by the very bytes; those of one connection are hashed once."""

    def __init__(self) -> None:
        self._known: dict[bytes, Known] = {}

    def recall(self, der: bytes) -> Known | None:
        """Return what is known of a certificate."""
        return self._known.get(der)

    def keep(self, der: bytes, known: Known) -> Known:
        """Keep it in mind, and return it."""
        while len(self._known) >= MOST_REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[der] = known
        return known

    def __len__(self) -> int:
        return len(self._known)

    def close(self) -> None:
        """Forget everything."""
        self._known.clear()


class Allowed(NamedTuple):
    """One of the lists that are given."""

    read: Callable[[ClientCertificate], Sequence[Any]]
    patterns: Sequence[Callable[[Any], object]]

    def has(self, value: object) -> bool:
        """Return whether one of its patterns matches."""
        return any(matches(value) for matches in self.patterns)


class MtlsPolicy(Authenticator[Mtls], name="mtls", stages=(Stage.AUTHENTICATE,)):
    """Looks at the certificate of the connection."""

    missing = "Missing client certificate"
    of_certificates = True

    def setup(self, env: Env) -> None:
        """Prepare the lists."""
        config = self.config
        self._wall = env.wall
        self._consumers = env.consumers if config.consumers else None
        fingerprints = [frozenset(config.fingerprints).__contains__] if config.fingerprints else []
        lists: dict[str, Allowed] = {
            "subject": Allowed(lambda it: (it.subject,), [*map(name_pattern, config.subjects)]),
            "uri": Allowed(_PARTS["uri"], [*map(uri_pattern, config.uris)]),
            "dns": Allowed(_PARTS["dns"], [*map(dns_pattern, config.dns)]),
            "email": Allowed(_PARTS["email"], [*map(email_pattern, config.emails)]),
            "fingerprint": Allowed(_PARTS["fingerprint"], fingerprints),
            "issuer": Allowed(lambda it: (it.issuer,), [*map(name_pattern, config.issuers)]),
        }
        self._lists = {part: allowed for part, allowed in lists.items() if allowed.patterns}
        said = config.model_dump_json(exclude={"required", "consumers"})
        self._read = certificate_reader()
        self._users = ConsumerUsers(self.name, MOST_REMEMBERED)
        self._memory = env.share(("mtls", said), Memory)

    def identify(self, request: Request) -> Found | Awaitable[Found]:
        """Return whose certificate the connection has shown."""
        client = request.client
        encryption = None if client is None else client.encryption
        der = None if encryption is None else encryption.certificate
        if der is None:
            return None
        known = self._memory.recall(der) or self._memory.keep(der, self._judged(der))
        user = known.found
        if type(user) is not User:
            return user
        now = self._wall()
        if now > known.not_after:
            return EXPIRED
        if now < known.not_before:
            return EXPIRED._replace(reason="it is not valid yet")
        if self._consumers is None:
            return self._passed(request, known, user)
        consumer = self._consumers.by_name(user.name)
        if consumer is None or type(consumer) is Consumer:
            return self._of_consumer(request, known, user, consumer)
        return self._later(consumer, request, known, user)  # type: ignore[arg-type]

    def conceal(self, request: Request) -> None:
        """Take what only the gateway has to say of certificates, and say it."""
        _OURS.take_from(request)
        field = request.get(CLIENT_CERT)
        if field is not None:  # maybe that of another of these policies, which has come before
            request.headers.put_parsed(b"Client-Cert", field)

    def challenge(self, refusal: Refusal | None) -> str:
        """Return none: there is no scheme of HTTP for what TLS has to ask for."""
        return ""

    def _judged(self, der: bytes) -> Known:
        """Return what can be said of a certificate at any time."""
        try:
            certificate = self._read(der)
        except UnreadableCertificate as error:
            return Known(INVALID._replace(reason=f"it cannot be read: {shown(str(error))}"), 0.0, 0.0)
        found = self._refusal(certificate) or self._user(certificate)
        field = b":" + base64.b64encode(der) + b":" if self.config.forward else b""  # RFC 9440 section 2.1
        return Known(found, certificate.not_before, certificate.not_after, field)

    def _refusal(self, certificate: ClientCertificate) -> Refusal | None:
        for part, allowed in self._lists.items():
            values = allowed.read(certificate)
            if not any(map(allowed.has, values)):
                said = shown(", ".join(map(str, values))) if values else "it has none"
                return NOT_ALLOWED._replace(reason=f"its {part} is not allowed: {said}")
        return None

    def _user(self, certificate: ClientCertificate) -> User | Refusal:
        """Return who it is for, as far as the certificate says."""
        name = next(self._names(certificate), None)
        if name is None:
            return NOT_ALLOWED._replace(reason=f"it has no {' and no '.join(self.config.identity)}")
        units = frozenset(certificate.subject.values(UNIT))
        claims: dict[str, object] = {
            "subject": certificate.subject.text,
            "issuer": certificate.issuer.text,
            "serial": certificate.serial,
            "fingerprint": certificate.fingerprint,
            "uris": list(certificate.uris),
            "dns": list(certificate.dns),
            "emails": list(certificate.emails),
        }
        return User(
            name,
            roles=units if self.config.roles else frozenset(),
            groups=units if self.config.groups else frozenset(),
            claims=MappingProxyType(claims),
            kind=self.name,
        )

    def _names(self, certificate: ClientCertificate) -> Iterator[str]:
        for part in self.config.identity:
            allowed = self._lists.get(part) if part in _SEVERAL else None
            for name in _PARTS[part](certificate):
                if name.isprintable() and name.strip() and (allowed is None or allowed.has(name)):
                    yield name

    async def _later(self, looking: Awaitable[Consumer | None], request: Request, known: Known, user: User) -> Found:
        return self._of_consumer(request, known, user, await looking)

    def _of_consumer(self, request: Request, known: Known, user: User, consumer: Consumer | None) -> User | Refusal:
        if consumer is None:
            return NOT_ALLOWED._replace(reason=f"there is no consumer {shown(user.name)}")
        its = self._users.of(consumer)
        if user.roles or user.groups:
            its = replace(its, roles=its.roles | user.roles, groups=its.groups | user.groups)
        return self._passed(request, known, its)

    def _passed(self, request: Request, known: Known, user: User) -> User:
        if known.field:
            request[CLIENT_CERT] = known.field
        return user
