"""Where the text of a configuration comes from: files today, an admin store later, a mapping in tests."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol


class ConfigSource(Protocol):
    """Texts by name. Names are paths with `/`, so that one text can name another relative to itself."""

    @property
    def start(self) -> str:
        """The name of the text that is read first."""
        ...

    def read(self, name: str, limit: int) -> bytes:
        """Return at most `limit` bytes of what `name` names, or raise OSError."""
        ...

    def match(self, pattern: str) -> Sequence[str]:
        """Return the names that match `pattern` (`*`, `?`, `[...]`; `**` crosses directories), sorted."""
        ...


class FileSource:
    """Configuration in files."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.start = os.fspath(path)

    def read(self, name: str, limit: int) -> bytes:
        """Return at most `limit` bytes of a file."""
        with Path(name).open("rb") as file:
            return file.read(limit)

    def match(self, pattern: str) -> Sequence[str]:
        """Return the files that match `pattern`."""
        return sorted(name for name in glob.glob(pattern, recursive=True) if Path(name).is_file())  # noqa: PTH207 - Path.glob refuses absolute patterns


class TextSource:
    """Configuration in memory."""

    def __init__(self, texts: str | Mapping[str, str | bytes], start: str = "portico.yaml") -> None:
        self.start = start
        self._texts = {start: texts} if isinstance(texts, str) else dict(texts)

    def read(self, name: str, limit: int) -> bytes:
        """Return at most `limit` bytes of a text."""
        text = self._texts.get(name)
        if text is None:
            raise FileNotFoundError(2, os.strerror(2), name)
        return (text.encode() if isinstance(text, str) else text)[:limit]

    def match(self, pattern: str) -> Sequence[str]:
        """Return the names that match `pattern`; here `*` crosses directories too."""
        return sorted(name for name in self._texts if fnmatchcase(name, pattern))


def beside(name: str, path: str) -> str:
    """Return the name that `path` has where the text `name` says it: paths are relative to the text they stand in."""
    return os.path.normpath(os.path.join(os.path.dirname(name), path))  # noqa: PTH118, PTH120 - names, not files
