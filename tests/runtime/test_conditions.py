"""Policies with a condition: where they are, where they are not, and what is said of wrong ones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from portico.config.findings import report
from portico.http.message import Request
from portico.observe.exchange import Exchange
from portico.runtime.loading import compiled, load
from tests.harness.gateway import portico_here

PLUGIN = """
from portico.plugin import *


class Login(PolicyConfig):
    user: str


class LoginPolicy(Policy[Login], name="login", stages=(Stage.AUTHENTICATE,)):
    def request(self, request):
        request[USER] = User(self.config.user, roles=frozenset({"dev"}))


class Mark(PolicyConfig):
    word: str


class MarkPolicy(Policy[Mark], name="mark", stages=(Stage.GUARD, Stage.LIMIT, Stage.TRANSFORM)):
    def request(self, request):
        request.headers.add(b"X-In", self.config.word.encode())

    def response(self, request, response):
        response.headers.add(b"X-Out", self.config.word.encode())
        return response


class TurnPolicy(Policy[PolicyConfig], name="turn", stages=(Stage.TRANSFORM,)):
    def request(self, request):
        request.method = "PATCH"
"""

Marks = Callable[..., list[str]]


@pytest.fixture
def marks(tmp_path: Path) -> Marks:
    """Return which policies were there, both ways, for a request to what a text describes."""

    def asked(text: str, method: str = "GET", path: str = "/a") -> list[str]:
        (tmp_path / "plugin.py").write_text(PLUGIN)
        (tmp_path / "portico.yaml").write_text(f"plugins: [plugin.py]\n{dedent(text)}")
        loaded = load(tmp_path / "portico.yaml")
        assert loaded.config is not None, report(loaded.findings)
        config = loaded.config
        request = Request(method, path, exchange=Exchange(0.0))

        async def run() -> list[str]:
            async with asyncio.TaskGroup() as tasks:
                with compiled(config, loaded.registry, tasks) as made:
                    response = await made.runtime.handle(request)
            inwards = [value.decode() for value in request.headers.get_all(b"x-in")]
            assert [value.decode() for value in response.headers.get_all(b"x-out")] == inwards[::-1]
            return inwards

        return asyncio.run(run())

    return asked


def test_a_policy_is_there_where_its_condition_holds_and_skipped_elsewhere_both_ways(marks: Marks) -> None:
    text = """
    routes:
      - path: /a
        respond: hello
        policies:
          - {mark: always}
          - mark: post
            name: b
            when: method == 'POST'
          - {mark: last, name: c}
    """
    assert marks(text) == ["always", "last"]
    assert marks(text, "POST") == ["always", "post", "last"]


def test_it_is_asked_when_its_turn_comes(marks: Marks) -> None:
    text = """
    policies:
      - {mark: before, name: b, stage: guard, when: "user == '' && method == 'GET'"}
      - {login: ada, when: "path == '/a'"}
      - {mark: after, name: a, stage: limit, when: "user == 'ada' && 'dev' in user.roles && method == 'GET'"}
      - turn
      - {mark: turned, name: t, stage: transform, when: method == 'PATCH'}
    routes: [{path: /**, respond: hello}]
    """
    assert marks(text) == ["before", "after", "turned"]
    assert marks(text, path="/b") == ["before", "turned"]


def test_what_its_policy_changes_on_the_way_in_does_not_matter_on_the_way_out(marks: Marks) -> None:
    text = """
    policies: [{mark: once, stage: transform, when: method == 'GET'}, turn]
    routes: [{path: /a, respond: hello}]
    """
    assert marks(text) == ["once"]


def test_it_knows_the_route_and_its_captures(marks: Marks) -> None:
    text = """
    policies: [{mark: one, when: "route == 'things' && captures['id'] == '1'"}]
    routes:
      - {name: things, path: "/things/{id}", respond: hello}
      - {name: other, path: /other, respond: hello}
    """
    assert marks(text, path="/things/1") == ["one"]
    assert marks(text, path="/things/2") == []
    assert marks(text, path="/other") == []
    assert marks(text, path="/nowhere") == []


def said(tmp_path: Path, text: str) -> list[str]:
    (tmp_path / "plugin.py").write_text(PLUGIN)
    file = tmp_path / "portico.yaml"
    file.write_text(f"plugins: [plugin.py]\n{text}")
    lines = report(load(file).findings).splitlines()
    return [line.removeprefix(f"{file}:") for line in lines]


ROUTE = "routes: [{path: '/a/{id}', respond: hello, policies: [{mark: a, %s}]}]\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ROUTE % "when: methd == 'GET'", "2:71: when: column 1: there is no 'methd' (hint: did you mean 'method'?)"),
        (
            ROUTE % "when: \"captures['idd'] == '1'\"",
            "2:71: when: column 10: there is no capture 'idd': the path /a/{id} has only id (hint: did you mean 'id'?)",
        ),
        (
            "services: {s: {url: 'http://s', policies: [{mark: a, when: 1 == 'a'}]}}\n",
            "2:60: when: column 3: a number cannot be compared with a text",
        ),
        (
            "policies:\n  - mark: a\n    when: |\n      method == 'GET'\n      && pth == '/'\n",
            "4:11: when: line 2, column 4: there is no 'pth' (hint: did you mean 'path'?)",
        ),
        (
            "policies: [{mark: a, when: }]\n",
            "2:28: when: there is no condition (hint: write one such as when: method == 'POST', or leave it out)",
        ),
        ("policies: [{mark: a, when: [a]}]\n", "2:28: when: expected a text, not a list"),
        (
            "policies: [{mark: {word: a, when: 'true'}}]\n",
            (
                "2:29: 'when' is no setting of mark, and stands among them "
                "(hint: put it beside mark:, as far to the right as the name of the policy)"
            ),
        ),
        (
            "policies: [{mark: a, wen: 'true'}]\n",
            "2:22: unknown key 'wen' in policy mark (hint: did you mean 'when'?)",
        ),
        (
            "policies: [{mark: a}]\nroutes: [{path: /a, respond: b, policies: [{mark: off, when: 'true'}]}]\n",
            "3:56: 'when' has no meaning for a policy that is switched off",
        ),
    ],
)
def test_what_is_said_of_wrong_ones(text: str, message: str, tmp_path: Path) -> None:
    assert message in said(tmp_path, text)


def test_a_wrong_condition_of_the_whole_file_is_told_once(tmp_path: Path) -> None:
    text = "policies: [{mark: a, when: nope}]\nroutes: [{path: /a, respond: b}, {path: /b, respond: b}]\n"
    assert len(said(tmp_path, text)) == 1


def test_the_same_wrong_condition_is_told_wherever_it_stands(tmp_path: Path) -> None:
    text = "policies: [{mark: a, when: nope}, {mark: b, name: b, when: nope}]\n"
    assert [line.partition(" ")[0] for line in said(tmp_path, text)] == ["2:28:", "2:60:"]


def test_a_condition_cannot_be_a_secret(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("method == 'GET'")
    lines = said(tmp_path, "policies: [{mark: a, when: '${file:secret}'}]\n")
    assert [line.partition(" (")[0] for line in lines] == ["2:28: a condition cannot come out of a file"]


EXPLAINED = """
plugins: [plugin.py]
routes:
  - path: /a
    respond: hello
    policies:
      - {mark: a, when: method == 'GET'}
      - mark: b
        name: b
        when: >-
          method == 'POST'
          || path == '/b'
      - {request-size: 5, when: 'true'}
      - {mark: c, name: c, when: 'true', stage: transform}
"""


def test_explain_tells_what_each_condition_has_decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plugin.py").write_text(PLUGIN)
    (tmp_path / "p.yaml").write_text(EXPLAINED)
    chain = portico_here("explain", "p.yaml", "GET", "/a", "-H", "Content-Length: 9").out.partition("Chain")[2]
    assert [line.strip() for line in chain.splitlines()[1:9]] == [
        "1. mark  [guard]  route: p.yaml:7:10",
        "in its place: when method == 'GET'",
        "2. b (mark)  [guard]  route: p.yaml:8:9",
        "skipped: when method == 'POST' || path == '/b'",
        "3. request-size  [guard]  route: p.yaml:13:10",
        "in its place: when true",
        "4. c (mark)  [transform]  route: p.yaml:14:10",
        "in its place: when true",
    ]
    told = json.loads(portico_here("explain", "p.yaml", "POST", "/a", "--json").out)
    assert [(each["policy"], each["held"]) for each in told["chain"]] == [
        ("mark", False),
        ("b", True),
        ("request-size", True),
        ("c", True),
    ]


def test_explain_tells_of_conditions_that_were_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plugin = PLUGIN + "class NoPolicy(Policy[PolicyConfig], name='no', stages=(Stage.GUARD,)):\n"
    (tmp_path / "plugin.py").write_text(plugin + "    def request(self, request): return Response(403)\n")
    (tmp_path / "p.yaml").write_text(EXPLAINED.replace("policies:\n", "policies:\n      - no\n"))
    out = portico_here("explain", "p.yaml", "GET", "/a").out
    assert out.count("not asked, as the answer came before: when") == 4


def test_what_answers_preflights_has_no_condition(tmp_path: Path) -> None:
    file = tmp_path / "portico.yaml"
    file.write_text(
        "policies:\n  - cors: https://a.example\n    when: method == 'PUT'\nroutes: [{path: /a, respond: a}]\n"
    )
    loaded = load(file)
    assert loaded.config is None
    assert report(loaded.findings).startswith(f"{file}:3:11: cors cannot have a condition: a preflight comes ahead of")
