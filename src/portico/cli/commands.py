"""The command line: what each command takes, and its exit code.

0 is well, 1 is a finding, 2 is a wrong call, and 130 is a Ctrl-C before anything was started.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Sized
from importlib import metadata, resources
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlencode

import typer

from portico import __version__
from portico.cli import consumer, platform_demo
from portico.cli import explain as explaining
from portico.cli.ask import NoGateway, ask, ask_for_text, find, listen
from portico.cli.handover import handover_of, new_snapshot
from portico.cli.hash import NotHashed, What, asked_for, hash_of, warning_about
from portico.cli.new import Kind, NotWritten, write_new
from portico.cli.status import purge_text, reload_text, status_text
from portico.cli.tail import tail_lines
from portico.cli.token import NoToken, make_token, write_key
from portico.cli.top import watch
from portico.cli.why import why_text
from portico.config.findings import Severity, report
from portico.config.json_schema import json_schema
from portico.config.values import parse_duration
from portico.runtime.loading import Loaded, load
from portico.runtime.plugins import load_registry
from portico.wire import h1

app = typer.Typer(
    name="portico",
    help="An API gateway: one YAML file, one command, policies as small typed Python classes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

File = Annotated[Path, typer.Argument(metavar="FILE", help="The configuration, a YAML file.")]
_ASKED_FOR: Final = "-"
"""What stands on a command line for a secret that does not."""


def _load(file: Path) -> Loaded:
    """Load `file`, tell what was found on stderr, and exit with 1 where it cannot be run."""
    loaded = load(file)
    sys.stderr.write(report(loaded.findings))
    if loaded.config is None:
        errors = sum(finding.severity is Severity.ERROR for finding in loaded.findings)
        if errors > 1:
            sys.stderr.write(f"{file}: {errors} errors\n")
        raise typer.Exit(1)
    return loaded


@app.command()
def run(file: File) -> None:
    """Run the gateway that FILE describes, until SIGTERM or Ctrl-C.

    FILE is checked first, as `portico check` does; with an error in it nothing is started. SIGTERM and Ctrl-C let the
    requests under way come to their end, for as long as `shutdown_timeout` allows; a second one ends at once. SIGHUP
    loads FILE again, as `portico reload` does. SIGUSR2 replaces the gateway by the version that is installed now,
    without refusing a connection.
    """
    loaded = _load(file)
    handover = handover_of(loaded, file, new_snapshot())
    del loaded
    handover.become()


Pid = Annotated[int | None, typer.Option("--pid", help="The process id of the gateway, where several run.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Where = Annotated[
    Path | None, typer.Option("--file", metavar="FILE", help="The file that the gateway runs, where several run.")
]


@app.command()
def reload(
    file: File,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would change, and change nothing.")] = False,
    pid: Pid = None,
    as_json: Json = False,
) -> None:
    """Have the gateway that runs FILE load it again.

    It is read, validated and compiled by every worker first; where anything is wrong with it nothing changes, what is
    wrong is told, and the exit code is 1. Requests under way end by the configuration that they began with.
    """
    result = _asked(file, pid, "POST", "/reload?dry_run" if dry_run else "/reload")
    text = reload_text(result, dry_run=dry_run)
    if as_json:
        typer.echo(json.dumps(result, indent=2))
    elif result["ok"]:
        typer.echo(text)
    else:
        sys.stderr.write(text + "\n")
    if not result["ok"]:
        raise typer.Exit(1)


@app.command()
def status(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="The file that the gateway runs.")] = None,
    pid: Pid = None,
    as_json: Json = False,
) -> None:
    """Tell how the gateway is: its processes, the configuration that it serves, the last reload, targets, certificates.

    FILE can be left out where only one gateway runs.
    """
    state = _asked(file, pid, "GET", "/status")
    typer.echo(json.dumps(state, indent=2) if as_json else status_text(state))


@app.command()
def purge(
    urls: Annotated[
        list[str] | None,
        typer.Argument(metavar="[URL]...", help="What is kept of these; without a query, of all of their queries."),
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="TAG", help="What the service has given this tag; repeatable.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything that is kept.")] = False,
    file: Where = None,
    pid: Pid = None,
    as_json: Json = False,
) -> None:
    """Have kept answers be of no use any more: those of URLs, those with tags, or all. See
    [purging](../operations/state.md#purging).

    From the moment on at which it is done no worker gives any of them. Where it fails, the exit code is 1.
    """
    if everything == bool(urls or tag):
        raise typer.BadParameter("give URLs and tags, or --all")
    content = {"urls": urls or [], "tags": tag or [], "all": everything}
    told = _asked(file, pid, "POST", "/purge", content)
    typer.echo(json.dumps(told, indent=2) if as_json else purge_text(told))


@app.command()
def why(
    wanted: Annotated[
        str, typer.Argument(metavar="ID", help="A correlation id, a trace id, or an id that `portico tail` shows.")
    ],
    file: Where = None,
    pid: Pid = None,
    as_json: Json = False,
) -> None:
    """Tell what became of one of the last requests: who answered it and why, what would have been next, each try at a
    service, and how long each part took. See
    [why did this request fail?](../operations/observing.md#why-did-this-request-fail)

    Exits with 1 where no such request is remembered.
    """
    told = _asked(file, pid, "GET", f"/why?{urlencode({'id': wanted})}")
    typer.echo(json.dumps(told, indent=2) if as_json else why_text(told, wanted))
    if not told["found"]:
        raise typer.Exit(1)


@app.command()
def tail(
    route: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Of this route only; repeatable.")] = None,
    status: Annotated[
        list[str] | None, typer.Option(metavar="STATUS", help="`5xx`, `404` or `400-499` only; repeatable.")
    ] = None,
    method: Annotated[list[str] | None, typer.Option(metavar="METHOD", help="Of this method only; repeatable.")] = None,
    slow: Annotated[str, typer.Option(metavar="TIME", help="Those only that took so long, or longer.")] = "0s",
    file: Where = None,
    pid: Pid = None,
    as_json: Json = False,
) -> None:
    """Show the requests of all workers as they end, until Ctrl-C. More than can be shown are counted."""
    try:
        seconds = parse_duration(slow)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    chosen = {"route": route or [], "status": status or [], "method": method or [], "slow": seconds}
    try:
        lines = listen(find(file, pid), f"/tail?{urlencode(chosen, doseq=True)}")
        for line in tail_lines(lines, as_json=as_json, colours=sys.stdout.isatty()):
            print(line, flush=True)
    except NoGateway as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(1) from None
    except BrokenPipeError:  # whoever reads of it has enough
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - what is left in it is flushed at the end
        raise typer.Exit(0) from None
    sys.stderr.write("the gateway's agent has ended\n")


@app.command()
def top(
    every: Annotated[str, typer.Option(metavar="TIME", help="How long until it is shown anew.")] = "2s",
    count: Annotated[int, typer.Option(metavar="N", help="How often it is shown; without end unless given.")] = 0,
    file: Where = None,
    pid: Pid = None,
) -> None:
    """Show each route's rate, errors and times, and the targets and breakers of services, until Ctrl-C.

    They are of the time since it was last shown, over all workers. Times are found in the buckets of
    `http_request_duration_seconds`, so that they are no more exact than those.
    """
    try:
        seconds = parse_duration(every)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the terminal is to be as it was
    turns = itertools.count()

    def wait() -> bool:
        threading.Event().wait(max(seconds, 0.1))
        return not count or next(turns) < count

    try:
        path = find(file, pid)
        watch(lambda: (ask_for_text(path, "/metrics"), ask(path, "GET", "/status")), wait, sys.stdout, time.monotonic)
    except NoGateway as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _asked(file: Path | None, pid: int | None, method: str, target: str, content: object = None) -> Any:
    """Return what the agent of a gateway answers; exit with 1 where there is none that does."""
    try:
        return ask(find(file, pid), method, target, content)
    except NoGateway as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(1) from None


@app.command()
def check(file: File) -> None:
    """Tell everything that is wrong with FILE, as `file:line:column: message`, and what is odd, as warnings.

    Exits with 1 where the gateway would not run it. Nothing is started and no service is asked.
    """
    loaded = _load(file)
    assert loaded.config is not None
    content = [_counted(loaded.config.routes, "route"), _counted(loaded.config.services, "service")]
    if loaded.findings:
        content.append(_counted(loaded.findings, "warning"))
    typer.echo(f"{file}: ok, {', '.join(content)}")


def _counted(items: Sized, noun: str) -> str:
    """Return how many there are: `1 route`, `2 routes`."""
    return f"{len(items)} {noun}" + ("s" if len(items) != 1 else "")


@app.command()
def explain(
    file: File,
    method: Annotated[str, typer.Argument(metavar="METHOD", help="GET, POST, ...")],
    url: Annotated[str, typer.Argument(metavar="URL", help="A URL, or a path: /api/v1/orders/7?full=1")],
    header: Annotated[
        list[str] | None, typer.Option("-H", "--header", metavar="'NAME: VALUE'", help="A request header; repeatable.")
    ] = None,
    address: Annotated[str, typer.Option("--from", metavar="ADDRESS", help="The client's address.")] = "127.0.0.1",
    as_json: Json = False,
) -> None:
    """Tell what becomes of one request: each route and why it lost, the winner, its policies in running order with
    their origins, and what the service would be sent. Nothing is sent, and nobody is asked: keys of a provider are
    not known, and another service that would decide lets it pass.
    """
    loaded = _load(file)
    try:
        outcome = explaining.explain_request(loaded, method.upper(), url, header or [], address)
    except explaining.BadRequest as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(1) from None
    typer.echo(json.dumps(outcome, indent=2) if as_json else explaining.as_text(outcome), nl=as_json)


@app.command()
def demo(
    port: Annotated[int, typer.Option(help="Where the gateway listens.")] = platform_demo.PORT,
    services_from: Annotated[
        int, typer.Option(metavar="PORT", help="The services listen on ports above this one.")
    ] = platform_demo.SERVICES_FROM,
) -> None:
    """Run the example platform: five services as real processes, and the gateway in front of them. Ctrl-C ends it all.

    It prints curl lines to try.
    """
    try:
        code = platform_demo.run_demo(port=port, services_from=services_from)
    except platform_demo.DemoFailed as error:
        sys.stderr.write(f"{error}\n")
        code = 1
    raise typer.Exit(code)


@app.command("demo-service")
def demo_service(
    name: Annotated[str, typer.Argument(metavar="NAME", help="`user-service`, `order-service`, ...")],
    port: Annotated[int, typer.Option(help="Where it listens.")],
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="At which address.")] = "127.0.0.1",
    data: Annotated[Path, typer.Option(metavar="FOLDER", help="Where its database is.")] = Path(),
) -> None:
    """Run one service of the example platform by itself, until SIGTERM or Ctrl-C: in a container, for example.

    Where the services are that it asks is taken from variables such as INVENTORY_SERVICE_URL, and what tokens are
    signed with from JWT_SECRET.
    """
    try:
        command = platform_demo.service_command(name, host=host, port=port, data=data)
    except platform_demo.DemoFailed as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(1) from None
    os.execv(command[0], command)  # noqa: S606 - a program of ours in the place of this one


@app.command()
def init(
    file: Annotated[Path, typer.Argument(metavar="[FILE]", help="The file to write.")] = Path("portico.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
) -> None:
    """Write a commented configuration to start from."""
    starter = resources.files("portico.cli").joinpath("starter.yaml").read_text("utf-8")
    try:
        with file.open("w" if force else "x", encoding="utf-8") as target:
            target.write(starter)
    except FileExistsError:
        sys.stderr.write(f"{file} exists already; --force overwrites it\n")
        raise typer.Exit(1) from None
    except OSError as error:
        sys.stderr.write(f"{file} cannot be written: {error.strerror}\n")
        raise typer.Exit(1) from None
    typer.echo(f"wrote {file}; next: portico check {file}, then portico run {file}")


@app.command()
def new(
    kind: Annotated[Kind, typer.Argument(metavar="KIND", help="`policy` or `endpoint`.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the file calls it: lower case with dashes.")],
    folder: Annotated[
        Path, typer.Option("--in", metavar="FOLDER", help="Where to write it; made where it is not there.")
    ] = Path(),
) -> None:
    """Write a policy or an endpoint to start from, and a test of it that passes. A file that is there is left alone."""
    try:
        file, test = write_new(kind, name, folder)
    except NotWritten as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(1) from None
    typer.echo(f"wrote {file} and {test}; next: python -m pytest {test}, and plugins: [{file}] in the configuration")


@app.command("hash")
def hash_(
    what: Annotated[What, typer.Argument(metavar="WHAT", help="`key` or `password`.")],
) -> None:
    """Print what stands in the file for a consumer's key or password, which is asked for, or read from stdin.

    A key's hash stands under `keys`, a password's under `password`, in single quotes.
    """
    try:
        text = asked_for(what)
        hashed = hash_of(what, text)
    except NotHashed as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(1) from None
    warning = warning_about(what, text)
    if warning:
        sys.stderr.write(f"warning: {warning}\n")
    typer.echo(hashed)


app.add_typer(consumer.app, name="consumer", help="The consumers of a database.")


@app.command()
def token(
    secret: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="The secret to sign with, 32 bytes or more; `-` asks for it, or reads it from stdin, as others can "
            "see what a command is called with.",
        ),
    ] = None,
    key: Annotated[Path | None, typer.Option(metavar="FILE", help="The private key to sign with, as PEM.")] = None,
    new_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a private key to FILE, and its JWKS beside it; no token is made."),
    ] = None,
    sub: Annotated[str, typer.Option(metavar="NAME", help="Whose token it is.")] = "developer",
    roles: Annotated[str, typer.Option(metavar="LIST", help="Roles, with commas between them.")] = "",
    scope: Annotated[str, typer.Option(metavar="TEXT", help="Scopes, with spaces between them.")] = "",
    issuer: Annotated[str, typer.Option(metavar="TEXT", help="The claim `iss`.")] = "",
    audience: Annotated[str, typer.Option(metavar="TEXT", help="The claim `aud`.")] = "",
    expires: Annotated[str, typer.Option(metavar="TIME", help="In what time it expires.")] = "1h",
    claim: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Another claim, or another value; JSON or a text; repeatable."),
    ] = None,
) -> None:
    """Print a signed token (JWT) for development, or write a key to sign some with. See [jwt](policies/jwt.md)."""
    try:
        if new_key is not None:
            jwks = write_key(new_key)
            typer.echo(
                f"wrote {new_key} and {jwks}; next: jwt: {{jwks_file: {jwks}}}, and portico token --key {new_key}"
            )
            return
        said = {"sub": sub, "roles": [role for role in roles.split(",") if role], "scope": scope, "iss": issuer}
        secret = asked_for("secret") if secret == _ASKED_FOR else secret
        typer.echo(make_token(secret, key, {**said, "aud": audience}, expires, claim or []))
    except (NoToken, NotHashed) as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(1) from None


@app.command()
def schema(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="A configuration whose plugins are to be in the schema.")
    ] = None,
) -> None:
    """Print the JSON Schema of the file, for editors; the YAML language server takes it by a first line such as
    `# yaml-language-server: $schema=portico.schema.json`.
    """
    if file is None:
        registry = load_registry(())
    else:
        registry = _load(file).registry
    document = json_schema(registry.policy_kinds, registry.endpoint_kinds)
    typer.echo(json.dumps(document, indent=2))


@app.command()
def version() -> None:
    """Print the versions of Portico and of what it runs on, and whether its modules are compiled."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    libraries = ", ".join(f"{name} {metadata.version(name)}" for name in ("uvloop", "httptools", "pydantic"))
    build = "interpreted" if str(h1.__file__).endswith(".py") else "compiled"
    typer.echo(f"portico {__version__}, {build} ({python}, {libraries})")
