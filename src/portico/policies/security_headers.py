"""Set the response headers that tell browsers to be careful.

```yaml
policies:
  - security-headers
  - security-headers:
      frame_options: SAMEORIGIN
      hsts: max-age=31536000; includeSubDomains
      content_security_policy: default-src 'self'
      xss_protection: off
    name: strict
```

The defaults are nosniff, no framing, and the header of the old XSS filter.
"""

from __future__ import annotations

from typing import Literal

from portico.plugin import ConfigError, Env, HeaderBlock, Policy, PolicyConfig, Request, Response, Stage


class SecurityHeaders(PolicyConfig):
    """The value of each header; `off` leaves it as the service set it."""

    content_type_options: Literal["nosniff", "off"] = "nosniff"
    """X-Content-Type-Options (Fetch standard)."""
    frame_options: Literal["DENY", "SAMEORIGIN", "off"] = "DENY"
    """X-Frame-Options (RFC 7034)."""
    xss_protection: str = "1; mode=block"
    """X-XSS-Protection; browsers of today ignore it."""
    hsts: str = "off"
    """Strict-Transport-Security (RFC 6797); it has an effect over TLS alone."""
    content_security_policy: str = "off"
    """Content-Security-Policy (W3C CSP 3)."""
    referrer_policy: str = "off"
    """Referrer-Policy (W3C)."""
    permissions_policy: str = "off"
    """Permissions-Policy (W3C)."""


_HEADERS = {
    "content_type_options": b"X-Content-Type-Options",
    "frame_options": b"X-Frame-Options",
    "xss_protection": b"X-XSS-Protection",
    "hsts": b"Strict-Transport-Security",
    "content_security_policy": b"Content-Security-Policy",
    "referrer_policy": b"Referrer-Policy",
    "permissions_policy": b"Permissions-Policy",
}


class SecurityHeadersPolicy(Policy[SecurityHeaders], name="security-headers", stages=(Stage.OBSERVE,)):
    """Sets the headers on every answer, also on errors."""

    def setup(self, env: Env) -> None:
        """Check and prepare the headers."""
        values = {field: getattr(self.config, field) for field in _HEADERS}
        try:
            self._block = HeaderBlock(
                (_HEADERS[field], value.encode("latin-1")) for field, value in values.items() if value != "off"
            )
        except UnicodeEncodeError as error:
            raise ConfigError(f"security-headers: {error.object!r} has characters that no header can have") from None
        except ValueError as error:
            raise ConfigError(f"security-headers: {error}") from None

    def response(self, request: Request, response: Response) -> Response:
        """Set them."""
        response.headers.set_block(self._block)
        return response
