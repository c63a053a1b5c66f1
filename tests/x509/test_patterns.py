"""What patterns for the names in certificates match, and what they do not."""

from __future__ import annotations

import string
import time
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from portico.config.values import BadValue
from portico.x509.certificate import COMMON_NAME, UNIT, DistinguishedName, Rdn
from portico.x509.patterns import dns_pattern, email_pattern, fingerprint, name_pattern, uri_pattern

KINDS = {"CN": COMMON_NAME, "OU": UNIT, "O": "2.5.4.10", "C": "2.5.4.6", "E": "1.2.840.113549.1.9.1", "X": "1.2.3.4"}


def rdn(*pairs: tuple[str, str]) -> Rdn:
    return tuple(sorted((KINDS[kind], value) for kind, value in pairs))


def dn(*parts: tuple[str, str]) -> DistinguishedName:
    return DistinguishedName([rdn(part) for part in parts])


ADA = dn(("CN", "ada"), ("OU", "dev"), ("O", "Acme"))
FORGED = dn(("CN", "ada,OU=dev,O=Acme"), ("O", "Evil"))
ESCAPED = dn(("CN", 'a,b+c"d\\e<f>g;h=i#j'), ("O", " #Acme "))
SEVERAL = DistinguishedName([rdn(("CN", "ada"), ("OU", "dev")), rdn(("O", "Acme"))])


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("CN=ada,OU=dev,O=Acme", ADA, True),
        ("cn=ada, ou = dev ,O=Acme", ADA, True),
        ("2.5.4.3=ada,OU=dev,O=Acme", ADA, True),
        ("CN=Ada,OU=dev,O=Acme", ADA, False),
        ("O=Acme,OU=dev,CN=ada", ADA, False),
        ("CN=ada,OU=dev", ADA, False),
        ("OU=dev,O=Acme", ADA, False),
        ("CN=ada,OU=dev,O=Acme,C=CH", ADA, False),
        ("CN=*,OU=*,O=*", ADA, True),
        ("CN=a*a,OU=d*v,O=*e", ADA, True),
        ("CN=ada*,OU=dev,O=Acme", ADA, False),
        ("CN=*ada,OU=dev,O=Acme", ADA, False),
        ("CN=*,O=Acme", ADA, False),
        ("CN=*", ADA, False),
        ("OU=*,OU=dev,O=Acme", ADA, False),
        ("CN=*,OU=dev,O=Acme", FORGED, False),
        ("CN=*,O=Evil", FORGED, True),
        ("CN=*,O=Acme", FORGED, False),
        ("CN=ada*,O=Evil", FORGED, True),
        (r"CN=ada\,OU=dev\,O=Acme,O=Evil", FORGED, True),
        (r"CN=ada\2cOU=dev\2CO=Acme,O=Evil", FORGED, True),
        (r"CN=a\,b\+c\"d\\e\<f\>g\;h=i#j,O=\ #Acme\ ", ESCAPED, True),
        (r"CN=a\,b\+c\"d\\e\<f\>g\;h\=i\#j,O=\ \#Acme\20", ESCAPED, True),
        (r"CN=a\,*j,O=\ *\ ", ESCAPED, True),
        ("CN=ada+OU=dev,O=Acme", SEVERAL, True),
        ("OU=dev + CN=ada,O=Acme", SEVERAL, True),
        ("CN=*,O=Acme", SEVERAL, False),
        ("CN=ada,O=Acme", SEVERAL, False),
        ("OU=dev,O=Acme", SEVERAL, False),
        ("CN=ada+OU=dev+OU=dev,O=Acme", SEVERAL, False),
        ("CN=ada,OU=dev,O=Acme", SEVERAL, False),
        ("CN=ada+OU=dev", dn(("CN", "ada+OU=dev")), False),
        (r"CN=Zo\C3\AB", dn(("CN", "Zoë")), True),
        ("CN=Zoë", dn(("CN", "Zoë")), True),
        ("CN=*", dn(("CN", "a\nb")), True),
        ("CN=*", dn(("CN", "")), False),
        (r"CN=\*", dn(("CN", "*")), True),
        (r"CN=\2a", dn(("CN", "ada")), False),
        ("1.2.3.4=a", dn(("X", "a")), True),
        ("emailAddress=ada@x,O=Acme", dn(("E", "ada@x"), ("O", "Acme")), True),
    ],
)
def test_names_of_subjects(pattern: str, name: DistinguishedName, matches: bool) -> None:
    assert name_pattern(pattern)(name) is matches


@pytest.mark.parametrize(
    ("make", "pattern", "name", "matches"),
    [
        (dns_pattern, "a.example.com", "a.example.com", True),
        (dns_pattern, "A.Example.com", "a.example.com", True),
        (dns_pattern, "*.example.com", "a.example.com", True),
        (dns_pattern, "*.example.com", "a.b.example.com", False),
        (dns_pattern, "*.example.com", "example.com", False),
        (dns_pattern, "*.example.com", ".example.com", False),
        (dns_pattern, "*.example.com", "a.example.com.evil", False),
        (dns_pattern, "*.example.com", "a.example-com", False),
        (dns_pattern, "web-*.*.example.com", "web-1.eu.example.com", True),
        (dns_pattern, "web-*.*.example.com", "web-.eu.example.com", False),
        (dns_pattern, "a*b*c", "abbbc", True),
        (dns_pattern, "a*b*c", "abbc", False),
        (dns_pattern, "*", "host", True),
        (dns_pattern, "*", "host.example", False),
        (email_pattern, "ada@example.com", "ada@example.com", True),
        (email_pattern, "ada@EXAMPLE.com", "ada@example.com", True),
        (email_pattern, "ada@example.com", "Ada@example.com", False),
        (email_pattern, "*@example.com", "ada.l@example.com", True),
        (email_pattern, "*@example.com", "@example.com", False),
        (email_pattern, "*@example.com", "ada@evil@example.com", False),
        (email_pattern, "*@example.com", "ada@a.example.com", False),
        (email_pattern, "*@*.example.com", "ada@a.example.com", True),
        (email_pattern, "*@*.example.com", "ada@a.b.example.com", False),
        (email_pattern, "dev-*@example.com", "dev-1@example.com", True),
        (uri_pattern, "spiffe://x/a", "spiffe://x/a", True),
        (uri_pattern, "spiffe://x/a", "spiffe://x/a/", False),
        (uri_pattern, "spiffe://x/a", "spiffe://x/A", False),
        (uri_pattern, "spiffe://x/ns/*/sa/web", "spiffe://x/ns/shop/sa/web", True),
        (uri_pattern, "spiffe://x/ns/*/sa/web", "spiffe://x/ns/a/b/sa/web", False),
        (uri_pattern, "spiffe://x/ns/*/sa/web", "spiffe://x/ns//sa/web", False),
        (uri_pattern, "spiffe://x/ns/*", "spiffe://x/ns/", False),
        (uri_pattern, "spiffe://x/ns/*", "spiffe://x/ns/a?b", False),
        (uri_pattern, "spiffe://x/ns/*", "spiffe://x/ns/a#b", False),
        (uri_pattern, "spiffe://x/ns/*", "spiffe://x/ns/..", False),
        (uri_pattern, "spiffe://x/ns/*", "spiffe://x/ns/%2E%2e", False),
        (uri_pattern, "spiffe://x/ns/*", "spiffe://x/ns/a%2fb", False),
        (uri_pattern, "spiffe://x/ns/*", "spiffe://x/ns/a%20b", True),
        (uri_pattern, "spiffe://x/ns/**", "spiffe://x/ns/a/b/c", True),
        (uri_pattern, "spiffe://x/ns/**", "spiffe://x/ns/a", True),
        (uri_pattern, "spiffe://x/ns/**", "spiffe://x/ns/", False),
        (uri_pattern, "spiffe://x/ns/**", "spiffe://x/ns", False),
        (uri_pattern, "spiffe://x/ns/**", "spiffe://x/ns/a/../../admin", False),
        (uri_pattern, "spiffe://x/ns/**", "spiffe://x/ns/a/./b", False),
        (uri_pattern, "spiffe://x/ns/**", "spiffe://x/ns/a//b", False),
        (uri_pattern, "spiffe://x/ns/**", "spiffe://x/ns/a://b", False),
        (uri_pattern, "spiffe://x/ns/**", "spiffe://x/ns/a:///b", False),
        (uri_pattern, "spiffe://x/ns/**", "spiffe://x/ns/a:b/c", True),
        (uri_pattern, "spiffe://x:1/**", "spiffe://x:1/a", True),
        (uri_pattern, "urn:a/**", "urn:a/b://c", False),
        (uri_pattern, "urn:*/b", "urn:a:/b", True),
        (uri_pattern, "urn:**", "urn:a://b", False),
        (uri_pattern, "urn:**", "urn:a//b", False),
        (uri_pattern, "spiffe://x/ns/**", "spiffe://x/ns/a?b", False),
        (uri_pattern, "spiffe://x/ns/*/**", "spiffe://x/ns/a/b/c", True),
        (uri_pattern, "spiffe://x/ns/*/**", "spiffe://x/ns/a", False),
        (uri_pattern, "spiffe://*/a", "spiffe://x/y/a", False),
        (uri_pattern, "spiffe://*/a", "spiffe:///a", False),
        (uri_pattern, "urn:example:*", "urn:example:1", True),
        (uri_pattern, "spiffe://x/a/../b", "spiffe://x/a/../b", True),  # somebody means exactly this
    ],
)
def test_alternative_names(
    make: Callable[[str], Callable[[str], object]], pattern: str, name: str, matches: bool
) -> None:
    assert bool(make(pattern)(name)) is matches


HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "text", [HEX, HEX.upper(), f"sha256:{HEX}", ":".join(HEX[at : at + 2] for at in range(0, 64, 2)).upper()]
)
def test_fingerprints(text: str) -> None:
    assert fingerprint(text) == HEX


WRONG: list[tuple[Callable[[str], object], str, str]] = [
    (name_pattern, "ada", "'ada' is no attribute such as CN=ada; openssl x509"),
    (name_pattern, "", "'' is no attribute"),
    (name_pattern, "*", "'*' is no attribute"),
    (name_pattern, "*,O=Acme", "'*' is no attribute"),
    (name_pattern, "/C=CH/O=Acme/CN=ada", "is no attribute"),
    (name_pattern, "who=ada", "'who=ada' is no attribute"),
    (name_pattern, "CN=", "has no value"),
    (name_pattern, "CN=ada,", "'' is no attribute"),
    (name_pattern, "CN=,O=Acme", "has no value"),
    (name_pattern, 'CN="ada"', "such as is not escaped"),
    (name_pattern, "CN=ada;O=Acme", "such as is not escaped"),
    (name_pattern, "CN=ada\\", "has no value, or such"),
    (name_pattern, r"CN=a\zb", r"\z is no escape"),
    (name_pattern, "CN=a**", "has ** in it; write *"),
    (name_pattern, r"CN=\C3", "is no UTF-8"),
    (dns_pattern, "", "is no host name"),
    (dns_pattern, "a..b", "is no host name"),
    (dns_pattern, "**.example.com", "is no host name"),
    (dns_pattern, "https://a", "is no host name"),
    (email_pattern, "example.com", "is no address"),
    (email_pattern, "@example.com", "is no address"),
    (email_pattern, "**@example.com", "is no address"),
    (email_pattern, "a@b@", "is no address"),
    (uri_pattern, "example.org/a", "is no URI"),
    (uri_pattern, "*", "is no URI"),
    (uri_pattern, "**", "is no URI"),
    (uri_pattern, "spiffe://x/a b", "is no URI"),
    (uri_pattern, "spiffe://x/**/a", "has ** before its end"),
    (uri_pattern, "spiffe://x/***", "has ** before its end"),
    (fingerprint, HEX[1:], "64 hexadecimal digits"),
    (fingerprint, "*", "64 hexadecimal digits"),
    (fingerprint, HEX[1:] + "g", "64 hexadecimal digits"),
]


@pytest.mark.parametrize(("make", "text", "message"), WRONG)
def test_what_is_no_pattern(make: Callable[[str], object], text: str, message: str) -> None:
    with pytest.raises(BadValue) as caught:
        make(text)
    assert message in str(caught.value)


VALUES = st.text(st.sampled_from(string.ascii_letters + ' ,+"\\<>;=#*ë\n\0\u200b'), min_size=1, max_size=8)
NAMES = st.lists(
    st.dictionaries(st.sampled_from(sorted(KINDS)), VALUES, min_size=1, max_size=3), min_size=1, max_size=4
)


@given(NAMES)
def test_the_text_of_a_name_matches_it_and_no_other(names: list[dict[str, str]]) -> None:
    name = DistinguishedName([rdn(*each.items()) for each in names])
    assert name.text.isprintable()
    exactly = name_pattern(name.text.replace("*", r"\*"))
    assert exactly(name)
    changed = [dict(each) for each in names]
    changed[-1] = {kind: value + "x" for kind, value in changed[-1].items()}
    assert not exactly(DistinguishedName([rdn(*each.items()) for each in changed]))


PATTERNS = st.tuples(st.lists(st.sampled_from(["a", "b", "*a", "*b"]), max_size=6).map("".join), st.sampled_from("*"))


@given(PATTERNS.map("".join) | PATTERNS.map(lambda parts: parts[0]), st.text("ab", max_size=10))
@example("*a", "aba")
@example("*a*b", "xaab")
def test_wildcards_are_tried_in_every_way_that_matters(pattern: str, name: str) -> None:
    """The pattern goes over the name once; what tries everything finds the same."""

    def tries(at: int, of: int) -> bool:
        if at == len(pattern):
            return of == len(name)
        if pattern[at] != "*":
            return name[of : of + 1] == pattern[at] and tries(at + 1, of + 1)
        return any(tries(at + 1, after) for after in range(of + 1, len(name) + 1))

    assert name_pattern(f"CN=x{pattern}")(dn(("CN", f"x{name}"))) is tries(0, 0)


@pytest.mark.parametrize(
    ("make", "pattern", "name"),
    [
        (dns_pattern, "*a" * 20 + ".b", "a" * 2000),
        (email_pattern, "*a" * 20 + "@" + "*a" * 20, "a" * 1000 + "@" + "a" * 1000 + "b"),
        (uri_pattern, "x:" + "*a" * 20 + "**", "x:" + "a" * 2000 + "?"),
        (uri_pattern, "x:" + "*/" * 20 + "*b", "x:" + "a/" * 1000),
    ],
)
def test_no_name_takes_long(make: Callable[[str], Callable[[str], object]], pattern: str, name: str) -> None:
    """Wildcards that are tried in all ways would take longer than the universe has been there."""
    began = time.process_time()
    assert not make(pattern)(name)
    assert time.process_time() - began < 2
