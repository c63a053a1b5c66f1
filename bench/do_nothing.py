"""A plugin for the rows with a chain: it is asked on both ways, and does nothing."""

from __future__ import annotations

from portico.plugin import Policy, PolicyConfig, Request, Response, Stage


class DoNothing(PolicyConfig):
    pass


class DoNothingPolicy(Policy[DoNothing], name="do-nothing", stages=(Stage.TRANSFORM,)):
    def request(self, request: Request) -> Response | None:
        return None

    def response(self, request: Request, response: Response) -> Response:
        return response
