from __future__ import annotations

import asyncio

import pytest
from pydantic import ValidationError

from portico.errors import ConfigError
from portico.http.message import Handler, Request, Response
from portico.policy.base import Endpoint, Policy, PolicyConfig, RouteInfo, Stage


class Limit(PolicyConfig):
    max: int = 1
    """How many."""


class Limits(Policy[Limit], name="limits", stages=(Stage.LIMIT, Stage.GUARD)):
    pass


class Derived(Limits, name="derived"):
    pass


class Bare(Policy[PolicyConfig]):
    pass


async def answer(request: Request) -> Response:
    return Response(200, body=request.path.encode())


def ask(policy: Policy[Limit], end: Handler = answer) -> Response:
    async def main() -> Response:
        return await policy.handle(Request("GET", "/a"), end)

    return asyncio.run(main())


def test_a_class_says_its_name_stages_and_config_once() -> None:
    assert (Limits.name, Limits.stages, Limits.config_class) == ("limits", (Stage.LIMIT, Stage.GUARD), Limit)
    assert (Derived.name, Derived.stages, Derived.config_class) == ("derived", (Stage.LIMIT, Stage.GUARD), Limit)
    assert (Bare.name, Bare.stages, Bare.config_class) == ("", (), PolicyConfig)
    assert Policy.name == ""


def test_a_config_is_frozen_and_strict_about_its_keys() -> None:
    with pytest.raises(ValidationError):
        Limit.model_validate({"max": 1, "min": 0})
    with pytest.raises(ValidationError):
        Limit().max = 2  # type: ignore[misc]
    assert Limit.model_json_schema()["properties"]["max"]["description"] == "How many."


def test_a_policy_that_overrides_nothing_changes_nothing() -> None:
    policy = Limits(Limit())
    assert ask(policy).body.whole == b"/a"
    policy.close()


def test_request_may_stop_and_then_response_is_not_asked() -> None:
    asked: list[str] = []

    class Stops(Policy[Limit]):
        def request(self, request: Request) -> Response | None:
            return Response(403)

        def response(self, request: Request, response: Response) -> Response:
            asked.append("response")
            return response

    async def end(_: Request) -> Response:
        asked.append("end")
        return Response(200)

    assert ask(Stops(Limit()), end).status == 403
    assert asked == []


def test_response_may_replace_the_answer() -> None:
    class Replaces(Policy[Limit]):
        def response(self, request: Request, response: Response) -> Response:
            return Response(response.status + 1)

    assert ask(Replaces(Limit())).status == 201


def test_response_is_not_asked_about_failures() -> None:
    class Never(Policy[Limit]):
        def response(self, request: Request, response: Response) -> Response:
            raise AssertionError

    async def fails(_: Request) -> Response:
        raise LookupError

    with pytest.raises(LookupError):
        ask(Never(Limit()), fails)


def test_handle_gives_full_control() -> None:
    class Twice(Policy[Limit]):
        async def handle(self, request: Request, next: Handler) -> Response:  # noqa: A002 - the field's word
            first, second = await next(request), await next(request.derive("/b"))
            return Response(200, body=(first.body.whole or b"") + (second.body.whole or b""))

    assert ask(Twice(Limit())).body.whole == b"/a/b"


def test_an_endpoint_has_to_answer() -> None:
    class Nothing(Endpoint[Limit], name="nothing"):
        pass

    endpoint = Nothing(Limit())
    assert endpoint.describe() == "nothing"
    with pytest.raises(NotImplementedError):
        endpoint.handle(Request("GET", "/"))


def test_a_capture_must_be_there_on_every_path() -> None:
    captures = {"/a/{id}/{x}": frozenset(("id", "x")), "/b/{id}": frozenset(("id",)), "/c": frozenset[str]()}
    both = RouteInfo("r", ("/a/{id}/{x}", "/b/{id}"), {path: captures[path] for path in ("/a/{id}/{x}", "/b/{id}")})
    both.check_captures(("id",))
    with pytest.raises(
        ConfigError, match=r"\{\{ captures\.x \}\} is no capture of the path /b/\{id\}, which has only id"
    ):
        both.check_captures(("id", "x"))
    with pytest.raises(ConfigError, match="is no capture of the path /c, which has none"):
        RouteInfo("r", tuple(captures), captures).check_captures(("id",))


def test_stages_stand_in_the_order_of_the_design() -> None:
    names = ["OBSERVE", "GUARD", "AUTHENTICATE", "AUTHORIZE", "LIMIT", "CACHE", "TRANSFORM"]
    assert [stage.name for stage in sorted(Stage)] == names
