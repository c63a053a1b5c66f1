"""The TLS of the way to a service: whom to trust, and what to show."""

from __future__ import annotations

import logging
import ssl

from portico.errors import ConfigError
from portico.net.tls import KeyPair, _stamp, client_context

logger = logging.getLogger("portico.tls")


class ClientTls:
    """How TLS is spoken with a service; `server_name` is the name to ask for where that is not the target's host."""

    __slots__ = ("__weakref__", "_ca", "_failure", "_minimum", "_pair", "_stamps", "_verify", "context", "server_name")

    def __init__(
        self, ca: str | None, pair: KeyPair | None, verify: bool, minimum: ssl.TLSVersion, server_name: str | None
    ) -> None:
        """Load everything; see `client_context`. Raises ConfigError."""
        self._ca = ca
        self._pair = pair
        self._verify = verify
        self._minimum = minimum
        self.server_name = server_name
        self._failure = ""
        self._stamps = self._stamps_now()
        self.context = self._load()

    def refresh(self) -> bool:
        """Load everything anew where a file has changed, and tell whether that was done.

        Where it cannot be loaded, what was loaded before stays, and each distinct failure is logged once.
        """
        stamps = self._stamps_now()
        if stamps == self._stamps:
            self._failure = ""
            return False
        try:
            self.context = self._load()
        except ConfigError as error:
            if str(error) != self._failure:
                self._failure = str(error)
                logger.error("certificates were not read again, the old ones stay in use: %s", error)  # noqa: TRY400
            return False
        self._stamps = stamps
        self._failure = ""
        return True

    def _load(self) -> ssl.SSLContext:
        return client_context(self._ca, self._pair, self._verify, self._minimum)

    def _stamps_now(self) -> tuple[object, ...]:
        return tuple(_stamp(path) for path in (self._ca, *(self._pair or ())) if path is not None)
