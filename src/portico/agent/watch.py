"""Notices changed files: by looking at them, which works for every editor, every mount, and Kubernetes' links."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from typing import Final

INTERVAL: Final = 1.0
"""Seconds between two looks."""

NEVER: Final = float("inf")

_Look = dict[str, tuple[int, int, int] | None]


class Watch:
    """The files of one configuration."""

    def __init__(self) -> None:
        self._files: tuple[str, ...] = ()
        self._patterns: tuple[str, ...] = ()
        self._loaded: _Look = {}
        self._last: _Look = {}

    def loading(self) -> None:
        """Note how the files are: they are about to be loaded, and what changes from now on is a change."""
        self._loaded = self._look()

    def follow(self, files: Sequence[str], patterns: Sequence[str], loaded_at: float = NEVER) -> None:
        """Watch these files from now on, which were loaded, and those that will match the patterns.

        One that matches, and neither was loaded nor was there when the load began, is a change; and so is one that was
        written after `loaded_at`, in seconds since the epoch, where nobody looked when the load began.
        """
        self._files = tuple(files)
        self._patterns = tuple(patterns)
        self._last = self._look()
        before, loaded = self._loaded, frozenset(files)
        self._loaded = {
            name: before.get(name, stamp)
            for name, stamp in self._last.items()
            if (name in before or name in loaded) and not (stamp is not None and stamp[0] > loaded_at * 1e9)
        }

    def changed(self) -> bool:
        """Tell whether the files are other than when they were loaded, and as they were at the last look.

        Of a file that is still being written that is not so; a second look a moment later will tell.
        """
        before, self._last = self._last, self._look()
        return self._last == before and self._last != self._loaded

    def _look(self) -> _Look:
        matching = (name for pattern in self._patterns for name in glob.glob(pattern, recursive=True))  # noqa: PTH207 - as the loader does
        return {name: _stamp(name) for name in (*self._files, *matching)}


def _stamp(name: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(name)  # noqa: PTH116 - plain, and often
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
