"""Whatever stands in a file, it is loaded or refused; nothing is raised."""

from __future__ import annotations

import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from portico.config import Severity
from portico.config.annotations import file_keys
from portico.config.balance import Target
from portico.config.policy_use import PolicyUse
from portico.config.resilience import Timeout
from portico.config.schema import Config, Forwarded, Limits, Listener, Route
from portico.config.tls import Certificate, ListenerTls, ServiceTls
from portico.config.upstream import Service
from tests.config.kinds import ENDPOINTS, POLICIES, load

PARTS: list[type[BaseModel]] = [Config, Forwarded, Limits, Listener, PolicyUse, Route, Service, Target, Timeout]
PARTS += [Certificate, ListenerTls, ServiceTls]
KEYS = {key for model in (*PARTS, *POLICIES.values(), *ENDPOINTS.values()) for key in file_keys(model)}
WORDS = sorted({"include", "host", "<<", "origin", *POLICIES, *ENDPOINTS, *KEYS})
TEXTS = [
    "off",
    "auto",
    "5s",
    "1MiB",
    "a",
    "a:80",
    "http://a/b",
    "/a/**",
    "~[",
    "GET",
    "*.a.b",
    "10.0.0.0/8",
    "${A}",
    __file__,
]

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from([*TEXTS, *WORDS]) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=20,
)


def check(values: dict[str, object]) -> None:
    loaded = load(yaml.safe_dump(values, allow_unicode=True))
    errors = [finding for finding in loaded.findings if finding.severity is Severity.ERROR]
    assert (loaded.config is None) == bool(errors)
    assert loaded.findings == sorted(loaded.findings, key=lambda finding: (finding.place, finding.message))
    for finding in errors:
        assert finding.message
        assert "\n" not in str(finding)
        for jargon in ("Input", "function-", "Value error", "constrained", "[key]", "pydantic"):
            assert jargon not in str(finding)


@given(st.dictionaries(st.sampled_from([*file_keys(Config), "include"]), VALUES, max_size=5))
def test_any_values_are_a_config_or_have_errors(values: dict[str, object]) -> None:
    check(values)


@given(st.lists(st.dictionaries(st.sampled_from(WORDS), VALUES, max_size=4), max_size=3))
def test_any_routes_are_a_config_or_have_errors(routes: list[dict[str, object]]) -> None:
    check({"routes": routes, "services": {"a": "http://a"}})


@given(st.lists(st.dictionaries(st.sampled_from([*file_keys(Listener), *file_keys(ListenerTls)]), VALUES), max_size=3))
def test_any_listeners_are_a_config_or_have_errors(listen: list[dict[str, object]]) -> None:
    check({"listen": [{"address": ":80", **each} for each in listen]})
