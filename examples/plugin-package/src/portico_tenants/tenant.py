"""Find out by the host whose request it is, tell the service, and refuse hosts that are no tenant's.

```yaml
services:
  app:
    url: http://127.0.0.1:9001
    policies: [tenant: {domain: example.com, tenants: {acme: Acme Ltd, zeta: Zeta AG}}]
routes:
  - {path: /**, service: app}
```
"""

from typing import NamedTuple

from portico.plugin import ConfigError, Env, HeaderName, Key, Policy, PolicyConfig, Request, Response, Stage


class Tenant(NamedTuple):
    """Whose request it is."""

    id: str
    name: str


TENANT: Key[Tenant] = Key("tenant")


class TenantConfig(PolicyConfig):
    """Who the tenants are."""

    domain: str
    """The domain below which each tenant has a host of its own."""
    tenants: dict[str, str]
    """The tenants' names, by the first label of their hosts."""
    header: HeaderName = "X-Tenant"
    """The header that tells the service; a client's own is replaced."""


class TenantPolicy(Policy[TenantConfig], name="tenant", stages=(Stage.AUTHENTICATE, Stage.GUARD)):
    """Knows tenants by their hosts."""

    def setup(self, env: Env) -> None:
        """Have every host looked up by its whole name."""
        config = self.config
        if not config.tenants:
            raise ConfigError("tenant: there are no tenants; write tenants: {acme: Acme Ltd}")
        self._header = config.header.encode()
        self._by_host = {
            f"{label}.{config.domain}".lower(): Tenant(label, name) for label, name in config.tenants.items()
        }

    def request(self, request: Request) -> Response | None:
        """Put the tenant into its slot, and into the header."""
        tenant = self._by_host.get(request.host)
        if tenant is None:
            return Response.problem(404, "unknown-tenant")
        request[TENANT] = tenant
        request.headers.set(self._header, tenant.id.encode())
        return None
