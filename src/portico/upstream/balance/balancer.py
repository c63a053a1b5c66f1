"""What picks a target, whatever the algorithm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from mypy_extensions import mypyc_attr

from portico.http.message import Request
from portico.upstream.target import Target


@mypyc_attr(allow_interpreted_subclasses=True)
class Balancer:
    """Picks among the targets that may be asked; made anew when those, or their shares, change. Never of none."""

    __slots__ = ("looks_on", "targets", "wants_latency")

    def __init__(self, targets: Sequence[Target]) -> None:
        self.targets = tuple(targets)
        self.looks_on = False
        """Whether anything is to be done with an answer: `observe` it, or `mark` it."""
        self.wants_latency = False
        """Whether each answer's head is to be told to `observe`."""

    def pick(self, request: Request) -> Target:
        """Return the target that `request` goes to."""
        raise NotImplementedError

    def other(self, request: Request, tried: Sequence[Target]) -> Target | None:
        """Return the next choice for `request` that is not among `tried`, or None where all were."""
        raise NotImplementedError

    def mark(self, request: Request, target: Target) -> bytes | None:
        """Return the Set-Cookie by which the client comes back to `target`, which has answered; None for no need."""
        return None

    def untried(self, tried: Sequence[Target]) -> list[Target]:
        """Return the targets that are not among `tried`."""
        return [target for target in self.targets if target not in tried]


Make: TypeAlias = Callable[[Sequence[Target]], Balancer]
"""Makes a balancer of the targets that may be asked: at least one, and all of one `group`."""


def groups_of(targets: Sequence[Target]) -> list[Sequence[Target]]:
    """Return the targets by their priority numbers, the lowest first."""
    priorities = sorted({target.priority for target in targets})
    return [[target for target in targets if target.priority == priority] for priority in priorities]


def group(targets: Sequence[Target]) -> Sequence[Target]:
    """Return those of the lowest priority number: the others are not asked while one of them may be."""
    if not targets:
        return targets
    lowest = min([target.priority for target in targets])
    return [target for target in targets if target.priority == lowest]
