"""Refuse requests whose body is too large.

```yaml
routes:
  - path: /api/v1/orders/**
    service: orders
    policies: [{request-size: 1MiB}]
services:
  orders: {url: "http://127.0.0.1:9002"}
```

A request that announces more is answered 413 before its body is read; one that sends more than it announced, or does
not announce, is answered 413 as soon as the limit is passed.
"""

from __future__ import annotations

from portico.plugin import Policy, PolicyConfig, Request, Response, Size, Stage


class RequestSize(PolicyConfig):
    """The limit."""

    max: Size
    """Bytes that a body may have."""


class RequestSizePolicy(Policy[RequestSize], name="request-size", stages=(Stage.GUARD, Stage.LIMIT)):
    """Refuses larger bodies."""

    def request(self, request: Request) -> Response | None:
        """Refuse what is known to be too large; have the rest watched as it streams."""
        if request.body.restrict(self.config.max):
            return None
        return Response.problem(413, "content-too-large", detail=f"The limit is {self.config.max} bytes.")
