"""From the policies that a file lists to the one Handler that a route runs."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from portico.http.message import Handler
from portico.policy.base import Policy, Stage


class Scoped(NamedTuple):
    """One policy of one scope, with the stage it will stand in."""

    use: Any
    scope: str
    stage: Stage


def merge(scopes: Iterable[tuple[str, Sequence[tuple[Any, Stage]]]]) -> list[Scoped]:
    """Return the chain, outermost first: the stable merge by stage of the scopes, which come widest first.

    A name at a narrower scope replaces the wider one, and stands where its own scope has it; `off` removes it.
    """
    chain: dict[str, Scoped] = {}
    for scope, uses in scopes:
        for use, stage in uses:
            chain.pop(use.name, None)
            if not use.off:
                chain[use.name] = Scoped(use, scope, stage)
    return sorted(chain.values(), key=lambda scoped: scoped.stage)


def assemble(policies: Sequence[Policy[Any]], endpoint: Handler) -> Handler:
    """Return `endpoint` with `policies` around it, the first outermost."""
    handler = endpoint
    for policy in reversed(policies):
        handler = functools.partial(policy.handle, next=handler)
    return handler
