"""Signatures that no honest client sends, and whatever else may come."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portico.http.body import Body
from portico.plugin import Client, Headers, Refusal, Request, User
from tests.harness.signing import COVERED, GOOD, LINES, NOW, Fields, by_hand, found, input_of, made, request_of

BODY = b'{"hello": "world"}'


def reason(request: Request) -> str:
    """Return why a signature is refused, as the log is told."""
    refusal = found(made(), request)
    assert isinstance(refusal, Refusal), refusal
    assert (refusal.status, refusal.type) == (401, "invalid-signature")
    return refusal.reason


HOSTILE: list[tuple[str, str]] = [
    # What it says.
    (input_of(f";created={NOW}"), "its key is not known"),
    (input_of(f';created={NOW};keyid="x"'), "its key is not known"),
    (input_of(f';created={NOW};keyid="K"'), "its key is not known"),
    (input_of(f';created={NOW};keyid=""'), "its keyid is no text, is empty, or too long"),
    (input_of(f";created={NOW};keyid=k"), "its keyid is no text, is empty, or too long"),
    (input_of(f";created={NOW};keyid=:aw==:"), "its keyid is no text, is empty, or too long"),
    (input_of(f';created={NOW};keyid="{"k" * 257}"'), "its keyid is no text, is empty, or too long"),
    (input_of(';keyid="k"'), "it does not say when it was created"),
    (input_of(f';created="{NOW}";keyid="k"'), "its created is no time"),
    (input_of(f';created={NOW}.0;keyid="k"'), "its created is no time"),
    (input_of(f';created=@{NOW};keyid="k"'), "its created is no time"),
    (input_of(';created;keyid="k"'), "its created is no time"),
    (input_of(';created=-1;keyid="k"'), "its created is no time"),
    (input_of(f';created={NOW + 61};keyid="k"'), "it was created in the future"),
    (input_of(';created=999999999999999;keyid="k"'), "it was created in the future"),
    (input_of(GOOD + ";expires"), "its expires is no time"),
    (input_of(GOOD + f';expires="{NOW + 9}"'), "its expires is no time"),
    (input_of(GOOD + ';alg="none"'), "its algorithm is not that of its key"),
    (input_of(GOOD + ';alg="HMAC-SHA256"'), "its algorithm is not that of its key"),
    (input_of(GOOD + ';alg="ed25519"'), "its algorithm is not that of its key"),
    (input_of(GOOD + ";alg=hmac-sha256"), "its alg is no text, is empty, or too long"),
    (input_of(GOOD + ";alg"), "its alg is no text, is empty, or too long"),
    (input_of(GOOD + ";nonce=7"), "its nonce is no text, is empty, or too long"),
    (input_of(GOOD + ';nonce=""'), "its nonce is no text, is empty, or too long"),
    (input_of(GOOD + f';nonce="{"n" * 257}"'), "its nonce is no text, is empty, or too long"),
    (input_of(GOOD + ";tag=a"), "its tag is no text, is empty, or too long"),
    # What it covers.
    ('"@method"' + GOOD, "it does not say what it covers"),
    ("()" + GOOD, "it does not cover @method, @target-uri"),
    (input_of(GOOD, '("@method")'), "it does not cover @target-uri"),
    (input_of(GOOD, '("@target-uri")'), "it does not cover @method"),
    (input_of(GOOD, '("@method" "@path" "@query")'), "it does not cover @target-uri"),
    (input_of(GOOD, '("@method" "@authority" "@path" "@query-param";name="a")'), "it does not cover @target-uri"),
    (input_of(GOOD, '("@method" "@target-uri" "@method")'), "it covers a component twice"),
    (input_of(GOOD, '("@method" "@target-uri" "x";sf;key="a" "x";key="a";sf)'), "it covers a component twice"),
    (input_of(GOOD, '("@method" "@target-uri" x)'), "it covers what is no component"),
    (input_of(GOOD, '("@method" "@target-uri" 1)'), "it covers what is no component"),
    (input_of(GOOD, '("@method" "@target-uri" "")'), "it covers what is no component"),
    (input_of(GOOD, '("@method" "@target-uri" "Date")'), "it covers what is no component"),
    (input_of(GOOD, '("@method" "@target-uri" "@Path")'), "it covers what is no component"),
    (input_of(GOOD, '("@method" "@target-uri" "a b")'), "it covers what is no component"),
    (input_of(GOOD, r'("@method" "@target-uri" "x\": y")'), "it covers what is no component"),
    (input_of(GOOD, '("@method" "@target-uri" "@signature-params")'), "it covers @signature-params in a way"),
    (input_of(GOOD, '("@method" "@target-uri" "@status")'), "it covers @status in a way"),
    (input_of(GOOD, '("@method" "@target-uri" "@unknown")'), "it covers @unknown in a way"),
    (input_of(GOOD, '("@method";req "@target-uri")'), "it covers @method in a way"),
    (input_of(GOOD, '("@method" "@target-uri";sf)'), "it covers @target-uri in a way"),
    (input_of(GOOD, '("@method" "@target-uri" "absent")'), "it covers the field absent, and there is none"),
    (input_of(GOOD, '("@method" "@target-uri" "absent";bs)'), "it covers the field absent, and there is none"),
    (input_of(GOOD, '("@method" "@target-uri" "x";req)'), "it covers the field x in a way"),
    (input_of(GOOD, '("@method" "@target-uri" "x";tr)'), "it covers the field x in a way"),
    (input_of(GOOD, '("@method" "@target-uri" "x";unknown)'), "it covers the field x in a way"),
    (input_of(GOOD, '("@method" "@target-uri" "x";sf=1)'), "it covers the field x in a way"),
    (input_of(GOOD, '("@method" "@target-uri" "x";bs=?0)'), "it covers the field x in a way"),
    (input_of(GOOD, '("@method" "@target-uri" "x";bs;sf)'), "it covers the field x in a way"),
    (input_of(GOOD, '("@method" "@target-uri" "x";bs;key="a")'), "it covers the field x in a way"),
    (input_of(GOOD, '("@method" "@target-uri" "x";key=a)'), "it covers the field x in a way"),
    (input_of(GOOD, '("@method" "@target-uri" "x";key="b")'), "it covers a member of the field x that is not there"),
    (input_of(GOOD, '("@method" "@target-uri" "x";sf)'), "its field x is not a structured one"),
    (input_of(GOOD, '("@method" "@target-uri" "y";key="a")'), "its field y is not a structured one"),
    (input_of(GOOD, '("@method" "@target-uri" "twice";key="a")'), "its field twice is not a structured one"),
    (input_of(GOOD, '("@method" "@target-uri" "large";key="a")'), "its field large is too large"),
    (input_of(GOOD, '("@method" "@target-uri" "many";key="a")'), "its field many is too large"),
    (input_of(GOOD, '("@method" "@target-uri" "latin")'), "what it covers has characters beyond ASCII"),
    (input_of(GOOD, '("@method" "@target-uri" "huge" "huge";bs)'), "what it covers is too large"),
    (input_of(GOOD, '("@method" "@target-uri" "@query-param")'), "it covers @query-param in a way"),
    (input_of(GOOD, '("@method" "@target-uri" "@query-param";name=a)'), "it covers @query-param in a way"),
    (input_of(GOOD, '("@method" "@target-uri" "@query-param";name="a";sf)'), "it covers @query-param in a way"),
    (input_of(GOOD, '("@method" "@target-uri" "@query-param";name="%61")'), "it covers @query-param in a way"),
    (
        input_of(GOOD, '("@method" "@target-uri" "@query-param";name="c")'),
        "it covers a query parameter that is not there",
    ),
    # How it is written.
    ("", "its field signature-input is not a structured one, or not well formed"),
    ("(", "its field signature-input is not a structured one, or not well formed"),
    (input_of(GOOD) + ",", "its field signature-input is not a structured one, or not well formed"),
    (input_of(GOOD + f";created={NOW}"), "its field signature-input is not a structured one, or not well formed"),
    (
        input_of(GOOD) + f", sig={input_of(GOOD)}",
        "its field signature-input is not a structured one, or not well formed",
    ),
    (input_of(GOOD) + "\x80", "its field signature-input is not a structured one, or not well formed"),
    (input_of(GOOD, "(" + '"@method" ' * 130 + ")"), "its field signature-input is too large"),
    (input_of(GOOD) + ";a" * 130, "its field signature-input is too large"),
    (input_of(GOOD) + f';a="{"x" * 4096}"', "its field signature-input is too large"),
    (input_of(GOOD) + ", a=(), b=(), c=(), d=()", "it has more than 4 signatures"),
]
FIELDS: Fields = [
    ("X", "a=1"),
    ("Y", "a=1, ="),
    ("Twice", "a=1, a=2"),
    ("Large", f'a="{"x" * 4096}"'),
    ("Many", "a, " * 130 + "a"),
    ("Latin", "\xe4"),
    ("Huge", "h" * 40_000),
]


@pytest.mark.parametrize(("text", "why"), HOSTILE)
def test_hostile_signatures(text: str, why: str) -> None:
    """Even who has the key gets nothing in by them."""
    request = request_of([*by_hand(text, *LINES), *FIELDS])
    assert reason(request).startswith(why)


ODD: list[tuple[Fields, str]] = [
    ([("Signature", "sig=:AAAA:")], "it has only one of Signature and Signature-Input"),
    ([("Signature-Input", f"sig={COVERED}{GOOD}")], "it has only one of Signature and Signature-Input"),
    ([("Signature-Input", ""), ("Signature", "sig=:AAAA:")], ""),
    ([("Signature-Input", f"sig={COVERED}{GOOD}"), ("Signature", "")], "there is no signature for what it covers"),
    ([("Signature-Input", f"sig={COVERED}{GOOD}"), ("Signature", "s=:AAAA:")], "there is no signature for what it"),
    ([("Signature-Input", f"sig={COVERED}{GOOD}"), ("Signature", "sig=::")], "it is wrong"),
    ([("Signature-Input", f"sig={COVERED}{GOOD}"), ("Signature", "sig=:AAAA:")], "it is wrong"),
    ([("Signature-Input", f"sig={COVERED}{GOOD}"), ("Signature", 'sig="AAAA"')], "there is no signature for what it"),
    ([("Signature-Input", f"sig={COVERED}{GOOD}"), ("Signature", "sig=(:AAAA:)")], "there is no signature for what"),
    ([("Signature-Input", f"sig={COVERED}{GOOD}"), ("Signature", "sig=:A:")], "its field signature is not a"),
    ([("Signature-Input", f"sig={COVERED}{GOOD}"), ("Signature", "sig=:AAAA:, sig=:AAAB:")], "its field signature is"),
    (
        [("Signature-Input", f"sig={COVERED}{GOOD}"), ("Signature", "sig=:AAAA:"), ("Signature", "sig=:AAAA:")],
        "its field signature is not a",
    ),
    ([("Signature-Input", f"sig={COVERED}{GOOD}"), ("Signature", f"sig=:{'A' * 4096}:")], "its field signature is too"),
    (
        [
            ("Signature-Input", f"sig={COVERED}{GOOD}"),
            ("Signature", "a=:AAAA:, b=:AAAA:, c=:AAAA:, d=:AAAA:, sig=:AAAA:"),
        ],
        "it has more than 4 signatures",
    ),
]


@pytest.mark.parametrize(("headers", "why"), ODD)
def test_odd_fields(headers: Fields, why: str) -> None:
    request = request_of(headers)
    if why:
        assert reason(request).startswith(why)
    else:
        assert found(made(), request) is None


VISIBLE = st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f")
ITEMS = st.sampled_from(
    [
        '"@method"',
        '"@path"',
        '"@target-uri"',
        '"@query-param"',
        '"x"',
        '"date"',
        "a",
        "1",
        "1.5",
        "@9",
        ":YQ==:",
        "?1",
        '%"x"',
        '"content-digest"',
        '"signature"',
        "(",
        ")",
        "",
    ]
)
PARAMETERS = st.sampled_from(
    [
        ";sf",
        ";bs",
        ";key",
        ';key="a"',
        ";req",
        ';name="a"',
        ';name="%zz"',
        f";created={NOW}",
        ";created=@1",
        ';keyid="k"',
        ";keyid=1",
        ';nonce="1"',
        ";expires=9999999999",
        ';alg="hmac-sha256"',
        ";tag",
        ';tag=%"%c3%a4"',
        ";created=@99999999999999",
        ";created=-999999999999999",
        ";x=99999999999999999",
        ";x=1.1234",
        "",
        " ",
    ]
)


@st.composite
def inputs(draw: st.DrawFn) -> str:
    items = draw(st.lists(st.tuples(ITEMS, PARAMETERS), max_size=5))
    parameters = draw(st.lists(PARAMETERS, max_size=5))
    return f"sig=({' '.join(a + b for a, b in items)}){''.join(parameters)}"


@settings(max_examples=400, deadline=None)
@given(
    st.one_of(st.text(VISIBLE, max_size=60), inputs()),
    st.one_of(st.text(VISIBLE, max_size=60), st.just("sig=:YQ==:")),
    st.text(VISIBLE, max_size=40),
    st.text(VISIBLE, max_size=40),
    st.booleans(),
)
def test_whatever_is_sent_is_refused_or_passed_over(
    input_: str, value: str, other: str, target: str, has_content: bool
) -> None:
    headers = Headers(
        (name, text.encode("latin-1"))
        for name, text in (
            (b"Signature-Input", input_),
            (b"Signature", value),
            (b"X", other),
            (b"Content-Digest", other),
            (b"Host", "api.example"),
        )
    )
    body, client = Body(BODY if has_content else b""), Client("::1", 1, 1, "http")
    request = Request("GET", "/", None, headers, body, client=client, sent=target.encode("latin-1"))
    verdict = found(made(), request)
    assert verdict is None or (isinstance(verdict, Refusal) and verdict.status == 401)


@settings(max_examples=200, deadline=None)
@given(
    st.text(VISIBLE, max_size=60), st.text(st.characters(min_codepoint=33, max_codepoint=255), max_size=40), inputs()
)
def test_whoever_has_the_key_does_no_harm_either(value: str, target: str, input_: str) -> None:
    """The cheap checks pass; what is left is the covered fields, the target and the content."""
    text = input_.partition("=")[2].replace("()", "(a)")
    covered = text[: text.rfind(")") + 1] or "()"
    fields = by_hand(f'{covered};created={NOW};keyid="k"', *LINES)
    headers = [*fields, ("X", value), ("Date", value), ("Content-Digest", value)]
    request = request_of(headers)
    request._sent = target.encode("latin-1")
    verdict = found(made(components=["@method"]), request)
    assert isinstance(verdict, User) or verdict.type in {"invalid-signature", "content-digest-mismatch"}
