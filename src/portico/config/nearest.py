"""The known name that an unknown one was probably meant to be."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most like `name`, or None where none is like it."""
    by_form = {_form(candidate): candidate for candidate in known}
    form = _form(name)
    found = get_close_matches(form, by_form, n=1, cutoff=0.7)
    # A short name differs too much once two of its letters have changed places.
    found += [candidate for candidate in by_form if sorted(candidate) == sorted(form)]
    return by_form[found[0]] if found else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the hint that names the nearest known name, or nothing."""
    candidate = nearest(name, known)
    return f"did you mean '{candidate}'?" if candidate is not None else ""


def one_of(names: Collection[str], conjunction: str = "or") -> str:
    """Return `names` as a phrase: `a, b or c`."""
    *rest, last = names or ["none"]
    return f"{', '.join(rest)} {conjunction} {last}" if rest else last


def _form(name: str) -> str:
    """What is left of a name when case and the choice of separator are taken away."""
    return name.lower().replace("-", "_")
