"""Request targets for those who are told of requests: without what clients put into them that may be a secret."""

from __future__ import annotations

import re
from typing import Final

HIDDEN: Final = "…"
"""What stands for a value that is not shown."""
LONGEST: Final = 2048
"""Characters of a target that are shown."""

_PARAMETER: Final = re.compile(r"([^&=]*)=[^&]*|[^&]+")


def redacted_query(query: str) -> str:
    """Return a query with the names of its parameters, and not their values; what has no name is a value."""
    return _PARAMETER.sub(lambda match: HIDDEN if match[1] is None else f"{match[1]}={HIDDEN}", query)


def redacted_target(target: str) -> str:
    """Return a request target, of any form, without the values of its query, and not too long."""
    path, mark, query = target[:LONGEST].partition("?")
    if not path.startswith("/"):  # the absolute form may have a password (RFC 9110 section 4.2.4)
        path = re.sub(r"(?<=://)[^/]*@", "", path)
    return f"{path}{mark}{redacted_query(query)}"
