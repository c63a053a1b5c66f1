from __future__ import annotations

import pytest

from portico.endpoints.service import Mount, WayBack
from portico.http.headers import Headers
from portico.http.message import Client, Request, Response

SHOP = Mount("", "/shop")
"""`strip_prefix: /shop`"""
PAY = Mount("/v1/payments", "/pay")
"""`rewrite: /v1/payments/**` of a route for `/pay/**`."""
ROOT = Mount("/v1", "")
"""`rewrite: /v1/**` of a route for `/**`."""
OWN = "http://127.0.0.1:9002"
BASE = "http://127.0.0.1:9002/base"


def taken(
    mount: Mount | None,
    fields: list[tuple[bytes, bytes]],
    *urls: str,
    path: str = "/shop/a/b",
    scheme: str = "https",
    host: bytes | None = b"shop.example",
    sent_host: bytes | None = None,
    proxied_host: bytes = b"",
) -> Response:
    client = Client("192.0.2.1", 1, 443, scheme, host=proxied_host)
    headers = Headers([] if host is None else [(b"Host", host)])
    response = Response(302, Headers(fields))
    way = WayBack("svc", lambda _: urls or (OWN,), lambda _: mount)
    way.take(Request("GET", path, headers=headers, client=client), sent_host, response)
    return response


def location(value: str, mount: Mount = SHOP, *urls: str, path: str = "/shop/a/b") -> str | None:
    return taken(mount, [(b"Location", value.encode("utf-8"))], *urls, path=path).headers.text(b"location")


@pytest.mark.parametrize(
    ("mount", "base", "value", "expected"),
    [
        # paths
        (SHOP, OWN, "/", "/shop/"),
        (SHOP, OWN, "/items/7", "/shop/items/7"),
        (SHOP, OWN, "/items/7?a=/b#c", "/shop/items/7?a=/b#c"),
        (SHOP, OWN, "/items?next=http://127.0.0.1:9002/x", "/shop/items?next=http://127.0.0.1:9002/x"),
        (SHOP, OWN, "/shop", "/shop/shop"),
        (SHOP, OWN, "/shop/x", "/shop/shop/x"),
        (SHOP, OWN, "/caf%C3%A9%2Fx", "/shop/caf%C3%A9%2Fx"),
        (SHOP, BASE, "/base/x", "/shop/x"),
        (SHOP, BASE, "/base", "/shop"),
        (SHOP, BASE, "/base/", "/shop/"),
        (SHOP, BASE, "/based/x", "/based/x"),
        (SHOP, BASE, "/x", "/x"),
        (PAY, OWN, "/v1/payments/7", "/pay/7"),
        (PAY, OWN, "/v1/payments", "/pay"),
        (PAY, OWN, "/v1/payments?page=2", "/pay?page=2"),
        (PAY, OWN, "/v1/paymentsx", "/v1/paymentsx"),
        (PAY, OWN, "/v1", "/v1"),
        (PAY, BASE, "/base/v1/payments/7", "/pay/7"),
        (PAY, BASE, "/v1/payments/7", "/v1/payments/7"),
        (ROOT, OWN, "/v1", "/"),
        (ROOT, OWN, "/v1/x", "/x"),
        (ROOT, OWN, "/v1?x", "/?x"),
        # relative to where the client is
        (SHOP, OWN, "items", "items"),
        (SHOP, OWN, "./items", "./items"),
        (SHOP, OWN, "../items", "../items"),
        (SHOP, OWN, "?page=2", "?page=2"),
        (SHOP, OWN, "#top", "#top"),
        # the target's own address
        (SHOP, OWN, "http://127.0.0.1:9002/x", "https://shop.example/shop/x"),
        (SHOP, OWN, "HTTP://127.0.0.1:9002/x?q#f", "https://shop.example/shop/x?q#f"),
        (SHOP, OWN, "http://127.0.0.1:9002", "https://shop.example/shop/"),
        (SHOP, OWN, "http://127.0.0.1:9002?q", "https://shop.example/shop/?q"),
        (SHOP, OWN, "https://127.0.0.1:9002/x", "https://shop.example/shop/x"),
        (SHOP, OWN, "//127.0.0.1:9002/x", "//shop.example/shop/x"),
        (SHOP, "http://orders", "http://Orders:80/x", "https://shop.example/shop/x"),
        (SHOP, "http://orders", "http://orders/x", "https://shop.example/shop/x"),
        (SHOP, "https://orders", "https://orders:443/x", "https://shop.example/shop/x"),
        (SHOP, "https://orders", "//orders/x", "//shop.example/shop/x"),
        (SHOP, "http://[::1]:9002", "http://[::1]:9002/x", "https://shop.example/shop/x"),
        (PAY, OWN, "http://127.0.0.1:9002/v1/payments/7", "https://shop.example/pay/7"),
        (PAY, OWN, "http://127.0.0.1:9002/admin", "http://127.0.0.1:9002/admin"),
        # elsewhere
        (SHOP, OWN, "http://127.0.0.1:9003/x", "http://127.0.0.1:9003/x"),
        (SHOP, OWN, "http://127.0.0.1/x", "http://127.0.0.1/x"),
        (SHOP, OWN, "https://other.example/x", "https://other.example/x"),
        (SHOP, OWN, "//other.example/x", "//other.example/x"),
        (SHOP, OWN, "https://shop.example/x", "https://shop.example/x"),
        (SHOP, OWN, "http://user@127.0.0.1:9002/x", "http://user@127.0.0.1:9002/x"),
        (SHOP, OWN, "ftp://127.0.0.1:9002/x", "ftp://127.0.0.1:9002/x"),
        (SHOP, OWN, "mailto:a@b.example", "mailto:a@b.example"),
        (SHOP, OWN, "app:/x", "app:/x"),
        # what nobody should make more of
        (SHOP, OWN, "", ""),
        (SHOP, OWN, "///x", "///x"),
        (SHOP, OWN, "/\\other.example", "/\\other.example"),
        (SHOP, OWN, "/a b", "/a b"),
        (SHOP, OWN, "/../x", "/../x"),
        (SHOP, OWN, "/a/%2E%2e/x", "/a/%2E%2e/x"),
        (SHOP, OWN, "/a/.", "/a/."),
        (SHOP, OWN, "/.well-known/x", "/shop/.well-known/x"),
        (ROOT, OWN, "/v1//other.example/x", "/v1//other.example/x"),
        (ROOT, OWN, "http://127.0.0.1:9002/v1//other.example", "http://127.0.0.1:9002/v1//other.example"),
    ],
)
def test_a_location_leads_the_client_where_the_service_meant(
    mount: Mount, base: str, value: str, expected: str
) -> None:
    assert location(value, mount, base) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [("items", "/shop/items"), ("../x", "../x"), ("?a", "?a"), ("/x", "/shop/x")]
)
def test_where_the_client_left_out_the_slash_that_the_service_saw(value: str, expected: str) -> None:
    assert location(value, path="/shop") == expected


def test_with_the_host_of_the_client_its_own_url_is_the_service_s_own() -> None:
    for sent, value in [(b"shop.example", b"http://shop.example/x"), (b"Shop.Example:443", b"https://shop.example/x")]:
        response = taken(SHOP, [(b"Location", value)], host=sent, sent_host=sent)
        assert response.headers.get(b"location") == b"https://" + sent + b"/shop/x"


def test_scheme_and_host_are_those_that_a_trusted_proxy_was_asked_for() -> None:
    response = taken(
        SHOP, [(b"Location", OWN.encode() + b"/x")], host=b"inner:8000", proxied_host=b"outer.example:8443"
    )
    assert response.headers.get(b"location") == b"https://outer.example:8443/shop/x"


def test_without_a_host_the_path_alone_is_left() -> None:
    assert taken(SHOP, [(b"Location", OWN.encode() + b"/x")], host=None).headers.get(b"location") == b"/shop/x"


@pytest.mark.parametrize(
    ("mount", "value", "expected"),
    [
        (SHOP, "a=1; Path=/", "a=1; Path=/shop"),
        (SHOP, "a=1; Path=/cart", "a=1; Path=/shop/cart"),
        (SHOP, "a=1; Path=/cart/", "a=1; Path=/shop/cart/"),
        (SHOP, "a=1;path=/cart;Secure", "a=1;path=/shop/cart;Secure"),
        (SHOP, "a=1; HttpOnly; PATH = /cart ; Max-Age=5", "a=1; HttpOnly; PATH = /shop/cart ; Max-Age=5"),
        (SHOP, "a=1; pAtH=/; Domain=shop.example", "a=1; pAtH=/shop; Domain=shop.example"),
        (SHOP, "path=/x; Path=/y", "path=/x; Path=/shop/y"),
        (SHOP, "a=1", "a=1"),
        (SHOP, "a=1; Path", "a=1; Path"),
        (SHOP, "a=1; Path=", "a=1; Path="),
        (SHOP, 'a=1; Path="/x"', 'a=1; Path="/x"'),
        (SHOP, "a=1; Path=x", "a=1; Path=x"),
        (SHOP, "a=1; Path=/a/../b", "a=1; Path=/a/../b"),
        (SHOP, "a=1; Path=/a b", "a=1; Path=/a b"),
        (SHOP, "__Host-id=1; Secure; Path=/", "__Host-id=1; Secure; Path=/"),
        (SHOP, "__host-id=1; Secure; Path=/", "__host-id=1; Secure; Path=/"),
        (SHOP, "__Secure-id=1; Secure; Path=/", "__Secure-id=1; Secure; Path=/shop"),
        (SHOP, "a=1; Expires=Wed, 09 Jun 2027 10:18:14 GMT; Path=/x",
               "a=1; Expires=Wed, 09 Jun 2027 10:18:14 GMT; Path=/shop/x"),
        (PAY, "a=1; Path=/v1/payments", "a=1; Path=/pay"),
        (PAY, "a=1; Path=/v1/payments/x", "a=1; Path=/pay/x"),
        (PAY, "a=1; Path=/", "a=1; Path=/"),
        (PAY, "a=1; Path=/v1", "a=1; Path=/v1"),
        (ROOT, "a=1; Path=/v1", "a=1; Path=/"),
    ],
)  # fmt: skip
def test_a_cookie_is_for_the_path_that_the_service_meant(mount: Mount, value: str, expected: str) -> None:
    response = taken(mount, [(b"Set-Cookie", value.encode())])
    assert response.headers.get_all(b"set-cookie") == [expected.encode()]


def test_each_of_many_cookies_is_changed_and_their_order_stays() -> None:
    fields = [(b"Set-Cookie", b"a=1; Path=/"), (b"X", b"y"), (b"set-cookie", b"b=2"), (b"Set-Cookie", b"c=3; path=/c")]
    headers = taken(SHOP, fields).headers
    assert headers.get_all(b"set-cookie") == [b"a=1; Path=/shop", b"b=2", b"c=3; path=/shop/c"]
    assert headers.get(b"x") == b"y"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("5; url=/x", "5; url=/shop/x"),
        ("0;URL='/x?a=1'", "0;URL='/shop/x?a=1'"),
        ('3.5, Url = "/x"', '3.5, Url = "/shop/x"'),
        ("0; /x", "0; /shop/x"),
        ("0; url=http://127.0.0.1:9002/x", "0; url=https://shop.example/shop/x"),
        ("0; url=https://other.example/", "0; url=https://other.example/"),
        ("5", "5"),
        ("soon; url=/x", "soon; url=/x"),
    ],
)
def test_a_refresh_leads_there_too(value: str, expected: str) -> None:
    assert taken(SHOP, [(b"Refresh", value.encode())]).headers.text(b"refresh") == expected


def test_a_content_location_is_changed_and_one_that_is_there_twice_is_not() -> None:
    assert taken(SHOP, [(b"Content-Location", b"/x")]).headers.get(b"content-location") == b"/shop/x"
    twice = taken(SHOP, [(b"Location", b"/x"), (b"Location", b"/y")])
    assert twice.headers.get_all(b"location") == [b"/x", b"/y"]


def test_a_request_of_which_nothing_was_stripped_has_its_answer_as_it_is() -> None:
    assert taken(None, [(b"Location", b"/x")]).headers.get(b"location") == b"/x"


def test_raw_text_beyond_ascii_stays_as_it_came() -> None:
    response = taken(SHOP, [(b"Location", "/café".encode())])
    assert response.headers.get(b"location") == "/shop/café".encode()
