"""Logins of browsers by OpenID Connect: the gateway as a relying party, which keeps its sessions in cookies alone."""
