"""What can be said of the access log, and what cannot."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from portico.config.access_log import AccessLog, why_unwritable
from portico.http.message import Client, Request
from tests.config.kinds import config_of, messages_of


def log_of(text: str) -> AccessLog:
    log = config_of(f"access_log: {text}\n").access_log
    assert log is not None
    return log


def test_there_is_none_unless_it_is_asked_for() -> None:
    assert config_of("workers: 1\n").access_log is None
    assert config_of("access_log: off\n").access_log is None
    assert log_of("{}") == AccessLog()


def test_shorter_forms() -> None:
    here = str(Path.cwd() / "access.log")
    assert log_of("access.log").file == log_of("{file: ./access.log}").file == here
    syslog = log_of("{syslog: 'unix:/dev/log'}").syslog
    assert syslog is not None
    assert (syslog.address, syslog.priority, syslog.app_name) == ("unix:/dev/log", 16 * 8 + 6, "portico")
    collector = log_of("{collector: 'https://logs.example.com/in'}").collector
    assert collector is not None
    assert str(collector.url) == "https://logs.example.com:443/in"
    routes = config_of(
        "routes: [{path: /a, access_log: errors, respond: {}}, {path: /b, access_log: off, respond: {}},"
        " {path: /c, access_log: {sample: 5%, slow: 2s}, respond: {}}, {path: /d, respond: {}}]\n"
    ).routes
    said = [(each.access_log.level, each.access_log.sample) if each.access_log else None for each in routes]
    assert said == [("errors", None), ("off", None), ("", 0.05), None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{format: xml}", "'xml' is not a format"),
        ("{format: '{{ nothing }}'}", "{{ nothing }} is not known"),
        ('{format: "{{ method }}\\n"}', "the format has a control character in it"),
        ("{format: '{{ headers.Cookie }}'}", "{{ headers.Cookie }} is a credential, which no log shows"),
        ("{headers: [Authorization]}", "Authorization has credentials in it, which no log shows"),
        ("{headers: [cookie]}", "cookie has credentials in it"),
        ("{hashed: [Cookie]}", "`hashed` needs a key"),
        ("{format: combined, headers: [X-A]}", "only lines in json have `headers`"),
        ("{file: a.log, syslog: 'unix:/dev/log'}", "lines cannot go to both file and syslog"),
        ("{syslog: 'udp://host'}", "'udp://host' is not where a syslog listens"),
        ("{syslog: 'http://host:514'}", "is not where a syslog listens"),
        ("{collector: 'ftp://host'}", "is not a URL of http or https"),
        ("{level: some}", "level"),
        ("{level: ''}", "an empty text is not a level"),
        ("{sample: 101%}", "is not a share"),
        ("{buffer: 1KiB}", "buffer"),
        ("/nowhere/at/all.log", "cannot write to /nowhere/at/all.log: /nowhere/at is not a folder"),
        ("/tmp", "cannot write to /tmp: it is a folder"),
    ],
)
def test_what_cannot_be_said(text: str, message: str) -> None:
    (told,) = messages_of(f"access_log: {text}\n")
    assert message in told


def test_no_dump_shows_a_secret() -> None:
    log = log_of("{collector: {url: 'http://a/b', headers: {Authorization: sesame}}}")
    hashing = log_of("{hashed: [Cookie], hash_key: pepper-and-salt}")
    for each in (log, hashing):
        for shown in (repr(each), each.model_dump_json()):
            assert "sesame" not in shown
            assert "pepper" not in shown
        assert pickle.loads(pickle.dumps(each)) == each


def test_whether_a_file_can_be_written_to(tmp_path: Path) -> None:
    assert why_unwritable("/dev/null") == ""
    assert why_unwritable(str(tmp_path / "new")) == ""
    (tmp_path / "there").touch()
    assert why_unwritable(str(tmp_path / "there")) == ""
    assert why_unwritable(str(tmp_path / "there" / "below")) != ""
    os.mkfifo(tmp_path / "fifo")
    assert why_unwritable(str(tmp_path / "fifo")) == ""


def test_a_request_knows_what_was_sent() -> None:
    client = Client("::1", 1, 2, "http")
    assert Request("GET", "/b", None, None, None, "", client, None, None, b"/a//b?c").sent == b"/a//b?c"
    assert Request("GET", "/b").sent == b""
