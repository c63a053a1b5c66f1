"""The compose file: it is one by the Compose Specification, and what it says fits together."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from check_jsonschema.builtin_schemas import get_builtin_schema
from jsonschema import Draft202012Validator

from portico.cli.platform_demo import INSTANCES, PEERS
from portico.config.values import parse_duration
from tests.harness.deployment import COMPOSE_FILE, DEPLOY, compose, listens_at, shutdown_timeout, variables

File = dict[str, Any]
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
