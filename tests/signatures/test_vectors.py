"""The examples of RFC 9421, appendix B: signatures of its test keys, over its test request."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from portico.jose.keys import KeySet
from portico.plugin import User
from portico.signatures.base import Message
from portico.signatures.fields import Signatures
from portico.signatures.keys import SignatureKey
from portico.signatures.verifier import SignatureRules, SignatureVerifier, Signed
from tests.harness.signing import Fields, SigningEnv, found, made, request_of

CREATED = 1618884473
URL = "http://example.com/foo?param=Value&Pet=dog"
BODY = b'{"hello": "world"}'
REQUEST: Fields = [
    ("Host", "example.com"),
    ("Date", "Tue, 20 Apr 2021 02:07:55 GMT"),
    ("Content-Type", "application/json"),
    (
        "Content-Digest",
        "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:",
    ),
    ("Content-Length", "18"),
]


def pem(*lines: str) -> bytes:
    return "\n".join(("-----BEGIN PUBLIC KEY-----", *lines, "-----END PUBLIC KEY-----", "")).encode()


SHARED_SECRET = "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ=="
RSA_PSS = pem(
    "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAr4tmm3r20Wd/PbqvP1s2",
    "+QEtvpuRaV8Yq40gjUR8y2Rjxa6dpG2GXHbPfvMs8ct+Lh1GH45x28Rw3Ry53mm+",
    "oAXjyQ86OnDkZ5N8lYbggD4O3w6M6pAvLkhk95AndTrifbIFPNU8PPMO7OyrFAHq",
    "gDsznjPFmTOtCEcN2Z1FpWgchwuYLPL+Wokqltd11nqqzi+bJ9cvSKADYdUAAN5W",
    "Utzdpiy6LbTgSxP7ociU4Tn0g5I6aDZJ7A8Lzo0KSyZYoA485mqcO0GVAdVw9lq4",
    "aOT9v6d+nb4bnNkQVklLQ3fVAvJm+xdDOp9LCNCN48V2pnDOkFV6+U9nV5oyc6XI",
    "2wIDAQAB",
)
P256 = pem(
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEqIVYZVLCrPZHGHjP17CTW0/+D9Lf",
    "w0EkjqF7xB4FivAxzic30tMM4GF+hR6Dxh71Z50VGGdldkkDXZCnTNnoXQ==",
)
ED25519 = pem("MCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=")
KEYS = {
    "test-key-rsa-pss": SignatureKey.of(KeySet.of_pem(RSA_PSS)),
    "test-key-ecc-p256": SignatureKey.of(KeySet.of_pem(P256)),
    "test-key-ed25519": SignatureKey.of(KeySet.of_pem(ED25519)),
    "test-shared-secret": SignatureKey.of(KeySet.of_secret(base64.b64decode(SHARED_SECRET))),
}
CLIENT_CERT = (
    ":MIIBqDCCAU6gAwIBAgIBBzAKBggqhkjOPQQDAjA6MRswGQYDVQQKDBJMZXQncyBBdXRoZW50aWNhdGUxGzAZBgNVBAMMEkxBIEludGVybWVkaWF0"
    "ZSBDQTAeFw0yMDAxMTQyMjU1MzNaFw0yMTAxMjMyMjU1MzNaMA0xCzAJBgNVBAMMAkJDMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE8YnXXfaU"
    "gmnMtOXU/IncWalRhebrXmckC8vdgJ1p5Be5F/3YC8OthxM4+k1M6aEAEFcGzkJiNy6J84y7uzo9M6NyMHAwCQYDVR0TBAIwADAfBgNVHSMEGDAW"
    "gBRm3WjLa38lbEYCuiCPct0ZaSED2DAOBgNVHQ8BAf8EBAMCBsAwEwYDVR0lBAwwCgYIKwYBBQUHAwIwHQYDVR0RAQH/BBMwEYEPYmRjQGV4YW1w"
    "bGUuY29tMAoGCCqGSM49BAMCA0gAMEUCIBHda/r1vaL6G3VliL4/Di6YK0Q6bMjeSkC3dFCOOB8TAiEAx/kHSB4urmiZ0NX5r5XarmPk0wmuydBV"
    "oU4hBVZ1yhk=:"
)

VECTORS: dict[str, tuple[str, str]] = {
    "sig-b21": (
        f'();created={CREATED};keyid="test-key-rsa-pss";nonce="b3k2pp5k7z-50gnwp.yemd"',
        (
            "d2pmTvmbncD3xQm8E9ZV2828BjQWGgiwAaw5bAkgibUopemLJcWDy/lkbbHAve4cRAtx31Iq786U7it++wgGxbtRxf8Udx7zFZsckzXaJMkA7ChG"
            "52eSkFxykJeNqsrWH5S+oxNFlD4dzVuwe8DhTSja8xxbR/Z2cOGdCbzR72rgFWhzx2VjBqJzsPLMIQKhO4DGezXehhWwE56YCE+O6c0mKZsfxVro"
            "gUvA4HELjVKWmAvtl6UnCh8jYzuVG5WSb/QEVPnP5TmcAnLH1g+s++v6d4s8m0gCw1fV5/SITLq9mhho8K3+7EPYTU8IU1bLhdxO5Nyt8C8ssinQ"
            "98Xw9Q=="
        ),
    ),
    "sig-b22": (
        (
            f'("@authority" "content-digest" "@query-param";name="Pet");created={CREATED};keyid="test-key-rsa-pss"'
            ';tag="header-example"'
        ),
        (
            "LjbtqUbfmvjj5C5kr1Ugj4PmLYvx9wVjZvD9GsTT4F7GrcQEdJzgI9qHxICagShLRiLMlAJjtq6N4CDfKtjvuJyE5qH7KT8UCMkSowOB4+ECxCmT"
            "8rtAmj/0PIXxi0A0nxKyB09RNrCQibbUjsLS/2YyFYXEu4TRJQzRw1rLEuEfY17SARYhpTlaqwZVtR8NV7+4UKkjqpcAoFqWFQh62s7Cl+H2fjBS"
            "pqfZUJcsIk4N6wiKYd4je2U/lankenQ99PZfB4jY3I5rSV2DSBVkSFsURIjYErOs0tFTQosMTAoxk//0RoKUqiYY8Bh0aaUEb0rQl3/XaVe4bXTu"
            "gEjHSw=="
        ),
    ),
    "sig-b23": (
        (
            '("date" "@method" "@path" "@query" "@authority" "content-type" "content-digest" "content-length")'
            f';created={CREATED};keyid="test-key-rsa-pss"'
        ),
        (
            "bbN8oArOxYoyylQQUU6QYwrTuaxLwjAC9fbY2F6SVWvh0yBiMIRGOnMYwZ/5MR6fb0Kh1rIRASVxFkeGt683+qRpRRU5p2voTp768ZrCUb38K0fU"
            "xN0O0iC59DzYx8DFll5GmydPxSmme9v6ULbMFkl+V5B1TP/yPViV7KsLNmvKiLJH1pFkh/aYA2HXXZzNBXmIkoQoLd7YfW91kE9o/CCoC1xMy7JA"
            "1ipwvKvfrs65ldmlu9bpG6A9BmzhuzF8Eim5f8ui9eH8LZH896+QIF61ka39VBrohr9iyMUJpvRX2Zbhl5ZJzSRxpJyoEZAFL2FUo5fTIztsDZKE"
            "gM4cUA=="
        ),
    ),
    "sig-b25": (
        f'("date" "@authority" "content-type");created={CREATED};keyid="test-shared-secret"',
        "pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=",
    ),
    "sig-b26": (
        (
            '("date" "@method" "@path" "@authority" "content-type" "content-length")'
            f';created={CREATED};keyid="test-key-ed25519"'
        ),
        "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==",
    ),
}
TTRP = (
    f'("@path" "@query" "@method" "@authority" "client-cert");created={CREATED};keyid="test-key-ecc-p256"',
    "xVMHVpawaAC/0SbHrKRs9i8I3eOs5RtTMGCWXm/9nvZzoHsIg6Mce9315T6xoklyy0yzhD9ah4JHRwMLOgmizw==",
)
TRANSFORM = (
    f'("@method" "@path" "@authority" "accept");created={CREATED};keyid="test-key-ed25519"',
    "ZT1kooQsEHpZ0I1IjCqtQppOmIqlJPeo7DHR3SoMn0s5JZ1eRGS0A+vyYP9t/LXlh5QMFFQ6cpLt2m0pmj3NDA==",
)


def fields(label: str, vector: tuple[str, str]) -> Fields:
    return [("Signature-Input", f"{label}={vector[0]}"), ("Signature", f"{label}=:{vector[1]}:")]


def verdict(headers: Fields, method: str = "POST", url: str = URL) -> Any:
    rules = SignatureRules(frozenset(), content=False)
    return SignatureVerifier(KEYS, rules, lambda: CREATED).verify(request_of(headers, method, url))


@pytest.mark.parametrize("label", VECTORS)
def test_signatures_of_the_test_request(label: str) -> None:
    headers = [*REQUEST, *fields(label, VECTORS[label])]
    assert isinstance(verdict(headers), Signed)
    changed = [(name, "Tue, 20 Apr 2021 02:07:56 GMT" if name == "Date" else value) for name, value in headers]
    other = verdict(changed, "GET", "http://example.org/foo?param=Value&Pet=cat")
    assert isinstance(other, Signed) is (label == "sig-b21")  # which covers nothing


def test_the_base_is_that_of_the_example() -> None:
    request = request_of([*REQUEST, *fields("sig-b23", VECTORS["sig-b23"])], "POST", URL)
    signatures = Signatures.of(request.headers)
    assert signatures is not None
    assert Message(request).base(signatures.read("sig-b23")).decode() == (
        '"date": Tue, 20 Apr 2021 02:07:55 GMT\n'
        '"@method": POST\n'
        '"@path": /foo\n'
        '"@query": ?param=Value&Pet=dog\n'
        '"@authority": example.com\n'
        '"content-type": application/json\n'
        f'"content-digest": {REQUEST[3][1]}\n'
        '"content-length": 18\n'
        f'"@signature-params": {VECTORS["sig-b23"][0]}'
    )


def test_the_signature_of_a_response() -> None:
    """No response is verified, but its key and its algorithm are."""
    base = (
        '"@status": 200\n'
        '"content-type": application/json\n'
        '"content-digest": '
        "sha-512=:mEWXIS7MaLRuGgxOBdODa3xqM1XdEvxoYhvlCFJ41QJgJc4GTsPp29l5oGX69wWdXymyU0rjJuahq4l5aGgfLQ==:\n"
        '"content-length": 23\n'
        '"@signature-params": ("@status" "content-type" "content-digest" "content-length")'
        f';created={CREATED};keyid="test-key-ecc-p256"'
    ).encode()
    value = "wNmSUAhwb5LxtOtOpNa6W5xj067m5hFrj0XQ4fvpaCLx0NKocgPquLgyahnzDnDAUy5eCdlYUEkLIj+32oiasw=="
    verify = KEYS["test-key-ecc-p256"].verify
    assert verify(base, base64.b64decode(value))
    assert not verify(base + b" ", base64.b64decode(value))


def test_a_proxy_that_ends_tls() -> None:
    headers = [("Client-Cert", CLIENT_CERT), *fields("ttrp", TTRP)]
    url = "http://service.internal.example/foo?param=Value&Pet=dog"
    assert isinstance(verdict(headers, "POST", url), Signed)
    headers[0] = ("Client-Cert", CLIENT_CERT.replace("A", "B", 1))
    assert not isinstance(verdict(headers, "POST", url), Signed)


ACCEPT: Fields = [("Accept", "application/json"), ("Accept", "*/*")]
TRANSFORMED: list[tuple[str, str, Fields, bool]] = [
    ("GET", "http://example.org/demo?name1=Value1&Name2=value2", ACCEPT, True),
    ("GET", "http://example.org/demo?name1=Value1&Name2=value2&param=added", [*ACCEPT, ("X", "y")], True),
    ("GET", "http://example.org/demo", [("Accept", "application/json, */*")], True),
    ("GET", "http://example.org:80/demo", ACCEPT, True),
    ("POST", "http://example.com/demo?name1=Value1&Name2=value2", ACCEPT, False),
    ("GET", "http://example.org/demo", ACCEPT[::-1], False),
    ("POST", "http://example.org/demo", ACCEPT, False),
    ("GET", "http://example.org/demo/", ACCEPT, False),
]


@pytest.mark.parametrize(("method", "url", "headers", "good"), TRANSFORMED)
def test_messages_that_were_changed_on_their_way(method: str, url: str, headers: Fields, good: bool) -> None:
    found = verdict([*headers, *fields("transform", TRANSFORM)], method, url)
    assert isinstance(found, Signed) is good


def test_the_policy_takes_what_covers_enough() -> None:
    env = SigningEnv()
    env.now = CREATED + 5
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": "JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs"}
    keys = {"test-key-ed25519": {"jwk": jwk}, "test-shared-secret": {"secret": f"base64:{SHARED_SECRET}"}}
    policy = made(env, keys=keys, components=["@authority", "content-type", "date"], content=False)
    for label in ("sig-b25", "sig-b26"):
        signer = VECTORS[label][0].rpartition('keyid="')[2].rstrip('"')
        request = request_of([*REQUEST, *fields(label, VECTORS[label])], "POST", URL, BODY)
        assert found(policy, request) == User(signer, kind="hmac-auth")


def test_the_policy_looks_at_the_content_of_the_example(tmp_path: Any) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(RSA_PSS)
    env = SigningEnv()
    env.now = CREATED
    keys = {"test-key-rsa-pss": {"public_key_file": str(file)}}
    for label, settings in (
        ("sig-b22", {"components": "@authority", "tag": "header-example"}),
        ("sig-b23", {"components": ["@method", "@target-uri", "date"]}),
    ):
        policy = made(env, keys=keys, **settings)
        headers = [*REQUEST, *fields(label, VECTORS[label])]
        taken = found(policy, request_of(headers, "POST", URL, BODY))
        assert taken == User("test-key-rsa-pss", kind="hmac-auth")
        assert found(policy, request_of(headers, "POST", URL, BODY + b" ")).type == "content-digest-mismatch"
