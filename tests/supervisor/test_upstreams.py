"""What the agent of a real gateway finds out about targets."""

from __future__ import annotations

import os
import re
import signal
import ssl
import time
from pathlib import Path
from typing import Any

from portico.cli.ask import ask, find
from tests.harness.certificates import Authority
from tests.harness.dns import DnsServer
from tests.harness.gateway import Call, Gateway, Service, curl, portico_here, reserved_port, wait_for


def status(gateway: Gateway) -> Any:
    return ask(find(gateway.file, None), "GET", "/status")


def targets(gateway: Gateway, service: str) -> dict[str, Any]:
    return {each["address"]: each for each in status(gateway)["services"].get(service, ())}


def says(gateway: Gateway, text: str, times: int = 1) -> None:
    wait_for(lambda: gateway.log().count(text) >= times, repr(text))


def test_targets_are_looked_at_once_for_the_machine(tmp_path: Path) -> None:
    well = [200]
    interval = 0.2

    def answer(call: Call) -> None:
        call.note()
        call.answer(well[0])

    with Service(answer) as service:
        up = f"127.0.0.1:{service.port}"
        holder, port = reserved_port()
        down = f"127.0.0.1:{port}"
        config = (
            f"services:\n  orders:\n    targets: [{up}, {{address: '{down}', weight: 3, metadata: {{zone: b}}}}]\n"
            f"    health: {{path: /up, interval: {interval}s, rise: 2, fall: 2}}\n"
            "routes: [{path: /, service: orders}]\n"
        )
        with holder, Gateway(tmp_path, config, workers=2) as gateway:
            gateway.agent_answers()
            wait_for(lambda: service.seen, "a look")
            began, before = time.monotonic(), len(service.seen)
            wait_for(lambda: len(service.seen) >= before + 10, "more looks")
            assert len(service.seen) - before <= (time.monotonic() - began) / (interval * 0.9) + 2
            says(gateway, f"service orders: target {down} is not well: connection refused")
            well[0] = 503
            says(gateway, f"service orders: target {up} is not well any more: status 503 (2 looks in a row)")
            found = targets(gateway, "orders")
            assert found[up]["health"] == "not well: status 503"
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT.*Z", found[up]["since"])
            assert (found[down]["weight"], found[down]["metadata"]) == (3, {"zone": "b"})
            well[0] = 200
            says(gateway, f"service orders: target {up} is well again (2 looks in a row)")
            shown = portico_here("status", str(gateway.file)).out
            assert re.search(rf"orders +{re.escape(up)} +well +\d{{4}}-", shown)
            assert re.search(rf"orders +{re.escape(down)} +not well: connection refused .*weight 3, zone=b\n", shown)

            os.kill(gateway.agent_pid(), signal.SIGKILL)  # the next one begins anew
            says(gateway, f"service orders: target {down} is not well: connection refused", times=2)
            count = len(service.seen)
            wait_for(lambda: len(service.seen) > count + 2, "looks of the new agent")

            gateway.file.write_text(
                gateway.file.read_text().replace(config[config.index("    health") :], "")
                + ("routes: [{path: /, service: orders}]\n")
            )
            assert portico_here("reload", str(gateway.file)).code == 0
            assert "health" not in targets(gateway, "orders")[up]


def test_a_file_of_targets_is_followed(tmp_path: Path) -> None:
    file = tmp_path / "orders.yaml"
    file.write_text("[127.0.0.1:1]\n")
    config = (
        "services:\n  orders: {discover: {file: orders.yaml, interval: 0.1s}}\nroutes: [{path: /, service: orders}]\n"
    )
    with Gateway(tmp_path, config) as gateway:
        gateway.agent_answers()
        what = f"service orders: targets from file {file}"
        says(gateway, f"{what}: + 127.0.0.1:1\n")
        file.write_text("- 127.0.0.1:2\n- {address: 127.0.0.1:3, priority: 1}\n")
        says(gateway, f"{what}: + 127.0.0.1:2, + 127.0.0.1:3, - 127.0.0.1:1\n")
        file.write_text("- 127.0.0.1:2\n- {adress: 127.0.0.1:3}\n")
        says(gateway, f"{what} cannot be found out: {file}:2:3: targets needs 'address'")
        says(gateway, f"{file}:2:4: unknown key 'adress' in targets (hint: did you mean 'address'?); the last 2 stay\n")
        assert set(targets(gateway, "orders")) == {"127.0.0.1:2", "127.0.0.1:3"}
        known = status(gateway)["discovery"]["orders"]
        assert (known["source"], known["targets"]) == (f"file {file}", 2)
        assert ":2:4: unknown key 'adress'" in known["trouble"]
        assert "unknown key 'adress'" in portico_here("status", str(gateway.file)).out
        file.write_text("- 127.0.0.1:2\n")
        says(gateway, f"{what} are found out again\n")
        says(gateway, f"{what}: - 127.0.0.1:3\n")
        assert status(gateway)["discovery"]["orders"]["trouble"] == ""
        assert gateway.log().count("cannot be found out") <= 2  # once for each reason


def test_names_are_followed(tmp_path: Path) -> None:
    with DnsServer() as server:
        server.set("orders.test", "A", "127.0.0.1", ttl=0)
        discover = f"{{dns: 'orders.test:81', resolver: '{server.address}', interval: 0.1s}}"
        config = f"services:\n  orders: {{discover: {discover}}}\nroutes: [{{path: /, service: orders}}]\n"
        with Gateway(tmp_path, config, workers=2) as gateway:
            gateway.agent_answers()
            what = "service orders: targets from dns orders.test:81"
            says(gateway, f"{what}: + 127.0.0.1:81\n")
            server.set("orders.test", "A", "127.0.0.1", "127.0.0.2", ttl=0)
            says(gateway, f"{what}: + 127.0.0.2:81\n")
            server.records.clear()
            says(gateway, f"{what} cannot be found out: orders.test does not exist (NXDOMAIN); the last 2 stay\n")
            assert set(targets(gateway, "orders")) == {"127.0.0.1:81", "127.0.0.2:81"}
            server.set("orders.test", "A", "127.0.0.2", ttl=0)
            says(gateway, f"{what}: - 127.0.0.1:81\n")


def test_requests_go_where_targets_are_found(tmp_path: Path) -> None:
    with Service(name="one") as one, Service(name="two") as two:
        file = tmp_path / "orders.yaml"
        file.write_text(f"[127.0.0.1:{one.port}]\n")
        config = (
            "services:\n  orders: {discover: {file: orders.yaml, interval: 0.1s}}\n"
            "routes: [{path: /, service: orders}]\n"
        )

        def answers_from(gateway: Gateway, name: str) -> bool:
            return {curl(gateway.url).value("X-Service") for _ in range(8)} == {name}

        with Gateway(tmp_path, config, workers=2) as gateway:
            gateway.agent_answers()
            assert curl(gateway.url).value("X-Service") == "one"
            file.write_text(f"[127.0.0.1:{two.port}]\n")
            wait_for(lambda: answers_from(gateway, "two"), "the other target")
            file.write_text("nothing\n")
            says(gateway, "cannot be found out")
            os.kill(gateway.agent_pid(), signal.SIGKILL)
            says(gateway, "none were found before")  # by the next one: the workers go on with what they have
            assert answers_from(gateway, "two")
            file.write_text(f"[127.0.0.1:{one.port}]\n")
            wait_for(lambda: answers_from(gateway, "one"), "the target of the mended file")


def test_a_target_that_its_workers_have_ejected_is_shown(tmp_path: Path) -> None:
    def fail(call: Call) -> None:
        call.answer(500)

    with Service(fail) as bad, Service() as good:
        config = (
            f"services:\n  orders: {{targets: ['127.0.0.1:{bad.port}', '127.0.0.1:{good.port}'],\n"
            "    outliers: {failures: 1, ejection: 60s}}\nroutes: [{path: /, service: orders}]\n"
        )
        with Gateway(tmp_path, config) as gateway:
            gateway.agent_answers()
            for _ in range(3):
                curl(gateway.url)
            found = targets(gateway, "orders")
            assert [found[f"127.0.0.1:{each.port}"]["ejected_by"] for each in (bad, good)] == [1, 0]
            shown = portico_here("status", str(gateway.file)).out
            assert re.search(rf"orders +127\.0\.0\.1:{bad.port} +reachable, ejected by 1 worker: \S", shown)


def test_certificates_of_targets_go_by_the_name_that_they_were_found_by(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("leaf", "orders.test"))
    with DnsServer() as server, Service() as service:
        service._server.socket = context.wrap_socket(service._server.socket, server_side=True)
        server.set("orders.test", "A", "127.0.0.1")
        server.set("_http._tcp.orders.test", "SRV", f"1 1 {service.port} orders.test.")
        resolver = f"resolver: '{server.address}'"
        config = (
            "services:\n"
            f"  a: {{discover: {{dns: 'https://orders.test:{service.port}', {resolver}}}, health: /up,\n"
            f"    tls: {{ca: {authority.path}}}}}\n"
            f"  b: {{discover: {{srv: _http._tcp.orders.test, scheme: https, {resolver}}},\n"
            f"    tls: {{ca: {authority.path}}}}}\n"
            "routes: [{path: /a, service: a}, {path: /b, service: b}]\n"
        )
        with Gateway(tmp_path, config) as gateway:
            gateway.agent_answers()
            for path in ("/a", "/b"):
                answer = curl(f"{gateway.url}{path}")
                assert answer.status == 200, (answer, gateway.log())
                assert ["Host", f"orders.test:{service.port}"] in answer.json["headers"]
            wait_for(lambda: targets(gateway, "a")[f"127.0.0.1:{service.port}"]["health"] == "well", "a look")
