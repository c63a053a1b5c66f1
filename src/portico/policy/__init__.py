"""Policies and endpoints: their base classes, their registry, and the chain that is compiled of them."""
