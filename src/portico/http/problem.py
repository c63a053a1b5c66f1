"""A failed request, told to the client (RFC 9457)."""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

import orjson

PROBLEM_JSON: Final = b"application/problem+json"
"""The media type of RFC 9457 section 3."""


def reason(status: int) -> str:
    """Return the standard phrase for `status`, or a general one for a status without."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return {1: "Informational", 2: "Success", 3: "Redirect", 4: "Client Error"}.get(status // 100, "Server Error")


@dataclass(frozen=True, slots=True)
class Problem:
    """What went wrong, in words for the client: never an address, a path on disk, or a trace.

    `type` is stable and meant for programs; `title` is for people; `detail` says more about this occurrence.
    """

    status: int
    type: str
    title: str = ""
    detail: str = ""
    extensions: dict[str, str | int | list[str]] = field(default_factory=dict)

    def members(self, instance: str) -> dict[str, object]:
        """Return the problem's members in the order of RFC 9457 section 3.1."""
        members: dict[str, object] = {
            "type": f"urn:portico:problem:{self.type}",
            "title": self.title or reason(self.status),
            "status": self.status,
        }
        if self.detail:
            members["detail"] = self.detail
        if instance:
            members["instance"] = instance
        return members | self.extensions

    def render(self, instance: str) -> bytes:
        """Return the problem as a JSON document; `instance` names the occurrence, for example its path."""
        return orjson.dumps(self.members(instance))
