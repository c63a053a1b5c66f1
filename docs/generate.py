"""Makes out of the code what is in `docs/reference`, `deploy/grafana` and `deploy/prometheus`.

`python -m docs.generate` writes it; with `--check` it tells which file is stale.
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import typer

from docs.monitoring.files import grafana, prometheus
from docs.monitoring.panels import TAG
from docs.problems import problem_types
from docs.source import ROOT, class_doc, markdown, module_doc, value_docs
from docs.tables import Models, table, value_kinds
from portico.cli.commands import app
from portico.config.consumer_database import ConsumerDatabase
from portico.config.consumers import ConsumerSettings
from portico.config.errors import Errors, ErrorText
from portico.config.json_schema import json_schema
from portico.config.policy_use import PolicyUse
from portico.config.schema import Config
from portico.config.versions import Versions
from portico.http.error_shapes import SHAPES, ErrorWriter, Shape
from portico.http.message import Request, Response
from portico.http.problem import Problem
from portico.observe.metrics import METRICS
from portico.policy.base import Component, Policy
from portico.runtime.plugins import registry_of

REFERENCE: Final = ROOT / "docs" / "reference"
DEPLOY: Final = ROOT / "deploy"

_REQUEST_ID: Final = "5d0f2c6ad0b94a60a1e8f3b3a7c9d214"

_MADE: Final = b"Made from the code by `make docs`."
_NOTICE: Final = "<!-- Made from the code by `make docs`. Do not edit. -->"

Kind = type[Component[Any]]
Files = Mapping[str, Sequence[Kind]]
"""The policies, or the endpoints, by the page of the file that defines them; most files define one."""


def made() -> dict[Path, dict[str, str]]:
    """Return the text of each file that is made, by its path in one of the folders that it is in."""
    return {REFERENCE: pages(), DEPLOY / "grafana": grafana(), DEPLOY / "prometheus": prometheus()}


def pages() -> dict[str, str]:
    """Return the text of each page of the reference, by its path there."""
    registry = registry_of(())
    policies = _by_page(registry.policies.values())
    endpoints = _by_page(kind for kind in registry.endpoints.values() if kind.in_file)
    made = {
        "configuration.md": _configuration(),
        "policies.md": _policies(registry.policies.values(), policies),
        "endpoints.md": _endpoints(endpoints),
        "errors.md": _errors(),
        "metrics.md": _metrics(),
        "command-line.md": _command_line(),
    }
    made |= {page: _components(kinds) for page, kinds in (policies | endpoints).items()}
    return {name: "\n\n".join(part for part in parts if part) + "\n" for name, parts in made.items()}


def _configuration() -> Iterator[str]:
    models = Models({"PolicyUse": "Policy", "ConsumerSettings": "Consumers"})
    yield from ("# The configuration file", _NOTICE)
    yield (
        "A configuration is one YAML file. A key that is not listed here is an error. The types are explained under"
        " [Values](#values)."
    )
    yield models.keys(Config)
    for model in models.within(Config):
        yield f"## {models.called(model.__name__)}"
        yield inspect.cleandoc(model.__doc__ or "")
        if model is PolicyUse:
            yield module_doc("config/policy_lists.py")
            yield "Which there are: [policies](policies.md)."
            yield models.keys(model, only=("name", "stage", "when"))
            continue
        if model is ConsumerDatabase:
            yield _without_title(module_doc("config/consumer_database.py"))
        if model is ConsumerSettings:
            yield _without_title(module_doc("config/consumers.py"))
        if model.__name__ == "Route":
            yield _without_title(module_doc("config/routes.py"))
            yield "Which there are: [endpoints](endpoints.md)."
        yield models.keys(model)
        if model.__name__ == "Route":
            yield "A route can have [versions](#versions) as well."
            yield "## Versions"
            yield module_doc("config/versions.py")
            yield models.keys(Versions)
        if model is Errors:
            yield _without_title(module_doc("config/errors.py"))
            yield "## ErrorText"
            yield inspect.cleandoc(ErrorText.__doc__ or "")
            yield models.keys(ErrorText)
    yield "## Values"
    yield table(("type", "what it is", "examples"), value_kinds())
    yield "## Values from elsewhere"
    yield module_doc("config/substitute.py")
    yield "## More files"
    include = json_schema({}, {})["properties"]["include"]
    yield f"`include:` {include['description'][0].lower()}{include['description'][1:]}"
    yield "## Conditions"
    yield module_doc("policy/condition/__init__.py")
    yield "## Path patterns"
    yield module_doc("routing/pattern.py")
    yield "## The path of a request"
    yield module_doc("http/target.py")
    yield "## Templates"
    yield class_doc("http/template.py", "Template")


def _by_page(kinds: Iterable[Kind]) -> dict[str, list[Kind]]:
    files: dict[str, list[Kind]] = {}
    for kind in kinds:
        files.setdefault(_page_of(kind), []).append(kind)
    return files


def _page_of(kind: Kind) -> str:
    """Return the page that a policy or an endpoint is on, which is named as its file is."""
    _, folder, file = kind.__module__.split(".")
    return f"{folder}/{file.replace('_', '-')}.md"


def _policies(policies: Iterable[type[Policy[Any]]], files: Files) -> Iterator[str]:
    yield from ("# Policies", _NOTICE, "What can stand around a route, a service, or everything.")
    ordered = sorted(policies, key=lambda policy: (policy.stages[0], policy.name))
    rows = [(_stages(policy)[0], *_entry(policy, files)) for policy in ordered]
    yield table(("stage", "policy", "what it does"), rows)
    yield "Each stands in that stage unless `stage` beside it picks another; its page tells which ones it may stand in."
    yield "## Stages"
    yield class_doc("policy/base.py", "Stage")
    stages = value_docs("policy/base.py", "Stage")
    yield table(("stage", "what stands there"), [(f"`{name.lower()}`", doc) for name, doc in stages.items()])


def _endpoints(files: Files) -> Iterator[str]:
    yield from ("# Endpoints", _NOTICE, "What a route can end in.")
    rows = [_entry(kind, files) for page in sorted(files) for kind in files[page]]
    yield table(("endpoint", "what it does"), rows)


def _entry(kind: Kind, files: Files) -> tuple[str, str]:
    """Return the link to what is said of a policy or an endpoint, and that in one sentence."""
    page = _page_of(kind)
    alone = len(files[page]) == 1
    text = _file_doc(kind) if alone else inspect.getdoc(kind) or ""
    return f"[{kind.name}]({page}{'' if alone else f'#{kind.name}'})", text.partition("\n\n")[0]


def _components(kinds: Sequence[Kind]) -> Iterator[str]:
    """Return the page of a file: its documentation, and the settings of each policy or endpoint that it defines."""
    yield from (f"# {', '.join(kind.name for kind in kinds)}", _NOTICE, _file_doc(kinds[0]))
    alone = len(kinds) == 1
    for kind in kinds:
        if not alone:
            yield f"## {kind.name}"
            yield inspect.getdoc(kind) or ""
        yield from _component(kind, "##" if alone else "###")
    folder = _page_of(kinds[0]).partition("/")[0]
    yield f"The types are explained under [Values](../configuration.md#values). All [{folder}](../{folder}.md)."


def _component(kind: Kind, level: str) -> Iterator[str]:
    models = Models()
    if issubclass(kind, Policy):
        default, *others = _stages(kind)
        stages = default + (f", or {' or '.join(others)}" if others else "")
        yield f"[Stage](../policies.md#stages): {stages}."
    yield models.keys(kind.config_class)
    for model in models.within(kind.config_class):
        yield f"{level} {models.called(model.__name__)}"
        yield inspect.cleandoc(model.__doc__ or "")
        yield models.keys(model)


def _stages(policy: type[Policy[Any]]) -> list[str]:
    return [f"`{stage.name.lower()}`" for stage in policy.stages]


def _file_doc(kind: Kind) -> str:
    return markdown(inspect.getdoc(sys.modules[kind.__module__]) or "")


def _errors() -> Iterator[str]:
    yield from ("# Errors", _NOTICE, "## Problems")
    yield class_doc("http/problem.py", "Problem")
    example = Problem(404, "no-route", "Not found", "No route matches this request.")
    yield f"A request for `/nothing` is answered:\n\n```json\n{example.render('/nothing').decode()}\n```"
    rows = [
        (str(problem.status), f"`{problem.type}`", problem.title, " ".join(problem.meanings))
        for problem in problem_types()
    ]
    yield table(("status", "type", "title", "meaning"), rows)
    yield "Where no title is given here, it is the standard phrase of the status."
    yield "## Shapes"
    yield module_doc("http/error_shapes.py").partition("\n\n")[2]
    yield (
        "`errors:` chooses one for the file, a service or a route, and can have texts of its own: see"
        " [the configuration](configuration.md#errors). Whoever would rather have HTML by `Accept`, as browsers would,"
        " gets a small page, unless that says `html: off`. Headers such as `Retry-After` and `Allow` are there in any"
        " shape. Each example is the answer to a request for `/nothing`."
    )
    for name, shape in SHAPES.items():
        yield f"### {name}"
        yield shape.about
        yield _example_of(shape)
    yield "## In the code"
    yield module_doc("errors.py")


def _metrics() -> Iterator[str]:
    yield from ("# Metrics", _NOTICE, module_doc("observe/metrics.py"))
    yield (
        "How they are asked for, and by whom: [operations](../operations/observing.md#metrics). A `process` is the"
        " agent, or a worker by number. Gauges that several processes have are their sum, unless something else is"
        " said."
    )
    rows = [
        (f"`{metric.name}`", metric.kind, ", ".join(f"`{label}`" for label in metric.labels), metric.help)
        for metric in METRICS.values()
    ]
    yield table(("metric", "kind", "labels", "meaning"), rows)
    yield "Dashboards that show them, and alerts that look at them: [monitoring](../operations/monitoring.md)."


def _example_of(shape: Shape) -> str:
    """Return an answer as it goes out, with an id that is always the same."""
    response = Response.problem(404, "no-route", "Not found", "No route matches this request.")
    assert response.problem_value is not None
    ErrorWriter(shape).write(response.problem_value, Request("GET", "/nothing"), response)
    lines = [f"{name.decode()}: {value.decode()}" for name, value in response.headers]
    answer = "\n".join(["HTTP/1.1 404 Not Found", *lines, "", (response.body.whole or b"").decode()])
    request_id = response.headers.text(b"x-kong-request-id")
    return f"```text\n{answer if request_id is None else answer.replace(request_id, _REQUEST_ID)}\n```"


def _command_line() -> Iterator[str]:
    yield from ("# The command line", _NOTICE, module_doc("cli/commands.py"))
    group: Any = typer.main.get_command(app)
    yield f"`portico --help` lists the commands. `python -m {group.name}` does the same as `{group.name}`."
    yield from _commands(group, (group.name,), "##")


def _commands(group: Any, path: Sequence[str], level: str) -> Iterator[str]:
    """Yield what is said of the commands of a group; those of a group within it come below that."""
    for name, command in group.commands.items():
        here = (*path, name)
        yield f"{level} {' '.join(here[1:])}"
        if hasattr(command, "commands"):
            yield inspect.cleandoc(command.help)
            yield from _commands(command, here, f"{level}#")
            continue
        arguments = [param for param in command.params if param.param_type_name == "argument"]
        usage = " ".join([*here, *(str(argument.metavar) for argument in arguments)])
        yield f"```text\n{usage}\n```"
        yield inspect.cleandoc(command.help)
        if command.params:
            yield table(("argument", "meaning"), [(f"`{_usage(param)}`", _meaning(param)) for param in command.params])


def _usage(param: Any) -> str:
    if param.param_type_name == "argument":
        return str(param.metavar).strip("[]")
    metavar = "" if param.is_flag else f" {param.metavar or param.name.upper()}"
    return ", ".join([*param.opts, *param.secondary_opts]) + metavar


def _meaning(param: Any) -> str:
    notes = ["required"] if param.required else []
    if param.default not in {None, False}:
        notes.append(f"default: `{param.default}`")
    return f"{param.help} ({', '.join(notes)})" if notes else str(param.help)


def _without_title(text: str) -> str:
    """Return a text without its first paragraph."""
    return text.partition("\n\n")[2]


def stale(folder: Path, wanted: Mapping[str, str]) -> list[Path]:
    """Return the files in `folder`, at any depth, that are not what they should be; those of others do not count."""
    there = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    texts = {name: path.read_bytes() for name, path in there.items()}
    left = {name for name, text in texts.items() if name not in wanted and _is_made(there[name], text)}
    other = {name for name, text in wanted.items() if texts.get(name) != text.encode()}
    return [folder / name for name in sorted(left | other)]


def _is_made(path: Path, text: bytes) -> bool:
    """Return whether a file was made from the code: it says so, or is a dashboard under a name of ours."""
    if path.suffix != ".json":
        return _MADE in b"\n".join(text.splitlines()[:3])
    try:
        content = json.loads(text)
    except ValueError:
        return False
    return isinstance(content, dict) and content.get("uid") == path.stem and path.stem.startswith(f"{TAG}-")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write everything, or check it."""
    parser = argparse.ArgumentParser(prog="python -m docs.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where a file is stale")
    check = parser.parse_args(arguments).check
    found = [_brought(folder, wanted, check=check) for folder, wanted in made().items()]
    return 1 if check and any(found) else 0


def _brought(folder: Path, wanted: Mapping[str, str], *, check: bool) -> bool:
    """Bring a folder up to date, or tell what is not; return whether there was anything."""
    changed = stale(folder, wanted)
    for path in changed:
        name = path.relative_to(folder).as_posix()
        if check:
            sys.stderr.write(f"{path.relative_to(ROOT)} is not what the code says: run `make docs`\n")
        elif name in wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[name], "utf-8")
        else:
            path.unlink()
            sys.stdout.write(f"{path.relative_to(ROOT)} is made no more, and was removed\n")
    return bool(changed)


if __name__ == "__main__":
    sys.exit(main())
