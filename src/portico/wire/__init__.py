"""Protocols without sockets: bytes in, events out; events in, bytes out."""
