"""Set the response headers that tell browsers to be careful.

```yaml
policies:
  - security-headers
  - security-headers:
      frame_options: SAMEORIGIN
      hsts: max-age=31536000; includeSubDomains
      content_security_policy: default-src 'self'
      referrer_policy: strict-origin-when-cross-origin
      permissions_policy: camera=(), microphone=()
      xss_protection: off
      keep: [content_security_policy]
    name: strict
```

The defaults are nosniff, no framing, and the header of the old XSS filter. Every answer gets the headers, also one that
refuses a request. They replace what the service has set, but for those under `keep`, for which the service's own word
is the better one where it has one: a page may need a policy of its own for its scripts.

`Strict-Transport-Security` goes only to clients that came by https, or whose trusted proxy says so (RFC 6797
section 7.2).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from pydantic import field_validator

from portico.plugin import ConfigError, Env, HeaderBlock, Policy, PolicyConfig, Request, Response, Stage

Field = Literal[
    "content_type_options",
    "frame_options",
    "xss_protection",
    "hsts",
    "content_security_policy",
    "content_security_policy_report_only",
    "referrer_policy",
    "permissions_policy",
    "opener_policy",
    "embedder_policy",
    "resource_policy",
]


class SecurityHeaders(PolicyConfig):
    """The value of each header; `off` leaves it as the service set it."""

    content_type_options: Literal["nosniff", "off"] = "nosniff"
    """X-Content-Type-Options (Fetch standard)."""
    frame_options: Literal["DENY", "SAMEORIGIN", "off"] = "DENY"
    """X-Frame-Options (RFC 7034)."""
    xss_protection: str = "1; mode=block"
    """X-XSS-Protection; browsers of today ignore it."""
    hsts: str = "off"
    """Strict-Transport-Security (RFC 6797), such as `max-age=31536000; includeSubDomains`."""
    content_security_policy: str = "off"
    """Content-Security-Policy (W3C CSP 3)."""
    content_security_policy_report_only: str = "off"
    """Content-Security-Policy-Report-Only: what would be refused is only told (W3C CSP 3)."""
    referrer_policy: str = "off"
    """Referrer-Policy (W3C)."""
    permissions_policy: str = "off"
    """Permissions-Policy (W3C)."""
    opener_policy: Literal["same-origin", "same-origin-allow-popups", "noopener-allow-popups", "unsafe-none", "off"] = (
        "off"
    )
    """Cross-Origin-Opener-Policy (HTML standard)."""
    embedder_policy: Literal["require-corp", "credentialless", "unsafe-none", "off"] = "off"
    """Cross-Origin-Embedder-Policy (HTML standard)."""
    resource_policy: Literal["same-origin", "same-site", "cross-origin", "off"] = "off"
    """Cross-Origin-Resource-Policy (Fetch standard)."""
    keep: tuple[Field, ...] = ()
    """Headers, by the names here, whose value is the service's where it has set one."""

    @field_validator("hsts")
    @classmethod
    def _has_an_age(cls, hsts: str) -> str:
        if hsts != "off" and re.search(r'(^|;)\s*max-age="?\d+', hsts, re.IGNORECASE) is None:
            raise ValueError("browsers ignore it without an age; write max-age=31536000; includeSubDomains")
        return hsts


_HEADERS: Final = {
    "content_type_options": b"X-Content-Type-Options",
    "frame_options": b"X-Frame-Options",
    "xss_protection": b"X-XSS-Protection",
    "hsts": b"Strict-Transport-Security",
    "content_security_policy": b"Content-Security-Policy",
    "content_security_policy_report_only": b"Content-Security-Policy-Report-Only",
    "referrer_policy": b"Referrer-Policy",
    "permissions_policy": b"Permissions-Policy",
    "opener_policy": b"Cross-Origin-Opener-Policy",
    "embedder_policy": b"Cross-Origin-Embedder-Policy",
    "resource_policy": b"Cross-Origin-Resource-Policy",
}


class _Prepared(NamedTuple):
    """The headers of one configuration, which many routes have in common."""

    secure: HeaderBlock
    plain: HeaderBlock
    kept: tuple[tuple[bytes, HeaderBlock, bool], ...]
    """Those that an answer may have of its own: the name in lower case, the header, whether https alone has it."""


@lru_cache(maxsize=16)
def _prepared(config: SecurityHeaders) -> _Prepared:
    values = {field: getattr(config, field) for field in _HEADERS}
    wanted = [field for field, value in values.items() if value != "off"]
    try:
        fields = {field: (_HEADERS[field], values[field].encode("latin-1")) for field in wanted}
        always = [field for field in wanted if field not in config.keep]
        return _Prepared(
            HeaderBlock(fields[field] for field in always),
            HeaderBlock(fields[field] for field in always if field != "hsts"),
            tuple(
                (fields[field][0].lower(), HeaderBlock([fields[field]]), field == "hsts")
                for field in wanted
                if field in config.keep
            ),
        )
    except UnicodeEncodeError as error:
        raise ConfigError(f"security-headers: {error.object!r} has characters that no header can have") from None
    except ValueError as error:
        raise ConfigError(f"security-headers: {error}") from None


class SecurityHeadersPolicy(Policy[SecurityHeaders], name="security-headers", stages=(Stage.OBSERVE,)):
    """Sets the headers on every answer, also on errors."""

    def setup(self, env: Env) -> None:
        """Check and prepare the headers, for clients that came by http and by https."""
        self._secure, self._plain, self._kept = _prepared(self.config)

    def response(self, request: Request, response: Response) -> Response:
        """Set them."""
        secure = request.client is not None and request.client.scheme == "https"
        headers = response.headers
        headers.set_block(self._secure if secure else self._plain)
        for key, block, only_secure in self._kept:
            if key not in headers.index and (secure or not only_secure):
                headers.set_block(block)
        return response
