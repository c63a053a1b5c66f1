"""The id by which a request is known to client, gateway and service alike."""

from __future__ import annotations

from typing import Final

from portico.http.message import Key

CORRELATION_ID: Final[Key[bytes]] = Key("correlation-id")
"""Where the policy `correlation-id` puts it; visible ASCII, at most 128 characters."""
