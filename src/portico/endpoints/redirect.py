"""Send the client elsewhere.

```yaml
routes:
  - {path: /old, redirect: /new}
  - {path: "/users/{id}", redirect: "https://people.example/{{ captures.id }}", status: 301}
  - {path: /search, redirect: {to: /find, status: 308, keep_query: false}}
```
"""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import quote

from pydantic import AfterValidator

from portico.plugin import ConfigError, Endpoint, Env, Headers, PolicyConfig, Request, Response, Template


def _not_empty(to: str) -> str:
    if not to.strip():
        raise ValueError("this says nowhere to go; write a path or a URL")
    return to


class Redirect(PolicyConfig):
    """Where to, and how firmly."""

    to: Annotated[str, AfterValidator(_not_empty)]
    """The new location: a path or a URL; `{{ captures.NAME }}` and the like are filled in."""
    status: Literal[301, 302, 303, 307, 308] = 302
    """302 and 307 for now, 301 and 308 for good; 307 and 308 keep the method, 303 makes it GET (RFC 9110 section
    15.4)."""
    keep_query: bool = True
    """Append the query of the request, where the new location has none of its own."""


class RedirectEndpoint(Endpoint[Redirect], name="redirect"):
    """Sends the client elsewhere."""

    def setup(self, env: Env) -> None:
        """Compile the location."""
        try:
            self._to = Template(self.config.to, lambda value: quote(value, safe="!$&'()*+,;=:@/"), in_url=True)
        except ValueError as error:
            raise ConfigError(f"redirect: {error}") from None
        env.route.check_captures(self._to.captures)

    async def handle(self, request: Request) -> Response:
        """Return the redirection."""
        location = self._to.fill(request)
        if self.config.keep_query and request.query and "?" not in location:
            location = f"{location}?{request.query}"
        headers = Headers()
        headers.set(b"Location", quote(location, safe="!#$%&'()*+,/:;=?@[]~").encode("ascii"))
        return Response(self.config.status, headers)

    def describe(self) -> str:
        """Return one line for `portico explain`."""
        return f"redirect {self.config.status} to {self.config.to}"
