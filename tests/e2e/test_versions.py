"""Versions of one API, as clients see them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness.gateway import Gateway, Service, curl

CONFIG = """
errors: {{html: off}}
services:
  one: {{url: "http://127.0.0.1:{one}"}}
  two: {{url: "http://127.0.0.1:{two}"}}
routes:
  - path: /orders/**
    methods: [GET]
    versions:
      by: header
      default: v2
      echo: API-Version
      v1: {{service: one, deprecated: 2026-01-01, sunset: 2026-12-31, link: "https://a.example/v1"}}
      v2: two
  - path: /api/{{version}}/users/**
    strip_prefix: /api
    versions: {{by: path, v1: one, v2: two}}
  - path: /media
    versions: {{by: media-type, name: vnd.acme, default: v1, v1: one, v2: two}}
  - path: /gone
    respond: {{status: 410, problem: {{type: retired, title: Gone for good, extensions: {{since: 2020}}}}}}
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("versions")
    with (
        Service(name="one") as one,
        Service(name="two") as two,
        Gateway(folder, CONFIG.format(one=one.port, two=two.port)) as gateway,
    ):
        yield gateway


def test_a_header_chooses_the_version_and_the_old_one_says_that_it_is_going(gateway: Gateway) -> None:
    new = curl(gateway.url + "/orders/7")
    assert (new.value("X-Service"), new.value("API-Version"), new.value("Vary")) == ("two", "v2", "Accept-Version")
    assert not new.values("Deprecation")
    old = curl("-H", "Accept-Version: v1", gateway.url + "/orders/7")
    assert (old.value("X-Service"), old.value("API-Version"), old.value("Vary")) == ("one", "v1", "Accept-Version")
    assert old.value("Deprecation") == "@1767225600"
    assert old.value("Sunset") == "Thu, 31 Dec 2026 00:00:00 GMT"
    assert old.value("Link") == '<https://a.example/v1>; rel="deprecation sunset"'


def test_an_unknown_version_is_told_of_those_that_there_are(gateway: Gateway) -> None:
    answer = curl("-H", "Accept-Version: v3", gateway.url + "/orders/7")
    assert (answer.status, answer.value("Vary")) == (400, "Accept-Version")
    assert answer.json["type"] == "urn:portico:problem:unknown-version"
    assert answer.json["versions"] == ["v1", "v2"]
    assert answer.json["detail"] == "The header Accept-Version has to name a version: v1 or v2."
    assert curl("-X", "PUT", "-H", "Accept-Version: v1", gateway.url + "/orders/7").status == 405


def test_a_path_chooses_it(gateway: Gateway) -> None:
    answer = curl(gateway.url + "/api/v2/users/7")
    assert (answer.value("X-Service"), answer.json["target"]) == ("two", "/v2/users/7")
    unknown = curl(gateway.url + "/api/v3/users/7")
    assert (unknown.status, unknown.json["versions"]) == (404, ["v1", "v2"])
    assert curl(gateway.url + "/api/users/7").json["type"].endswith(":no-route")


def test_a_media_type_chooses_it(gateway: Gateway) -> None:
    answer = curl("-H", "Accept: application/vnd.acme.v2+json", gateway.url + "/media")
    assert (answer.value("X-Service"), answer.value("Vary")) == ("two", "Accept")
    unknown = curl("-H", "Accept: application/vnd.acme.v3+json", gateway.url + "/media")
    assert (unknown.status, unknown.value("Vary")) == (406, "Accept")


def test_a_problem_can_be_an_answer_of_the_file(gateway: Gateway) -> None:
    answer = curl(gateway.url + "/gone")
    assert (answer.status, answer.value("Content-Type")) == (410, "application/problem+json")
    assert answer.json == {
        "type": "urn:portico:problem:retired",
        "title": "Gone for good",
        "status": 410,
        "instance": "/gone",
        "since": 2020,
    }
