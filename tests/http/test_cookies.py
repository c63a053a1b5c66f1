"""Cookies that are added to the answers of services."""

from __future__ import annotations

from portico.http.cookies import with_cookies
from portico.plugin import Headers, Response


def test_who_is_given_cookies_keeps_the_answer_to_themselves() -> None:
    said = [(b"Cache-Control", b"public"), (b"Expires", b"x"), (b"Set-Cookie", b"e=f"), (b"Surrogate-Control", b"x")]
    assert with_cookies(Response(204, Headers(said)), [b"a=b", b"c=d"]).headers.pairs == [
        *((b"Set-Cookie", value) for value in (b"e=f", b"a=b", b"c=d")),
        (b"Cache-Control", b"no-store"),
    ]
