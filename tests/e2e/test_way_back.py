"""Answers of services that know nothing of the prefix under which clients see them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.dns import DnsServer
from tests.harness.gateway import Call, Gateway, Service, curl, wait_for

CONFIG = """
services:
  up: {{url: "http://127.0.0.1:{port}"}}
  based: {{url: "http://127.0.0.1:{port}/base"}}
routes:
  - {{path: [/shop/**, /other], service: up, strip_prefix: /shop}}
  - {{path: /pay/**, service: based, rewrite: /v1/payments/**}}
  - {{path: "/t/{{tenant}}/**", service: up, rewrite: "/{{{{ captures.tenant }}}}/api/**"}}
  - {{path: /off/**, service: up, strip_prefix: /off, rewrite_redirects: off}}
  - {{path: /host/**, service: up, strip_prefix: /host, preserve_host: true}}
  - {{path: "/u/{{id}}", service: up, rewrite: "/users/{{{{ captures.id }}}}"}}
"""


def redirect(call: Call) -> None:
    """Redirect to where the query says, and set two cookies."""
    call.note(b"".join(call.read_body()))
    where = call.path.partition("?")[2].replace("OWN", f"http://127.0.0.1:{call.server.service.port}")
    where = where.replace("ASKED", f"http://{call.headers['Host']}")
    call.send_response(302)
    call.send_header("Location", where)
    call.send_header("Set-Cookie", "a=1; Path=/")
    call.send_header("Set-Cookie", "b=2; path=/b; HttpOnly")
    call.send_header("Content-Length", "0")
    call.end_headers()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("way-back")
    with Service(redirect) as service, Gateway(folder, CONFIG.format(port=service.port)) as gateway:
        yield gateway


@pytest.mark.parametrize(
    ("path", "where", "location", "cookies"),
    [
        ("/shop/a", "/x", "/shop/x", ["a=1; Path=/shop", "b=2; path=/shop/b; HttpOnly"]),
        ("/shop", "/x", "/shop/x", ["a=1; Path=/shop", "b=2; path=/shop/b; HttpOnly"]),
        ("/shop", "x", "/shop/x", ["a=1; Path=/shop", "b=2; path=/shop/b; HttpOnly"]),
        ("/shop/a", "OWN/x", "{url}/shop/x", ["a=1; Path=/shop", "b=2; path=/shop/b; HttpOnly"]),
        ("/other", "/x", "/x", ["a=1; Path=/", "b=2; path=/b; HttpOnly"]),
        ("/pay/7", "/base/v1/payments/8", "/pay/8", ["a=1; Path=/", "b=2; path=/b; HttpOnly"]),
        ("/pay/7", "OWN/base/v1/payments/8", "{url}/pay/8", ["a=1; Path=/", "b=2; path=/b; HttpOnly"]),
        ("/t/acme/x", "/acme/api/y", "/t/acme/y", ["a=1; Path=/", "b=2; path=/b; HttpOnly"]),
        ("/t/acme/x", "/other/api/y", "/other/api/y", ["a=1; Path=/", "b=2; path=/b; HttpOnly"]),
        ("/off/x", "/x", "/x", ["a=1; Path=/", "b=2; path=/b; HttpOnly"]),
        ("/host/x", "ASKED/y", "{url}/host/y", ["a=1; Path=/host", "b=2; path=/host/b; HttpOnly"]),
        ("/u/7", "/x", "/x", ["a=1; Path=/", "b=2; path=/b; HttpOnly"]),
    ],
)
def test_redirects_and_cookies_come_back_in_the_client_s_paths(
    gateway: Gateway, path: str, where: str, location: str, cookies: list[str]
) -> None:
    answer = curl(f"{gateway.url}{path}?{where}")
    assert answer.value("Location") == location.format(url=gateway.url)
    assert answer.values("Set-Cookie") == cookies


CHANGING = """
services:
  filed: {{discover: {{file: targets.yaml, interval: 0.1s}}}}
  named: {{discover: {{dns: "orders.test:{one}", resolver: "{resolver}"}}}}
  v1: {{url: "http://127.0.0.1:{one}/v1"}}
  v2: {{url: "http://127.0.0.1:{two}/v2", fallback: v1}}
  v3: {{url: "http://127.0.0.1:1/v3", fallback: v1}}
  both: {{split: [v1, {{service: v2, weight: 0, when: 'query["v"] == "2"'}}]}}
routes:
  - {{path: /filed/**, service: filed, strip_prefix: /filed}}
  - {{path: /named/**, service: named, strip_prefix: /named}}
  - {{path: /both/**, service: both, strip_prefix: /both}}
  - {{path: /v3/**, service: v3, strip_prefix: /v3}}
"""


def redirect_to(call: Call) -> None:
    call.note()
    call.answer(302, Location=call.headers["X-To"])


def test_targets_that_come_and_go_are_known(tmp_path: Path) -> None:
    with (
        DnsServer() as server,
        Service(redirect_to) as one,
        Service(redirect_to) as two,
    ):
        file = tmp_path / "targets.yaml"
        file.write_text(f"[127.0.0.1:{one.port}]")
        server.set("orders.test", "A", "127.0.0.1")
        config = CHANGING.format(one=one.port, two=two.port, resolver=server.address)
        with Gateway(tmp_path, config) as gateway:

            def location(path: str, to: str) -> str:
                to = to.replace("ONE", f"http://127.0.0.1:{one.port}").replace("TWO", f"http://127.0.0.1:{two.port}")
                to = to.replace("NAMED", f"http://orders.test:{one.port}")
                return curl("-H", f"X-To: {to}", f"{gateway.url}{path}").value("Location").removeprefix(gateway.url)

            assert location("/filed/a", "ONE/x") == "/filed/x"
            assert location("/filed/a", "TWO/x") == f"http://127.0.0.1:{two.port}/x"
            file.write_text(f"[127.0.0.1:{two.port}]")
            wait_for(lambda: location("/filed/a", "TWO/x") == "/filed/x", "the other target")
            assert location("/filed/a", "ONE/x") == f"http://127.0.0.1:{one.port}/x"

            assert location("/named/a", "NAMED/x") == "/named/x"
            assert location("/named/a", "ONE/x") == "/named/x"

            assert location("/both/a", "/v1/x") == "/both/x"
            assert location("/both/a", "/v2/x") == "/v2/x"
            assert location("/both/a?v=2", "/v2/x") == "/both/x"
            assert location("/both/a?v=2", "TWO/v2/x") == "/both/x"
            assert location("/both/a?v=2", "/v1/x") == "/v1/x"

            assert location("/v3/a", "/v1/x") == "/v3/x"  # the fallback has answered
            assert location("/v3/a", "ONE/v1/x") == "/v3/x"
