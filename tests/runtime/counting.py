"""A policy that asks the store."""

from __future__ import annotations

from portico.plugin import Env, FixedWindow, LimitCheck, Limits, Policy, PolicyConfig, Request, Response, Stage, Verdict


class Count(PolicyConfig):
    """Counts."""


class CountPolicy(Policy[Count], name="count", stages=(Stage.LIMIT,)):
    def setup(self, env: Env) -> None:
        limits = Limits([FixedWindow(2, 3600.0)])
        self._check = LimitCheck(env.store.volatile, limits, "deny", env.logger)

    def request(self, request: Request) -> Response | None:
        verdict = self._check.take(b"all")
        assert isinstance(verdict, Verdict)
        return None if verdict.allowed else Response(429)
