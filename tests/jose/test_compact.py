from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from portico.jose.compact import NotTaken, decode, json_object
from portico.jose.keys import KeySet
from portico.jose.mint import encode
from tests.harness.tokens import token

# The examples of the RFCs

JOE = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
JOE_SAYS = {"iss": "joe", "exp": 1300819380, "http://example.com/is_root": True}
RFC_KEYS: dict[str, dict[str, str]] = {
    "RFC 7515 A.1": {
        "kty": "oct",
        "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow",
    },
    "RFC 7515 A.2": {
        "kty": "RSA",
        "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT"
        "-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2"
        "CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb5"
        "4h4FRWyuXpoQ",
        "e": "AQAB",
    },
    "RFC 7515 A.3": {
        "kty": "EC",
        "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    },
    "RFC 7515 A.4": {
        "kty": "EC",
        "crv": "P-521",
        "x": "AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk",
        "y": "ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2",
    },
    "RFC 8037 A.4": {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
}
RFC_TOKENS = {
    "RFC 7515 A.1": f"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{JOE}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
    "RFC 7515 A.2": f"eyJhbGciOiJSUzI1NiJ9.{JOE}."
    "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1d"
    "nZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwu"
    "sC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
    "RFC 7515 A.3": f"eyJhbGciOiJFUzI1NiJ9.{JOE}."
    "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
    "RFC 7515 A.4": "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA."
    "AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPE"
    "X3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn",
    "RFC 8037 A.4": "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc."
    "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
}


@pytest.mark.parametrize("example", RFC_KEYS)
def test_examples_of_the_rfcs(example: str) -> None:
    compact = decode(RFC_TOKENS[example].encode())
    assert KeySet.of_jwks([RFC_KEYS[example]]).check(compact) is True
    for other, jwk in RFC_KEYS.items():
        assert KeySet.of_jwks([jwk]).check(compact) is (True if other == example else None)
    if compact.payload.startswith(b"{"):
        assert json_object(compact.payload, "payload") == JOE_SAYS


def test_unsecured_tokens_have_no_signature() -> None:
    with pytest.raises(NotTaken, match="its signature is empty"):  # RFC 7515 A.5, RFC 7519 6.1
        decode(f"eyJhbGciOiJub25lIn0.{JOE}.".encode())
    assert KeySet.of_jwks(list(RFC_KEYS.values())).check(decode(f"eyJhbGciOiJub25lIn0.{JOE}.AA".encode())) is None


def test_encrypted_tokens_are_none() -> None:
    with pytest.raises(NotTaken, match="not of three parts"):  # RFC 7516 A.1, shortened
        decode(b"eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ.OKOa.48V1.5eym.XFBo")


# What is not well formed


def header(text: str) -> bytes:
    return f"{encode(text.encode('utf-8', 'surrogatepass'))}.{JOE}.AAAA".encode()


MALFORMED = {
    b"": "three parts",
    b"a.b": "three parts",
    b"a.b.c.d": "three parts",
    b"..": "header is empty",
    b"e30.": "three parts",
    header("[]"): "no JSON object",
    header("{"): "not JSON",
    header("{'alg': 'HS256'}"): "not JSON",
    header('{"alg": "HS256"} {}'): "not JSON",
    header('\ufeff{"alg": "HS256"}'): "not JSON",
    header("{}"): "names no algorithm",
    header('{"alg": null}'): "names no algorithm",
    header('{"alg": ["HS256"]}'): "names no algorithm",
    header('{"alg": "HS256", "alg": "HS256"}'): "stands twice",
    header('{"alg": "none", "al\\u0067": "HS256"}'): "stands twice",
    header('{"alg": "HS256", "kid": 7}'): "name of its key",
    header('{"alg": "HS256", "kid": {}}'): "name of its key",
    header('{"alg": "HS256", "typ": []}'): "type is no text",
    header('{"alg": "HS256", "crit": ["exp"]}'): "extensions",
    header('{"alg": "HS256", "crit": []}'): "extensions",
    header('{"alg": "HS256", "b64": false, "crit": ["b64"]}'): "extensions",
    header('{"alg": "HS256", "b64": false}'): "not encoded",
    header('{"alg": "HS256", "b64": true}'): "not encoded",
    header('{"alg": "HS256", "jku": "https://evil.example"}'): "key of its own",
    header('{"alg": "HS256", "jwk": {}}'): "key of its own",
    header('{"alg": "HS256", "x5u": null}'): "key of its own",
    header('{"alg": "HS256", "x5c": []}'): "key of its own",
    header('{"alg": "HS256", "zip": "DEF"}'): "compressed",
    header('{"alg": "HS256", "x": 1e999}'): "not JSON",
    header('{"alg": "HS256", "x": ' + "9" * 5000 + "}"): "not JSON",
    header('{"alg": "HS256", "x": 18446744073709551616}'): "too large",
    header('{"alg": "HS256", "x": NaN}'): "not JSON",
    header('{"alg": "HS256", "x": "\\ud800"}'): "not JSON",
    header('{"alg": "HS256", "x": "\ud800"}'): "not JSON",
    header('{"alg": "HS256", "x": ' + "[" * 5000 + "]" * 5000 + "}"): "not JSON",
    b"eyJhbGciOiJIUzI1NiJ9=." + JOE.encode() + b".AAAA": "not base64url",
    b"eyJhbGciOiJIUzI1NiJ9.\n" + JOE.encode() + b".AAAA": "not base64url",
    b"eyJhbGciOiJIUzI1NiJ9.++//.AAAA": "not base64url",
    b"eyJhbGciOiJIUzI1NiJ9." + JOE.encode() + b".AA==": "not base64url",
    b"eyJhbGciOiJIUzI1NiJ9." + JOE.encode() + b".A": "not base64url",
    b"eyJhbGciOiJIUzI1NiJ9." + JOE.encode() + b".AB": "not base64url",  # its last bits are not zero
    b"eyJhbGciOiJIUzI1NiJ9." + JOE.encode() + b".AAB": "not base64url",
    b"eyJhbGciOiJIUzI1NiJ9." + JOE.encode() + b".\xc3\xa4": "not base64url",
    b"eyJhbGciOiJIUzI1NiJ9..AAAA": "payload is empty",
}


@pytest.mark.parametrize("text", MALFORMED, ids=list(MALFORMED.values()))
def test_what_is_not_well_formed(text: bytes) -> None:
    with pytest.raises(NotTaken, match=MALFORMED[text]):
        decode(text)


def test_each_change_of_a_token_is_found() -> None:
    good = token().encode()
    keys = KeySet.of_secret("a secret of sixty-four bytes, as long as the hash of HS512 needs.")
    assert keys.check(decode(good))
    for place in range(len(good)):
        for other in (b"A", b"_", b".", b"="):
            changed = good[:place] + other + good[place + 1 :]
            if changed != good:
                with suppress(NotTaken):
                    assert not keys.check(decode(changed))


# Whatever comes, nothing else is raised

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
names = st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jku"]) | st.text(max_size=3)


@st.composite
def odd_tokens(draw: st.DrawFn) -> bytes:
    parts = []
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.integers(0, 2))
        if kind == 0:
            said = draw(st.dictionaries(names, json_values, max_size=4) | json_values)
            parts.append(encode(json.dumps(said).encode("utf-8", "surrogatepass")).encode())
        elif kind == 1:
            parts.append(encode(draw(st.binary(max_size=20))).encode())
        else:
            parts.append(draw(st.binary(max_size=20)))
    return b".".join(parts)


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=100) | odd_tokens())
@example(b"\xff.\xff.\xff")
def test_decoding_raises_nothing_else(text: bytes) -> None:
    try:
        compact = decode(text)
    except NotTaken:
        return
    assert text.startswith(compact.signed + b".")
    with suppress(NotTaken):
        json_object(compact.payload, "payload")
