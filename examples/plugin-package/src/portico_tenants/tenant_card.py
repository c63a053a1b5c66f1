"""Show what is known of the tenant whose request it is; the policy `tenant` has to stand around the route.

```yaml
routes:
  - path: /whoami
    tenant-card: {greeting: Welcome}
    policies: [tenant: {domain: example.com, tenants: {acme: Acme Ltd}}]
```
"""

import json

from portico.plugin import Endpoint, HeaderBlock, PolicyConfig, Request, Response
from portico_tenants.tenant import TENANT

_JSON = HeaderBlock([(b"Content-Type", b"application/json")])


class TenantCard(PolicyConfig):
    """Nothing has to be said of it."""

    greeting: str = "Hello"
    """What the card begins with."""


class TenantCardEndpoint(Endpoint[TenantCard], name="tenant-card"):
    """Answers with the tenant's card."""

    async def handle(self, request: Request) -> Response:
        """Return the card."""
        tenant = request.get(TENANT)
        if tenant is None:
            return Response.problem(404, "unknown-tenant")
        card = {"greeting": self.config.greeting, "id": tenant.id, "name": tenant.name}
        response = Response(200, body=json.dumps(card).encode())
        response.headers.set_block(_JSON)
        return response
