"""One look at a real target."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from portico.agent.looks import BODY_LIMIT, Finding, Looks
from portico.config.balance import HealthCheck, NamedTarget, Target
from portico.config.tls import ServiceTls
from portico.errors import ConfigError
from portico.runtime.certificates import CertificateWatch
from tests.harness.certificates import Authority
from tests.harness.gateway import Call, Service, refusing_port
from tests.harness.loop import run
from tests.harness.peer import Peer


async def looked(target: Target, tls: ServiceTls | None = None, **check: object) -> Finding:
    async with asyncio.TaskGroup() as tasks:
        said = HealthCheck.model_validate(
            {"timeout": 5, **({"path": "/health"} if "tcp" not in check else {}), **check}
        )
        return await Looks(said, tls, CertificateWatch(), tasks).at(target)


def look(target: Target, tls: ServiceTls | None = None, **check: object) -> Finding:
    return run(lambda: looked(target, tls, **check))


def at(port: int, scheme: str = "http") -> Target:
    return Target.model_validate({"address": f"{scheme}://127.0.0.1:{port}"})


@pytest.mark.parametrize(
    ("status", "statuses", "well"),
    [(200, [], True), (204, [], True), (299, [], True), (302, [], False), (404, [404], True), (200, [404], False)],
)
def test_a_status_decides(status: int, statuses: list[int], well: bool) -> None:
    with Service(lambda call: (call.note(), call.answer(status, Location="/other"))[1]) as service:
        assert look(at(service.port), statuses=statuses) == Finding(well, f"status {status}")
        assert [seen.target for seen in service.seen] == ["/health"]


def test_what_is_asked_for() -> None:
    with Service() as service:
        headers = {"X-Key": "k", "Authorization": "Bearer x"}
        assert look(at(service.port), path="/h?deep=1", host="orders.test", headers=headers).well
        assert (service.last.method, service.last.target) == ("GET", "/h?deep=1")
        assert service.last.values("Host") == ["orders.test"]
        assert service.last.values("Authorization") == ["Bearer x"]
        assert service.last.values("User-Agent") == ["portico-health"]
        look(at(service.port), headers={"user-agent": "mine"})
        assert service.last.values("User-Agent") == ["mine"]
        assert service.last.values("Host") == [f"127.0.0.1:{service.port}"]
        assert service.connections == 2


def test_a_target_that_refuses() -> None:
    with refusing_port() as port:
        assert look(at(port)) == Finding(False, "connection refused")
        assert look(at(port), tcp=True) == Finding(False, "connection refused")


def test_a_name_that_leads_nowhere() -> None:
    finding = look(Target.model_validate({"address": "nowhere.invalid:1"}))
    assert not finding.well
    assert "ame" in finding.why  # the words are the system's


def test_a_connection_may_be_enough() -> None:
    with socket.create_server(("127.0.0.1", 0)) as service:
        assert look(at(service.getsockname()[1]), tcp=True) == Finding(True, "it accepts connections")
        assert look(at(service.getsockname()[1]), timeout=0.2) == Finding(False, "no answer within 0.2 s")


def test_a_body_is_read_to_its_end_or_to_the_bound() -> None:
    sent: list[int] = []

    def answer(call: Call) -> None:
        call.send_response(200)
        call.send_header("Content-Length", str(10**9))
        call.end_headers()
        count = 0
        try:
            while count < 10**9:
                count += call.connection.send(b"x" * 65536)
        except OSError:
            sent.append(count)
        call.close_connection = True

    with Service(answer) as service:
        assert look(at(service.port)) == Finding(True, "status 200")
    assert sent
    assert BODY_LIMIT < sent[0] < 20_000_000  # what the buffers of both sides take


def test_what_is_no_answer() -> None:
    with Service(lambda call: (call.wfile.write(b"SSH-2.0\r\n\r\n"), setattr(call, "close_connection", True))[1]) as it:
        finding = look(at(it.port))
        assert not finding.well
        assert finding.why


@asynccontextmanager
async def secure(context: ssl.SSLContext) -> AsyncIterator[int]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        with suppress(asyncio.IncompleteReadError):  # of who only connects
            await peer.head()
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        peer.leave()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


def test_tls_is_spoken_as_the_service_says(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("leaf", "orders.test")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    trusting = ServiceTls(ca=authority.path)

    async def main() -> None:
        async with secure(context) as port:
            named = NamedTarget(address=at(port, "https").address, name="orders.test")
            assert await looked(named, trusting) == Finding(True, "status 200")
            assert await looked(named, trusting, tcp=True) == Finding(True, "it accepts connections")
            by_name = ServiceTls(ca=authority.path, server_name="orders.test")
            assert (await looked(at(port, "https"), by_name)).well
            for target, tls in ((at(port, "https"), trusting), (named, None)):
                for check in ({"tcp": True}, {"path": "/"}):
                    finding = await looked(target, tls, **check)
                    assert not finding.well
                    assert finding.why.startswith("certificate verify failed: ")

    run(main)
    with pytest.raises(ExceptionGroup) as failed:
        look(at(1, "https"), ServiceTls.model_construct(ca=str(tmp_path / "gone"), verify=True))
    assert isinstance(failed.value.exceptions[0], ConfigError)
