"""The log of a process: who writes to it waits for nobody."""

from __future__ import annotations

import gc
import json
import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from portico.observe.log import AT_ONCE, MOST_WAITING, JsonFormatter, LogHandler, Sparing
from tests.harness.gateway import Gateway, curl, wait_for


@contextmanager
def logger_to(descriptor: int) -> Iterator[logging.Logger]:
    logger = logging.Logger("test")  # noqa: LOG001 - one that no other test has
    handler = LogHandler(descriptor)
    logger.addHandler(handler)
    try:
        yield logger
    finally:
        handler.close()


def test_a_line_is_written_at_once_to_a_file(tmp_path: Path) -> None:
    file = tmp_path / "log"
    with file.open("wb") as out, logger_to(out.fileno()) as logger:
        logger.warning("one\udcff %s", "two")
        logger.warning("x" * 2 * AT_ONCE)
        assert file.read_text() == "one\\udcff two\n" + "x" * 2 * AT_ONCE + "\n"


def test_a_line_is_written_at_once_to_a_pipe_and_to_a_socket() -> None:
    reader, writer = os.pipe()
    one, other = socket.socketpair()
    with one, other:
        for read, write in ((reader, writer), (one.fileno(), other.fileno())):
            with logger_to(write) as logger:
                os.set_blocking(read, False)
                logger.warning("short")
                assert os.read(read, 100) == b"short\n"
    os.close(reader)
    os.close(writer)


def test_what_is_freed_in_the_middle_of_a_line_may_log() -> None:
    reader, writer = os.pipe()
    logger, handler = logging.Logger("test"), LogHandler(writer)  # noqa: LOG001 - one that no other test has
    logger.addHandler(handler)
    write = handler._write

    class Freed:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            logger.warning("freed")

    def collect_and_write(line: bytes) -> int:
        gc.collect()
        return write(line)

    handler._write = collect_and_write
    Freed()
    logging_ = threading.Thread(target=logger.warning, args=("first",), daemon=True)
    logging_.start()
    logging_.join(20)
    assert not logging_.is_alive()
    handler.close()
    assert os.read(reader, 100) == b"freed\nfirst\n"
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_who_logs_does_not_wait_for_a_reader_and_the_loss_is_told(kind: str) -> None:
    if kind == "pipe":
        reader, writer = os.pipe()
    else:
        reader, writer = (each.detach() for each in socket.socketpair())
    lines = [f"{number} {'x' * 100}" for number in range(3 * MOST_WAITING // 100)]
    got = bytearray()
    with logger_to(writer) as logger:
        for line in lines:
            logger.warning(line)

        def read() -> None:
            while chunk := os.read(reader, 65536):
                got.extend(chunk)

        reading = threading.Thread(target=read)
        reading.start()
        wait_for(lambda: b"lost" in got, "what was kept")
        logger.warning("again")
        wait_for(lambda: got.endswith(b"again\n"), "the line after")
    os.close(writer)
    reading.join()
    os.close(reader)
    *kept, loss, again = got.decode().splitlines()
    assert kept == lines[: len(kept)]
    assert loss == f"{len(lines) - len(kept)} lines of the log were lost: nobody has read them in time"
    assert again == "again"


def test_a_long_line_comes_whole_and_in_its_turn() -> None:
    reader, writer = os.pipe()
    long = "y" * 200_000
    with logger_to(writer) as logger:
        for text in ("before", long, "after"):
            logger.warning(text)
        got = b""
        while not got.endswith(b"after\n"):
            got += os.read(reader, 65536)
    assert got.decode() == f"before\n{long}\nafter\n"
    os.close(reader)
    os.close(writer)


def test_nobody_fails_where_nothing_can_be_written() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with logger_to(writer) as logger:
        logger.warning("one")
    os.close(writer)
    with Path("/dev/full").open("wb", buffering=0) as full, logger_to(full.fileno()) as logger:
        logger.warning("two")


def test_a_line_in_json_is_one_line_whatever_is_told() -> None:
    formatter = JsonFormatter("worker")
    record = logging.makeLogRecord(
        {
            "name": "portico.x",
            "levelname": "ERROR",
            "msg": "%s",
            "args": ("a\n\u2028\udcff",),
            "route": "shop",
            "at": [1],
        }
    )
    record.exc_info = (ValueError, ValueError("no\nsense"), None)
    line = formatter.format(record)
    assert line.isascii()
    assert len(line.splitlines()) == 1
    told = json.loads(line)
    assert told.pop("exception").endswith("ValueError: no\nsense")
    assert told.pop("timestamp").endswith("Z")
    assert told == {
        "level": "error",
        "logger": "portico.x",
        "process": "worker",
        "pid": os.getpid(),
        "message": "a\n\u2028\udcff",
        "route": "shop",
        "at": "[1]",
    }


def test_too_many_lines_a_second_are_left_out_and_counted() -> None:
    now = [10.0]
    sparing = Sparing(2, lambda: now[0])

    def passes(text: str) -> str:
        record = logging.LogRecord("a", logging.WARNING, "", 0, "%s", (text,), None)
        return record.getMessage() if sparing.filter(record) else ""

    assert [passes(text) for text in "abcd"] == ["a", "b", "", ""]
    now[0] += 1
    assert [passes(text) for text in "efg"] == ["e (2 more before it were left out)", "f", ""]


CONFIG = """
routes:
  - {path: /say, respond: well}
  - {path: /in, respond: well, policies: [{key-auth: {keys: {ada: a-key-of-some-length}}}]}
"""


def test_a_gateway_whose_log_nobody_reads_goes_on(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    reading, over = threading.Event(), threading.Event()
    reading.set()

    def copy() -> None:
        with (tmp_path / "gateway.log").open("ab", buffering=0) as out:
            while not over.is_set():
                if not reading.wait(0.01):
                    continue
                try:
                    out.write(os.read(reader, 65536))
                except BlockingIOError:
                    over.wait(0.01)

    copying = threading.Thread(target=copy)
    copying.start()
    try:
        with Gateway(tmp_path, CONFIG, stderr=writer) as gateway:
            reading.clear()
            with gateway.connect() as client:
                stream = client.makefile("rb")
                pipe_size = 64 * 1024
                path = b"/in?" + b"x" * 10
                for _ in range(2 * pipe_size // 100):  # each of them is a line in the log, of which many are left out
                    client.sendall(b"GET %s HTTP/1.1\r\nHost: a\r\nX-API-Key: wrong\r\n\r\n" % path)
                    assert stream.readline() == b"HTTP/1.1 401 Unauthorized\r\n"
                    while (line := stream.readline()) != b"\r\n":
                        length = int(line.split()[1]) if line.lower().startswith(b"content-length:") else 0
                        if length:
                            rest = length
                    stream.read(rest)
            assert curl(f"{gateway.url}/say").status == 200
            reading.set()
            wait_for(lambda: "refused key-auth: Invalid API key" in gateway.log(), "the log")
    finally:
        over.set()
        copying.join()
        os.close(reader)
        os.close(writer)
