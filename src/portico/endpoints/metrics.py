"""Tell the metrics of the gateway, in the text format of Prometheus or, for who would rather have that, of OpenMetrics.

Every configuration has `/metrics`, unless the file has the same path or says `metrics: off`. It tells those whom
`metrics.allow` names; everyone else is answered 403. Whichever worker answers tells what all of them, and those before
them, have counted. Policies of the whole file that ask who is calling do not stand around it. On a route of your own,
they do:

```yaml
routes:
  - path: /internal/metrics
    metrics: {allow: [10.1.2.0/24]}
```
"""

from __future__ import annotations

from ipaddress import ip_address

from portico.plugin import (
    LOCAL_NETWORKS,
    Cidr,
    Endpoint,
    Env,
    PolicyConfig,
    Request,
    Response,
    scraped,
)


class Metrics(PolicyConfig):
    """Who is told."""

    allow: tuple[Cidr, ...] = LOCAL_NETWORKS
    """The networks that are told; everyone else is answered 403."""


class MetricsEndpoint(Endpoint[Metrics], name="metrics"):
    """Tells the metrics of the gateway."""

    def setup(self, env: Env) -> None:
        """Keep the way to read them."""
        self._scrape = env.scrape

    async def handle(self, request: Request) -> Response:
        """Return them, or 403."""
        if request.client is not None and not self._allowed(request.client.address):
            return Response.problem(403, "address-not-allowed")
        return scraped(request, self._scrape)

    def _allowed(self, address: str) -> bool:
        if not address:
            return True  # a Unix socket: its file's mode has decided
        client = ip_address(address.partition("%")[0])
        client = getattr(client, "ipv4_mapped", None) or client
        return any(client in network for network in self.config.allow)
