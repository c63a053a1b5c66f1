"""What the tests of TLS connections share: a server's certificates and its clients."""

from __future__ import annotations

import ssl
from typing import NamedTuple

from portico.net.tls import ServerTls
from tests.harness.certificates import Authority

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


class World(NamedTuple):
    """A server's TLS, what clients speak, and who signs for both."""

    server: ServerTls
    client: ssl.SSLContext
    authority: Authority

    def context(self) -> ssl.SSLContext:
        return self.server.context

    def at(self, version: ssl.TLSVersion) -> ssl.SSLContext:
        return self.authority.client(only=version)
