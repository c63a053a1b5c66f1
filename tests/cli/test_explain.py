"""`portico explain`: what it prints, word for word; `UPDATE_GOLDEN=1 pytest tests/cli` writes it anew."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest

from portico.jose.mint import secret_key, sign
from portico.plugin import WELL_KNOWN
from tests.harness.gateway import portico, portico_here
from tests.harness.golden import check_golden

GOLDEN = Path(__file__).parent / "golden"
ORDERS = "/api/v1/orders"
TOKEN = f"Bearer {sign({'sub': 'ada', 'exp': 4_000_000_000}, secret_key('a secret of thirty-two bytes or more'))}"
BOSS = ["-H", "X-Role: boss"]

REQUESTS = {
    "won": ["POST", f"{ORDERS}/x7?full=1", *BOSS, "-H", "Connection: close", "-H", "X-Forwarded-For: 6.6.6.6"],
    "won_by_header": ["get", f"http://shop.example:8000{ORDERS}", "-H", "x-beta: yes"],
    "won_by_query": ["PUT", f"{ORDERS}?debug", "-H", "Cookie: a=b; group=b"],
    "won_by_host": ["GET", f"https://a.internal.example{ORDERS}", "--from", "2001:db8::1"],
    "won_by_regex": ["DELETE", f"{ORDERS}/42", *BOSS],
    "captures": ["GET", "/users/a%20b/carts/./x//y"],
    "https": ["GET", "/secure"],
    "no_route": ["GET", "/nothing/here"],
    "wrong_method": ["DELETE", ORDERS],
    "refused": ["POST", ORDERS, "-H", "X-Role: guest"],
    "answered": ["GET", "hello.example/hello", "--from", "192.0.2.7"],
    "redirected": ["GET", "/old?a=b"],
    "built_in": ["GET", "/livez"],
}


@pytest.fixture(autouse=True)
def _folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDEN)


@pytest.fixture(scope="module")
def warnings() -> str:
    """Return what `check` says."""
    return portico("check", "gateway.yaml", cwd=GOLDEN).err


def normalised(text: str) -> str:
    """Return `text` with the one thing that is never the same."""
    return re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", "CORRELATION-ID", text)


@pytest.mark.parametrize("name", REQUESTS)
def test_what_becomes_of(name: str, warnings: str) -> None:
    done = portico_here("explain", "gateway.yaml", *REQUESTS[name])
    assert (done.code, done.err) == (0, warnings)
    check_golden(GOLDEN / f"explain_{name}.txt", normalised(done.out))


@pytest.mark.parametrize("name", ["won", "wrong_method"])
def test_the_same_as_json(name: str) -> None:
    done = portico_here("explain", "gateway.yaml", *REQUESTS[name], "--json")
    assert done.code == 0
    check_golden(GOLDEN / f"explain_{name}.json", normalised(done.out))
    told = json.loads(done.out)
    assert sum(candidate["won"] for candidate in told["candidates"]) == (name == "won")
    assert bool(told["upstream"]) == (name == "won")
    assert (told["answer"] is None) == (name == "won")


@pytest.mark.parametrize(
    ("listen", "url", "port"),
    [
        ("[127.0.0.1:8088, ':9']", "/a", "8088"),
        ("[127.0.0.1:8088]", "http://shop.example/a", "80"),
        ("[127.0.0.1:8088]", "https://shop.example:444/a", "444"),
        ("[127.0.0.1:0]", "/a", "80"),
    ],
)
def test_the_port_that_the_client_asked(
    listen: str, url: str, port: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text(f"listen: {listen}\nroutes: [{{path: /a, service: 's:1'}}]\n")
    assert f"X-Forwarded-Port: {port}\n" in portico_here("explain", "a.yaml", "GET", url).out


def test_what_is_near_comes_first() -> None:
    told = json.loads(portico_here("explain", "gateway.yaml", *REQUESTS["won"], "--json").out)
    near = [candidate["near"] for candidate in told["candidates"]]
    assert near == sorted(near, reverse=True)


def test_which_part_of_a_split_is_asked_and_who_gets_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text("""
services:
  orders:
    split: {to: [{service: v1, weight: 9}, {service: v2, when: path == '/canary'}], by: {header: X-User}}
    mirror: {service: shadow, share: 12.5%}
  v1: http://v1.test
  v2: http://v2.test
  shadow: http://shadow.test
routes: [{path: /**, service: orders}]
""")
    by_key = portico_here("explain", "a.yaml", "GET", "/", "-H", "X-User: alice").out
    assert "\nSplit orders:\n  -> v1  weight 9, that is where its key belongs\n     v2  weight 1\n" in by_key
    assert "\nMirror: 12.5 % of the requests to orders go to shadow as well\n" in by_key
    assert re.findall("Sends to (.*):", by_key) == ["http://v1.test:80/"]
    canary = portico_here("explain", "a.yaml", "GET", "/canary").out
    assert "  -> v2  weight 1, its condition holds\n" in canary
    assert re.findall("Sends to (.*):", canary) == ["http://v2.test:80/canary"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["G T", "/"], "'G T' is not a method"),
        (["", "/"], "'' is not a method"),
        (["TRACE", "/"], "the gateway would answer 405: TRACE is not served here"),
        (["GET", "/a b"], "the gateway would answer 400: ' ' may not stand in a path"),
        (["GET", "/€"], "the gateway would answer 400: '"),
        (["GET", "http://h:99999/"], "the gateway would answer 400: the Host header has a bad port"),
        (["GET", "http://[::1/"], "Invalid IPv6 URL"),
        (["GET", "ftp://h/"], "a URL of http or https is needed, not of ftp"),
        (["GET", "/", "-H", "no colon"], "-H takes NAME: VALUE, not 'no colon'"),
        (["GET", "/", "-H", "a b: c"], "b'a b' is not a header name"),
        (["GET", "/", "--from", "nobody"], "--from takes an IP address, not 'nobody'"),
    ],
)
def test_a_request_that_is_none(arguments: list[str], message: str) -> None:
    done = portico_here("explain", "gateway.yaml", *arguments)
    assert (done.code, done.out) == (1, "")
    assert done.err.splitlines()[-1].startswith(message)
    assert "Traceback" not in done.err


def test_no_token_is_shown_with_its_signature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text(
        "consumers: {ada: {keys: ada-has-a-long-key}}\n"
        "policies:\n"
        "- key-auth\n"
        "- internal-jwt: {secret: 'a secret of thirty-two bytes or more', issuer: i, audience: a}\n"
        "routes: [{path: /a, service: 's:1'}]\n"
    )
    said = portico_here("explain", "a.yaml", "GET", "/a", "-H", "X-API-Key: ada-has-a-long-key").out
    assert re.search(r"^ +Authorization: Bearer eyJ[\w-]+\.[\w-]+\.\*\*\*$", said, re.MULTILINE), said
    assert "ada-has-a-long-key" not in said


def test_nobody_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as provider:
        provider.setblocking(False)
        url = f"http://127.0.0.1:{provider.getsockname()[1]}"
        (tmp_path / "a.yaml").write_text(
            "consumers: {ada: {password: '$2b$04$" + "a" * 53 + "'}}\n"
            f"services: {{s: '{url}'}}\n"
            "routes:\n"
            f"- {{path: /keys, service: s, policies: [basic-auth, {{jwt: {{jwks_url: '{url}/keys'}}}}]}}\n"
            f"- {{path: /found, service: s, policies: [{{jwt: {{discovery_url: '{url}{WELL_KNOWN}'}}}}]}}\n"
            f"- {{path: /asks, service: s, policies: [{{forward-auth: {{url: '{url}/verify'}}}}]}}\n"
        )
        # To compare a password takes a while, in which whatever was begun would be done.
        for path, shown, said in (
            ("/keys", "Basic YWRhOng=", "Answers 401"),
            ("/keys", TOKEN, "Answers 503"),
            ("/found", TOKEN, "Answers 401"),  # of another issuer, which the address alone says
            ("/asks", TOKEN, f"Sends to {url}/verify"),
        ):
            done = portico_here("explain", "a.yaml", "GET", path, "-H", f"Authorization: {shown}")
            assert (done.code, said in done.out) == (0, True), done
            assert "jwks" not in done.err
            assert "keys of" not in done.out + done.err
        with pytest.raises(BlockingIOError):
            provider.accept()
