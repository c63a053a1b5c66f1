"""What an answer is kept under (RFC 9111 section 2): the URI, or as much of it as makes a difference."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final
from urllib.parse import unquote_plus

from portico.http.message import Request

TRACKING: Final = ("utm_*", "gclid", "gbraid", "wbraid", "fbclid", "msclkid", "mc_cid", "mc_eid", "_ga", "_gl")
"""Query parameters that say where a visitor comes from, and of which services make nothing."""


class _Names:
    """Names of parameters, some of which are only how names begin."""

    __slots__ = ("_beginnings", "_exact")

    def __init__(self, names: Collection[str]) -> None:
        self._exact = frozenset(name for name in names if not name.endswith("*"))
        self._beginnings = tuple(name[:-1] for name in names if name.endswith("*"))

    def __contains__(self, name: str) -> bool:
        return name in self._exact or name.startswith(self._beginnings)


class CacheKey:
    """Makes keys. What it is to leave out of them is decided once.

    The method is part of a key, and HEAD has that of GET, whose answers do for it. What a Vary names is none of it, nor
    is the user: all that is kept for one URI is found, and thrown away, under one key (`variant_of` tells it apart).
    """

    __slots__ = ("_in_order", "_only", "_whole", "_without")

    def __init__(
        self, only: Collection[str] | None = None, without: Collection[str] = (), *, in_order: bool = False
    ) -> None:
        """`only` are the query parameters that count, all where it is None, and `without` are some that do not.

        A name that ends in an asterisk stands for all that begin so. `in_order` puts them in order by name, and leaves
        those of the same name as they come, since that order may mean something.

        A query with a semicolon counts as it is: some services part parameters by it, and would see one in what is left
        out here.
        """
        self._only = None if only is None else _Names(only)
        self._without = _Names(without)
        self._in_order = in_order
        self._whole = self._only is None and not in_order and not without

    def of(self, request: Request, scheme: str) -> str:
        """Return the key of a request that came by `scheme`."""
        return self.of_place(request, scheme, request.path, request.query)

    def of_place(self, request: Request, scheme: str, path: str, query: str | None) -> str:
        """Return the key of another URI of the same origin."""
        if query is not None and not self._whole and ";" not in query:
            query = self._cut(query)
        return (
            f"GET {scheme}://{request.host}{path}" if query is None else f"GET {scheme}://{request.host}{path}?{query}"
        )

    def _cut(self, query: str) -> str | None:
        kept = []
        for item in query.split("&"):
            name = unquote_plus(item.partition("=")[0])
            if item and (self._only is None or name in self._only) and name not in self._without:
                kept.append((name, item))
        if self._in_order:
            kept.sort(key=lambda pair: pair[0])
        return "&".join(item for _, item in kept) or None
