from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from portico.config.addresses import (
    Address,
    Url,
    parse_listen_address,
    parse_network,
    parse_target_address,
    parse_url,
)
from portico.config.values import (
    BadValue,
    Condition,
    Count,
    DurationOrOff,
    HeaderName,
    HeaderValue,
    HostPattern,
    Method,
    Name,
    PathText,
    Secret,
    StatusCode,
    parse_condition,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5s", 5),
        ("250ms", 0.25),
        ("1m30s", 90),
        ("2h", 7200),
        ("1d", 86400),
        ("7", 7),
        ("1.5h", 5400),
        ("1d2h3m4s5ms", 93784.005),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


BAD_DURATIONS = ["", "5sec", "5 s", "s", "-5s", "30s1m", "1s1s", "٣s", "1e3s", "9" * 13 + "s", "999999999999d"]


@pytest.mark.parametrize("text", BAD_DURATIONS)
def test_what_is_not_a_duration(text: str) -> None:
    with pytest.raises(BadValue):
        parse_duration(text)


def test_a_bare_number_is_seconds() -> None:
    assert parse_duration(5) == 5.0
    assert parse_duration(0.5) == 0.5
    for number in (-1, float("nan"), float("inf"), 10**400):
        with pytest.raises(BadValue):
            parse_duration(number)


def test_a_bad_duration_says_what_is_one() -> None:
    with pytest.raises(BadValue, match="'5sec' is not a duration; write 5s, 250ms, 1m30s"):
        parse_duration("5sec")


@given(st.text(max_size=12))
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    with suppress(BadValue):
        assert parse_duration(text) >= 0


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1KiB", 1024),
        ("10MiB", 10 * 2**20),
        ("5MB", 5_000_000),
        ("1GiB", 2**30),
        ("512B", 512),
        ("9", 9),
        ("1.5MiB", 1572864),
        (7, 7),
    ],
)
def test_sizes(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "10M", "10mib", "MiB", "-1KiB", "1 KiB", "999999999999GiB", -1, 10**13])
def test_what_is_not_a_size(text: object) -> None:
    with pytest.raises(BadValue, match="10MiB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8000", Address("127.0.0.1", 8000)),
        ("[::1]:8000", Address("::1", 8000)),
        (":8000", Address("", 8000)),
        ("localhost:0", Address("localhost", 0)),
    ],
)
def test_addresses_to_listen_on(text: str, address: Address) -> None:
    assert parse_listen_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text", ["8000", "::1:8000", "[::1]", "[127.0.0.1]:80", "host:", "host:65536", "unix:/run/x", "a:b:1", "[::g]:1"]
)
def test_what_is_not_an_address(text: str) -> None:
    with pytest.raises(BadValue, match=r"127\.0\.0\.1:8000"):
        parse_listen_address(text)


def test_addresses_of_targets() -> None:
    assert parse_target_address("orders:8080") == Url("http", "orders", 8080)
    assert parse_target_address("https://orders") == Url("https", "orders", 443)
    assert str(parse_target_address("[::1]:80")) == "http://[::1]:80"
    for text in ("orders", ":80", "orders:0", "orders:70000", "http://orders/path", "ftp://orders"):
        with pytest.raises(BadValue):
            parse_target_address(text)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://orders", Url("http", "orders", 80)),
        ("https://Orders.example/", Url("https", "orders.example", 443)),
        ("http://10.0.0.1:8080/base/path/", Url("http", "10.0.0.1", 8080, "/base/path")),
        ("http://[::1]:9/x%20y", Url("http", "::1", 9, "/x%20y")),
    ],
)
def test_urls(text: str, url: Url) -> None:
    assert parse_url(text) == url


@pytest.mark.parametrize(
    "text",
    [
        "", "orders", "orders:80", "http:/orders", "http:orders", "http://", "http://:80", "http://a b", "http://a:x",
        "http://a:0", "http://a:99999", "http://a/?", "http://a/#x", "http://a/?q=1", "ftp://a", "http://[::1",
        "http://[::g]/", "http://a/ä", "http://a/x y", "http://u@a", "http://u:p@a",
    ],
)  # fmt: skip
def test_what_is_not_a_url(text: str) -> None:
    with pytest.raises(BadValue):
        parse_url(text)


@given(st.text(max_size=30), st.sampled_from([parse_url, parse_target_address, parse_listen_address, parse_network]))
def test_any_text_is_an_address_or_refused(text: str, parse: Callable[[object], object]) -> None:
    for whole in (text, f"http://{text}"):
        with suppress(BadValue):
            assert not re.search(r"\s", str(parse(whole)))


def test_the_password_in_a_url_is_not_repeated() -> None:
    with pytest.raises(BadValue) as error:
        parse_url("http://admin:hunter2@a?x")
    assert "hunter2" not in str(error.value)


def test_networks() -> None:
    assert parse_network("10.0.0.0/8") == ip_network("10.0.0.0/8")
    assert parse_network("::1") == ip_network("::1/128")
    with pytest.raises(BadValue, match=r"'10\.0\.0\.1/8' is not a network; write 10\.0\.0\.0/8"):
        parse_network("10.0.0.1/8")
    with pytest.raises(BadValue, match="'office' is not a network"):
        parse_network("office")


def test_conditions() -> None:
    assert parse_condition("v2") == Condition("equals", "v2")
    assert parse_condition("~v[12]") == Condition("matches", "v[12]")
    assert parse_condition(True) == Condition("present")
    assert parse_condition(False) == Condition("absent")
    with pytest.raises(BadValue, match="'v\\[1' is not a regular expression"):
        parse_condition("~v[1")
    for text in ("~" + "(" * 10_000, "~a{99999999999}", "~(?P<n>a)(?P<n>b)"):
        with pytest.raises(BadValue):
            parse_condition(text)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (HeaderName, "X-Request-Id", "X Request"),
        (HeaderName, "x", ""),
        (HeaderValue, "a, b", "a\nb"),
        (HeaderValue, "é", "€"),
        (Method, "PURGE", "GET, POST"),
        (HostPattern, "*.example.com", "a.*.com"),
        (HostPattern, "api-1.example", "api:80"),
        (HostPattern, "[::1]", "http://a"),
        (Name, "orders-v2", "orders v2"),
        (Name, "1", "-1"),
        (PathText, "/a", "a"),
        (PathText, "~/a+", ""),
        (StatusCode, 404, 99),
        (Count, 1, 0),
        (Count, 2, True),
    ],
)
def test_kinds(kind: Any, good: object, bad: object) -> None:
    adapter = TypeAdapter[object](kind)
    assert adapter.validate_python(good) == good
    with pytest.raises(ValidationError):
        adapter.validate_python(bad)


def test_methods_and_hosts_have_one_spelling() -> None:
    assert TypeAdapter(Method).validate_python("get") == "GET"
    assert TypeAdapter(HostPattern).validate_python("API.Example.com") == "api.example.com"


def test_off_is_none() -> None:
    adapter = TypeAdapter[float | None](DurationOrOff)
    assert adapter.validate_python("off") is None
    assert adapter.validate_python(False) is None
    assert adapter.validate_python("5s") == 5.0


class Settings(BaseModel):
    key: Secret


def test_a_secret_does_not_show() -> None:
    settings = Settings.model_validate({"key": "hunter2"})
    shown = [f"{settings} {settings!r}", f"{settings.key} {settings.key!r}", settings.model_dump_json()]
    assert "hunter2" not in f"{shown} {settings.model_dump()}"
    assert settings.key.get_secret_value() == "hunter2"
    assert pickle.loads(pickle.dumps(settings)) == settings
    with pytest.raises(ValidationError):
        Settings.model_validate({"key": ""})
