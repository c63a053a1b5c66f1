"""TLS on both sides: what a listener shows its clients, and what services are asked for and shown."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field, ValidationInfo, WithJsonSchema, field_validator, model_validator

from portico.config.addresses import ServerName
from portico.config.forms import Shorthand
from portico.config.part import Part
from portico.config.values import BadValue, FilePath, text_of


class KeyPair(NamedTuple):
    """The paths of a certificate's file and of its key's, which may be one."""

    certificate: str
    key: str


def _clients_off(value: object) -> object:
    return "off" if value is False else value


TlsVersion = Annotated[
    Literal["1.2", "1.3"], BeforeValidator(text_of), WithJsonSchema({"enum": ["1.2", "1.3", 1.2, 1.3]})
]
"""A version of TLS; in the file it may look like a number."""

ClientCertificates = Annotated[
    Literal["off", "optional", "required"],
    BeforeValidator(_clients_off),
    WithJsonSchema({"enum": ["off", "optional", "required", False]}),
]
"""Whether clients are asked for a certificate."""


class Certificate(Part):
    """One of a listener's certificates. A text stands for its `certificate`."""

    certificate: FilePath
    """A PEM file with the certificate, and those between it and the root after it."""
    key: FilePath | None = None
    """A PEM file with its private key, without a password; the certificate's own file unless given."""

    @property
    def pair(self) -> KeyPair:
        """Where both are."""
        return KeyPair(self.certificate, self.key or self.certificate)


class ListenerTls(Part):
    """How TLS is spoken with clients. It has either a `certificate`, or `certificates`.

    ```yaml
    listen:
      - address: ":443"
        tls: {certificate: tls/server.crt, key: tls/server.key}
      - address: ":80"
        redirect_https: true                   # to port 443
    ```

    With several certificates each client is shown the one for the name that it asks for; and clients can be asked for
    theirs:

    ```yaml
    listen:
      - address: ":443"
        tls:
          certificates:
            - tls/example.com.pem              # with its key in the same file; for any other name, too
            - {certificate: tls/example.org.crt, key: tls/example.org.key}
      - address: ":8443"
        tls:
          certificate: tls/internal.pem
          min_version: 1.3
          client_ca: tls/clients.pem           # clients must show a certificate that one of these has signed
    ```

    A client's TLS session is resumed where its next connection meets the worker that gave it the session; with any
    other worker the handshake is a whole one.
    """

    certificate: FilePath | None = None
    """A PEM file with the certificate, and those between it and the root after it."""
    key: FilePath | None = None
    """A PEM file with its private key, without a password; the certificate's own file unless given."""
    certificates: Annotated[
        tuple[Annotated[Certificate, Shorthand("certificate")], ...], Field(validate_default=True)
    ] = ()
    """Several certificates. A client is shown the one with the name that it asks for (SNI), wildcards included; the
    first where there is none."""
    min_version: TlsVersion = "1.2"
    """The lowest version of TLS that a client may speak."""
    client_ca: FilePath | None = None
    """A PEM file with the authorities that may have signed the certificates of clients."""
    client_certificates: ClientCertificates = "off"
    """Whether a client must show a certificate of `client_ca` (`required`), is asked for one and may have none
    (`optional`), or is not asked (`off`); `required` unless given where there is a `client_ca`. One that is shown is
    verified in either case."""

    @property
    def pairs(self) -> tuple[KeyPair, ...]:
        """Every certificate with its key, in the order of the file: the first is the default."""
        if self.certificate is not None:
            return (KeyPair(self.certificate, self.key or self.certificate),)
        return tuple(certificate.pair for certificate in self.certificates)

    @model_validator(mode="before")
    @classmethod
    def _whoever_names_a_ca_wants_certificates(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("client_ca") is not None:
            return {"client_certificates": "required", **given}
        return given

    @field_validator("key")
    @classmethod
    def _key_of_a_certificate(cls, key: str | None, info: ValidationInfo) -> str | None:
        return _with_certificate(key, info, "add certificate:, or move it to its certificate in certificates:")

    @field_validator("certificates")
    @classmethod
    def _one_way_to_name_certificates(
        cls, certificates: tuple[Certificate, ...], info: ValidationInfo
    ) -> tuple[Certificate, ...]:
        if "certificate" not in info.data or "key" not in info.data:  # one is wrong, and that was said
            return certificates
        if info.data["certificate"] is not None and certificates:
            raise BadValue("there is a certificate beside the list as well", "move it into the list, as the first")
        if info.data["certificate"] is None and not certificates:
            raise BadValue(
                "nothing says which certificate is shown", "write {certificate: server.crt, key: server.key}"
            )
        return certificates

    @field_validator("client_certificates")
    @classmethod
    def _certificates_of_someone(cls, clients: ClientCertificates, info: ValidationInfo) -> ClientCertificates:
        if "client_ca" not in info.data:
            return clients
        ca = info.data["client_ca"]
        if ca is None and clients != "off":
            raise BadValue("nothing says who signs the certificates of clients", "add client_ca: clients.pem")
        if ca is not None and clients == "off":
            raise BadValue("there is a client_ca, and nobody is asked for a certificate", "leave one of them out")
        return clients


class ServiceTls(Part):
    """How TLS is spoken with those targets of a service that are `https`.

    ```yaml
    services:
      payments:
        url: https://10.0.0.7:8443
        tls:
          ca: tls/internal-ca.pem              # who signed its certificate
          server_name: payments.internal       # the name in it
          certificate: tls/gateway.pem         # what it is shown when it asks who is calling
    routes:
      - {path: /payments/**, service: payments}
    ```
    """

    ca: FilePath | None = None
    """A PEM file with the authorities that may have signed the service's certificate; those of the system unless
    given."""
    certificate: FilePath | None = None
    """A PEM file with the certificate that the service is shown, where it asks for one."""
    key: FilePath | None = None
    """A PEM file with its private key, without a password; the certificate's own file unless given."""
    verify: bool = True
    """Whether the service's certificate must be valid, and its own. With `false` whoever is on the way can read and
    change everything: it is for tests."""
    server_name: ServerName | None = None
    """The name that the service is asked for (SNI) and that its certificate must have; the target's host unless
    given. `Host` stays the target's."""
    min_version: TlsVersion = "1.2"
    """The lowest version of TLS that the service may speak."""

    @property
    def pair(self) -> KeyPair | None:
        """The certificate that is shown, with its key; None where there is none."""
        return KeyPair(self.certificate, self.key or self.certificate) if self.certificate is not None else None

    @field_validator("key")
    @classmethod
    def _key_of_a_certificate(cls, key: str | None, info: ValidationInfo) -> str | None:
        return _with_certificate(key, info, "add certificate:")

    @field_validator("verify")
    @classmethod
    def _authorities_are_looked_at(cls, verify: bool, info: ValidationInfo) -> bool:
        if not verify and info.data.get("ca") is not None:
            raise BadValue("with verify: false the ca is not looked at", "leave one of them out")
        return verify


def _with_certificate(key: str | None, info: ValidationInfo, hint: str) -> str | None:
    if key is not None and info.data.get("certificate", key) is None:
        raise BadValue("there is no certificate for this key", hint)
    return key
