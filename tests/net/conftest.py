"""Fixtures of the tests of TLS connections."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterator

import pytest

from portico.net.tls import ServerTls
from tests.harness.certificates import Authority
from tests.harness.tls_world import V12, World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    authority = Authority(tmp_path_factory.mktemp("tls"))
    pair = authority.issue("a", "a.test", "127.0.0.1")
    return World(ServerTls([pair], V12, None, ssl.CERT_NONE), authority.client(), authority)


@pytest.fixture
def no_noise(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever a peer does, nobody is to be woken for it."""
    caplog.set_level(logging.DEBUG, "portico")
    yield
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []
