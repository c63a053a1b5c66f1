"""Certificates are read again when their files change; connections that are open keep what they have."""

from __future__ import annotations

import asyncio
import weakref

from portico.net.tls import TlsFiles

INTERVAL = 2.0
"""Seconds between two looks at the files."""


class CertificateWatch:
    """Everything of one worker that was made of certificate files, for as long as something uses it."""

    def __init__(self) -> None:
        self._made: weakref.WeakSet[TlsFiles] = weakref.WeakSet()

    def add(self, made: TlsFiles) -> None:
        """Have the files of `made` watched."""
        self._made.add(made)

    def __len__(self) -> int:
        return len(self._made)

    async def run(self) -> None:
        """Look at the files until cancelled; a failure leaves what was read before, and is logged."""
        while True:
            await asyncio.sleep(INTERVAL)
            for made in tuple(self._made):
                await asyncio.to_thread(made.refresh)  # reading files, and keys, may take its time
