"""Let in only who may: by roles, groups, scopes, permissions, or a condition.

```yaml
consumers:
  ada: {keys: "${ADA_KEY:-ada-has-a-long-key}", roles: [admin], permissions: [orders:read, orders:write]}
policies: [key-auth]
routes:
  - {path: /admin/**, service: admin, policies: [{authorize: admin}]}
  - path: /orders/**
    service: orders
    policies:
      - authorize: {permissions: [orders:read, orders:write], match: {permissions: any}}
  - path: /users/{id}/**
    service: users
    policies:
      - authorize: {allow: "user == captures['id'] || 'admin' in user.roles"}
```

All that is given has to fit: each of the lists, and the condition. Of `roles` and `groups` one of the list is enough,
of `scopes` and `permissions` all are needed, unless `match` says otherwise. `allow` is a
[condition](../configuration.md#conditions); what is to be an alternative to something stands in it as well.

Where nobody is known the answer is 401. Someone who may not is answered 403, with no word of what would be needed; the
log named `portico.security` is told. Who came by `anonymous` is answered 401 as well: they may log in. Those who came
with a token that lacks a scope are told `insufficient_scope` by `WWW-Authenticate` (RFC 6750, section 3.1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final, Literal

from pydantic import field_validator, model_validator

from portico.plugin import (
    USER,
    BadValue,
    Condition,
    ConditionError,
    Env,
    OneOrMany,
    Policy,
    PolicyConfig,
    Request,
    Response,
    Stage,
    User,
    note_refusal,
    unknown_user,
)

_BY_TOKEN: Final = ("jwt", "oauth2-introspection")
"""Policies that take tokens."""
_BY_NOTHING: Final = "anonymous"

Some = Annotated[frozenset[str], OneOrMany()]
Match = Literal["any", "all"]


class Matches(PolicyConfig):
    """How many of a list someone needs to have."""

    roles: Match = "any"
    """Of the roles."""
    groups: Match = "any"
    """Of the groups."""
    scopes: Match = "all"
    """Of the scopes."""
    permissions: Match = "all"
    """Of the permissions."""


class Authorize(PolicyConfig):
    """Who may."""

    roles: Some | None = None
    """The roles; one, or a list."""
    groups: Some | None = None
    """The groups; one, or a list."""
    scopes: Some | None = None
    """The scopes; one, or a list."""
    permissions: Some | None = None
    """The permissions; one, or a list."""
    match: Matches = Matches()
    """How many of each list are needed: `any` one, or `all`."""
    allow: str | None = None
    """A condition that has to hold."""

    @field_validator("roles", "groups", "scopes", "permissions")
    @classmethod
    def _some(cls, names: frozenset[str] | None) -> frozenset[str] | None:
        if names is not None and (not names or "" in names):
            raise BadValue("nobody could have that", "name one or more, or leave it out")
        return names

    @field_validator("allow")
    @classmethod
    def _condition(cls, text: str | None) -> str | None:
        if text is not None:
            try:
                Condition(text)
            except ConditionError as error:
                raise BadValue(str(error), error.hint) from None
        return text

    @model_validator(mode="after")
    def _something(self) -> Authorize:
        if (self.roles, self.groups, self.scopes, self.permissions, self.allow) == (None,) * 5:
            raise BadValue("this lets nobody in", "give it roles, groups, scopes, permissions, or allow: user != ''")
        return self


class AuthorizePolicy(Policy[Authorize], name="authorize", stages=(Stage.AUTHORIZE,)):
    """Looks at who is asking."""

    of_callers = True

    def setup(self, env: Env) -> None:
        """Prepare what is looked for."""
        config, match = self.config, self.config.match
        tests = (
            ("roles", config.roles, _ROLES[match.roles]),
            ("groups", config.groups, _GROUPS[match.groups]),
            ("scopes", config.scopes, _SCOPES[match.scopes]),
            ("permissions", config.permissions, _PERMISSIONS[match.permissions]),
        )
        self._tests = tuple((name, wanted, fits) for name, wanted, fits in tests if wanted is not None)
        self._holds = None if config.allow is None else Condition(config.allow).holds

    def request(self, request: Request) -> Response | None:
        """Refuse who may not."""
        user = request.get(USER)
        if user is None:
            note_refusal(request, self.name, "nobody is known")
            return unknown_user(request)
        for name, wanted, fits in self._tests:
            if not fits(wanted, user):
                return self._refused(request, user, name)
        if self._holds is not None and not self._holds(request):
            return self._refused(request, user, "allow")
        return None

    def _refused(self, request: Request, user: User, why: str) -> Response:
        note_refusal(request, self.name, why)
        if user.kind == _BY_NOTHING:
            return unknown_user(request)
        response = Response.problem(403, "forbidden", "Forbidden", "You may not do this.")
        if why == "scopes" and user.kind in _BY_TOKEN:
            response.headers.add(b"WWW-Authenticate", b'Bearer error="insufficient_scope"')
        return response


Fits = Callable[[frozenset[str], User], bool]
_ROLES: Final[dict[str, Fits]] = {
    "any": lambda wanted, user: not wanted.isdisjoint(user.roles),
    "all": lambda wanted, user: wanted <= user.roles,
}
_GROUPS: Final[dict[str, Fits]] = {
    "any": lambda wanted, user: not wanted.isdisjoint(user.groups),
    "all": lambda wanted, user: wanted <= user.groups,
}
_SCOPES: Final[dict[str, Fits]] = {
    "any": lambda wanted, user: not wanted.isdisjoint(user.scopes),
    "all": lambda wanted, user: wanted <= user.scopes,
}
_PERMISSIONS: Final[dict[str, Fits]] = {
    "any": lambda wanted, user: not wanted.isdisjoint(user.permissions),
    "all": lambda wanted, user: wanted <= user.permissions,
}
