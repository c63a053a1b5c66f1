"""TLS with clients that others wrote: curl, openssl, and asyncio."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from portico.net.stream import NEVER
from portico.net.tls import ServerTls
from portico.net.tls_stream import TlsStream
from tests.harness.certificates import Authority
from tests.harness.loop import run, run_jumping, until
from tests.harness.tls_peer import Accepting, accepting

V12 = ssl.TLSVersion.TLSv1_2
SIZE = 16 * 1024 * 1024
CONTENT = bytes(range(256)) * (SIZE // 256)

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl")


async def answer(stream: TlsStream) -> None:
    """Speak as much HTTP as the clients here need: `GET` of what is known, `PUT` of what is digested."""
    received = b""
    try:
        while True:
            while b"\r\n\r\n" not in received:
                data = await stream.receive()
                if not data:
                    return
                received += data
            head, _, received = received.partition(b"\r\n\r\n")
            method, path = head.split(b" ")[:2]
            if method == b"PUT":
                content = hashlib.sha256()
                left = SIZE
                while left:
                    piece = (received or await stream.receive())[:left]
                    content.update(piece)
                    left, received = left - len(piece), b""
                body = content.hexdigest().encode()
            else:
                card = stream.peer_certificate()
                who = "nobody" if card is None else card.fields["subjectAltName"][0][1]
                about = f"{stream.version} {stream.server_name} {stream.alpn} {who} {stream.resumed}"
                body = CONTENT if path == b"/big" else about.encode()
            stream.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
            for at in range(0, len(body), 50_000):
                stream.write(body[at : at + 50_000])
                if stream.congested:
                    await stream.drain(NEVER)
            if b"Connection: close" in head:
                return
    finally:
        stream.close()


@asynccontextmanager
async def answering(server: ServerTls) -> AsyncIterator[Accepting]:
    async with asyncio.TaskGroup() as tasks, accepting(lambda: server.context) as listener:
        listener.serve = lambda stream: tasks.create_task(answer(stream))
        yield listener
        for stream in listener.made:
            stream.abort()
        await until(lambda: all(stream.closed for stream in listener.made))


async def told(*command: str, asked: bytes = b"") -> tuple[int, bytes]:
    """Run a program; return how it ended and what it said."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
    try:
        said, _ = await asyncio.wait_for(process.communicate(asked), 15)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, said


def curl(authority: Authority, listener: Accepting, *more: str, path: str = "/") -> tuple[str, ...]:
    at = f"a.test:{listener.port}:127.0.0.1"
    url = f"https://a.test:{listener.port}{path}"
    return ("curl", "-q", "-sS", "--noproxy", "*", "--resolve", at, "--cacert", authority.path, *more, url)


@needs_curl
@pytest.mark.parametrize(
    ("options", "version"),
    [((), "TLSv1.3"), (("--tlsv1.3",), "TLSv1.3"), (("--tls-max", "1.2"), "TLSv1.2")],
)
def test_curl(tmp_path: Path, options: tuple[str, ...], version: str) -> None:
    authority = Authority(tmp_path)
    server = ServerTls([authority.issue("a", "a.test")], V12, None, ssl.CERT_NONE)
    upload = tmp_path / "upload"
    upload.write_bytes(CONTENT)

    async def main() -> None:
        async with answering(server) as listener:
            status, said = await told(*curl(authority, listener, *options, "--http1.1"))
            assert (status, said.decode()) == (0, f"{version} a.test http/1.1 nobody False")
            status, said = await told(*curl(authority, listener, *options, path="/big"))
            assert (status, hashlib.sha256(said).digest()) == (0, hashlib.sha256(CONTENT).digest())
            status, said = await told(*curl(authority, listener, *options, "-H", "Expect:", "-T", str(upload)))
            assert (status, said.decode()) == (0, hashlib.sha256(CONTENT).hexdigest())

    run(main)


@needs_curl
@pytest.mark.parametrize("options", [(), ("--tls-max", "1.2")])
def test_curl_with_a_certificate(tmp_path: Path, options: tuple[str, ...]) -> None:
    authority, others = Authority(tmp_path), Authority(tmp_path, "others")
    known, stranger = authority.issue("known", "known.test"), others.issue("stranger", "stranger.test")
    pair = authority.issue("a", "a.test")

    async def main() -> None:
        for clients, without in ((ssl.CERT_OPTIONAL, b"nobody"), (ssl.CERT_REQUIRED, b"alert")):
            async with answering(ServerTls([pair], V12, authority.path, clients)) as listener:
                card = ("--cert", known.certificate, "--key", known.key)
                status, said = await told(*curl(authority, listener, *options, *card))
                assert (status, said.split()[3]) == (0, b"known.test")
                card = ("--cert", stranger.certificate, "--key", stranger.key)
                status, said = await told(*curl(authority, listener, *options, *card))
                assert status in (35, 55, 56), said
                status, said = await told(*curl(authority, listener, *options))
                assert without in said

    run(main)


@needs_openssl
def test_openssl_resumes_sessions(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pairs = [authority.issue("a", "a.test"), authority.issue("b", "b.test")]
    server = ServerTls(pairs, V12, None, ssl.CERT_NONE)
    session = str(tmp_path / "session")

    async def main() -> None:
        async with answering(server) as listener:
            client = ("openssl", "s_client", "-connect", f"127.0.0.1:{listener.port}", "-CAfile", authority.path)
            for name in ("a.test", "b.test"):
                status, said = await told(*client, "-servername", name, "-tls1_2", "-reconnect")
                assert status == 0
                assert (said.count(b"New, TLSv1.2"), said.count(b"Reused, TLSv1.2")) == (1, 5)
                for version in ("-tls1_2", "-tls1_3"):
                    begin = (*client, "-servername", name, version, "-ign_eof")
                    _, said = await told(*begin, "-sess_out", session, asked=REQUEST)
                    assert f"{name} None nobody False".encode() in said
                    _, said = await told(*begin, "-sess_in", session, asked=REQUEST)
                    assert f"{name} None nobody True".encode() in said

    run(main)


@needs_openssl
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_with_small_records(tmp_path: Path, version: str) -> None:
    authority = Authority(tmp_path)
    server = ServerTls([authority.issue("a", "a.test")], V12, None, ssl.CERT_NONE)

    async def main() -> None:
        async with answering(server) as listener:
            client = ("openssl", "s_client", "-connect", f"127.0.0.1:{listener.port}", "-maxfraglen", "512", "-quiet")
            _, said = await told(*client, version, asked=REQUEST.replace(b" / ", b" /big "))
            assert hashlib.sha256(said[-SIZE:]).digest() == hashlib.sha256(CONTENT).digest()

    run(main)


@asynccontextmanager
async def talking(*command: str) -> AsyncIterator[tuple[asyncio.StreamWriter, asyncio.StreamReader]]:
    """Run a program for as long as the block lasts; give what it is told by, and what it says."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.stdin, process.stdout
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@needs_openssl
def test_openssl_updates_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path)
    server = ServerTls([authority.issue("a", "a.test")], V12, None, ssl.CERT_NONE)
    came = []

    def data_received(stream: TlsStream, data: bytes) -> None:
        real(stream, data)
        came.append(data)

    real = TlsStream.data_received
    monkeypatch.setattr(TlsStream, "data_received", data_received)

    async def main() -> None:
        async with answering(server) as listener:
            client = ("openssl", "s_client", "-connect", f"127.0.0.1:{listener.port}", "-servername", "a.test")
            async with talking(*client, "-tls1_3") as (stdin, stdout):
                await listener.accepted()
                for _ in range(3):
                    came.clear()
                    stdin.write(b"K\n")
                    await until(lambda: came, "an update of keys")
                stdin.write(REQUEST)
                said = await asyncio.wait_for(stdout.read(), 15)
                assert said.count(b"KEYUPDATE") == 3
                assert b"TLSv1.3 a.test None nobody False" in said

    run(main)


@needs_openssl
def test_openssl_does_not_renegotiate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = ServerTls([authority.issue("a", "a.test")], V12, None, ssl.CERT_NONE)

    async def main() -> None:
        async with answering(server) as listener:
            client = ("openssl", "s_client", "-connect", f"127.0.0.1:{listener.port}", "-servername", "a.test")
            async with talking(*client, "-tls1_2") as (stdin, stdout):
                await listener.accepted()
                stdin.write(b"R\n")
                said = await asyncio.wait_for(stdout.read(), 15)
                assert b"RENEGOTIATING" in said
                assert b"no renegotiation" in said

    run(main)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("version", [V12, ssl.TLSVersion.TLSv1_3])
def test_asyncio(tmp_path: Path, loop: str, version: ssl.TLSVersion) -> None:
    authority = Authority(tmp_path)
    server = ServerTls([authority.issue("a", "a.test")], V12, None, ssl.CERT_NONE)

    async def main() -> None:
        async with answering(server) as listener:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", listener.port, ssl=authority.client(only=version), server_hostname="a.test"
            )
            for _ in range(3):
                writer.write(b"GET / HTTP/1.1\r\n\r\n")
                head = await reader.readuntil(b"\r\n\r\n")
                said = await reader.readexactly(int(head.split()[-1]))
                assert said.split()[1] == b"a.test"
            writer.write(b"PUT / HTTP/1.1\r\n\r\n" + CONTENT)
            head = await reader.readuntil(b"\r\n\r\n")
            said = await reader.readexactly(int(head.split()[-1]))
            assert said.decode() == hashlib.sha256(CONTENT).hexdigest()
            writer.write(b"GET /big HTTP/1.1\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(SIZE) == CONTENT
            writer.close()
            await writer.wait_closed()

    (run if loop == "uvloop" else run_jumping)(main)
