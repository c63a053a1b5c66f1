"""A policy where it stands in a list."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, SerializeAsAny

from portico.config.forms import NotInFile
from portico.config.part import Part
from portico.config.values import Name

StageName = Literal["observe", "guard", "authenticate", "authorize", "limit", "cache", "transform"]


class PolicyUse(Part):
    """A policy in the list of the file, of a service or of a route."""

    name: Name
    """What it is called: the same name at a narrower scope replaces it. The kind, unless the file says otherwise."""
    kind: str
    """Which policy it is."""
    config: SerializeAsAny[BaseModel] | None = None
    """Its settings; None where it is switched off."""
    stage: StageName | None = None
    """Where in the chain it stands, where that is not the policy's default."""
    when: str | None = None
    """For which requests it is there: a [condition](#conditions); for all unless given."""
    off: bool = False
    """Whether this removes the policy of that name from a wider scope."""
    when_origin: Annotated[str, NotInFile()] = ""
    """Where its condition is written."""
    origin: Annotated[str, NotInFile()] = ""
    """Where it is written: `file:line:column`."""


Policies = tuple[PolicyUse, ...]
