"""What is said about a broken file, word for word: `UPDATE_GOLDEN=1 pytest tests/config` writes it anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from portico.config import TextSource, read, report, validate
from tests.config.kinds import ENDPOINTS, GOLDEN, POLICIES, check_golden

ENVIRONMENT = {"USERS_SERVICE": "users", "PASSWORD": "hunter22"}


@pytest.mark.parametrize("name", sorted(path.name for path in GOLDEN.glob("*.yaml")))
def test_what_is_said_about(name: str) -> None:
    texts = {path.name: path.read_text() for path in GOLDEN.glob("*.yaml")}
    document = read(TextSource(texts | {"key.txt": "short\n"}, name), ENVIRONMENT)
    loaded = validate(document, policies=POLICIES, endpoints=ENDPOINTS)
    said = report(loaded.findings)
    check_golden(Path(name).with_suffix(".txt").name, said)
    assert loaded.config is None
    for jargon in ("Input", "Value error", "pydantic", "validation", "http://errors", "hunter22", "'short'"):
        assert jargon not in said
