"""The manifests of Kubernetes: they are ones by its own types, and agree with the gateway's file and the image."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml

from portico.config.schema import Config
from tests.harness.deployment import (
    DEPLOY,
    GATEWAY_FILE,
    container,
    given_to,
    instructions,
    is_in,
    listens_at,
    manifest,
    manifests,
    pod,
    shutdown_timeout,
    store,
    user,
    variables,
)
from tests.harness.gateway import ROOT

Manifest = dict[str, Any]
SECRETS = {"api-gateway-secrets/jwt-secret": "a-secret", "redis-secrets/password": "a-password"}
OLDEST = "1.30"
"""The first that knows how to wait before an end (`preStop.sleep`) without being asked to."""
NEWEST = kubernetes_validate.latest_version()


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("each", manifests(), ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_they_are_objects_of_kubernetes(each: Manifest, version: str) -> None:
    kubernetes_validate.validate(each, version, strict=True)


def test_all_that_is_needed_is_there() -> None:
    kinds = {(each["kind"], each["metadata"]["name"]) for each in manifests()}
    gateway = {(kind, "api-gateway") for kind in ("Deployment", "Service", "ConfigMap", "PodDisruptionBudget")}
    assert kinds == gateway | {(kind, "redis") for kind in ("StatefulSet", "Service", "NetworkPolicy")}


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: spec.update(terminationGracePeriod=45),
        lambda spec: spec.update(terminationGracePeriodSeconds="45"),
        lambda spec: spec["containers"][0].update(readynessProbe={}),
        lambda spec: spec["containers"][0]["livenessProbe"]["httpGet"].pop("port"),
        lambda spec: spec["containers"][0]["resources"].update(limit={}),
        lambda spec: spec["containers"][0]["env"][0]["valueFrom"]["secretKeyRef"].update(secret="x"),
        lambda spec: spec["securityContext"].update(runAsNonroot=True),
        lambda spec: spec["volumes"][0].update(configmap={}),
    ],
)
def test_a_slip_is_refused(change: Callable[[Manifest], object]) -> None:
    deployment = copy.deepcopy(manifest("Deployment"))
    change(deployment["spec"]["template"]["spec"])
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, NEWEST, strict=True)


def test_what_is_selected_is_what_is_there() -> None:
    for owner, name in (("Deployment", "api-gateway"), ("StatefulSet", "redis")):
        spec = manifest(owner, name)["spec"]
        labels = spec["template"]["metadata"]["labels"]
        assert spec["selector"] == {"matchLabels": labels}
        service = manifest("Service", name)["spec"]
        assert service["selector"] == labels
        (port,) = service["ports"]
        (inside,) = spec["template"]["spec"]["containers"][0]["ports"]
        assert port["targetPort"] == inside["containerPort"]
    assert manifest("PodDisruptionBudget")["spec"]["selector"] == manifest("Deployment")["spec"]["selector"]


def test_ports_are_those_of_the_gateways_file() -> None:
    assert container()["ports"][0]["containerPort"] == listens_at()
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container()[probe]["httpGet"]["port"] == listens_at()
    (port,) = manifest("Service")["spec"]["ports"]
    assert (port["port"], manifest("Service")["spec"]["type"]) == (80, "LoadBalancer")


def test_pods_are_restarted_by_what_they_are_and_not_by_what_is_behind_them() -> None:
    paths = {probe: container()[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")}
    assert paths == {"livenessProbe": "/livez", "readinessProbe": "/readyz"}


def test_the_gateways_file_is_the_one_that_is_tried_elsewhere() -> None:
    assert manifest("ConfigMap")["data"] == {"portico.yaml": GATEWAY_FILE.read_text("utf-8")}


def test_the_file_is_where_the_image_looks_for_it_and_changes_there() -> None:
    (command,) = (each.words for each in instructions() if each.name == "CMD")
    mounts = {mount["name"]: mount for mount in container()["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod()["volumes"]}
    assert mounts.keys() == volumes.keys()
    assert volumes["config"]["configMap"]["name"] == manifest("ConfigMap")["metadata"]["name"]
    assert command[-1] == f"{mounts['config']['mountPath']}/portico.yaml"
    assert "subPath" not in mounts["config"]  # Kubernetes does not update it
    assert "command" not in container()
    assert "args" not in container()
    assert yaml.safe_load(GATEWAY_FILE.read_text("utf-8"))["watch"] is True


def test_there_is_time_to_end() -> None:
    waits = container()["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod()["terminationGracePeriodSeconds"] >= waits + shutdown_timeout() + 5
    assert waits > 0


def test_an_update_takes_no_pod_away_before_there_is_another() -> None:
    spec = manifest("Deployment")["spec"]
    assert spec["replicas"] == 3
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    assert manifest("PodDisruptionBudget")["spec"]["minAvailable"] == spec["replicas"] - 1


def test_the_variables_are_those_that_the_file_asks_for() -> None:
    given = {each["name"]: each for each in container()["env"]}
    assert variables().required <= given.keys() - {"REDIS_PASSWORD"} <= variables().all
    url = urlsplit(given_to(container(), SECRETS)["REDIS_URL"])
    (port,) = manifest("Service", "redis")["spec"]["ports"]
    assert (url.hostname, url.port) == (manifest("Service", "redis")["metadata"]["name"], port["port"])
    assert url.password == given_to(store(), SECRETS)["REDIS_PASSWORD"] == SECRETS["redis-secrets/password"]
    assert "value" not in given["JWT_SECRET"]
    assert "value" not in given["REDIS_PASSWORD"]


def test_nobody_but_the_gateway_reaches_the_store() -> None:
    spec = manifest("NetworkPolicy", "redis")["spec"]
    assert spec["podSelector"] == manifest("StatefulSet", "redis")["spec"]["selector"]
    assert spec["policyTypes"] == ["Ingress"]
    (rule,) = spec["ingress"]
    assert rule["from"] == [{"podSelector": manifest("Deployment")["spec"]["selector"]}]
    assert rule["ports"] == [{"protocol": "TCP", "port": store()["ports"][0]["containerPort"]}]


def test_a_gateway_that_is_full_is_not_killed_for_it() -> None:
    """One that has all the connections it may have answers a probe 503 as well; a worker that is stuck ends sooner."""
    probe = container()["livenessProbe"]
    patience = probe["failureThreshold"] * probe["periodSeconds"]
    assert patience >= 120 > 2 * Config.model_fields["watchdog"].get_default()


def test_the_secrets_are_those_that_the_pages_say_how_to_make() -> None:
    references = [
        each["valueFrom"]["secretKeyRef"] for each in (*container()["env"], *store()["env"]) if "valueFrom" in each
    ]
    assert {f"{reference['name']}/{reference['key']}" for reference in references} == SECRETS.keys()
    made = re.compile(r"kubectl create secret generic (\S+) --from-literal=([\w-]+)=")
    pages = [DEPLOY / "kubernetes" / "api-gateway.yaml", ROOT / "docs" / "operations" / "deployment.md"]
    for page in pages:
        assert ["/".join(found) for found in made.findall(page.read_text("utf-8"))] == [*SECRETS], page


def test_what_a_pod_may_use() -> None:
    assert container()["resources"] == {
        "requests": {"memory": "256Mi", "cpu": "250m"},
        "limits": {"memory": "512Mi", "cpu": "500m"},
    }
    assert [each["value"] for each in container()["env"] if each["name"] == "WORKERS"] == ["1"]


def test_pods_are_nobody_in_particular_and_can_write_to_their_own_folders_alone() -> None:
    uid, gid = user()
    assert pod()["securityContext"].items() >= {"runAsNonRoot": True, "runAsUser": uid, "runAsGroup": gid}.items()
    assert pod()["automountServiceAccountToken"] is False
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    writable = {
        mount["mountPath"]
        for mount in container()["volumeMounts"]
        for volume in pod()["volumes"]
        if volume["name"] == mount["name"] and "emptyDir" in volume
    }
    assert writable == {"/run/portico"}  # where all state is that it has without a store
    (variable,) = (each.text for each in instructions() if each.name == "ENV")
    runtime = re.search(r"PORTICO_RUNTIME_DIR=(\S+)", variable)
    assert runtime is not None
    # Below a mount, and not the mount itself: that may belong to root, and then is not the gateway's own.
    assert any(is_in(runtime[1], folder) for folder in writable)
