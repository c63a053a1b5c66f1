"""HTTP caching (RFC 9111) as decisions alone, for a cache that many share: what may be kept, for how long, for whom it
may be used, and what must be asked first. No sockets, no store, no clock: whoever calls has them.
"""
