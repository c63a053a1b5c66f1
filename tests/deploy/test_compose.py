"""The compose file: it is one by the Compose Specification, and what it says fits together."""

from __future__ import annotations

import copy
import re
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from check_jsonschema.builtin_schemas import get_builtin_schema
from jsonschema import Draft202012Validator

from portico.cli.platform_demo import INSTANCES, PEERS
from portico.config.values import parse_duration
from tests.harness.deployment import COMPOSE_FILE, DEPLOY, compose, listens_at, shutdown_timeout, variables
from tests.harness.gateway import DEADLINE, ROOT

File = dict[str, Any]
GUIDE = ROOT / "docs" / "operations" / "deployment.md"
PAGES = [COMPOSE_FILE, *sorted((ROOT / "docs" / "operations").glob("*.md"))]
DEMO = {instance.service for instance in INSTANCES}


def errors(file: File) -> list[str]:
    """Return what the schema of the Compose Specification says against a file."""
    return [
        error.message for error in Draft202012Validator(get_builtin_schema("vendor.compose-spec")).iter_errors(file)
    ]


def test_it_is_a_compose_file() -> None:
    assert errors(compose()) == []


def mistyped(change: Callable[[File], object]) -> File:
    file = copy.deepcopy(compose())
    change(file)
    return file


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file.update(service={}),
        lambda file: file["services"]["api-gateway"].update(enviroment={}),
        lambda file: file["services"]["api-gateway"].update(read_only="perhaps", cap_drop="ALL"),
        lambda file: file["services"]["api-gateway"]["depends_on"].update(redis={"condition": "well"}),
        lambda file: file["services"]["redis"]["healthcheck"].update(every="1s"),
        lambda file: file["services"]["api-gateway"]["volumes"][0].update(type="bond"),
        lambda file: file["networks"]["store"].update(inner=True),
        lambda file: file["services"]["api-gateway"]["build"].update(file="Dockerfile"),
    ],
)
def test_a_slip_is_refused(change: Callable[[File], object]) -> None:
    assert errors(mistyped(change))


def test_what_services_wait_for_and_keep_is_there() -> None:
    file = compose()
    for name, service in file["services"].items():
        assert set(service.get("depends_on", ())) <= set(file["services"]), name
        for volume in service.get("volumes", ()):
            if volume["type"] == "volume":
                assert volume["source"] in file["volumes"], name
        assert set(service.get("networks", ())) <= set(file["networks"]), name
    kept = {volume["source"] for service in file["services"].values() for volume in service.get("volumes", ())}
    assert set(file["volumes"]) <= kept
    for name, conditions in file["services"]["api-gateway"]["depends_on"].items():
        # The health of the demo services is said here; that of the gateway, by the image.
        assert conditions == {"condition": "service_healthy"}
        assert "healthcheck" in file["services"][name]
    assert {*DEMO, "redis"} == set(file["services"]["api-gateway"]["depends_on"])


MOUNTED = [
    (name, volume)
    for name, service in compose()["services"].items()
    for volume in service.get("volumes", ())
    if volume["type"] == "bind"
]


@pytest.mark.parametrize(
    ("name", "volume"), MOUNTED, ids=lambda each: each if isinstance(each, str) else each["source"]
)
def test_what_is_mounted_is_there_and_cannot_be_written_to(name: str, volume: dict[str, Any]) -> None:
    assert (DEPLOY / volume["source"]).exists(), name
    assert volume["read_only"] is True


def test_the_gateway_has_the_variables_that_its_file_asks_for() -> None:
    given = set(compose()["services"]["api-gateway"]["environment"])
    assert variables().required <= given <= variables().all
    assert "REDIS_URL" in given


def test_the_gateway_keeps_nothing_itself() -> None:
    """What it has is in the store; so the one folder that it can write to is in memory."""
    service = compose()["services"]["api-gateway"]
    assert [volume["type"] for volume in service["volumes"]] == ["bind"]
    assert [each.partition(":")[0] for each in service["tmpfs"]] == ["/run/portico"]


def test_each_image_is_built_once() -> None:
    services = compose()["services"]
    built = Counter(service["image"] for service in services.values() if "build" in service)
    assert built == {services["api-gateway"]["image"]: 1}
    assert "build" in services["api-gateway"]
    for name in DEMO:
        assert services[name]["image"] in built
        assert services[name]["pull_policy"] == "never"  # it is in no registry, or is somebody else's there


def test_only_the_gateway_reaches_the_store() -> None:
    file = compose()
    reached = {name for name, service in file["services"].items() if "store" in service.get("networks", ())}
    assert reached == {"api-gateway", "redis"}
    assert file["services"]["redis"]["networks"] == ["store"]
    assert file["networks"]["store"] == {"internal": True}
    assert "ports" not in file["services"]["redis"]


def commands(page: Path) -> str:
    """Return a page as one line, without what comments and lists put before each line."""
    return " ".join(re.sub(r"^#? +", "", page.read_text("utf-8"), flags=re.MULTILINE).split())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_command_of_compose_that_is_shown_says_which_file(page: Path) -> None:
    assert re.findall(r"docker compose (?!--file deploy/docker-compose\.yml )", commands(page)) == []


def test_the_secret_is_made_once_and_not_kept_in_git(tmp_path: Path) -> None:
    said = {
        found[0]
        for page in (COMPOSE_FILE, GUIDE)
        for found in re.finditer(r"(?<=    )test -e deploy/\.env .*", page.read_text("utf-8"))
    }
    (command,) = said
    (tmp_path / "deploy").mkdir()
    file = tmp_path / "deploy" / ".env"
    made = []
    for _ in range(2):
        subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True, timeout=DEADLINE)
        made.append(file.read_text("utf-8"))
    assert made[0] == made[1]
    name, _, value = made[0].rstrip("\n").partition("=")
    assert (name, len(value)) == ("JWT_SECRET", 64)
    assert file.stat().st_mode & 0o777 == 0o600
    assert "deploy/.env" in (ROOT / ".gitignore").read_text("utf-8").splitlines()


def test_without_a_secret_nothing_is_started() -> None:
    said = re.findall(r"JWT_SECRET: (.*)", COMPOSE_FILE.read_text("utf-8"))
    assert len(set(said)) == 1  # the user service signs with what the gateway verifies with
    assert len(said) == 2
    assert said[0].startswith("${JWT_SECRET:?")


def port_of(service: dict[str, Any]) -> int:
    command = service["command"]
    return int(command[command.index("--port") + 1])


def test_urls_lead_to_where_services_listen() -> None:
    services = compose()["services"]
    for name in ("api-gateway", *DEMO):
        for variable, url in services[name].get("environment", {}).items():
            if variable.endswith("_SERVICE_URL"):
                parts = urlsplit(url)
                assert parts.hostname == variable.removesuffix("_URL").lower().replace("_", "-")
                assert parts.port == port_of(services[str(parts.hostname)])
    assert urlsplit(services["api-gateway"]["environment"]["REDIS_URL"]).hostname == "redis"


def test_each_demo_service_is_run_is_looked_at_and_knows_its_peers() -> None:
    services = compose()["services"]
    for name in DEMO:
        service = services[name]
        assert service["command"][:2] == ["demo-service", name]
        url = urlsplit(service["healthcheck"]["test"][-1])
        assert (url.port, url.path) == (port_of(service), "/health")
        wanted = {f"{peer.upper().replace('-', '_')}_URL" for peer in PEERS.get(name, ())}
        assert wanted <= set(service.get("environment", ()))


def test_the_gateway_is_given_the_time_that_it_takes_to_end() -> None:
    assert parse_duration(compose()["services"]["api-gateway"]["stop_grace_period"]) > shutdown_timeout()


def test_only_the_gateway_can_be_reached_from_other_machines() -> None:
    published = {name: port for name, service in compose()["services"].items() for port in service.get("ports", ())}
    assert published.pop("api-gateway") == f"{listens_at()}:{listens_at()}"
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published.values())


def test_what_is_ours_can_write_nowhere_else_and_gain_nothing() -> None:
    for name in ("api-gateway", *DEMO):
        service = compose()["services"][name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in service
