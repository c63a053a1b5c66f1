"""Policies and endpoints for the tests of the configuration, and short ways to load a text with them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from portico.config import Config, Finding, Loaded, TextSource, read, validate
from portico.config.values import Duration, HeaderName, Secret, ServiceName, Size, StatusCode


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Service(Settings):
    service: ServiceName
    """The service that answers."""
    strip_prefix: str | None = None
    """What is cut from the beginning of the path."""


class Respond(Settings):
    status: StatusCode = 200
    """The status of the answer."""
    body: str = ""
    """Its body."""


class Redirect(Settings):
    to: str
    """Where to."""
    status: StatusCode = 302
    """How."""


class Aggregate(Settings):
    parts: dict[str, ServiceName]
    """The services that are asked, by the key of the answer."""
    timeout: Duration = 5.0
    """How long all of them may take together."""


class CorrelationId(Settings):
    header: HeaderName = "X-Request-Id"
    """The header that carries it."""


class RequestSize(Settings):
    max: Size
    """The most bytes of a body."""


class SecurityHeaders(Settings):
    """Sets headers that keep browsers out of trouble."""


class Cors(Settings):
    origins: tuple[str, ...] = Field(min_length=1)
    """The origins that may ask."""
    max_age: Duration = 600.0
    """How long browsers may remember it."""


class Key(Settings):
    id: str
    """Its name."""
    secret: Secret
    """The key itself."""


class Jwt(Settings):
    secret: Secret
    """The key that tokens are signed with."""
    audience: str
    """Whom tokens must be meant for."""
    more: tuple[Key, ...] = ()
    """Keys that are valid too."""
    service: ServiceName | None = None
    """Who knows the keys."""

    @field_validator("secret")
    @classmethod
    def _long(cls, secret: Secret) -> Secret:
        if len(secret.get_secret_value()) < 8:
            raise ValueError(f"{secret.get_secret_value()!r} is too short for a key")
        return secret


POLICIES: dict[str, type[BaseModel]] = {
    "correlation-id": CorrelationId,
    "request-size": RequestSize,
    "security-headers": SecurityHeaders,
    "cors": Cors,
    "jwt": Jwt,
}
ENDPOINTS: dict[str, type[BaseModel]] = {
    "service": Service,
    "respond": Respond,
    "redirect": Redirect,
    "aggregate": Aggregate,
}


def load(texts: str | Mapping[str, str | bytes], **environment: str) -> Loaded:
    """Load a text, or some by name, the first of which is the start."""
    start = "portico.yaml" if isinstance(texts, str) else next(iter(texts))
    document = read(TextSource(texts, start), environment)
    return validate(document, policies=POLICIES, endpoints=ENDPOINTS)


def config_of(texts: str | Mapping[str, str | bytes], **environment: str) -> Config:
    """Load what has no mistakes."""
    loaded = load(texts, **environment)
    assert loaded.findings == []
    assert loaded.config is not None
    return loaded.config


def findings_of(texts: str | Mapping[str, str | bytes], **environment: str) -> list[Finding]:
    """Load what has mistakes."""
    loaded = load(texts, **environment)
    assert loaded.findings
    return loaded.findings


def messages_of(texts: str | Mapping[str, str | bytes], **environment: str) -> list[str]:
    """Return what is said about what has mistakes, each as `line:column message`."""
    return [f"{finding.line}:{finding.column} {finding.message}" for finding in findings_of(texts, **environment)]


def said_of(findings: Iterable[Finding]) -> list[str]:
    """Return what is said about mistakes in one line: each as `column message`, with its hint on a line of its own."""
    lines = []
    for finding in findings:
        assert (finding.severity, finding.line) == ("error", 1)
        lines.append(f"{finding.column} {finding.message}")
        lines += [f"hint: {finding.hint}"] if finding.hint else []
    return lines


def cases(table: str) -> list[tuple[str, list[str]]]:
    """Return texts and what is said about each, which stands indented below it."""
    found: list[tuple[str, list[str]]] = []
    for line in table.strip().splitlines():
        if line.startswith(" "):
            found[-1][1].append(line.strip())
        else:
            found.append((line, []))
    return found


GOLDEN = Path(__file__).parent / "golden"


def check_golden(name: str, text: str) -> None:
    """Compare `text` with what it was when someone last looked at it; UPDATE_GOLDEN=1 writes it anew."""
    if os.environ.get("UPDATE_GOLDEN"):
        (GOLDEN / name).write_text(text)
    assert text == (GOLDEN / name).read_text()
