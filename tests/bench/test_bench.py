"""The arithmetic of the bench and its reading of wrk and of processes; the measuring itself is `make bench`."""

from __future__ import annotations

import dataclasses
import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bench import BenchError, check, load, report
from bench.certificate import OPENSSL, Certificate
from bench.credentials import MAKERS
from bench.measure import Result, Sample, Standing
from bench.peer import PEERS, labels, render
from bench.process import Process, Task, cpu_ns, used
from bench.row import BODY, ROWS, Request, Row
from portico.jose.verifier import REMEMBERED
from portico.plugin import Request as PluginRequest
from portico.plugin import Response
from portico.runtime.loading import load as load_file
from portico.testing import Gateway, Reply, ServiceRequest

TOTALS = {"requests": 900, "microseconds": 3_000_000, "bytes": 90_000, "p50_us": 400, "p99_us": 900}
NO_ERRORS = {"connect": 0, "read": 0, "write": 0, "status": 0, "timeout": 0}


def sample(cpu_us: float) -> Sample:
    return Sample(900, 3.0, cpu_us, 400, 900, 1.0, 0.0, 1.0, 32, 100.0)


def result(tmp_path: Path, *rounds: tuple[float, float]) -> Result:
    process = Process("idle", [sys.executable, "-c", "pass"], min(os.sched_getaffinity(0)), tmp_path / "log")
    process.stop()
    agreed = check.Encryption("TLSv1.3", "A")
    peers = [Standing("nginx", 1, process, [], {}), Standing("portico", 1, process, [], {}, encryption=agreed)]
    return Result(ROWS["get-json"], peers, [{"nginx": sample(a), "portico": sample(b)} for a, b in rounds])


def test_the_answer_is_118_bytes_of_json() -> None:
    assert len(BODY.encode()) == 118
    assert json.loads(BODY)


def test_every_peer_has_a_configuration_for_every_row() -> None:
    for row in ROWS.values():
        for peer in PEERS.values():
            assert peer.template(row).is_file()
    with pytest.raises(BenchError, match="no configuration for the row other"):
        PEERS["nginx"].template(Row("other", "", setup="other"))


def test_a_row_with_a_chain_differs_in_the_policies_of_portico_alone() -> None:
    for name, peer in PEERS.items():
        plain = peer.configuration(ROWS["get-json"])
        assert peer.configuration(ROWS["chain-0"]) == plain
        added = peer.configuration(ROWS["chain-4"]).removeprefix(plain)
        assert added.count("do-nothing:") == (4 if peer.tool is None and not peer.bare else 0), name


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.credentials is not None])
def test_a_row_about_who_is_calling_shows_what_portico_asks_for(name: str, tmp_path: Path) -> None:
    row = ROWS[name]
    assert row.credentials is not None
    shown = MAKERS[row.credentials](tmp_path)
    ports = {"port": "1", "service_port": "2"}
    for peer in (PEERS["nginx"], PEERS["portico-bare"]):
        assert peer.configuration(row, shown) == peer.configuration(ROWS["get-json"])
    asked = []

    def service(request: ServiceRequest) -> Reply:
        asked.append(request.path)
        return Reply(200 if name != "forward-auth" or "Authorization" in request.headers else 401)

    config = tmp_path / "portico.yaml"
    config.write_text(render(PEERS["portico"].configuration(row, shown), ports))
    with Gateway(config, services={"api": service}) as gateway:
        assert gateway.get("/api/item", headers=shown.headers).status == 200
        assert len(asked) == (2 if name == "forward-auth" else 1)
        if not shown.headers:  # nobody has to say who they are, and everyone is counted
            assert gateway.get("/api/item").headers["RateLimit"].endswith(";t=1")
            return
        assert gateway.get("/api/item").status == 401
        if shown.each is None:
            assert shown.write_values(tmp_path) is None
            return
        header, values = shown.each
        assert len(set(values)) == len(values) > REMEMBERED
        assert gateway.get("/api/item", headers={header: values[-1]}).status == 200
    file = shown.write_values(tmp_path)
    assert file is not None
    assert file.read_text().splitlines() == values
    assert f'io.lines("{file}")' in load.script(row.request, each=(header, file))


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.policies is not None])
def test_the_policies_of_a_row_do_nothing_around_every_request(name: str, tmp_path: Path) -> None:
    file = tmp_path / "portico.yaml"
    file.write_text(render(PEERS["portico"].configuration(ROWS[name]), {"port": "1", "service_port": "2"}))
    loaded = load_file(file)
    assert loaded.config is not None, loaded.findings
    assert len(loaded.config.policies) == ROWS[name].policies
    request, answer = PluginRequest("GET", "/"), Response(200)
    for use in loaded.config.policies:
        policy = loaded.registry.policies[use.kind](use.config)
        assert policy.request(request) is None
        assert policy.response(request, answer) is answer


def test_who_is_to_answer_alone_does_not_ask_the_service() -> None:
    counted = [check.Counters(connections, requests) for connections, requests in ((5, 100), (6, 101), (7, 151))]
    assert check.upstream_connections("a", counted[0], counted[1], 50, alone=True) == 0
    assert check.upstream_connections("a", counted[0], counted[2], 50, alone=False) == 1
    with pytest.raises(BenchError, match="a is to answer by itself, and has asked the service 50 times"):
        check.upstream_connections("a", counted[0], counted[2], 50, alone=True)
    with pytest.raises(BenchError, match="a answered 50 requests, the service only 0"):
        check.upstream_connections("a", counted[0], counted[1], 50, alone=False)


def test_a_row_that_is_answered_alone_is_told_to_whoever_is_not_bare() -> None:
    for name in ("respond", "cache-hit"):
        for peer in PEERS.values():
            same = peer.configuration(ROWS[name]) == peer.configuration(ROWS["get-json"])
            assert same is peer.bare, (name, peer.name)


def test_labels_number_repeats() -> None:
    assert labels(["nginx", "portico", "nginx", "nginx"]) == ["nginx", "portico", "nginx#2", "nginx#3"]


def test_render_leaves_dollars_and_braces() -> None:
    assert render("{ listen @port@; $host @other@ }", {"port": "80"}) == "{ listen 80; $host @other@ }"


def test_wrk_totals_are_read() -> None:
    line = "bench " + json.dumps({**TOTALS, "errors": NO_ERRORS})
    assert load.parse(f"Running 3s test\n{line}\n") == load.Load(900, 3.0, 90_000, 400, 900)


@pytest.mark.parametrize("kind", sorted(NO_ERRORS))
def test_any_error_of_wrk_fails_the_run(kind: str) -> None:
    with pytest.raises(BenchError, match=f"{kind} 3"):
        load.parse("bench " + json.dumps({**TOTALS, "errors": {**NO_ERRORS, kind: 3}}))


def test_no_answers_and_no_totals_fail_the_run() -> None:
    with pytest.raises(BenchError, match="no answer"):
        load.parse("bench " + json.dumps({**TOTALS, "requests": 0, "errors": NO_ERRORS}))
    with pytest.raises(BenchError, match="did not report"):
        load.parse("unable to connect")


def test_the_script_escapes_what_it_sends() -> None:
    assert "request = function" not in load.script(Request())
    assert "wrk.path .. " in load.script(Request(), distinct=True)
    text = load.script(Request("POST", headers={"X-A": '"'}, body=b"\x00\n"))
    assert 'wrk.headers["\\088\\045\\065"] = "\\034"' in text
    assert 'wrk.body = "\\000\\010"' in text


def test_ratios_are_of_medians_and_by_round(tmp_path: Path) -> None:
    base, portico = report.summarize(result(tmp_path, (10, 12), (20, 26), (30, 45)))
    assert (base.ratio_of_medians, base.round_ratio.median) == (1.0, 1.0)
    assert portico.ratio_of_medians == 1.3
    assert portico.round_ratio == report.Spread(1.2, 1.25, 1.3, 1.4, 1.5)
    assert report.Spread.of([7.0]) == report.Spread(7.0, 7.0, 7.0, 7.0, 7.0)
    assert report.over([base, portico], "portico", 1.3) == []
    assert report.over([base, portico], "portico", 1.29) == ["portico"]


def test_the_file_holds_what_each_peer_agreed_on(tmp_path: Path) -> None:
    found = result(tmp_path, (10, 12))
    peers = report.as_json(found, report.summarize(found))["peers"]
    assert peers["nginx"]["encryption"] is None
    assert peers["portico"]["encryption"] == {"protocol": "TLSv1.3", "cipher": "A"}


def test_times_count_newcomers_and_refuse_losses() -> None:
    one, two = Task(1, 5), Task(2, 6)
    assert used({one: 100}, {one: 150, two: 30}, "x") == 80
    with pytest.raises(BenchError, match="process 1 of x ended"):
        used({one: 100}, {two: 30}, "x")
    with pytest.raises(BenchError, match="process 1 of x ended"):
        used({one: 100}, {Task(1, 9): 30}, "x")


def test_a_process_is_counted_and_ended_with_its_children(tmp_path: Path) -> None:
    core = min(os.sched_getaffinity(0))
    spin = "import os, time\nos.fork()\nprint('up', flush=True)\nwhile True: time.sleep(0.001)"
    process = Process("spin", [sys.executable, "-c", spin], core, tmp_path / "log")
    try:
        while process.log.read_text().count("up") < 2:
            assert process.ended(0.01) is None, process.tail()
        assert len(process.tasks()) == 2
        process.require_sound()
        before = process.times()
        assert process.ended(0.05) is None
        assert used(before, process.times(), "spin") > 0
    finally:
        process.stop()
    assert process.tasks() == []
    with pytest.raises(BenchError, match="spin ended with status"):
        process.require_sound()


def test_cpu_clock_agrees_with_the_process_itself() -> None:
    code = "import time\nwhile time.process_time() < .05: pass\nprint(flush=True)\ninput()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert 0.05e9 <= cpu_ns(child.pid) < 1e9


def test_the_load_speaks_tls_where_the_row_does() -> None:
    assert load.url(ROWS["get-json"], 80) == "http://127.0.0.1:80/api/item"
    assert load.url(ROWS["get-json-tls"], 443) == "https://127.0.0.1:443/api/item"


def test_the_tls_row_differs_from_the_plain_one_in_its_listeners_alone() -> None:
    plain, tls = ROWS["get-json"], ROWS["get-json-tls"]
    assert dataclasses.replace(tls, name=plain.name, title=plain.title, setup="", tls=False) == plain
    for peer in PEERS.values():
        before, after = (
            [line.strip() for line in peer.template(row).read_text().splitlines() if not line.startswith("#")]
            for row in (plain, tls)
        )
        assert [line.partition(" ")[0] for line in before if line not in after] in (["listen"], ["listen:"])
        added = [line for line in after if line not in before]
        assert all(line.startswith(("listen", "ssl_", "- {address")) for line in added), added


class Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    closes = False

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        if self.closes:
            self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


class Closing(Answering):
    closes = True


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    if OPENSSL.path() is None:
        pytest.skip("openssl is not installed")
    return Certificate.make(tmp_path_factory.mktemp("certificate"))


@contextmanager
def serving(
    certificate: Certificate | None,
    handler: type[Answering] = Answering,
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
) -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.maximum_version = version
            context.load_cert_chain(certificate.directory / "server.pem", certificate.directory / "server.key")
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_what_a_peer_agrees_on_is_found(certificate: Certificate, tmp_path: Path) -> None:
    certificate.copy_to(tmp_path)
    with serving(Certificate(tmp_path)) as port:
        found = check.encryption("it", ROWS["get-json-tls"], port, certificate.trust())
    assert found.protocol == "TLSv1.3"
    assert found.cipher.startswith("TLS_")


def test_a_peer_with_an_older_tls_fails_the_run(certificate: Certificate) -> None:
    with (
        serving(certificate, version=ssl.TLSVersion.TLSv1_2) as port,
        pytest.raises(BenchError, match=r"it speaks TLSv1\.2, not TLSv1\.3"),
    ):
        check.encryption("it", ROWS["get-json-tls"], port, certificate.trust())


def test_a_peer_without_tls_fails_the_run(certificate: Certificate) -> None:
    with serving(None) as port, pytest.raises(BenchError, match="does not answer over TLS"):
        check.encryption("it", ROWS["get-json-tls"], port, certificate.trust())


def test_a_peer_with_another_certificate_fails_the_run(certificate: Certificate, tmp_path: Path) -> None:
    with serving(Certificate.make(tmp_path)) as port, pytest.raises(BenchError, match="CERTIFICATE_VERIFY_FAILED"):
        check.encryption("it", ROWS["get-json-tls"], port, certificate.trust())


def test_a_peer_that_closes_its_tls_connections_fails_the_run(certificate: Certificate) -> None:
    with serving(certificate, Closing) as port, pytest.raises(BenchError, match="does not keep"):
        check.encryption("it", ROWS["get-json-tls"], port, certificate.trust())


def test_peers_that_do_not_encrypt_alike_fail_the_run() -> None:
    one, other = check.Encryption("TLSv1.3", "A"), check.Encryption("TLSv1.3", "B")
    check.same_encryption(ROWS["get-json-tls"], {"nginx": one, "portico": one})
    check.same_encryption(ROWS["get-json"], {})
    with pytest.raises(BenchError, match=r"nginx TLSv1\.3 with A, portico TLSv1\.3 with B"):
        check.same_encryption(ROWS["get-json-tls"], {"nginx": one, "portico": other})
