"""Texts that are compared word for word with what they were when someone last looked at them."""

from __future__ import annotations

import os
from pathlib import Path


def check_golden(file: Path, text: str) -> None:
    """Compare `text` with `file`; UPDATE_GOLDEN=1 writes it anew."""
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(text)
    assert text == file.read_text()
