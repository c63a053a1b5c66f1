"""Answer at once, without a service.

```yaml
routes:
  - {path: /ping, respond: {status: 200, body: pong}}
  - {path: /robots.txt, respond: "User-agent: *\\nDisallow: /\\n"}
  - path: /api/v1/teapots/{id}
    respond:
      status: 418
      json: {error: "{{ captures.id }} is a teapot"}
      headers: {Cache-Control: no-store}
  - path: /api/v0/**
    respond: {status: 410, problem: {type: retired, title: Version 0 is gone, detail: Use version 1.}}
```
"""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from pydantic import Field, field_validator, model_validator

from portico.plugin import (
    HOP_BY_HOP,
    ConfigError,
    Endpoint,
    Env,
    HeaderBlock,
    PolicyConfig,
    Request,
    Response,
    StatusCode,
    Template,
    escape_for,
)

_WITHOUT_CONTENT = frozenset((204, 205, 304))
_FRAMING = HOP_BY_HOP | {b"content-length"}


class ProblemText(PolicyConfig):
    """A problem, which is written as all others of its route are (see `errors`)."""

    title: str
    """What is wrong, for people."""
    type: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]*$")] = "refused"
    """What is wrong, for programs: a name that stays the same."""
    detail: str = ""
    """More about it."""
    extensions: dict[str, str | int | list[str]] = {}  # noqa: RUF012 - pydantic copies it
    """Further members (RFC 9457, section 3.2), in the shape that has them."""


class Respond(PolicyConfig):
    """The answer."""

    body: str | None = None
    """Its text; `{{ captures.NAME }}`, `{{ method }}`, `{{ path }}`, `{{ host }}`, `{{ headers.NAME }}` and the like
    are filled in."""
    status: StatusCode = 200
    """Its status."""
    json_: Any = Field(None, alias="json")
    """Its content as data, sent as JSON; places in its strings are filled in."""
    content_type: str | None = None
    """Its media type; `application/json` with `json`, otherwise `text/plain; charset=utf-8`."""
    problem: ProblemText | None = None
    """A problem instead of content of its own; the status is one from 400."""
    headers: dict[str, str] = {}  # noqa: RUF012 - pydantic copies it
    """Further headers; none of those that frame the answer, such as `Content-Length`."""

    @model_validator(mode="after")
    def _one_content(self) -> Respond:
        if self.body is not None and self.json_ is not None:
            raise ValueError("body and json exclude each other")
        if self.problem is not None and (self.body is not None or self.json_ is not None):
            raise ValueError("a problem has no body or json beside it")
        if self.problem is not None and self.status < 400:
            raise ValueError("a problem has a status from 400")
        if self.status in _WITHOUT_CONTENT and (self.body or self.json_ is not None):
            raise ValueError(f"an answer with status {self.status} has no body; leave it out, or take another status")
        return self

    @field_validator("headers")
    @classmethod
    def _no_framing(cls, headers: dict[str, str]) -> dict[str, str]:
        for name in headers:
            if name.lower().encode() in _FRAMING:
                raise ValueError(f"{name} is for the gateway to say; leave it out")
        return headers


class RespondEndpoint(Endpoint[Respond], name="respond"):
    """Answers at once."""

    def setup(self, env: Env) -> None:
        """Prepare the whole answer, or its template."""
        config = self.config
        text = orjson.dumps(config.json_).decode() if config.json_ is not None else config.body or ""
        media_type = config.content_type
        if media_type is None:
            media_type = "text/plain; charset=utf-8" if config.json_ is None else "application/json"
        try:
            self._template = Template(text, escape_for(media_type))
            fields = [(b"Content-Type", media_type.encode("latin-1"))] if text else []
            fields += [(name.encode("ascii"), value.encode("latin-1")) for name, value in config.headers.items()]
            self._headers = HeaderBlock(fields)
        except UnicodeEncodeError as error:
            raise ConfigError(f"respond: {error.object!r} has characters that no header can have") from None
        except ValueError as error:
            raise ConfigError(f"respond: {error}") from None
        env.route.check_captures(self._template.captures)
        constant = self._template.constant
        self._content = None if constant is None else constant.encode()

    async def handle(self, request: Request) -> Response:
        """Return the answer."""
        problem = self.config.problem
        if problem is not None:
            answer = Response.problem(
                self.config.status, problem.type, problem.title, problem.detail, **problem.extensions
            )
            answer.headers.set_block(self._headers)
            return answer
        content = self._template.fill(request).encode() if self._content is None else self._content
        response = Response(self.config.status, None, content)
        response.headers.set_block(self._headers)
        return response

    def describe(self) -> str:
        """Return one line for `portico explain`."""
        return f"respond {self.config.status}"
