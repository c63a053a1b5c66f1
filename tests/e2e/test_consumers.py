"""Consumers in a database as clients of two workers see them: who is removed is out within a second."""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import argon2
import pytest

from portico.cli.ask import ask as agent_says
from portico.cli.ask import find
from portico.config.consumers import Consumer
from portico.consumers.credentials import key_file
from portico.consumers.writer import Writer
from tests.harness.consumers import ADA, BOB, consumer, database
from tests.harness.gateway import Gateway, portico, portico_here, wait_for

SECOND: Final = 1.0
"""What is promised."""
CONFIG = """
consumer_database: consumers.db
routes:
  - {path: /keys/**, respond: here, policies: [key-auth]}
  - {path: /passwords/**, respond: here, policies: [{basic-auth: {failures: off}}]}
"""


def request(gateway: Gateway, path: str = "/keys/a", **headers: str) -> http.client.HTTPResponse:
    """Send a request over a connection of its own, which any worker may get."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
    try:
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        answer.read()
        return answer
    finally:
        connection.close()


def by_key(gateway: Gateway, key: str) -> int:
    return request(gateway, X_API_Key=key).status


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def each_worker_lets_in(gateway: Gateway, ask: Callable[[], int]) -> None:
    """Have every worker look somebody up, and remember them."""

    def asked() -> list[int]:
        state = agent_says(find(gateway.file, None), "GET", "/status")
        return [each["requests"] for each in state["processes"] if each["name"] != "agent"]

    gateway.agent_answers()
    before = asked()
    for _ in range(40):
        assert ask() == 200
    wait_for(lambda: all(now > then + 3 for now, then in zip(asked(), before, strict=True)), "both workers")


def is_out_within_a_second(ask: Callable[[], int], since: float) -> None:
    """Ask over and over; nothing that was sent a second after `since` may be let in."""
    let_in = 0.0
    answers: Counter[int] = Counter()
    while (sent := time.monotonic()) < since + SECOND + 0.4:
        status = ask()
        answers[status] += 1
        if status == 200:
            let_in = sent
    assert let_in < since + SECOND
    assert set(answers) <= {200, 401}
    assert answers[401] > 20


@contextmanager
def gateway_with(folder: Path, *consumers: Consumer, config: str = CONFIG, workers: int = 2) -> Iterator[Gateway]:
    database(folder, *consumers)
    with Gateway(folder, config, workers=workers) as gateway:
        yield gateway


def write(gateway: Gateway, do: Callable[[Writer], object]) -> float:
    """Change the database, and return when that was done."""
    with Writer(str(gateway.folder / "consumers.db")) as writer:
        do(writer)
        return time.monotonic()


def test_who_is_removed_is_out_of_every_worker_within_a_second(tmp_path: Path) -> None:
    hashed = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash("swordfish")
    bob = consumer("bob", password=hashed)
    with gateway_with(tmp_path, consumer("ada", ADA), bob) as gateway:
        where = ("--file", str(gateway.file))
        each_worker_lets_in(gateway, lambda: by_key(gateway, ADA))
        (key,) = json.loads(portico_here("consumer", "show", "ada", "--json", *where).out)["keys"]
        assert portico("consumer", "key", "remove", "ada", key["id"], cwd=tmp_path).code == 0
        is_out_within_a_second(lambda: by_key(gateway, ADA), time.monotonic())
        made = portico_here("consumer", "key", "add", "ada", *where).out.strip()
        wait_for(lambda: by_key(gateway, made) == 200, "the new key to be known")
        each_worker_lets_in(gateway, lambda: by_key(gateway, made))
        is_out_within_a_second(lambda: by_key(gateway, made), write(gateway, lambda writer: writer.remove("ada")))

        def by_password() -> int:
            return request(gateway, "/passwords/a", Authorization=basic("bob", "swordfish")).status

        each_worker_lets_in(gateway, by_password)
        other = bob._replace(password=argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash("other"))
        is_out_within_a_second(by_password, write(gateway, lambda writer: writer.change(other)))
        assert request(gateway, "/passwords/a", Authorization=basic("bob", "other")).status == 200
        secrets = (ADA, made, "swordfish", hashed, Path(key_file(str(tmp_path / "consumers.db"))).read_text())
        assert not any(secret.strip() in gateway.log() for secret in secrets)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_without_an_agent_too(tmp_path: Path, how: signal.Signals) -> None:
    with gateway_with(tmp_path, consumer("ada", ADA), consumer("bob", BOB)) as gateway:
        each_worker_lets_in(gateway, lambda: by_key(gateway, ADA))
        agent = gateway.agent_pid()
        os.kill(agent, how)
        is_out_within_a_second(lambda: by_key(gateway, ADA), write(gateway, lambda writer: writer.remove("ada")))
        for _ in range(20):
            assert by_key(gateway, BOB) == 200
        if how is signal.SIGSTOP:
            os.kill(agent, signal.SIGCONT)
        gateway.agent_answers()
        each_worker_lets_in(gateway, lambda: by_key(gateway, BOB))
        is_out_within_a_second(lambda: by_key(gateway, BOB), write(gateway, lambda writer: writer.remove("bob")))


def test_made_up_keys_keep_out_nobody_who_is_known(tmp_path: Path) -> None:
    with gateway_with(tmp_path, consumer("ada", ADA)) as gateway:
        each_worker_lets_in(gateway, lambda: by_key(gateway, ADA))
        over = threading.Event()
        answers: Counter[int] = Counter()

        def make_up(number: int) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
            for count in range(1_000_000):
                if over.is_set():
                    break
                connection.request("GET", "/keys/a", headers={"X-API-Key": f"made-up-key-{number}-{count}"})
                answer = connection.getresponse()
                answer.read()
                answers[answer.status] += 1
            connection.close()

        strangers = [threading.Thread(target=make_up, args=(number,)) for number in range(8)]
        for each in strangers:
            each.start()
        try:
            for number in range(10):
                write(gateway, lambda writer, name=f"u{number}": writer.add(Consumer(name)))  # type: ignore[misc]
                for _ in range(20):
                    assert by_key(gateway, ADA) == 200
        finally:
            over.set()
            for each in strangers:
                each.join(30)
        assert sum(answers.values()) > 500
        assert set(answers) <= {401, 503}
        assert answers[401]


def test_a_database_that_is_gone_locked_damaged_or_replaced(tmp_path: Path) -> None:
    path = tmp_path / "consumers.db"
    with gateway_with(tmp_path, consumer("ada", ADA), consumer("bob", BOB)) as gateway:
        gateway.agent_answers()
        assert by_key(gateway, ADA) == 200
        assert f"consumers in {path}: changes are seen" in portico_here("status", str(gateway.file)).out

        path.rename(tmp_path / "away")
        answer = wait_for(lambda: _busy(gateway, ADA), "503 without a database")
        assert answer.getheader("Retry-After") == "1"
        assert answer.getheader("WWW-Authenticate") is None
        unseen = "changes of consumers are not seen, so workers look all of them up: there is no database"
        wait_for(lambda: unseen in gateway.log(), "the agent to tell")
        assert f"consumers in {path}: there is no database" in portico_here("status", str(gateway.file)).out
        (tmp_path / "away").rename(path)
        wait_for(lambda: by_key(gateway, ADA) == 200, "ada to come in again")

        locking = sqlite3.connect(path, isolation_level=None)
        locking.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        saved = path.read_bytes()
        locking.close()

        path.write_bytes(saved[:100] + b"\x5a" * (len(saved) - 100))
        wait_for(lambda: _busy(gateway, ADA), "503 by a damaged database")
        done = portico("check", gateway.file)
        assert done.code == 1
        assert "is damaged, or no SQLite database" in done.err
        path.write_bytes(saved)
        wait_for(lambda: by_key(gateway, ADA) == 200, "ada to come in again")

        (tmp_path / "new").mkdir()
        other = database(tmp_path / "new", consumer("ada", BOB))
        shutil.move(key_file(other), key_file(str(path)))
        shutil.move(other, path)
        is_out_within_a_second(lambda: by_key(gateway, ADA), time.monotonic())
        assert by_key(gateway, BOB) == 200
        log = gateway.log()
        assert "consumers cannot be looked up, so they are answered 503: there is no database" in log
        assert log.count("Traceback") == 0


def _busy(gateway: Gateway, key: str) -> http.client.HTTPResponse | None:
    answer = request(gateway, X_API_Key=key)
    return answer if answer.status == 503 else None


def test_a_locked_database_is_waited_for_no_longer_than_is_said(tmp_path: Path) -> None:
    path = database(tmp_path, consumer("ada", ADA))
    locking = sqlite3.connect(path, isolation_level=None)
    with Gateway(tmp_path, CONFIG, workers=1) as gateway:
        locking.execute("PRAGMA journal_mode = DELETE")
        locking.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        answers: list[tuple[int, float]] = []

        def ask(number: int) -> None:
            status = by_key(gateway, f"a-key-that-was-not-seen-{number}")
            answers.append((status, time.monotonic() - began))

        asking = [threading.Thread(target=ask, args=(number,)) for number in range(100)]
        for each in asking:
            each.start()
        for each in asking:
            each.join(30)
        assert {status for status, _ in answers} == {503}
        assert max(seconds for _, seconds in answers) < 5
        locking.execute("COMMIT")
        locking.close()
        wait_for(lambda: by_key(gateway, ADA) == 200, "ada to come in")


def opened_by(pid: int) -> str:
    """Return the files that a process has open at the moment."""
    files = []
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed since
            files.append(str(each.readlink()))
    return "\n".join(files)


def test_a_reload_with_another_database(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = database(tmp_path / "other", consumer("bob", BOB))
    with gateway_with(tmp_path, consumer("ada", ADA)) as gateway:
        gateway.agent_answers()
        assert (by_key(gateway, ADA), by_key(gateway, BOB)) == (200, 401)
        text = gateway.file.read_text()
        gateway.file.write_text(text.replace("consumers.db", "nowhere.db"))
        done = portico("reload", gateway.file)
        assert done.code == 1
        assert "there is no database" in done.err
        assert (by_key(gateway, ADA), by_key(gateway, BOB)) == (200, 401)
        gateway.file.write_text(text.replace("consumers.db", "other/consumers.db"))
        assert portico("reload", gateway.file).code == 0
        for _ in range(20):
            assert (by_key(gateway, ADA), by_key(gateway, BOB)) == (401, 200)
        with Writer(other) as writer:
            writer.remove("bob")
        is_out_within_a_second(lambda: by_key(gateway, BOB), time.monotonic())
        gateway.file.write_text(text.replace("consumer_database: consumers.db", ""))
        assert portico("reload", gateway.file).code == 0
        assert by_key(gateway, ADA) == 401
        workers = gateway.worker_pids()
        wait_for(
            lambda: not any("consumers.db" in each for each in map(opened_by, workers)), "the database to be closed"
        )
