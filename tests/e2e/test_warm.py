"""Connections that are there before the first request."""

from __future__ import annotations

from pathlib import Path

from tests.harness.gateway import Gateway, Service, curl, wait_for


def test_connections_are_there_ahead_of_the_first_request(tmp_path: Path) -> None:
    with Service() as service:
        config = f"""
services:
  orders: {{url: "http://127.0.0.1:{service.port}", keepalive: {{warm: 3, max_age: 1h}}, timeout: {{tls: 2s}}}}
routes: [{{path: /**, service: orders}}]
"""
        with Gateway(tmp_path, config) as gateway:
            wait_for(lambda: service.connections == 3, "three connections")
            assert curl(f"{gateway.url}/a").status == 200
            assert [seen.connection for seen in service.seen] == [3]
        assert service.connections == 3
