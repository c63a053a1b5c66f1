"""What `deploy/` says, read: the gateway's file, the compose file, the manifests of Kubernetes, the Dockerfile."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from portico.config.values import parse_duration
from tests.harness.gateway import ROOT

DEPLOY = ROOT / "deploy"
GATEWAY_FILE = DEPLOY / "portico.yaml"
COMPOSE_FILE = DEPLOY / "docker-compose.yml"
DOCKERFILE = DEPLOY / "Dockerfile"
SECRET = "a-secret-for-tests-of-32-bytes-or-more"


def compose() -> dict[str, Any]:
    """Return the compose file, as YAML has it."""
    file: dict[str, Any] = yaml.safe_load(COMPOSE_FILE.read_text("utf-8"))
    return file


@cache
def manifests() -> tuple[dict[str, Any], ...]:
    """Return all objects of Kubernetes."""
    files = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    return tuple(document for file in files for document in yaml.safe_load_all(file.read_text("utf-8")))


def manifest(kind: str, name: str = "api-gateway") -> dict[str, Any]:
    """Return one object of Kubernetes."""
    (found,) = (each for each in manifests() if each["kind"] == kind and each["metadata"]["name"] == name)
    return found


def pod() -> dict[str, Any]:
    """Return what the pods of the gateway are made of."""
    spec: dict[str, Any] = manifest("Deployment")["spec"]["template"]["spec"]
    return spec


def container() -> dict[str, Any]:
    """Return the one container of a pod."""
    (only,) = pod()["containers"]
    found: dict[str, Any] = only
    return found


def store() -> dict[str, Any]:
    """Return the one container of the store's pod."""
    (only,) = manifest("StatefulSet", "redis")["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = only
    return found


def filled(text: str, given: Mapping[str, str]) -> str:
    """Return a text with each `$(NAME)` that Kubernetes knows filled in."""
    return re.sub(r"\$\((\w+)\)", lambda found: given.get(found[1], found[0]), text)


def given_to(of: Mapping[str, Any], secrets: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a container; a value may name variables before it. `secrets` is by secret and key."""
    given: dict[str, str] = {}
    for each in of["env"]:
        if "value" in each:
            given[each["name"]] = filled(each["value"], given)
        else:
            reference = each["valueFrom"]["secretKeyRef"]
            given[each["name"]] = secrets[f"{reference['name']}/{reference['key']}"]
    return given


class Variables(NamedTuple):
    """The variables that the gateway's file takes from the environment."""

    required: frozenset[str]
    all: frozenset[str]


def variables() -> Variables:
    """Return what the gateway's file asks for; comments do not count."""
    text = re.sub(r"(^|\s)#.*", "", GATEWAY_FILE.read_text("utf-8"))
    found = re.findall(r"\$\{([A-Z_]+)(:-)?", text)
    return Variables(frozenset(name for name, default in found if not default), frozenset(name for name, _ in found))


def environment(urls: str, **more: str) -> dict[str, str]:
    """Return an environment for the gateway's file in which all services are at `urls`."""
    services = {name: urls for name in variables().required if name.endswith("_URL")}
    return {**services, "JWT_SECRET": SECRET, **more}


def for_a_test() -> str:
    """Return the gateway's file less what the harness gives it: `listen` and `workers`."""
    text, count = re.subn(r"^(listen|workers):.*\n", "", GATEWAY_FILE.read_text("utf-8"), flags=re.MULTILINE)
    assert count == 2
    return text


def shutdown_timeout() -> float:
    """Return how many seconds the gateway takes to end at most."""
    return float(parse_duration(str(yaml.safe_load(GATEWAY_FILE.read_text("utf-8"))["shutdown_timeout"])))


def listens_at() -> int:
    """Return the port of the gateway's file."""
    return int(yaml.safe_load(GATEWAY_FILE.read_text("utf-8"))["listen"].rpartition(":")[2])


class Instruction(NamedTuple):
    """A line of the Dockerfile, joined: `COPY`, and what follows."""

    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """The words of one that is written as JSON."""
        found: list[str] = json.loads(self.text[self.text.index("[") :])
        return found


def instructions(text: str | None = None) -> list[Instruction]:
    """Return the instructions of the Dockerfile in order."""
    lines = (text or DOCKERFILE.read_text("utf-8")).replace("\\\n", " ").splitlines()
    parts = (line.split(maxsplit=1) for line in lines if line.strip() and not line.startswith("#"))
    return [Instruction(name, rest) for name, rest in parts]


def instruction(name: str) -> Instruction:
    """Return the one instruction of this name."""
    (found,) = (each for each in instructions() if each.name == name)
    return found


def user() -> tuple[int, int]:
    """Return the numbers of the image's user and group."""
    uid, gid = instruction("USER").text.split(":")
    return int(uid), int(gid)


def is_in(path: str, folder: str) -> bool:
    """Return whether a path is below a folder."""
    return Path(folder) in Path(path).parents
