"""Asks Sentinels which Redis is the one to ask at the moment."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Sequence
from typing import Final

import hiredis

from portico.errors import StoreUnavailable
from portico.state.link import Address, ServerError, ask_once

logger = logging.getLogger("portico.state")

TIMEOUT: Final = 1.0
"""Seconds that one Sentinel may take."""


class Sentinels:
    """The Sentinels of one Redis; the one that has answered last is asked first."""

    def __init__(
        self, hosts: Sequence[tuple[str, int]], tls: ssl.SSLContext | None, master: Address, name: str
    ) -> None:
        """`master` is what is to be said to the Redis, wherever that is; `name` is what Sentinels call it."""
        self._hosts = list(hosts)
        self._tls = tls
        self._master = master
        self._name = name
        self._question = (b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", name.encode())

    async def find(self) -> Address:
        """Return where it is. Raises StoreUnavailable where none of them knows."""
        why = "there are no Sentinels"
        for host in tuple(self._hosts):
            try:
                async with asyncio.timeout(TIMEOUT):
                    found = await ask_once(Address(*host, tls=self._tls), self._question)
            except TimeoutError:
                why = "no Sentinel answers"
                continue
            except (OSError, ValueError, ServerError, hiredis.HiredisError) as error:
                why = f"no Sentinel can be asked: {error}"
                continue
            if isinstance(found, list) and len(found) == 2:
                self._hosts.remove(host)
                self._hosts.insert(0, host)
                return self._master._replace(host=found[0].decode(), port=int(found[1]), role=b"master")
            why = f"no Sentinel knows of {self._name}"
        raise StoreUnavailable(why)
