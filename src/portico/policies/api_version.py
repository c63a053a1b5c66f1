"""Tell the client which version of an API has answered, and caches what that was chosen by.

```yaml
routes:
  - path: /orders/**
    headers: {Accept-Version: v2}
    respond: {status: 200}
    policies:
      - api-version: {version: v2, echo: API-Version, vary: Accept-Version}
```

A route's `versions` writes such routes, and adds this policy by itself.
"""

from __future__ import annotations

from portico.plugin import HeaderBlock, HeaderName, HeaderValue, Policy, PolicyConfig, Request, Response, Stage


class ApiVersion(PolicyConfig):
    """What is said, and in which headers."""

    version: HeaderValue = ""
    """The version that answers here."""
    echo: HeaderName | None = None
    """The header of the answer that names it; none unless given."""
    vary: HeaderName | None = None
    """The header of the request that it was chosen by, which is added to `Vary`; none unless given."""


class ApiVersionPolicy(Policy[ApiVersion], name="api-version", stages=(Stage.OBSERVE,)):
    """Sets the headers on every answer, also on errors."""

    def __init__(self, config: ApiVersion) -> None:
        super().__init__(config)
        echo = [(config.echo.encode("ascii"), config.version.encode("latin-1"))] if config.echo is not None else []
        self._block = HeaderBlock(echo)
        self._vary = b"" if config.vary is None else config.vary.encode("ascii")

    def response(self, request: Request, response: Response) -> Response:
        """Set them."""
        headers = response.headers
        headers.set_block(self._block)
        if self._vary:
            said = b",".join(headers.get_all(b"vary")).lower().replace(b" ", b"").split(b",")
            if self._vary.lower() not in said and b"*" not in said:
                headers.add(b"Vary", self._vary)
        return response
