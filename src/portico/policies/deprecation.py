"""Tell clients that what they use is on its way out: since when, until when, and where that is explained.

```yaml
routes:
  - path: /v1/orders/**
    respond: {status: 200}
    policies:
      - deprecation:
          deprecated: 2026-01-01
          sunset: 2026-12-31T23:59:59Z
          link: https://developers.example.com/orders-v1
```

Every answer then says `Deprecation: @1767225600` (RFC 9745), `Sunset: Thu, 31 Dec 2026 23:59:59 GMT` (RFC 8594) and
`Link: <https://developers.example.com/orders-v1>; rel="deprecation sunset"`. A moment to come is as good as one that is
past. Nothing is refused after the sunset: whoever wants that ends the route in a `respond`.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Annotated

from pydantic import AfterValidator, PlainValidator, WithJsonSchema, model_validator

from portico.plugin import HeaderBlock, Policy, PolicyConfig, Request, Response, Stage

_DATE = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[Tt ][0-9]{2}:[0-9]{2}(?::[0-9]{2})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})?)?"
)


def _moment(value: object) -> datetime:
    if isinstance(value, datetime):
        return value
    moment = _read(value) if isinstance(value, str) and _DATE.fullmatch(value) is not None else None
    if moment is None:
        raise ValueError(f"{value!r} is not a date; write 2026-12-31 or 2026-12-31T23:59:59Z")
    return moment


def _read(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text.upper())
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _url(value: str) -> str:
    if re.fullmatch(r"(?:https?://|/)[!#-;=?-~]*", value) is None:
        raise ValueError(f"{value!r} is not a URL; write one such as https://developers.example.com/v1")
    return value


Moment = Annotated[
    datetime,
    PlainValidator(_moment),
    WithJsonSchema({"type": "string", "examples": ["2026-12-31", "2026-12-31T12:00Z"]}),
]


class Deprecation(PolicyConfig):
    """What clients are told; at least one of them."""

    deprecated: Moment | None = None
    """Since when it should not be used any more: a date, or a date and a time, in UTC unless it says otherwise."""
    sunset: Moment | None = None
    """When it is going to end; not before it is deprecated."""
    link: Annotated[str, AfterValidator(_url)] | None = None
    """The URL of what explains it to people."""

    @model_validator(mode="after")
    def _something_to_say(self) -> Deprecation:
        if self.deprecated is None and self.sunset is None:
            raise ValueError("this says nothing; give deprecated or sunset")
        if self.deprecated is not None and self.sunset is not None and self.sunset < self.deprecated:
            raise ValueError("sunset is before deprecated; RFC 9745 has it the other way round")
        return self


class DeprecationPolicy(Policy[Deprecation], name="deprecation", stages=(Stage.OBSERVE,)):
    """Sets the headers on every answer, also on errors."""

    def __init__(self, config: Deprecation) -> None:
        super().__init__(config)
        fields, relations = [], []
        if config.deprecated is not None:
            fields.append((b"Deprecation", b"@%d" % int(config.deprecated.timestamp())))
            relations.append("deprecation")
        if config.sunset is not None:
            fields.append((b"Sunset", format_datetime(config.sunset, usegmt=True).encode("ascii")))
            relations.append("sunset")
        self._block = HeaderBlock(fields)
        self._link = b"" if config.link is None else f'<{config.link}>; rel="{" ".join(relations)}"'.encode("ascii")

    def response(self, request: Request, response: Response) -> Response:
        """Set them; a link stands beside those of the service."""
        response.headers.set_block(self._block)
        if self._link:
            response.headers.add(b"Link", self._link)
        return response
