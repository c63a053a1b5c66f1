"""Tenants for Portico: who a request belongs to, by the host that it asks for."""
