"""How traces and the recorder are written, and what is wrong with what is not."""

from __future__ import annotations

import pytest

from portico.config.tracing import Recorder, Tracing
from tests.config.kinds import config_of, messages_of


def test_without_a_word_nothing_is_traced_and_the_last_requests_are_remembered() -> None:
    config = config_of("routes: []")
    assert config.tracing is None
    assert config.recorder == Recorder()


@pytest.mark.parametrize("text", ["tracing: true", "tracing: {}"])
def test_tracing_may_be_all_defaults(text: str) -> None:
    assert config_of(text).tracing == Tracing()
    assert config_of("tracing: off").tracing is None


def test_shorter_forms() -> None:
    config = config_of("tracing: {formats: b3, export: 'http://c:4318'}\nrecorder: 500")
    assert config.tracing is not None
    assert config.tracing.formats == ("b3",)
    assert config.tracing.export is not None
    assert str(config.tracing.export.url) == "http://c:4318"
    assert config.recorder == Recorder(keep=500)
    assert config_of("recorder: off").recorder is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tracing: {formats: []}", "formats"),
        ("tracing: {formats: [jaeger]}", "formats"),
        ("tracing: {sample: 10}", "10 is not a share"),
        ("tracing: {trust: nobody}", "trust"),
        ("tracing: {force: {secret: tiny}}", "the secret is short"),
        ("tracing: {force: {}}", "secret"),
        ("tracing: {export: 'collector:4318'}", "is not a URL of http or https"),
        ("recorder: {headers: [Authorization]}", "Authorization is a secret"),
        ("recorder: {keep: 0}", "keep"),
        ("recorder: {keep: 5001}", "keep"),
    ],
)
def test_what_is_wrong_is_told(text: str, message: str) -> None:
    assert message in "\n".join(messages_of(text))


def test_no_secret_is_shown() -> None:
    config = config_of(
        "tracing: {force: {secret: a-secret-of-some-length}, export: {url: 'http://c', headers: {A: key-of-c}}}"
    )
    assert "a-secret-of" not in repr(config)
    assert "key-of-c" not in repr(config)
