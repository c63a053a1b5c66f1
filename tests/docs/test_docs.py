"""What the documentation shows works, and what is made from the code is up to date."""

from __future__ import annotations

import ast
import asyncio
import logging
import re
import socket
import sys
import tomllib
from collections.abc import Awaitable, Callable, Iterator
from configparser import ConfigParser
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme
import yaml

from docs import generate
from docs.problems import problem_types
from docs.source import ROOT, SOURCES
from portico.config.findings import report
from portico.consumers.sqlite import create
from portico.jose.mint import new_key
from portico.plugin import Body, Exchange, Headers, Outcome, Request, Response
from portico.policy.base import Stage
from portico.runtime.loading import Loaded, compiled, load
from portico.runtime.plugins import registry_of

PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
LINKED = [
    *PAGES,
    *(page for room in ("bench", "examples", "fuzz") for page in sorted((ROOT / room).rglob("README.md"))),
]
NOTICE = "<!-- Made from the code by `make docs`. Do not edit. -->"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Example(NamedTuple):
    """A block of code in the documentation."""

    where: str
    language: str
    text: str


def examples_in(where: str, text: str) -> Iterator[Example]:
    for number, block in enumerate(FENCE.finditer(text), 1):
        yield Example(f"{where}-{number}", block[1], block[2])


def in_pages() -> Iterator[Example]:
    for page in PAGES:
        yield from examples_in(page.relative_to(ROOT).as_posix(), page.read_text("utf-8"))


def in_docstrings() -> Iterator[Example]:
    for path in sorted([*SOURCES.glob("policies/*.py"), *SOURCES.glob("endpoints/*.py")]):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield from examples_in(path.relative_to(SOURCES).as_posix(), ast.get_docstring(node) or "")


def plugins() -> dict[str, str]:
    """Return the plugins that the pages show, each by the name of the file that it is said to be."""
    found = {}
    for example in in_pages():
        name = re.search(r'^class \w+\((?:Policy|Endpoint)\[\w+\], name="([\w-]+)"', example.text, re.MULTILINE)
        file = re.match(r"# (\w+\.py)$", example.text, re.MULTILINE)
        if example.language == "python" and name is not None:
            found[name[1].replace("-", "_") + ".py"] = example.text
        elif example.language == "python" and file is not None:
            found[file[1]] = example.text
    return found


def services_meant(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("service"), str):
            yield node["service"]
        node = list(node.values())
    if isinstance(node, list):
        for inner in node:
            yield from services_meant(inner)


@cache
def certificate() -> bytes:
    """Return a certificate and its key, in which any file of an example can find what it should have."""
    return trustme.CA().issue_cert("example.com").private_key_and_cert_chain_pem.bytes()


def loaded(text: str, folder: Path) -> Loaded:
    """Load an example; one that declares no services is given those that it names."""
    file = yaml.safe_load(text)
    names = dict.fromkeys(services_meant(file.get("routes")))
    if "services" not in file and names:
        text += "services:\n" + "".join(f"  {name}: http://127.0.0.1:9\n" for name in names)
    for name, code in plugins().items():
        (folder / name).write_text(code, "utf-8")
    for name in re.findall(r"\bkeys/[\w.-]+\.pem\b", text):
        (folder / "keys").mkdir(exist_ok=True)
        (folder / name).write_bytes(new_key()[0])
    for name in re.findall(r"\btls/[\w.-]+\.(?:pem|crt|key)\b", text):
        (folder / "tls").mkdir(exist_ok=True)
        (folder / name).write_bytes(certificate())
    for name in re.findall(r"\$\{file:/run/secrets/([\w-]+)\}", text):
        (folder / "secrets").mkdir(exist_ok=True)
        (folder / "secrets" / name).write_text(f"{name}-of-32-bytes-or-more-than-that\n", "utf-8")
    text = text.replace("${file:/run/secrets/", f"${{file:{folder}/secrets/")
    for name in re.findall(r"\btargets/[\w.-]+\.yaml\b", text):
        (folder / "targets").mkdir(exist_ok=True)
        (folder / name).write_text("- 127.0.0.1:9004\n", "utf-8")
    for name in re.findall(r"^consumer_database: (\S+)$", text, re.MULTILINE):
        if not (folder / name).exists():
            create(str(folder / name))
    path = folder / "portico.yaml"
    path.write_text(text, "utf-8")
    result = load(path)
    assert result.config is not None, report(result.findings)
    return result


YAML = [example for example in (*in_pages(), *in_docstrings()) if example.language == "yaml"]


@pytest.mark.parametrize("example", YAML, ids=lambda example: example.where)
def test_every_configuration_that_is_shown_loads(example: Example, tmp_path: Path) -> None:
    loaded(example.text, tmp_path)


def test_how_to_operate_it_shows_no_secret_with_a_default() -> None:
    """What is copied from there is in use afterwards."""
    shown = [example.text for example in YAML if example.where.startswith("docs/operations/")]
    shown += [path.read_text("utf-8") for path in sorted((ROOT / "deploy").glob("*.yaml"))]
    names = {name for text in shown for name in re.findall(r"\$\{(\w+):-", text)}
    assert names  # others have one
    assert [name for name in names if re.search("KEY|SECRET|PASSWORD|TOKEN", name)] == []


def test_every_policy_and_endpoint_shows_an_example() -> None:
    shown = {example.where.rpartition("-")[0] for example in in_docstrings() if example.language == "yaml"}
    files = [*SOURCES.glob("policies/[!_]*.py"), *SOURCES.glob("endpoints/[!_]*.py")]
    there = {path.relative_to(SOURCES).as_posix() for path in files}
    assert there - shown == {"endpoints/miss.py"}


Ask = Callable[[Request], Awaitable[Response]]


def example_of(plugin: str) -> str:
    return next(example.text for example in YAML if f"plugins: [{plugin}]" in example.text)


def with_runtime(text: str, folder: Path, use: Callable[[Ask], Awaitable[None]]) -> None:
    """Load an example, and have `use` send requests through what it describes."""
    result = loaded(text, folder)

    async def run() -> None:
        async with asyncio.TaskGroup() as tasks:
            assert result.config is not None
            with compiled(result.config, result.registry, tasks) as made:
                await use(made.runtime.handle)

    asyncio.run(run())


async def geo_fence(ask: Ask) -> None:
    for country, status in ((b"CH", 200), (b"FR", 403)):
        answer = await ask(Request("GET", "/shop/cart", headers=Headers([(b"CF-IPCountry", country)])))
        assert answer.status == status
    assert (await ask(Request("GET", "/shop/cart"))).headers.text(b"content-type") == "application/problem+json"


async def sunset(ask: Ask) -> None:
    answer = await ask(Request("GET", "/v1/orders/1"))
    assert answer.headers.text(b"sunset") == "Thu, 31 Jan 2030 00:00:00 GMT"


async def slow_log(ask: Ask) -> None:
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("portico.route.reports")
    logger.addHandler(handler)
    try:
        for seconds in (0.2, 0.3):
            exchange = Exchange(10.0)
            exchange.status = 502
            await ask(Request("GET", "/reports/1", exchange=exchange))
            exchange.end(Outcome.COMPLETE, 10.0 + seconds)
    finally:
        logger.removeHandler(handler)
    assert messages == ["reports: 502 after 0.300 s"]


async def partner(ask: Ask) -> None:
    for token, status in ((b"swordfish", 200), (b"other", 413)):
        headers = Headers([(b"X-Partner-Token", token)])
        answer = await ask(Request("POST", "/orders/1", headers=headers, body=Body(bytes(2000))))
        assert answer.status == status


async def who_am_i(ask: Ask) -> None:
    assert (await ask(Request("GET", "/me"))).body.whole == b"Hello, nobody\n"


async def checks(ask: Ask) -> None:
    for key, status in ((b"a-long-key-of-acme", 502), (b"other", 401)):  # and nobody is at home
        answer = await ask(Request("GET", "/partners/1", headers=Headers([(b"X-Partner-Key", key)])))
        assert answer.status == status
    assert (await ask(Request("GET", "/partners/1"))).status == 401


async def tickets(ask: Ask) -> None:
    statuses = [(await ask(Request("GET", "/shop/cart"))).status for _ in range(50)]
    assert statuses[:2] == [200, 200]
    assert 429 in statuses


EXERCISES: dict[str, Callable[[Ask], Awaitable[None]]] = {
    "geo_fence.py": geo_fence,
    "sunset.py": sunset,
    "slow_log.py": slow_log,
    "partner.py": partner,
    "who_am_i.py": who_am_i,
    "checks.py": checks,
    "tickets.py": tickets,
}


@pytest.mark.parametrize("plugin", EXERCISES)
def test_a_plugin_that_is_shown_works(plugin: str, tmp_path: Path) -> None:
    with_runtime(example_of(plugin), tmp_path, EXERCISES[plugin])


def test_the_plugin_that_asks_a_service_works(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        status = b"403 Forbidden" if b"Authorization: no\r\n" in head else b"204 No Content"
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    with socket.create_server(("127.0.0.1", 0)) as door:
        text = example_of("entitlement.py")
        text = text.replace("127.0.0.1:9010", f"127.0.0.1:{door.getsockname()[1]}")
        text = text.replace("service: orders,", "respond: here,")

        async def entitlement(ask: Ask) -> None:
            async with await asyncio.start_server(answer, sock=door):
                for token, status in ((b"yes", 200), (b"no", 403)):
                    headers = Headers([(b"Authorization", token)])
                    assert (await ask(Request("GET", "/orders/1", headers=headers))).status == status

        with_runtime(text, tmp_path, entitlement)


def test_every_plugin_that_is_shown_is_tried() -> None:
    assert set(plugins()) == {*EXERCISES, "entitlement.py"}


SHOWN_TESTS = [example for example in in_pages() if example.language == "python" and "def test_" in example.text]


@pytest.mark.parametrize("example", SHOWN_TESTS, ids=lambda example: example.where)
def test_a_test_that_is_shown_passes(example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded(example_of("geo_fence.py"), tmp_path)  # with every plugin beside the file
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(example.text, "shown", "exec"), names)
    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert tests
    for test in tests:
        test()
    for plugin in plugins():
        sys.modules.pop(plugin.removesuffix(".py"), None)


def test_tests_are_shown() -> None:
    assert len(SHOWN_TESTS) >= 3


def test_a_sunset_without_an_offset_is_refused(tmp_path: Path) -> None:
    text = next(example.text for example in YAML if "plugins: [sunset.py]" in example.text)
    with pytest.raises(AssertionError, match=r"portico\.yaml:3:\d+: .*the time has no offset from UTC"):
        loaded(text.replace("00:00Z", "00:00"), tmp_path)


def test_other_code_that_is_shown_is_valid() -> None:
    for example in in_pages():
        if example.language == "toml":
            assert tomllib.loads(example.text)
        elif example.language == "python":
            ast.parse(example.text)
        elif example.language == "ini":
            unit = ConfigParser()
            unit.read_string(example.text)
            assert unit.sections()
        else:
            assert example.language in {"yaml", "json", "text"}, example


def test_what_is_made_is_that_of_this_code() -> None:
    for folder, wanted in generate.made().items():
        assert generate.stale(folder, wanted) == [], "run `make docs`"


def test_stale_missing_and_left_over_pages_are_told(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("same.md", "stale.md", "in/same.md", "in/strange.md"):
        (tmp_path / name).write_text(name, "utf-8")
    for name in ("left.md", "in/left.md"):
        (tmp_path / name).write_text(f"# A policy\n\n{NOTICE}\n", "utf-8")
    wanted = {"same.md": "same.md", "stale.md": "new", "missing.md": "new", "in/same.md": "in/same.md"}
    told = [path.relative_to(tmp_path).as_posix() for path in generate.stale(tmp_path, wanted)]
    assert told == ["in/left.md", "left.md", "missing.md", "stale.md"]


def test_check_writes_nothing_and_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    monkeypatch.setattr(generate, "REFERENCE", tmp_path / "reference")
    monkeypatch.setattr(generate, "DEPLOY", tmp_path / "deploy")
    assert generate.main(["--check"]) == 1
    told = capsys.readouterr().err
    for file in (
        "reference/errors.md",
        "deploy/grafana/dashboards/portico-requests.json",
        "deploy/prometheus/alerts.yml",
    ):
        assert f"{file} is not what the code says" in told
    assert not list(tmp_path.iterdir())
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0
    assert capsys.readouterr().err == ""


def test_the_page_of_a_policy_that_is_gone_is_told_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = {"policies.md": "", "policies/here.md": ""}
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    monkeypatch.setattr(generate, "made", lambda: {tmp_path: pages})
    assert generate.main([]) == 0
    gone = tmp_path / "policies" / "gone.md"
    gone.write_text(f"# gone\n\n{NOTICE}\n", "utf-8")
    assert generate.main(["--check"]) == 1
    assert capsys.readouterr().err == "policies/gone.md is not what the code says: run `make docs`\n"
    assert gone.exists()
    assert generate.main([]) == 0
    assert capsys.readouterr().out == "policies/gone.md is made no more, and was removed\n"
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.md")} == set(pages)


STRANGE = {
    "prometheus/mine.yml": b"groups: []\n",
    "prometheus/said.yml": b"groups: []\n\n\n# Not Made from the code by `make docs`.\n",
    "grafana/dashboards/mine.json": b'{"uid": "mine", "title": "Mine"}',
    "grafana/dashboards/portico-copy.json": b'{"uid": "3f1c", "title": "Portico: requests", "tags": ["portico"]}',
    "grafana/dashboards/portico-list.json": b"[1]",
    "grafana/logo.png": b"\x89PNG\r\n\x1a\n\xff",
    "grafana/dashboards/broken.json": b"\xff{",
}


def test_what_others_have_put_beside_what_is_made_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    monkeypatch.setattr(generate, "REFERENCE", tmp_path / "reference")
    monkeypatch.setattr(generate, "DEPLOY", tmp_path)
    assert generate.main([]) == 0
    made = {path for path in tmp_path.rglob("*") if path.is_file()}
    for name, content in STRANGE.items():
        (tmp_path / name).write_bytes(content)
    left = ["grafana/dashboards/portico-old.json", "prometheus/old.yml"]
    (tmp_path / left[0]).write_text('{"uid": "portico-old"}', "utf-8")
    (tmp_path / left[1]).write_bytes((tmp_path / "prometheus" / "alerts.yml").read_bytes())
    assert generate.main(["--check"]) == 1
    assert capsys.readouterr().err.count("is not what the code says") == len(left)
    assert generate.main([]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == left
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == made | {tmp_path / name for name in STRANGE}
    assert generate.main(["--check"]) == 0


def test_what_is_made_is_known_again() -> None:
    for folder, wanted in generate.made().items():
        assert generate.stale(folder, {}) == [folder / name for name in sorted(wanted)]


def test_each_policy_has_a_page_and_a_line_in_order_of_stage() -> None:
    pages = generate.pages()
    lines = re.findall(r"^\| `(\w+)` \| \[([\w-]+)\]\((\S+)\) \| (.*) \|$", pages["policies.md"], re.MULTILINE)
    policies = registry_of(()).policies
    assert [name for _, name, _, _ in lines] == sorted(policies, key=lambda name: (policies[name].stages[0], name))
    assert {page for page in pages if page.startswith("policies/")} == {link for _, _, link, _ in lines}
    for stage, name, link, summary in lines:
        assert link == f"policies/{name}.md"
        assert Stage[stage.upper()] is policies[name].stages[0]
        assert pages[link].startswith(f"# {name}\n")
        assert summary in " ".join(pages[link].split())
        assert "```yaml" in pages[link]


def test_each_endpoint_of_a_file_has_a_line_and_is_on_the_page_of_its_module() -> None:
    pages = generate.pages()
    lines = dict(re.findall(r"^\| \[([\w-]+)\]\((\S+)\)", pages["endpoints.md"], re.MULTILINE))
    assert set(lines) == set(registry_of(()).endpoint_kinds)
    assert lines["respond"] == "endpoints/respond.md"
    assert lines["live"] == "endpoints/health.md#live"
    pages_linked = {link.partition("#")[0] for link in lines.values()}
    assert {page for page in pages if page.startswith("endpoints/")} == pages_linked


def test_the_problems_are_found_where_they_are_made() -> None:
    found = {problem.type: problem.status for problem in problem_types()}
    expected = {"no-route": 404, "method-not-allowed": 405, "content-too-large": 413, "uri-too-long": 414}
    expected |= {"internal-error": 500, "service-timeout": 504, "too-many-connections": 503}
    assert expected.items() <= found.items()
    assert all(problem.meanings for problem in problem_types())


def prose(page: Path) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"(?ms)^```.*?^```$", "", page.read_text("utf-8"))


@cache
def anchors(page: Path) -> list[str]:
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]


LINK = re.compile(r'\]\(([^)\s]+)|^\[[^\]]+\]:\s*(\S+)|\b(?:href|src)="([^"]+)"', re.MULTILINE)
"""A link in any of the forms that Markdown has."""


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """Iterate over the links of a page to others here, and to places in it: the file, and the anchor or nothing."""
    for forms in LINK.findall(prose(page)):
        path, _, anchor = "".join(forms).partition("#")
        if not re.match(r"[a-z]+:", path):
            yield (page.parent / path).resolve() if path else page, anchor


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for other, anchor in links(page):
        assert other.exists(), other
        assert not anchor or anchors(other).count(anchor) == 1, f"{other}#{anchor}"


def test_every_form_of_a_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        '[a](a.md#x) ![b](b.png "B") <a href="c.md">c</a> [d][d] [e](https://a.example/e.md) [f](mailto:f@a.example)\n'
        "[`g`](#g)\n\n[d]: ../d.md#y\n\n```python\nnot[a](link)\n```\n",
        "utf-8",
    )
    found = [(path.relative_to(tmp_path.parent).as_posix(), anchor) for path, anchor in links(page)]
    inside = tmp_path.name
    assert found == [
        (f"{inside}/a.md", "x"),
        (f"{inside}/b.png", ""),
        (f"{inside}/c.md", ""),
        (f"{inside}/page.md", "g"),
        ("d.md", "y"),
    ]


def test_every_page_can_be_reached_from_the_index() -> None:
    index = ROOT / "docs" / "index.md"
    linked = {page for page, _ in links(index)}
    assert {page for page in PAGES if page.parent.name in {"docs", "reference"}} - linked == {index}
    reached, ahead = {index}, [index]
    while ahead:
        new = {page for page, _ in links(ahead.pop()) if page.suffix == ".md"} - reached
        reached |= new
        ahead += new
    assert {page for page in PAGES if page.parent.name != "decisions"} <= reached


def test_what_the_readme_names_is_there() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    named = re.findall(r"(?:`|^    )make ([a-z-]+)", readme, re.MULTILINE)
    assert named
    assert set(named) <= set(targets)
    drawing = next(text for _, language, text in examples_in("README.md", readme) if language == "text")
    for pattern in re.findall(r"[\w/*]+\.py", drawing):
        assert list(SOURCES.rglob(pattern)), pattern
