"""Answers of services that know nothing of the prefix under which clients see them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness.gateway import Call, Gateway, Service, curl

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
