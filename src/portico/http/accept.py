"""Which of the media types on offer a client would rather have (RFC 9110 section 12.5.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence

_WEIGHT = re.compile(r"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")


def qualities(accept: str, offers: Sequence[str]) -> list[float]:
    """Return how much each of `offers` is wanted, from 0 (not at all) to 1, by an Accept field's value.

    For each of them the range that names it most exactly decides. Parameters beside `q` are not looked at. A range
    with a weight that is none counts for nothing.
    """
    ranges: dict[str, float] = {}
    for element in accept.split(","):
        name, *parameters = [piece.strip().lower() for piece in element.split(";")]
        weight = next((piece[2:].strip() for piece in parameters if piece.startswith("q=")), "1")
        if name and _WEIGHT.fullmatch(weight) is not None:
            ranges[name] = max(float(weight), ranges.get(name, 0.0))
    return [_quality(ranges, offer) for offer in offers]


def _quality(ranges: dict[str, float], offer: str) -> float:
    for name in (offer, f"{offer.partition('/')[0]}/*", "*/*"):
        if name in ranges:
            return ranges[name]
    return 0.0
