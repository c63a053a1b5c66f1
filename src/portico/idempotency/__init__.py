"""Requests that are carried out once, however often they come (draft-ietf-httpapi-idempotency-key-header-07).

`KeyReader` reads the key that a client has given a request, and `fingerprint` tells the request from any other. `Once`
claims the key in a store, has the request carried out, keeps what it was answered, and answers those that come again by
that. Who the client is, and in what words it is refused, is for whoever uses it.
"""

from portico.idempotency.key import KeyReader, MalformedKey, fingerprint
from portico.idempotency.once import Once, OnceRules
from portico.idempotency.record import LARGEST_ANSWER, Standing

__all__ = ["LARGEST_ANSWER", "KeyReader", "MalformedKey", "Once", "OnceRules", "Standing", "fingerprint"]
