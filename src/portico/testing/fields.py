"""Header fields as a test looks at them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from portico.http.headers import Headers, Pair

Given = Mapping[str, str] | Iterable[tuple[str, str]]
"""Header fields as a test writes them; a name that is to stand twice takes a list of pairs."""


class Fields(Mapping[str, str]):
    """Header fields: text, whatever the case of their names. What stands more than once is told by `all`."""

    def __init__(self, pairs: Iterable[Pair] = ()) -> None:
        self.pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in pairs]
        """All of them, in order."""

    def all(self, name: str) -> list[str]:
        """Return every value of `name`, in order."""
        return [value for key, value in self.pairs if key.lower() == name.lower()]

    def __getitem__(self, name: str) -> str:
        values = self.all(name)
        if not values:
            raise KeyError(name)
        return values[0]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.all(name))

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name.lower() for name, _ in self.pairs))

    def __len__(self) -> int:
        return len(dict.fromkeys(name.lower() for name, _ in self.pairs))

    def __repr__(self) -> str:
        return f"Fields({self.pairs!r})"


def headers_of(given: Given | None) -> Headers:
    """Return what a test has written as the gateway's own; raise ValueError where it cannot stand in a header."""
    pairs = [] if given is None else given.items() if isinstance(given, Mapping) else given
    return Headers([(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs])
