"""From the listeners of the file to what the server needs of each."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from portico.config.findings import Findings, place_of
from portico.config.schema import Config
from portico.config.schema import Listener as ListenerConfig
from portico.errors import ConfigError, MalformedRequest
from portico.http.forwarded import Network, Style, Trust
from portico.http.headers import Headers
from portico.http.message import Handler, Request, Response
from portico.net.pem import KeyPair
from portico.net.server import ServerLimits
from portico.net.stream import NEVER
from portico.net.tls import ServerTls
from portico.runtime.certificates import CertificateWatch

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_ASKED = {"off": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}


@dataclass(frozen=True)
class Entrance:
    """One listener at work: its TLS, the proxies that may connect to it, and where it redirects all requests."""

    tls: ServerTls | None
    proxies: Sequence[Network] | None
    redirect_https: int | None


def entrances(config: Config, watch: CertificateWatch, findings: Findings) -> tuple[Entrance, ...]:
    """Return what each listener of `config` needs, in its order; what is wrong is added to `findings`."""
    return tuple(
        Entrance(_tls(listener, watch, findings), listener.proxy_protocol, listener.redirect_https)
        for listener in config.listen
    )


def _tls(listener: ListenerConfig, watch: CertificateWatch, findings: Findings) -> ServerTls | None:
    tls = listener.tls
    if tls is None:
        return None
    pairs = [KeyPair(*pair) for pair in tls.pairs]
    try:
        made = ServerTls(pairs, tls_version(tls.min_version), tls.client_ca, _ASKED[tls.client_certificates])
    except ConfigError as error:
        findings.error(place_of(listener.origin), str(error))
        return None
    watch.add(made)
    return made


def tls_version(text: str) -> ssl.TLSVersion:
    """Return the version of TLS that `1.2` or `1.3` stands for."""
    return _VERSIONS[text]


def trust(config: Config) -> Trust:
    """Return which proxies are believed, and how services are told of clients."""
    headers = config.forwarded.headers
    style = Style(headers != "forwarded", headers != "x-forwarded", config.forwarded.via or "")
    return Trust(config.trusted_proxies, style)


def limits(config: Config) -> ServerLimits:
    """Return what clients may send, and for how long."""
    said = config.limits
    return ServerLimits(
        request_head=said.request_head,
        request_target=said.request_target,
        header_count=said.header_count,
        chunk_line=said.chunk_line,
        trailers=said.trailers,
        handshake_timeout=said.handshake_timeout,
        head_timeout=said.head_timeout,
        body_timeout=said.body_timeout,
        write_timeout=said.write_timeout,
        keepalive_timeout=said.keepalive_timeout,
        tunnel_timeout=NEVER if said.tunnel_timeout is None else said.tunnel_timeout,
        connections=said.connections,
        requests_per_connection=said.requests_per_connection,
    )


def redirect_to_https(port: int, serve: Callable[[], Handler]) -> Handler:
    """Return what answers every request 308, to its own URL with https; what a trusted proxy has had over https is
    served, by what `serve` returns.
    """
    suffix = "" if port == 443 else f":{port}"

    async def handle(request: Request) -> Response:
        if request.client is not None and request.client.scheme == "https":
            return await serve()(request)
        if request.exchange is not None:
            request.exchange.route = "redirect-https"
        if not request.host:
            raise MalformedRequest("without a Host header nobody knows where https would be")  # HTTP/1.0 allows it
        path = request.target if request.target.startswith("/") else "/"
        return Response(308, Headers([(b"Location", f"https://{request.host}{suffix}{path}".encode("ascii"))]))

    return handle
