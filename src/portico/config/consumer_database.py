"""Where more consumers are than the file has: a database.

```yaml
consumer_database: consumers.db
routes:
  - {path: /orders/**, respond: Welcome, policies: [key-auth]}
```

It is an SQLite file, which `portico consumer init consumers.db` makes, together with `consumers.db.key`; the other
commands of `portico consumer` fill it. A consumer of the file hides the one in the database of the same name.
[Consumers in a database](../consumers.md) says more.
"""

from __future__ import annotations

import os
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo

from portico.config.build import build, is_public
from portico.config.findings import Findings
from portico.config.forms import NotInFile
from portico.config.nodes import Entry, Fields, Scalar, is_null
from portico.config.part import Part
from portico.config.values import BadValue, Context, beside


def _path(value: str, info: ValidationInfo[Context | None]) -> str:
    if not value:
        raise BadValue("an empty text is not the path of a database", "leave it out, or write a path")
    if "://" in value:
        raise BadValue("a database of consumers is an SQLite file", "write its path, such as consumers.db")
    return os.path.normpath(beside(value, info))


DatabasePath = Annotated[str, AfterValidator(_path), Field(examples=["consumers.db", "/var/lib/portico/consumers.db"])]


class ConsumerDatabase(Part):
    """A database with consumers. A text stands for its `file`."""

    file: DatabasePath
    """The SQLite file, relative to the folder of the file in which it is written."""
    origin: Annotated[str, NotInFile()] = ""
    """Where it is written: `file:line:column`."""


def read_consumer_database(entry: Entry | None, findings: Findings) -> ConsumerDatabase | None:
    """Return what stands under `consumer_database`, or None where there is nothing, or a mistake."""
    if entry is None or is_null(entry.node):
        return None
    node = entry.node if isinstance(entry.node, Fields) else Fields(entry.node.place, {"file": entry})
    named = node.entries.get("file")
    path = None if named is None else named.node
    if isinstance(path, Scalar) and (path.broken or not is_public(path, "the path of a database", findings)):
        return None
    given = {"origin": str(entry.node.place)}
    return build(ConsumerDatabase, node, "consumer_database", findings, given=given)
