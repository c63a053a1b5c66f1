"""How problems are written for clients: for the file, a service or a route.

```yaml
errors: simple                    # the shape alone
services:
  orders: {url: "http://127.0.0.1:9002", errors: {shape: kong, html: off}}
routes:
  - path: /shop/**
    service: orders
    errors:
      "404": {content_type: text/html, body: "<h1>There is no {{ path }}</h1>"}
      5xx: "Something is broken here: {{ title }}"
      "403": off                  # not as a wider scope has it
```

Each key of a narrower scope replaces that of a wider one. What fails before there is a route is written as the file
has it. A status, or `4xx` or `5xx` for all those without a template of their own, has a text instead of the shape: an
[error text](#errortext), or just its `body`.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field

from portico.config.build import build
from portico.config.findings import Findings
from portico.config.forms import NotInFile, is_off
from portico.config.nodes import Entry, Fields, Scalar, is_null
from portico.config.part import Part
from portico.config.values import HeaderValue
from portico.http.error_shapes import ErrorText as Compiled

STATUS_PATTERN = "[45]([0-9][0-9]|xx)"
"""What a key may be that stands for a status, or for all of a hundred."""

_LIKE_A_STATUS = re.compile(r"[0-9][0-9xX]*")


class ErrorText(Part):
    """What is answered with a certain status."""

    body: str
    """Its text.

    Places are those of [templates](#templates), and `{{ status }}`, `{{ title }}`, `{{ detail }}` and
    `{{ type }}` of the problem; their values are made safe for the media type."""
    content_type: HeaderValue = "text/plain; charset=utf-8"
    """Its media type."""


class Errors(Part):
    """How problems are written for clients. A text stands for its `shape`."""

    shape: Literal["problem", "simple", "fastapi", "kong", "aws"] | None = None
    """Which of the [error shapes](errors.md#shapes); `problem` unless given."""
    html: Literal["on", "off"] | None = None
    """Whether who asks for HTML, as browsers do, gets a page; `on` unless given."""
    texts: Annotated[dict[str, ErrorText | None], NotInFile()] = Field(default_factory=dict)
    """The texts by status; None where it is not to be as in a wider scope."""


def read_errors(entry: Entry | None, findings: Findings) -> Errors | None:
    """Return what stands under `errors`, or None where there is nothing, or a mistake."""
    if entry is None or is_null(entry.node):
        return None
    node = entry.node if isinstance(entry.node, Fields) else Fields(entry.key, {"shape": entry})
    texts: dict[str, ErrorText | None] = {}
    for key, below in node.entries.items():
        if re.fullmatch(STATUS_PATTERN, key):
            texts[key] = _text(key, below, findings)
        elif _LIKE_A_STATUS.fullmatch(key):
            findings.error(below.key, f"errors: {key} is no status of an error", "write 404, or 4xx for all of them")
    own = {key: below for key, below in node.entries.items() if not _LIKE_A_STATUS.fullmatch(key) and key not in texts}
    return build(Errors, Fields(node.place, own), "errors", findings, given={"texts": texts})


def _text(status: str, entry: Entry, findings: Findings) -> ErrorText | None:
    node = entry.node
    if isinstance(node, Scalar) and is_off(node.value):
        return None
    fields = node if isinstance(node, Fields) else Fields(entry.key, {"body": entry})
    text = build(ErrorText, fields, f"errors {status}", findings)
    if text is not None:
        try:
            Compiled(text.body, text.content_type)
        except ValueError as error:
            findings.error(fields.entries["body"].node.place, f"body: {error}")
    return text
