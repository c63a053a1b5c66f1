"""The certificate of a row over TLS: made for the run, trusted by the checks alone, and gone with its directory."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench import BenchError
from bench.machine import Tool

OPENSSL = Tool("openssl", "openssl")
CERTIFICATE, KEY = "server.pem", "server.key"
MAKE_SECONDS = 20
# The key that most certificates of web servers have by now; every handshake of a peer signs with it.
MAKE = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-sha256")
NAME = ("-days", "2", "-subj", "/CN=Portico bench", "-addext", "subjectAltName=IP:127.0.0.1")


@dataclass(frozen=True)
class Certificate:
    """An ECDSA P-256 certificate for 127.0.0.1 that signed itself, and its key."""

    directory: Path

    @classmethod
    def make(cls, directory: Path) -> Certificate:
        files = ("-keyout", str(directory / KEY), "-out", str(directory / CERTIFICATE))
        done = subprocess.run(
            [OPENSSL.find(), *MAKE, *NAME, *files],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=MAKE_SECONDS,
        )
        if done.returncode != 0:
            raise BenchError(f"openssl made no certificate:\n{done.stdout}{done.stderr}")
        return cls(directory)

    def copy_to(self, directory: Path) -> None:
        for name in (CERTIFICATE, KEY):
            shutil.copy2(self.directory / name, directory / name)

    def trust(self) -> ssl.SSLContext:
        """What a client needs to speak with this server and no other."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.directory / CERTIFICATE)
        return context
