"""YAML text to a tree of nodes.

PyYAML's C parser gives events; the tree is built from them here, for three reasons: its own composer takes eight times
as long, resolves by YAML 1.1 (where `off` is a boolean and `1:30` a number), and expands aliases without a bound.
"""

from __future__ import annotations

import re

import yaml

from portico.config.findings import Findings, Place
from portico.config.nodes import Entry, Fields, Items, Node, Scalar, Value
from portico.config.substitute import Filled, Substitution
from portico.config.syntax import explain_syntax_error

MAX_NODES = 2_000_000
"""The most values that a file may have, with each alias counted as often as it is used."""
MAX_DEPTH = 64
"""The deepest that values may lie within each other."""

_CONSTANTS: dict[str, Value] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
# Beyond a hundred digits Python would refuse to count; whoever writes that means text.
_INTEGER = re.compile(r"[-+]?[0-9]{1,100}|0o[0-7]{1,100}|0x[0-9a-fA-F]{1,100}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")

_CORE = "tag:yaml.org,2002:"
_SCALAR_TAGS: dict[str, tuple[type, ...]] = {
    f"{_CORE}int": (int,),
    f"{_CORE}float": (int, float),
    f"{_CORE}bool": (bool,),
    f"{_CORE}null": (type(None),),
}
_MERGE = "<<"


def resolve(text: str) -> Value:
    """Return what a plain scalar means in YAML 1.2's core schema."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def compose(file: str, text: str, substitution: Substitution, findings: Findings) -> Node | None:
    """Return the tree of `text`, or None where there is none; what is wrong is noted in `findings`."""
    composer = _Composer(file, text, substitution, findings)
    try:
        return composer.document()
    except yaml.MarkedYAMLError as error:
        explain_syntax_error(error, file, text, findings)
    except _Refused as error:
        findings.error(error.place, str(error), error.hint)
    except yaml.YAMLError as error:
        findings.error(Place(file), f"this is not YAML: {error}")
    return None


class _Refused(Exception):
    """The text is YAML, but goes beyond a bound or makes no tree."""

    def __init__(self, place: Place, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.place = place
        self.hint = hint


class _Composer:
    """Builds the tree of one text."""

    def __init__(self, file: str, text: str, substitution: Substitution, findings: Findings) -> None:
        self._file = file
        self._events = yaml.CSafeLoader(text)
        self._substitution = substitution
        self._findings = findings
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._open: set[str] = set()
        self._count = 0
        self._depth = 0

    def document(self) -> Node:
        """Return the one document of the text; an empty text is a null."""
        self._next()  # the start of the stream
        event = self._next()
        if isinstance(event, yaml.StreamEndEvent):
            return Scalar(Place(self._file), "", None)
        root = self._node(self._next())
        self._next()  # the end of the document
        event = self._next()
        if not isinstance(event, yaml.StreamEndEvent):
            raise _Refused(
                self._place(event), "a second document starts here", "a file holds one; use include: for more files"
            )
        return root

    def _next(self) -> yaml.Event:
        event = self._events.get_event()
        assert event is not None  # None comes after the end of the stream, and nobody reads beyond that
        return event

    def _place(self, event: yaml.Event) -> Place:
        mark = event.start_mark
        assert mark is not None
        return Place(self._file, mark.line + 1, mark.column + 1)

    def _node(self, event: yaml.Event) -> Node:
        before = self._count
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        self._add(1, event)
        assert isinstance(event, yaml.NodeEvent)
        anchor = event.anchor
        if anchor is not None:
            self._open.add(anchor)
        if isinstance(event, yaml.ScalarEvent):
            node: Node = self._scalar(event)
        else:
            node = self._collection(event)
        if anchor is not None:
            self._open.discard(anchor)
            self._anchors[anchor] = node, self._count - before
        return node

    def _alias(self, event: yaml.AliasEvent) -> Node:
        if event.anchor in self._open:
            raise _Refused(self._place(event), f"the alias *{event.anchor} stands within what it stands for")
        if event.anchor not in self._anchors:
            raise _Refused(
                self._place(event),
                "there is no anchor of this name above this alias",  # which may be meant for a password
                "anchors are known in their own file only; a value that starts with * needs quotes",
            )
        node, size = self._anchors[event.anchor]
        self._add(size, event)
        return node

    def _add(self, nodes: int, event: yaml.Event) -> None:
        self._count += nodes
        if self._count > MAX_NODES:
            raise _Refused(self._place(event), f"the file has more than {MAX_NODES} values", "do its aliases multiply?")

    def _scalar(self, event: yaml.ScalarEvent) -> Scalar:
        place = self._place(event)
        filled = Filled(event.value)
        if "${" in event.value:
            filled = self._substitution.fill(event.value, place)
        value: Value = filled.text
        if filled.broken:
            value = None
        elif event.tag in _SCALAR_TAGS:
            value = resolve(filled.text)
            if not isinstance(value, _SCALAR_TAGS[event.tag]):
                self._findings.error(place, f"this is not the !!{event.tag.removeprefix(_CORE)} that its tag says")
        elif event.tag not in {None, "!", f"{_CORE}str"}:
            self._refuse_tag(place)
        elif event.implicit[0] and not filled.secret:
            value = resolve(filled.text)
        return Scalar(place, filled.text, value, filled.secret, filled.broken)

    def _collection(self, event: yaml.Event) -> Items | Fields:
        assert isinstance(event, yaml.CollectionStartEvent)
        place = self._place(event)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _Refused(place, f"values lie more than {MAX_DEPTH} deep within each other")
        sequence = isinstance(event, yaml.SequenceStartEvent)
        if event.tag not in {None, "!", f"{_CORE}{'seq' if sequence else 'map'}"}:
            self._refuse_tag(place)
        node = Items(place, self._items()) if sequence else Fields(place, self._entries())
        self._depth -= 1
        return node

    def _items(self) -> list[Node]:
        nodes = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            nodes.append(self._node(event))
        return nodes

    def _entries(self) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        merged: list[Fields] = []
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            place = self._place(event)
            key = self._key(event)
            node = self._node(self._next())
            if key == _MERGE and isinstance(event, yaml.ScalarEvent) and event.implicit[0]:
                merged += self._merged(node)
            elif key in entries:
                self._findings.error(place, f"'{key}' is given twice", f"the first is at {entries[key].key}")
            else:
                entries[key] = Entry(place, node)
        for fields in merged:
            entries = {**entries, **{key: entry for key, entry in fields.entries.items() if key not in entries}}
        return entries

    def _key(self, event: yaml.Event) -> str:
        if isinstance(event, yaml.AliasEvent):
            node = self._alias(event)
            if isinstance(node, Scalar):
                return node.text
        if not isinstance(event, yaml.ScalarEvent):
            raise _Refused(
                self._place(event), "a list or a mapping cannot be a key", "quote a key that has brackets in it"
            )
        if "${" in event.value:
            self._findings.error(self._place(event), "a key cannot have '${' in it", "only values are filled in")
        if event.anchor is not None:
            self._anchors[event.anchor] = self._scalar(event), 1
        return event.value

    def _merged(self, node: Node) -> list[Fields]:
        """Return the mappings that `<<` takes over, the strongest first."""
        nodes = node.nodes if isinstance(node, Items) else [node]
        fields = [each for each in nodes if isinstance(each, Fields)]
        if len(fields) < len(nodes):
            self._findings.error(node.place, "'<<' takes over a mapping, or a list of them", "name one: <<: *anchor")
        return fields

    def _refuse_tag(self, place: Place) -> None:
        self._findings.error(
            place,
            "this tag has no meaning here",  # it is not repeated: it may be meant for a password
            "quote text that starts with !; for the environment write ${NAME}",
        )
