"""What of a URL is a secret, and is not shown."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote_plus

REDACTED: Final = "[redacted]"
KNOWN: Final = 4096
"""Names of parameters that are remembered."""
_LONGEST_NAME: Final = 256
_TELLING: Final = 5
"""Letters from which on a word is found in the middle of others, as in `mysecretvalue`; `key` is not, in `monkey`."""

_WORD: Final = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z0-9]+(?![a-z])")
_SEPARATOR: Final = re.compile(r"([&;])")


class Redaction:
    """Knows by the names of query parameters which of them are secret."""

    __slots__ = ("_known", "_suspect", "_words")

    def __init__(self, words: Iterable[str]) -> None:
        """A name is secret that has one of these words in it, whatever its case: `access_token`, `apiKey`, `x[pwd]`."""
        self._words = frozenset(word.lower() for word in words)
        self._suspect = re.compile("|".join(map(re.escape, self._words)), re.IGNORECASE) if self._words else None
        self._known: dict[str, bool] = {}

    def of_target(self, target: str) -> str:
        """Return a request target, or a URL, without what is secret in its query."""
        path, mark, query = target.partition("?")
        return f"{path}?{self.of_query(query)}" if mark and query else target

    def of_query(self, query: str) -> str:
        """Return a query without what is secret. What has no name, as in `?token`, is shown."""
        if self._suspect is None or ("%" not in query and self._suspect.search(query) is None):
            return query
        parts = _SEPARATOR.split(query)
        for at in range(0, len(parts), 2):
            name, equals, value = parts[at].partition("=")
            if equals and value and self._is_secret(name):
                parts[at] = f"{name}={REDACTED}"
        return "".join(parts)

    def _is_secret(self, name: str) -> bool:
        known = self._known.get(name)
        if known is None:
            known = self._judge(name)
            if len(name) <= _LONGEST_NAME:
                if len(self._known) >= KNOWN:
                    self._known.clear()
                self._known[name] = known
        return known

    def _judge(self, name: str) -> bool:
        plain = unquote_plus(unquote_plus(name))
        whole = re.sub(r"[^a-z0-9]", "", plain.lower())
        if whole in self._words or any(word in whole for word in self._words if len(word) >= _TELLING):
            return True
        return any(word.lower() in self._words for word in _WORD.findall(plain))
