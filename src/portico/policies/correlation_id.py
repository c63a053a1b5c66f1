"""Give every request an id that client, gateway and service share.

```yaml
policies:
  - correlation-id
  - correlation-id: {header: X-Request-ID, accept: false}
    name: request-id
```

A client's own id is taken where it is sound: up to 128 visible ASCII characters without double quotes, backslashes or
commas; of several, the first. Otherwise one is made, a random UUID. The service sees it, and the answer repeats it,
also one that refuses the request, in place of any that the service has set. What the log `portico.security` tells of a
request that was refused has it, too.
"""

from __future__ import annotations

import re
import uuid

from portico.plugin import CORRELATION_ID, HeaderName, Policy, PolicyConfig, Request, Response, Stage

_SOUND = re.compile(rb"[A-Za-z0-9!#$%&'()*+\-./:;<=>?@\[\]^_`{|}~]{1,128}")


class CorrelationId(PolicyConfig):
    """Which header, and whose id."""

    header: HeaderName = "X-Correlation-ID"
    """The header that carries the id, on the request to the service and on the answer."""
    accept: bool = True
    """Take the client's id where it sent a sound one."""
    echo: bool = True
    """Repeat the id on the answer."""


class CorrelationIdPolicy(Policy[CorrelationId], name="correlation-id", stages=(Stage.OBSERVE,)):
    """Takes, checks or makes the id, and echoes it."""

    def __init__(self, config: CorrelationId) -> None:
        super().__init__(config)
        self._name = config.header.encode("ascii")
        self._key = self._name.lower()

    def request(self, request: Request) -> Response | None:
        """Make sure that the request has exactly one id."""
        headers = request.headers
        given = headers.get(self._key) if self.config.accept else None
        if given is None or _SOUND.fullmatch(given) is None:
            given = str(uuid.uuid4()).encode("ascii")
            headers.set(self._name, given)
        elif len(headers.index) != len(headers.pairs):  # some header stands twice, and it may be this one
            headers.set(self._name, given)
        request[CORRELATION_ID] = given
        return None

    def response(self, request: Request, response: Response) -> Response:
        """Repeat the id on the answer."""
        if self.config.echo:
            response.headers.set(self._name, request[CORRELATION_ID])
        return response
