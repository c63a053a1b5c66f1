"""Tenants in a gateway in memory. The package has to be installed: entry points are how it is found."""

import pytest
from portico_tenants.tenant import TENANT, Tenant, TenantConfig, TenantPolicy
from portico_tenants.tenant_card import TenantCard, TenantCardEndpoint

from portico.testing import ConfigError, Gateway, Reply

CONFIG = """
services:
  app: http://app
routes:
  - {path: /**, service: app, policies: [tenant: &tenants {domain: example.com, tenants: {acme: Acme, zeta: Zeta}}]}
  - {path: /whoami, tenant-card: {greeting: Welcome}, policies: [tenant: *tenants]}
"""


def test_a_service_is_told_whose_request_it_is() -> None:
    with Gateway(text=CONFIG, services={"app": Reply(200, body="hi")}) as gateway:
        assert gateway.get("/a", host="acme.example.com", headers={"X-Tenant": "zeta"}).text == "hi"
        assert gateway.services["app"].requests[0].headers.all("X-Tenant") == ["acme"]


def test_a_host_that_is_no_tenants_is_refused() -> None:
    with Gateway(text=CONFIG) as gateway:
        assert gateway.get("/a", host="other.example.com").problem == "unknown-tenant"
        assert gateway.services["app"].requests == []


def test_the_card() -> None:
    with Gateway(text=CONFIG) as gateway:
        card = gateway.get("/whoami", host="ZETA.example.com")
        assert card.json() == {"greeting": "Welcome", "id": "zeta", "name": "Zeta"}


def test_the_endpoint_by_itself() -> None:
    with Gateway(endpoint=TenantCardEndpoint(TenantCard())) as gateway:
        card = gateway.get("/", slots={TENANT: Tenant("x", "Xenon")})
        assert card.json() == {"greeting": "Hello", "id": "x", "name": "Xenon"}
        assert gateway.get("/").problem == "unknown-tenant"


def test_the_policy_by_itself() -> None:
    policy = TenantPolicy(TenantConfig(domain="a.b", tenants={"x": "Xenon"}))
    with Gateway(policies=[policy]) as gateway:
        assert gateway.get("/", host="x.a.b").status == 200


def test_tenants_there_have_to_be() -> None:
    broken = Gateway(text=CONFIG.replace("{acme: Acme, zeta: Zeta}", "{}"))
    with pytest.raises(ConfigError, match=r"portico\.yaml:5:\d+: tenant: there are no tenants"), broken:
        pass
