"""Signed requests (RFC 9421, RFC 9530): what is signed, by which key, and that it is new."""
