"""Let in who shows no credentials, as a user of its own.

```yaml
consumers:
  ada: {keys: "${ADA_KEY:-ada-has-a-long-key}", roles: [reader, writer]}
policies: [key-auth, {anonymous: {roles: [reader]}}]
routes:
  - {path: /articles/**, methods: [GET], service: articles}
  - {path: /articles/**, service: articles, policies: [{authorize: writer}]}
```

It stands among the policies that authenticate, and is asked after all of them, wherever it stands. Credentials that
were shown and are not good stay refused: nobody becomes a guest by a mistake in a password. So does who lacks
credentials that are `required`.

`user.kind` is `anonymous` for whoever comes so. Where `authorize` does not let them in, they are told by which
credentials they could be somebody.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from portico.plugin import (
    Authenticator,
    AuthenticatorConfig,
    BadValue,
    Env,
    OneOrMany,
    Refusal,
    Request,
    Stage,
    User,
)

Some = Annotated[frozenset[str], OneOrMany()]


class Anonymous(AuthenticatorConfig):
    """Who they are then."""

    roles: Some = frozenset()
    """What they are, such as `guest`; one, or a list."""
    name: Annotated[str, Field(min_length=1)] = "anonymous"
    """What logs, conditions and services call them."""
    scopes: Some = frozenset()
    """What they may ask for."""
    permissions: Some = frozenset()
    """What they may do."""
    groups: Some = frozenset()
    """Which groups they are in."""

    @field_validator("required")
    @classmethod
    def _no_duty(cls, required: bool) -> bool:
        if required:
            raise BadValue("there are no credentials that could be required here", "leave required out")
        return required


class AnonymousPolicy(Authenticator[Anonymous], name="anonymous", stages=(Stage.AUTHENTICATE,)):
    """Takes whoever shows nothing."""

    takes_nobody = True

    def setup(self, env: Env) -> None:
        """Make the user that they all are."""
        config = self.config
        self._user = User(
            config.name,
            config.roles,
            config.scopes,
            permissions=config.permissions,
            groups=config.groups,
            kind=self.name,
        )

    def identify(self, request: Request) -> User:
        """Return the user that they all are."""
        return self._user

    def challenge(self, refusal: Refusal | None) -> str:
        """Nobody is ever asked for this."""
        raise NotImplementedError
