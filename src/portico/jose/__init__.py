"""Signed tokens (RFC 7515, RFC 7519): reading them strictly, the keys that verify them, and what they must say."""
