"""One row: every peer up at once, checked, warmed, then timed in interleaved rounds."""

from __future__ import annotations

import dataclasses
import http.client
import itertools
import socket
import ssl
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench import BenchError, check, load
from bench.certificate import Certificate
from bench.credentials import MAKERS, Credentials
from bench.machine import Cores, busy_seconds
from bench.peer import HERE, NGINX, NGINX_ARGUMENTS, Peer, render
from bench.process import Process, used
from bench.row import Row

START_SECONDS = 15.0
POLL_SECONDS = 0.05
WARM_SECONDS = 2


@dataclass(frozen=True)
class Sample:
    """One peer in one round."""

    requests: int
    seconds: float
    cpu_us: float
    """CPU time a request."""
    p50_us: int
    p99_us: int
    peer_busy: float
    """The share of the proxy's core that the peer used."""
    other_busy: float
    """The share that anything else took from it: other work on this machine, or the hypervisor."""
    load_busy: float
    """How busy the core of wrk and the service was, with all."""
    upstream_connections: int
    bytes_per_answer: float


@dataclass(frozen=True)
class Standing:
    """A peer that is up, and what its check found."""

    label: str
    port: int
    process: Process
    added_headers: list[str]
    seen_by_service: dict[str, str]
    bare: bool = False
    """Whether it goes without what the row is about."""
    encryption: check.Encryption | None = None
    """What it agreed on with a client; None in a row without TLS."""


@dataclass(frozen=True)
class Service:
    port: int
    process: Process


@dataclass(frozen=True)
class Result:
    row: Row
    peers: list[Standing]
    rounds: list[dict[str, Sample]]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_up(process: Process, port: int, row: Row, trust: ssl.SSLContext | None = None) -> None:
    """Wait for the first 200; raise when the process ends before, or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    last = "it does not listen"
    while time.monotonic() < deadline:
        try:
            (answer,) = check.ask(port, row.request, trust=trust)
        except (OSError, http.client.HTTPException) as error:
            last = repr(error)
        else:
            if answer.status == 200:
                return
            last = f"it answers {answer.status}"
        status = process.ended(POLL_SECONDS)
        if status is not None:
            raise BenchError(f"{process.name} ended with status {status} before it answered:\n{process.tail()}")
    raise BenchError(f"{process.name} was not up in {START_SECONDS:.0f} s ({last}):\n{process.tail()}")


@dataclass(frozen=True)
class Bench:
    """Where a row runs: the cores, a directory, and what to end when it is over."""

    cores: Cores
    directory: Path
    stack: ExitStack
    certificate: Certificate | None = None
    """What the peers of a row over TLS show."""
    credentials: Credentials | None = None
    """What the requests of a row about that show."""
    each: tuple[str, Path] | None = None
    """The header of which every request has another value, and the file with the values."""

    def service(self, row: Row) -> Service:
        template = HERE / "services" / f"{row.service}.conf"
        port = free_port()
        given = {"port": str(port), "body": row.answer}
        tokens = self._files(f"{row.name}-service", template.name, template.read_text(), given)
        arguments = [render(argument, tokens) for argument in NGINX_ARGUMENTS]
        process = self._start("the service", [NGINX.find(), *arguments], self.cores.load, Path(tokens["dir"]))
        wait_until_up(process, port, row)
        return Service(port, process)

    def peer(self, label: str, peer: Peer, row: Row, service: Service) -> Standing:
        port = free_port()
        ports = {"port": str(port), "service_port": str(service.port), "body": row.answer}
        tokens = self._files(
            f"{row.name}-{label}", peer.template(row).name, peer.configuration(row, self.credentials), ports
        )
        trust, encryption = None, None
        if self.certificate is not None:
            self.certificate.copy_to(Path(tokens["dir"]))
            trust = self.certificate.trust()
        process = self._start(label, peer.command(tokens), self.cores.proxy, Path(tokens["dir"]))
        wait_until_up(process, port, row, trust)
        added = check.same_answer(label, row, port, service.port, trust)
        seen = check.same_request(label, row, port, service.port, trust)
        if trust is not None:
            encryption = check.encryption(label, row, port, trust)
        return Standing(label, port, process, added, seen, peer.bare, encryption)

    def sample(self, standing: Standing, row: Row, service: Service, seconds: int) -> Sample:
        process, cores = standing.process, self.cores
        for sound in (process, service.process):
            sound.require_sound()
        counted = check.counters(service.port)
        times, began = process.times(), time.monotonic()
        proxy_core, load_core = busy_seconds(cores.proxy), busy_seconds(cores.load)
        done = self.load(standing, row, service, seconds)
        proxy_core, load_core = busy_seconds(cores.proxy) - proxy_core, busy_seconds(cores.load) - load_core
        cpu = used(times, process.times(), standing.label)
        wall = time.monotonic() - began
        process.require_sound()
        now = check.counters(service.port)
        return Sample(
            requests=done.requests,
            seconds=done.seconds,
            cpu_us=cpu / 1e3 / done.requests,
            p50_us=done.p50_us,
            p99_us=done.p99_us,
            peer_busy=cpu / 1e9 / wall,
            other_busy=max(proxy_core - cpu / 1e9, 0.0) / wall,
            load_busy=load_core / wall,
            upstream_connections=check.upstream_connections(
                standing.label, counted, now, done.requests, alone=row.alone and not standing.bare
            ),
            bytes_per_answer=done.bytes / done.requests,
        )

    def load(self, standing: Standing, row: Row, service: Service, seconds: int) -> load.Load:
        """Load one peer; when that fails, say what became of the processes, which is most often why."""
        try:
            return load.run(row, standing.port, seconds, self.cores.load, self.directory, self.each)
        except BenchError as error:
            said = [str(error)]
            for process in (standing.process, service.process):
                status = process.ended(POLL_SECONDS)
                state = "runs" if status is None else f"ended with status {status}"
                said.append(f"{process.name} {state}; its log:\n{process.tail()}")
            raise BenchError("\n".join(said)) from error

    def _files(self, name: str, file_name: str, text: str, tokens: dict[str, str]) -> dict[str, str]:
        directory = self.directory / name
        directory.mkdir()
        # A server started by root drops to a user of its own, which must reach its files.
        directory.chmod(0o755)
        file = directory / file_name
        every = {**tokens, "dir": str(directory), "file": str(file)}
        file.write_text(render(text, every))
        return every

    def _start(self, name: str, command: list[str], core: int, directory: Path) -> Process:
        process = Process(name, command, core, directory / "log")
        self.stack.callback(process.stop)
        return process


def measure(
    row: Row, peers: Sequence[tuple[str, Peer]], rounds: int, seconds: int, cores: Cores, where: Path
) -> Result:
    """Time every peer in every round; the order turns by one place a round, so that none is always first."""
    credentials = None if row.credentials is None else MAKERS[row.credentials](where)
    each = None
    if credentials is not None:
        row = dataclasses.replace(row, request=dataclasses.replace(row.request, headers=credentials.headers))
        values = credentials.write_values(where)
        each = None if credentials.each is None or values is None else (credentials.each[0], values)
    with ExitStack() as stack:
        bench = Bench(cores, where, stack, Certificate.make(where) if row.tls else None, credentials, each)
        service = bench.service(row)
        standing = [bench.peer(label, peer, row, service) for label, peer in peers]
        check.same_encryption(row, {one.label: one.encryption for one in standing if one.encryption is not None})
        for one in standing:
            bench.load(one, row, service, WARM_SECONDS)
        samples: list[dict[str, Sample]] = []
        for turn in range(rounds):
            at = turn % len(standing)
            order = itertools.chain(standing[at:], standing[:at])
            samples.append({one.label: bench.sample(one, row, service, seconds) for one in order})
            shown = ", ".join(f"{one.label} {samples[-1][one.label].cpu_us:.2f}" for one in standing)
            print(f"{row.name} round {turn + 1}/{rounds}: CPU µs a request: {shown}", file=sys.stderr)
        return Result(row, standing, samples)
