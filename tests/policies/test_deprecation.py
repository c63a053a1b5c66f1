from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import ValidationError

from portico.http.headers import Headers
from portico.http.message import Request, Response
from portico.policies.api_version import ApiVersion, ApiVersionPolicy
from portico.policies.deprecation import Deprecation, DeprecationPolicy
from portico.policy.base import Policy


def answered(policy: Policy[Any], *fields: tuple[bytes, bytes]) -> Headers:
    async def service(request: Request) -> Response:
        return Response(200, Headers(fields))

    return asyncio.run(policy.handle(Request("GET", "/"), service)).headers  # type: ignore[arg-type]


def said(**settings: str) -> list[tuple[bytes, bytes]]:
    return answered(DeprecationPolicy(Deprecation.model_validate(settings))).pairs


@pytest.mark.parametrize(
    ("moment", "seconds"),
    [
        ("2023-06-30T23:59:59Z", 1688169599),
        ("2026-01-01", 1767225600),
        ("2026-01-01T00:00", 1767225600),
        ("2026-01-01 01:00:00+01:00", 1767225600),
        ("2025-12-31t19:00-05:00", 1767225600),
        ("1969-12-31T23:59:59Z", -1),
    ],
)
def test_since_when_is_a_number_of_seconds(moment: str, seconds: int) -> None:
    assert said(deprecated=moment) == [(b"Deprecation", b"@%d" % seconds)]


def test_until_when_is_a_date_of_http() -> None:
    assert said(sunset="2026-12-31T23:59:59Z") == [(b"Sunset", b"Thu, 31 Dec 2026 23:59:59 GMT")]
    assert said(sunset="2027-01-01T00:59:59+01:00") == [(b"Sunset", b"Thu, 31 Dec 2026 23:59:59 GMT")]


@pytest.mark.parametrize(
    ("dates", "relations"),
    [
        ({"deprecated": "2026-01-01"}, b"deprecation"),
        ({"sunset": "2026-01-01"}, b"sunset"),
        ({"deprecated": "2026-01-01", "sunset": "2026-12-31"}, b"deprecation sunset"),
    ],
)
def test_a_link_says_what_it_is_about(dates: dict[str, str], relations: bytes) -> None:
    assert said(link="https://a.example/v1", **dates)[-1] == (b"Link", b'<https://a.example/v1>; rel="%s"' % relations)


def test_the_service_s_links_stay_and_its_dates_do_not() -> None:
    policy = DeprecationPolicy(Deprecation.model_validate({"sunset": "2026-01-01", "link": "/gone"}))
    headers = answered(policy, (b"Link", b'</a>; rel="next"'), (b"Sunset", b"never"))
    assert headers.get_all(b"link") == [b'</a>; rel="next"', b'</gone>; rel="sunset"']
    assert headers.get_all(b"sunset") == [b"Thu, 01 Jan 2026 00:00:00 GMT"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "this says nothing"),
        ({"link": "https://a.example"}, "this says nothing"),
        ({"sunset": "soon"}, "'soon' is not a date"),
        ({"sunset": "2026-13-01"}, "'2026-13-01' is not a date"),
        ({"sunset": "20260101"}, "'20260101' is not a date"),
        ({"sunset": "0001-01-01T00:00+23:00"}, "is not a date"),
        ({"sunset": 5}, "5 is not a date"),
        ({"sunset": "2026-01-01", "deprecated": "2026-01-02"}, "sunset is before deprecated"),
        ({"sunset": "2026-01-01", "link": "a.example"}, "'a.example' is not a URL"),
        ({"sunset": "2026-01-01", "link": "https://a>; rel=x, <b"}, "is not a URL"),
    ],
)
def test_what_cannot_be_said_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Deprecation.model_validate(settings)


@pytest.mark.parametrize(
    ("there", "vary"),
    [
        ([], [b"Accept-Version"]),
        ([b"Origin"], [b"Origin", b"Accept-Version"]),
        ([b"Origin, accept-version"], [b"Origin, accept-version"]),
        ([b"*"], [b"*"]),
    ],
)
def test_the_version_is_named_and_caches_are_told_what_it_depends_on(there: list[bytes], vary: list[bytes]) -> None:
    policy = ApiVersionPolicy(ApiVersion(version="v2", echo="API-Version", vary="Accept-Version"))
    headers = answered(policy, (b"api-version", b"9"), *((b"Vary", each) for each in there))
    assert headers.get_all(b"api-version") == [b"v2"]
    assert headers.get_all(b"vary") == vary


def test_nothing_is_said_unless_asked_for() -> None:
    assert answered(ApiVersionPolicy(ApiVersion(version="v2"))).pairs == []
