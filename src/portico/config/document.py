"""One configuration out of its files: read, filled in, and joined, but not yet judged."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from portico.config.build import entries_of, is_public, items_of
from portico.config.compose import compose
from portico.config.findings import Finding, Findings, Place
from portico.config.nearest import one_of
from portico.config.nodes import Entry, Fields, Items, Node, Scalar, describe, find, is_null
from portico.config.source import ConfigSource, FileSource, beside
from portico.config.substitute import Substitution

FILE_LIMIT = 16 * 1024 * 1024
"""The most bytes that one file of a configuration may have."""
MAX_INCLUDE_DEPTH = 8
"""How long a chain of files that include each other may be."""
INCLUDABLE = ("services", "consumers", "policies", "routes", "plugins", "include")
"""The keys that an included file may have."""

_BY_NAME = ("services", "consumers")
# What YAML allows in a text (1.2, production 1): the parser would refuse the rest without saying where it is.
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_GLOB = re.compile(r"[*?\[]")


class Plugin(NamedTuple):
    """A plugin that the configuration lists: the path of a Python file, or the name of a module."""

    name: str
    place: Place

    @property
    def is_file(self) -> bool:
        """Whether it is a Python file."""
        return self.name.endswith(".py")


@dataclass(frozen=True)
class Document:
    """The whole of a configuration as it was written."""

    root: Fields
    findings: tuple[Finding, ...]
    """What was wrong already before anyone looked for a meaning."""
    files: tuple[str, ...]
    """Every file that it consists of, files in values included, and those that could not be read: what to watch."""
    patterns: tuple[str, ...] = ()
    """The patterns that it includes files by: another file that matches is a change as well."""

    @property
    def plugins(self) -> tuple[Plugin, ...]:
        """The plugins to load before the document can be validated; paths are made relative to where the start is."""
        entry = self.root.entries.get("plugins")
        nodes = entry.node.nodes if entry is not None and isinstance(entry.node, Items) else []
        listed = (node for node in nodes if isinstance(node, Scalar) and node.text and not node.secret)
        return tuple(Plugin(plugin_name(node), node.place) for node in listed)

    def place(self, *path: str | int) -> Place:
        """Return where `path` leads, such as `"routes", 3, "path"`, or where the nearest thing around it is."""
        return find(self.root, path).node.place


def plugin_name(node: Scalar) -> str:
    """Return a plugin's module name as it is, and its path as seen from where the first file is."""
    is_path = node.text.endswith(".py") or "/" in node.text
    return beside(node.place.file, node.text) if is_path else node.text


def read(source: ConfigSource | str | os.PathLike[str], environment: Mapping[str, str] | None = None) -> Document:
    """Read a configuration and all that it includes; nothing is raised, what is wrong is in the document's findings."""
    if isinstance(source, str | os.PathLike):
        source = FileSource(source)
    return _Reader(source, os.environ if environment is None else environment).read()


class _Reader:
    """Reads the files of one load."""

    def __init__(self, source: ConfigSource, environment: Mapping[str, str]) -> None:
        self._source = source
        self._findings = Findings()
        self._substitution = Substitution(source, environment, self._findings)
        self._read: dict[str, Place] = {}
        """The files read, and where they were asked for."""
        self._entries: dict[str, Entry] = {}
        self._patterns: list[str] = []

    def read(self) -> Document:
        start = self._source.start
        name = os.path.normpath(start)
        place = self._read[name] = Place(start)
        root = self._parse(start, place)
        if root is not None:
            place = root.place
            self._entries = root.without("include").entries
            self._include(root, (name,))
        files = dict.fromkeys((*self._read, *self._substitution.files))
        return Document(Fields(place, self._entries), self._findings.sorted(), tuple(files), tuple(self._patterns))

    def _parse(self, name: str, asked: Place) -> Fields | None:
        """Return the mapping that a file is, or None with a finding."""
        text = read_text(self._source, name, asked, self._findings)
        if text is None:
            return None
        root = compose(name, text, self._substitution, self._findings)
        if isinstance(root, Fields):
            return root
        if root is not None and is_null(root):
            self._findings.error(
                Place(name), "the file is empty", "a configuration has keys such as services: and routes:"
            )
        elif root is not None:
            self._findings.error(
                root.place, f"the file is {describe(root)}, not a mapping", "start it with services: or routes:"
            )
        return None

    def _include(self, fields: Fields, chain: tuple[str, ...]) -> None:
        entry = fields.entries.get("include")
        if entry is None or is_null(entry.node):
            return
        nodes = entry.node.nodes if isinstance(entry.node, Items) else [entry.node]
        for node in nodes:
            if not isinstance(node, Scalar):
                self._findings.error(
                    node.place, "include: expected the path of a file", "write include: [routes/*.yaml]"
                )
            elif not node.broken and is_public(node, "the path of a file", self._findings):
                for name in self._matches(node, chain[-1]):
                    self._include_file(name, node.place, chain)

    def _matches(self, node: Scalar, includer: str) -> Sequence[str]:
        if not _GLOB.search(node.text):
            return [beside(node.place.file, node.text)]
        pattern = beside(glob.escape(node.place.file), node.text)
        self._patterns.append(pattern)
        names = [name for name in self._source.match(pattern) if os.path.normpath(name) != includer]
        if not names:
            self._findings.warning(node.place, f"no file matches {node.text}")
        return names

    def _include_file(self, name: str, place: Place, chain: tuple[str, ...]) -> None:
        name = os.path.normpath(name)
        if name in chain:
            self._findings.error(place, f"files include each other in a circle: {' > '.join((*chain, name))}")
        elif name in self._read:
            self._findings.error(place, f"{name} is included twice", f"the first is at {self._read[name]}")
        elif len(chain) > MAX_INCLUDE_DEPTH:
            self._findings.error(place, f"files include each other more than {MAX_INCLUDE_DEPTH} deep")
        else:
            self._read[name] = place
            fields = self._parse(name, place)
            if fields is not None:
                self._join(fields)
                self._include(fields, (*chain, name))

    def _join(self, fields: Fields) -> None:
        """Add what an included file says to what is known already."""
        for key, entry in fields.without("include").entries.items():
            if key not in INCLUDABLE:
                self._findings.error(
                    entry.key,
                    f"'{key}' cannot stand in an included file",
                    f"move it to {self._source.start}; an included file may have {one_of(INCLUDABLE, 'and')}",
                )
            elif not is_null(entry.node):
                self._extend(key, entry)

    def _extend(self, key: str, entry: Entry) -> None:
        if key in _BY_NAME:
            more: Node = Fields(entry.node.place, entries_of(key, entry, self._findings))
        else:
            more = Items(entry.node.place, items_of(key, entry, self._findings))
        known = self._entries.get(key)
        if known is None or is_null(known.node):
            self._entries[key] = Entry(entry.key, more)
        elif isinstance(known.node, Fields) and isinstance(more, Fields):
            self._entries[key] = known._replace(node=self._united(known.node, more))
        elif isinstance(known.node, Items) and isinstance(more, Items):
            self._entries[key] = known._replace(node=Items(known.node.place, [*known.node.nodes, *more.nodes]))

    def _united(self, known: Fields, more: Fields) -> Fields:
        entries = dict(known.entries)
        for name, entry in more.entries.items():
            if name in entries:
                self._findings.error(entry.key, f"'{name}' is given twice", f"the first is at {entries[name].key}")
            else:
                entries[name] = entry
        return Fields(known.place, entries)


def read_text(source: ConfigSource, name: str, asked: Place, findings: Findings) -> str | None:
    """Return the text of a file that was asked for at `asked`, or None with a finding."""
    try:
        data = source.read(name, FILE_LIMIT + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        findings.error(asked, f"cannot read {name}: {reason}")
        return None
    if len(data) > FILE_LIMIT:
        findings.error(asked, f"{name} is longer than {FILE_LIMIT} bytes", "spread it over files with include:")
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        findings.error(_end(name, before), "this byte is not UTF-8", "save the file as UTF-8")
        return None
    if (found := _UNPRINTABLE.search(text)) is not None:
        findings.error(
            _end(name, text[: found.start()]),
            f"the character U+{ord(found[0]):04X} cannot stand in YAML",
            'between double quotes it can be written as "\\x.."' if "\0" not in text else "is this a binary file?",
        )
        return None
    return text


def _end(name: str, text: str) -> Place:
    """Return the place just after `text`, the beginning of a file."""
    line = text.count("\n")
    return Place(name, line + 1, len(text) - (text.rfind("\n") + 1) + 1)
