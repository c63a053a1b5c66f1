"""Publish the keys by which services verify what the gateway signs: a JWKS (RFC 7517).

```yaml
routes:
  - {path: /.well-known/jwks.json, jwks: keys/internal.pem}
  - {path: /keys, hosts: internal.example, jwks: {key_files: [keys/internal.pem, keys/next.pem], max_age: 1h}}
```

These are the public halves of the keys in these files, each called by its thumbprint (RFC 7638), as
[internal-jwt](../policies/internal-jwt.md) calls them. Name the key that signs, the next one for a while before it
does, and the last one for a while after: services keep keys for `max_age`, and those of other makes for longer. No
private half leaves the gateway, and no secret can be published.

Whoever may come to the route is answered; policies of the whole file that ask who is calling stand around it as around
any other, so a file that has such ones takes them away here: `policies: [{key-auth: off}]`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import orjson
from pydantic import Field, PrivateAttr, model_validator

from portico.plugin import (
    ConfigError,
    Duration,
    Endpoint,
    Env,
    FilePath,
    HeaderBlock,
    OneOrMany,
    PolicyConfig,
    Request,
    Response,
    UnusableKey,
    published_key,
)


class Jwks(PolicyConfig):
    """Which keys are published."""

    _contents: tuple[bytes, ...] = PrivateAttr(())

    key_files: Annotated[tuple[FilePath, ...], OneOrMany(), Field(min_length=1, max_length=64)]
    """Files with one key each as PEM: a private one, whose public half is published, a public one, or a certificate."""
    max_age: Duration = 300.0
    """For how long whoever fetches them may keep them."""

    @model_validator(mode="after")
    def _read(self) -> Jwks:
        self._contents = tuple(Path(file).read_bytes() for file in self.key_files)
        return self

    @property
    def contents(self) -> tuple[bytes, ...]:
        """What is in the files: another content is another configuration."""
        return self._contents


class JwksEndpoint(Endpoint[Jwks], name="jwks"):
    """Publishes keys."""

    def setup(self, env: Env) -> None:
        """Read the keys, and prepare the whole answer."""
        keys = {}
        for file, content in zip(self.config.key_files, self.config.contents, strict=True):
            try:
                key = published_key(content)
            except UnusableKey as error:
                raise ConfigError(f"jwks: {file}: {error}") from None
            keys[key["kid"]] = key
        self._content = orjson.dumps({"keys": list(keys.values())})
        self._headers = HeaderBlock(
            [
                (b"Content-Type", b"application/jwk-set+json"),
                (b"Cache-Control", b"public, max-age=%d" % self.config.max_age),
            ]
        )

    async def handle(self, request: Request) -> Response:
        """Return the keys."""
        response = Response(200, None, self._content)
        response.headers.set_block(self._headers)
        return response

    def describe(self) -> str:
        """Return one line for `portico explain`."""
        return f"jwks of {len(self.config.key_files)} file{'s'[: len(self.config.key_files) > 1]}"
