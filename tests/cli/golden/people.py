"""Policies for the golden files."""

from portico.plugin import ConfigError, Env, Policy, PolicyConfig, Request, Response, Stage


class Role(PolicyConfig):
    role: str
    """Who may pass."""


class RolePolicy(Policy[Role], name="role", stages=(Stage.AUTHENTICATE, Stage.AUTHORIZE)):
    """Asks for a role."""

    def request(self, request: Request) -> Response | None:
        if request.headers.text(b"x-role") != self.config.role:
            return Response.problem(403, "role-needed", detail=f"Only for {self.config.role}.")
        request.headers.remove(b"x-role")
        request.headers.set(b"X-Checked", b"yes")
        return None


class CachePolicy(Policy[PolicyConfig], name="only-cache", stages=(Stage.CACHE,)):
    """Stands in one stage."""


class NeverPolicy(Policy[PolicyConfig], name="never", stages=(Stage.TRANSFORM,)):
    """Cannot be set up."""

    def setup(self, env: Env) -> None:
        raise ConfigError(f"this cannot work on route {env.route.name}")


class BrokenPolicy(Policy[PolicyConfig], name="broken", stages=(Stage.TRANSFORM,)):
    """Has a bug where it is set up."""

    def setup(self, env: Env) -> None:
        raise KeyError("oops")
