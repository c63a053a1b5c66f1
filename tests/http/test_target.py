from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from portico.errors import MalformedRequest
from portico.http.target import EncodedSlashes, normalise_path, parse_host, parse_target

KEEP, DECODE, REJECT = EncodedSlashes.KEEP, EncodedSlashes.DECODE, EncodedSlashes.REJECT
UNRESERVED = re.compile(r"[A-Za-z0-9\-._~]")

PIECES = [
    *["/", "//", ".", "..", "a", "b", "index.html", ".hidden", "...", ";", ";v=1", "*", ":", "@", "&", "=", ","],
    *["%2e", "%2E", "%2f", "%2F", "%5c", "%5C", "%7e", "%41", "%20", "%c3%a9", "%25", "%252f", "%3b", "%3B", "%2A"],
    *["|", "{", "}", "[", "]", "^", "`", '"', "<", ">"],
]
BROKEN = ["%", "%0", "%zz", "%00", " ", "\\", "#", "\x7f", "\n", "\xe9"]
paths = st.lists(st.sampled_from(PIECES), max_size=12).map(lambda pieces: "/" + "".join(pieces))
any_paths = st.lists(st.sampled_from(PIECES + BROKEN), max_size=12).map(lambda pieces: "/" + "".join(pieces))


def reference(path: str, slashes: EncodedSlashes) -> str | None:
    """Do what the module says one rule after the other, without a thought for speed; None where the path is refused."""
    spelled = ""
    while path:
        if escape := re.match("%([0-9A-Fa-f]{2})", path):
            char, path = chr(int(escape[1], 16)), path[3:]
            if char == "\0":
                return None
            spelled += char if UNRESERVED.fullmatch(char) else escape[0].upper()
        else:
            char, path = path[0], path[1:]
            if char in '"<>[]^`{|}':
                spelled += f"%{ord(char):02X}"
            elif UNRESERVED.fullmatch(char) or char in "!$&'()*+,;=:@/":
                spelled += char
            else:
                return None
    if slashes is REJECT and ("%2F" in spelled or "%5C" in spelled):
        return None
    if slashes is DECODE:
        spelled = spelled.replace("%2F", "/")
    normal = remove_dot_segments(re.sub("//+", "/", spelled))
    return None if has_hidden_dots(normal) else normal


def remove_dot_segments(remaining: str) -> str:
    """RFC 3986 section 5.2.4, to the letter."""
    output = ""
    while remaining:
        if remaining.startswith("../"):
            remaining = remaining[3:]
        elif remaining.startswith(("./", "/./")):
            remaining = remaining[2:]
        elif remaining == "/.":
            remaining = "/"
        elif remaining.startswith("/../"):
            remaining = remaining[3:]
            output = output[: output.rfind("/")] if "/" in output else ""
        elif remaining == "/..":
            remaining = "/"
            output = output[: output.rfind("/")] if "/" in output else ""
        elif remaining in (".", ".."):
            remaining = ""
        else:
            end = remaining.find("/", 1)
            end = len(remaining) if end < 0 else end
            output += remaining[:end]
            remaining = remaining[end:]
    return output


def has_hidden_dots(path: str) -> bool:
    for segment in path.replace("%2F", "/").replace("%5C", "/").split("/"):
        if segment.replace("%3B", ";").split(";")[0] in (".", ".."):
            return True
    return False


def outcome(path: str, slashes: EncodedSlashes) -> str | None:
    try:
        return normalise_path(path, slashes)
    except MalformedRequest:
        return None


@pytest.mark.parametrize(
    ("raw", "normal"),
    [
        ("/", "/"),
        ("/api/v1/orders/123", "/api/v1/orders/123"),
        ("/a/", "/a/"),
        ("//", "/"),
        ("/a//b///c", "/a/b/c"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/b/..", "/a/"),
        ("/a/b/.", "/a/b/"),
        ("/..", "/"),
        ("/../../etc/passwd", "/etc/passwd"),
        ("/a//../b", "/b"),
        ("/%2e%2E/a", "/a"),
        ("/a/%2e", "/a/"),
        ("/%7Euser/%41%62", "/~user/Ab"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/a%20b", "/a%20b"),
        ('/a|b^c[d]{e}`f"g<h>', "/a%7Cb%5Ec%5Bd%5D%7Be%7D%60f%22g%3Ch%3E"),
        ("/100%25", "/100%25"),
        ("/%2541", "/%2541"),
        ("/.well-known/acme-challenge/x", "/.well-known/acme-challenge/x"),
        ("/.../..a/a..", "/.../..a/a.."),
        ("/a;v=1/b!$&'()*+,=:@", "/a;v=1/b!$&'()*+,=:@"),
        ("/group%2fproject", "/group%2Fproject"),
        ("/a%5cb", "/a%5Cb"),
    ],
)
def test_paths_have_one_normal_form(raw: str, normal: str) -> None:
    assert parse_target(raw.encode(), "GET", KEEP) == (normal, None, None)


@pytest.mark.parametrize(
    ("raw", "normal"),
    [
        ("/group%2fproject", "/group/project"),
        ("/public/%2e%2e%2fadmin", "/admin"),
        ("/public/..%2Fadmin", "/admin"),
        ("/public%2F%2e%2e%2F..%2Fadmin", "/admin"),
        ("/a%2F%2Fb", "/a/b"),
        ("/a/%2Fb", "/a/b"),
        ("/a%252Fb", "/a%252Fb"),
        ("/a%5Cb", "/a%5Cb"),
    ],
)
def test_a_decoded_slash_takes_part_in_everything(raw: str, normal: str) -> None:
    assert normalise_path(raw, DECODE) == normal


@pytest.mark.parametrize("raw", ["/a%2Fb", "/a%2fb", "/a%5Cb", "/a%5cb"])
def test_encoded_slashes_can_be_rejected(raw: str) -> None:
    with pytest.raises(MalformedRequest, match="encoded slash"):
        normalise_path(raw, REJECT)


@pytest.mark.parametrize(
    "raw", ["/public/..%2Fadmin", "/a%2F..", "/%5c%2e%2e/a", "/..;/admin", "/a/..;v=1", "/..%3b/a", "/.;/a", "/a%2F./b"]
)
def test_dot_segments_that_a_service_would_find_are_refused(raw: str) -> None:
    with pytest.raises(MalformedRequest, match="hidden"):
        normalise_path(raw, KEEP)


@pytest.mark.parametrize("bad", BROKEN)
@pytest.mark.parametrize("around", ["/{}", "/a{}z", "/a/{}", "/a/../{}"])
def test_what_may_not_stand_in_a_path(bad: str, around: str) -> None:
    with pytest.raises(MalformedRequest):
        parse_target(around.format(bad).encode("latin-1"), "GET", KEEP)


@given(any_paths, st.sampled_from(EncodedSlashes))
@example("/a/..%2f..%2fb", DECODE)
@example("/a//..", KEEP)
def test_the_normal_form_is_that_of_the_reference(path: str, slashes: EncodedSlashes) -> None:
    assert outcome(path, slashes) == reference(path, slashes)


@given(paths, st.sampled_from(EncodedSlashes))
def test_the_normal_form_is_its_own_and_hides_nothing(path: str, slashes: EncodedSlashes) -> None:
    normal = outcome(path, slashes)
    if normal is not None:
        assert normalise_path(normal, slashes) == normal
        assert parse_target(normal.encode("ascii"), "GET", slashes) == (normal, None, None)
        assert normal.startswith("/")
        assert "//" not in normal
        assert not {".", ".."} & set(normal.replace("%2F", "/").replace("%5C", "/").split("/"))
        assert slashes is KEEP or "%2F" not in normal


@given(st.binary(max_size=40) | any_paths.map(lambda path: path.encode("latin-1")), st.sampled_from(["GET", "OPTIONS"]))
def test_any_bytes_are_a_target_or_malformed(target: bytes, method: str) -> None:
    try:
        path, query, _ = parse_target(target, method, KEEP)
    except MalformedRequest:
        return
    assert path == "*" or path == normalise_path(path, KEEP)
    assert query is None or target.endswith(b"?" + query.encode("ascii"))


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/a?x=1", "/a", "x=1"),
        (b"/a?", "/a", ""),
        (b"/a??", "/a", "?"),
        (b"/?next=//../%zz%00\"<>\\{}|^`'", "/", "next=//../%zz%00\"<>\\{}|^`'"),
        (b"/%61/..?a%2fb", "/", "a%2fb"),
    ],
)
def test_the_query_is_left_alone(target: bytes, path: str, query: str) -> None:
    assert parse_target(target, "GET", REJECT) == (path, query, None)


@pytest.mark.parametrize("target", [b"/a?b#c", b"/a?b c", b"/a?\x00", b"/a?\xff", b"/a?\n", b"/%61?\x7f"])
def test_what_may_not_stand_in_a_query(target: bytes) -> None:
    with pytest.raises(MalformedRequest):
        parse_target(target, "GET", KEEP)


@pytest.mark.parametrize(
    ("method", "target", "parsed"),
    [
        ("GET", b"http://example.com/a?b", ("/a", "b", "example.com")),
        ("GET", b"HTTPS://Example.com:8443/a/../b", ("/b", None, "Example.com:8443")),
        ("GET", b"http://example.com", ("/", None, "example.com")),
        ("GET", b"http://example.com?x", ("/", "x", "example.com")),
        ("OPTIONS", b"http://example.com", ("*", None, "example.com")),
        ("OPTIONS", b"http://example.com/", ("/", None, "example.com")),
        ("OPTIONS", b"http://[::1]:80?x", ("/", "x", "[::1]:80")),
        ("OPTIONS", b"*", ("*", None, None)),
    ],
)
def test_other_forms_of_a_target(method: str, target: bytes, parsed: tuple[str, str | None, str | None]) -> None:
    assert parse_target(target, method, KEEP) == parsed


@pytest.mark.parametrize(
    "target",
    [
        b"",
        b"*",
        b"a",
        b"?a",
        b"example.com:443",
        b"ftp://example.com/",
        b"http:/a",
        b"http:///a",
        b"http://u@example.com/",
        b"http://example.com#a",
        b"http://exa mple.com/",
        b"http://\xff/",
        b"https://example.com\\/a",
        b"**",
    ],
)
def test_what_is_no_target(target: bytes) -> None:
    with pytest.raises(MalformedRequest):
        parse_target(target, "GET", KEEP)


@pytest.mark.parametrize(
    ("value", "host", "port"),
    [
        (b"example.com", "example.com", None),
        (b"API.Example.COM:8080", "api.example.com", 8080),
        (b"example.com.", "example.com", None),
        (b"example.com:", "example.com", None),
        (b"example.com:65535", "example.com", 65535),
        (b"my_service:0", "my_service", 0),
        (b"xn--bcher-kva.example", "xn--bcher-kva.example", None),
        (b"127.0.0.1:80", "127.0.0.1", 80),
        (b"[::1]", "[::1]", None),
        (b"[2001:DB8:0:0::1]:443", "[2001:db8::1]", 443),
        (b"[::ffff:192.0.2.1]", "[::ffff:c000:201]", None),
    ],
)
def test_hosts(value: bytes, host: str, port: int | None) -> None:
    assert parse_host(value) == (host, port)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b":80",
        b".",
        b"..",
        b".a",
        b"a..b",
        b"a b",
        b" a",
        b"a\n",
        b"a\x00",
        b"a/b",
        b"a@b",
        b"a,b",
        b"a%41",
        b"caf\xe9",
        b"a:b",
        b"a:80:80",
        b"a:65536",
        b"a:123456",
        b"a:-1",
        b"a:+1",
        b"*",
        b"*.a",
        b"a?",
        b"a#",
        b"a\\b",
        b"a" * 254,
        b"::1",
        b"[::1",
        b"[]",
        b"[1::2::3]",
        b"[::1%25eth0]",
        b"[v1.a]",
        b"[::1]a",
        b"[::1]:x",
        b"[127.0.0.1]",
    ],
)
def test_what_is_no_host(value: bytes) -> None:
    with pytest.raises(MalformedRequest):
        parse_host(value)


@given(st.binary(max_size=20))
def test_any_bytes_are_a_host_or_malformed(value: bytes) -> None:
    try:
        host, _ = parse_host(value)
    except MalformedRequest:
        return
    assert parse_host(host.encode("ascii")) == (host, None)


@pytest.mark.parametrize(
    "unit", ["a/", "/", "../", "./", "a/../", "%2e%2e%2f", "..%2f", "%41", "a", "%2f", ".", ";", "%"]
)
@pytest.mark.parametrize("slashes", EncodedSlashes)
def test_time_is_linear_in_the_path(unit: str, slashes: EncodedSlashes) -> None:
    # A megabyte, far above any head limit: quadratic time would not end within the test's time limit.
    outcome("/" + unit * (1_000_000 // len(unit)), slashes)
    with pytest.raises(MalformedRequest):
        parse_target(b"/" + unit.encode() * (1_000_000 // len(unit)) + b"\xff", "GET", slashes)
