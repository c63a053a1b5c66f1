"""Calling another service over HTTP, and the one error that all services answer with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

TIMEOUT = 3.0
MAX_ANSWER = 4 * 1024 * 1024


class Refusal(Exception):
    """An answer that is not the one asked for: a status, a name for programs, a sentence for people."""

    def __init__(self, status: int, error: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.document = {"error": error, "detail": detail}
        self.headers = headers or {}


class Peer:
    """Another service: its answer, its refusal passed on, or a 503 that says which service is down."""

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self.url = url

    def call(self, method: str, path: str, document: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        """Send a document and return the one that comes back."""
        address = urlsplit(self.url)
        body = None if document is None else json.dumps(document)
        sent = {"Content-Type": "application/json", **(headers or {})}
        try:
            with closing(HTTPConnection(address.hostname or "", address.port or 80, timeout=TIMEOUT)) as connection:
                connection.request(method, path, body, sent)
                response = connection.getresponse()
                answer = json.loads(response.read(MAX_ANSWER))
        except (OSError, HTTPException, ValueError) as error:
            raise self._unavailable(f"did not answer at {self.url}: {error}") from error
        if response.status >= 500:
            raise self._unavailable(f"answered {response.status}")
        if response.status >= 400:
            raise Refusal(response.status, answer["error"], answer["detail"])
        return answer

    def _unavailable(self, reason: str) -> Refusal:
        return Refusal(503, f"{self.name}-unavailable", f"the {self.name} {reason}")
