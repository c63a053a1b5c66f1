from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.http.headers import Headers
from portico.http.negotiation import AcceptEncoding, Negotiation, vary_by_encoding

OFFERED = ("zstd", "br", "gzip")

ROWS = [
    # What browsers and tools send.
    ("gzip, deflate, br, zstd", "zstd"),
    ("gzip, deflate, br", "br"),
    ("gzip, deflate", "gzip"),
    ("deflate, gzip, br, zstd", "zstd"),
    ("gzip;q=1.0,deflate;q=0.6,identity;q=0.3", "gzip"),
    ("br;q=1.0, gzip;q=0.8, *;q=0.1", "br"),
    ("gzip", "gzip"),
    ("br", "br"),
    ("zstd", "zstd"),
    ("deflate", "identity"),
    ("compress, gzip", "gzip"),
    ("identity", "identity"),
    # Nothing, and anything.
    ("", "identity"),
    (" ", "identity"),
    (",", "identity"),
    ("*", "zstd"),
    ("*;q=0", "identity"),
    ("*;q=0.5", "zstd"),
    ("*;q=0, gzip", "gzip"),
    ("zstd;q=0, *", "br"),
    ("zstd;q=0, br;q=0, *", "gzip"),
    ("zstd;q=0, br;q=0, gzip;q=0, *", "identity"),
    ("*;q=0.2, gzip;q=0.1", "zstd"),
    # Weights.
    ("gzip;q=0.5, br;q=0.9", "br"),
    ("gzip;q=0.9, br;q=0.5", "gzip"),
    ("gzip;q=0.5, br;q=0.5", "br"),
    ("gzip;q=0.001, br;q=0.002", "br"),
    ("gzip;q=0", "identity"),
    ("gzip;q=0.000", "identity"),
    ("gzip;q=0., br;q=1.", "br"),
    ("gzip;q=1.000", "gzip"),
    ("gzip; q=0.5 , br ;q=0.4", "gzip"),
    ("gzip;Q=0.4, br;Q=0.3", "gzip"),
    # The answer as it is.
    ("identity;q=0", "identity"),
    ("identity;q=0, gzip", "gzip"),
    ("identity;q=0, gzip;q=0.1", "gzip"),
    ("identity;q=0, *;q=0.1", "zstd"),
    ("identity;q=1, gzip;q=0.5", "identity"),
    ("identity;q=0.5, gzip;q=0.5", "gzip"),
    ("identity, *;q=0", "identity"),
    ("identity;q=0, *;q=0", "identity"),
    ("identity;q=0.5, *", "zstd"),
    # Names.
    ("GZIP", "gzip"),
    ("x-gzip", "gzip"),
    ("Br, GZip", "br"),
    ("gzipped", "identity"),
    ("gz", "identity"),
    ("brotli", "identity"),
    # What is not well-formed counts for nothing.
    ("gzip;q=2", "identity"),
    ("gzip;q=1.1", "identity"),
    ("gzip;q=-1", "identity"),
    ("gzip;q=abc", "identity"),
    ("gzip;q=", "identity"),
    ("gzip;q=0.1234", "identity"),
    ("gzip;level=9", "identity"),
    ("gzip;q=0.5;q=1", "identity"),
    ("gzip br", "identity"),
    ("gzip;q=abc, br", "br"),
    ("\xff, gzip", "gzip"),
    # The first of two for one name counts.
    ("gzip;q=0, gzip", "identity"),
    ("gzip, gzip;q=0", "gzip"),
]


def headers(*values: str) -> Headers:
    return Headers((b"Accept-Encoding", value.encode("latin-1")) for value in values)


@pytest.mark.parametrize(("value", "chosen"), ROWS)
def test_what_is_chosen(value: str, chosen: str) -> None:
    negotiation = Negotiation(OFFERED)
    assert negotiation.choose(headers(value)) == chosen
    assert negotiation.choose(headers(value)) == chosen  # as it is remembered


def test_there_are_enough_rows() -> None:
    assert len(ROWS) >= 40
    assert len({value for value, _ in ROWS}) == len(ROWS)


def test_a_client_that_says_nothing_gets_the_answer_as_it_is() -> None:
    assert Negotiation(OFFERED).choose(Headers()) == "identity"


def test_several_lines_are_one_list() -> None:
    assert Negotiation(OFFERED).choose(headers("gzip;q=0.5", "br;q=0.4")) == "gzip"
    assert Negotiation(OFFERED).choose(headers("deflate", "br")) == "br"


def test_the_order_is_the_servers() -> None:
    assert Negotiation(("gzip", "br", "zstd")).choose(headers("zstd, br, gzip")) == "gzip"
    assert Negotiation(("br",)).choose(headers("zstd, gzip")) == "identity"


def test_what_is_remembered_is_bounded() -> None:
    negotiation = Negotiation(OFFERED)
    for number in range(2000):
        assert negotiation.choose(headers(f"gzip, x{number}")) == "gzip"
    assert len(negotiation._chosen) <= 256
    negotiation.choose(headers("gzip," + "x" * 1000))
    assert not any(len(value) > 512 for value in negotiation._chosen)


@given(st.text(st.characters(max_codepoint=255)))
def test_no_header_is_too_strange(value: str) -> None:
    assert Negotiation(OFFERED).choose(headers(value) if value.isprintable() else Headers()) in {*OFFERED, "identity"}
    assert AcceptEncoding(value).best(OFFERED) in {*OFFERED, "identity"}


def test_whether_codings_are_welcome() -> None:
    accepted = AcceptEncoding("gzip, br;q=0, *;q=0.1")
    assert accepted.accepts(["gzip"])
    assert accepted.accepts(["gzip", "zstd"])
    assert accepted.accepts([])
    assert not accepted.accepts(["gzip", "br"])
    assert not AcceptEncoding("").accepts(["gzip"])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], ["Accept-Encoding"]),
        (["Origin"], ["Origin, Accept-Encoding"]),
        (["Origin", "Cookie"], ["Origin, Cookie, Accept-Encoding"]),
        (["accept-ENCODING"], ["accept-ENCODING"]),
        (["Origin, accept-encoding"], ["Origin, accept-encoding"]),
        (["Origin", "Accept-Encoding"], ["Origin", "Accept-Encoding"]),
        (["*"], ["*"]),
    ],
)
def test_vary(before: list[str], after: list[str]) -> None:
    varied = Headers((b"Vary", value.encode()) for value in before)
    vary_by_encoding(varied)
    assert [value.decode() for value in varied.get_all(b"vary")] == after
