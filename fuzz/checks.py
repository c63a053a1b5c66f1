"""All that must hold of reading, whatever the bytes are; the fuzzers and the tests both ask for it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from fuzz.differences import explanations
from fuzz.oracle import disagreements
from fuzz.reading import NARROW, Outcome, check_history, check_splits, read_requests, read_responses
from fuzz.rewriting import check_rewritten


def check_request(data: bytes, splits: Sequence[Sequence[int]]) -> Outcome:
    """Check what a server reads of `data`."""
    outcome = check_splits(partial(read_requests, limits=NARROW), data, splits)
    _check(data, None)
    return outcome


def check_response(data: bytes, method: str, splits: Sequence[Sequence[int]]) -> Outcome:
    """Check what a client reads of `data` in answer to a request with `method`."""
    outcome = check_splits(partial(read_responses, method=method), data, splits)
    _check(data, method)
    return outcome


def _check(data: bytes, method: str | None) -> None:
    check_history(data, method)
    check_oracle(data, method)
    check_rewritten(data, method)


def check_oracle(data: bytes, method: str | None) -> None:
    """Check that h11 reads `data` as we do, but for what is listed in `differences.py`."""
    for case in disagreements(data, method):
        assert explanations(case), f"h11 reads it differently: {case}"
