"""What policies ask that is no service of the file: a provider of keys, an authorization server."""

from __future__ import annotations

from collections.abc import Callable

from portico.config.addresses import Url
from portico.config.tls import ServiceTls
from portico.config.upstream import Service as ServiceConfig
from portico.errors import ConfigError
from portico.http.message import Handler
from portico.upstream.stack import Service

MAX_ORIGINS = 64
"""The most origins of one configuration: some are named by what others have answered."""


class Web:
    """Handlers for origins that no service of the file is, one for each."""

    def __init__(self, build: Callable[[str, ServiceConfig], Service]) -> None:
        self._build = build
        self.services: dict[str, Service] = {}
        """Those that were asked for, by what they are called."""

    def handler(self, origin: Url, ca: str | None) -> Handler:
        """Return the Handler of an origin, whose certificate `ca` or one of the system's authorities has signed.

        Raises ConfigError where there are too many.
        """
        name = f"{origin._replace(path='')}" + ("" if ca is None else f" ({ca})")
        if name not in self.services:
            if len(self.services) >= MAX_ORIGINS:
                raise ConfigError(f"more than {MAX_ORIGINS} other hosts would be asked")
            tls = ServiceTls(ca=ca) if origin.scheme == "https" else None
            self.services[name] = self._build(name, ServiceConfig(url=origin._replace(path=""), tls=tls))
        return self.services[name].handle

    def close(self) -> None:
        """End all of them."""
        while self.services:
            self.services.popitem()[1].close()
