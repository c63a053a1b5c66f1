from __future__ import annotations

from types import ModuleType

import pytest

from portico.errors import ConfigError
from portico.policy.registry import Registry

HEAD = "from portico.plugin import Endpoint, Policy, PolicyConfig, Stage\n"
FENCE = """
class Fence(PolicyConfig):
    x: int

class FencePolicy(Policy[Fence], name="fence", stages=(Stage.GUARD,)):
    pass
"""
TEAPOT = """
class Pot(PolicyConfig):
    y: int

class Teapot(Endpoint[Pot], name="teapot"):
    pass
"""


def module(name: str, code: str) -> ModuleType:
    made = ModuleType(name)
    exec(HEAD + code, made.__dict__)
    return made


def test_a_registry_knows_what_its_modules_define() -> None:
    registry = Registry.of([module("one", FENCE), module("two", TEAPOT)])
    assert list(registry.policies) == ["fence"]
    assert list(registry.endpoints) == ["teapot"]
    assert {name: list(kind.model_fields) for name, kind in registry.policy_kinds.items()} == {"fence": ["x"]}
    assert {name: list(kind.model_fields) for name, kind in registry.endpoint_kinds.items()} == {"teapot": ["y"]}


def test_an_endpoint_of_the_gateway_s_own_is_not_for_files() -> None:
    registry = Registry.of([module("one", TEAPOT.replace("    pass\n", "    in_file = False\n").replace("pass", ""))])
    assert list(registry.endpoints) == ["teapot"]
    assert registry.endpoint_kinds == {}


def test_two_registries_share_nothing() -> None:
    assert Registry.of([module("one", FENCE)]).policies
    assert Registry.of([]).policies == {}


def test_what_a_module_has_imported_is_not_its_own() -> None:
    one = module("one", FENCE)
    other = module("other", "")
    vars(other)["FencePolicy"] = vars(one)["FencePolicy"]
    assert Registry.of([other]).policies == {}
    assert list(Registry.of([one, other]).policies) == ["fence"]


def test_functions_of_plugins_are_found_by_name() -> None:
    registry = Registry()
    one, other = module("one", "def check(request): ...\nLIMIT = 3\n"), module("other", "")
    for name, each in (("checks", one), ("checks", one), ("twice", one), ("twice", other)):
        registry.offer(name, each)
    assert registry.function("checks:check") is vars(one)["check"]
    for reference, message in (
        ("check:check", "there is no plugin 'check' that could have a function; did you mean 'checks'?"),
        ("os:remove", "add it to plugins, as in plugins: [os.py]"),
        ("checks:cheque", "plugin 'checks' has no function 'cheque'"),
        ("checks:chekc", "plugin 'checks' has no function 'chekc'; did you mean 'check'?"),
        ("checks:LIMIT", "plugin 'checks' has no function 'LIMIT'"),
        ("twice:check", "there are 2 plugins 'twice'; rename all but one"),
    ):
        with pytest.raises(ConfigError) as caught:
            registry.function(reference)
        assert message in str(caught.value)


def test_a_base_without_a_name_is_no_policy() -> None:
    registry = Registry.of([module("one", "class Base(Policy[PolicyConfig]):\n    pass\n" + FENCE)])
    assert list(registry.policies) == ["fence"]


def test_a_class_with_two_names_in_its_module_is_one() -> None:
    assert list(Registry.of([module("one", FENCE + "Alias = FencePolicy\n")]).policies) == ["fence"]


@pytest.mark.parametrize(("code", "name"), [(FENCE, "fence"), (TEAPOT, "teapot")])
def test_a_name_given_twice_is_refused(code: str, name: str) -> None:
    with pytest.raises(ConfigError, match=f"other and one both define '{name}'; rename one"):
        Registry.of([module("one", code), module("other", code)])


def test_a_policy_and_an_endpoint_may_have_one_name() -> None:
    registry = Registry.of([module("one", FENCE + TEAPOT.replace("teapot", "fence"))])
    assert (list(registry.policies), list(registry.endpoints)) == (["fence"], ["fence"])


def test_a_policy_without_a_stage_is_refused() -> None:
    with pytest.raises(ConfigError, match="policy 'fence' names no stage; write class FencePolicy"):
        Registry.of([module("one", FENCE.replace(", stages=(Stage.GUARD,)", ""))])
