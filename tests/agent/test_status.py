"""What the state of a target comes to, of what workers and the agent have found."""

from __future__ import annotations

from typing import Any

import pytest

from portico.agent.status import judged

USUAL: dict[str, Any] = {
    "address": "a:80",
    "reachable": True,
    "unreachable_by": 0,
    "connections": 0,
    "ejected_by": 0,
    "ejected_for": "",
}
EJECTED = {"ejected_by": 2, "ejected_for": "5 failures in a row"}


@pytest.mark.parametrize(
    ("found", "state", "why"),
    [
        ({}, "unchecked", ""),
        ({"health": "not looked at"}, "unchecked", ""),
        ({"health": "well"}, "healthy", ""),
        ({"health": "not well: status 500"}, "unhealthy", "status 500"),
        ({"health": "not well: status 500", **EJECTED}, "unhealthy", "status 500"),
        ({"health": "well", **EJECTED}, "ejected", "5 failures in a row"),
        ({"health": "well", "reachable": False}, "unreachable", "it could not be connected to when last tried"),
    ],
)
def test_what_is_worst_is_the_state_of_a_target(found: dict[str, Any], state: str, why: str) -> None:
    target = judged({**USUAL, **found})
    assert (target["state"], target["why"]) == (state, why)
    assert target.items() >= {**USUAL, **found}.items()
