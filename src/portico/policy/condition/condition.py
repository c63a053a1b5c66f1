"""A condition, compiled: an expression becomes one function of a request, and every mistake is told at load."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, ClassVar, Final, NamedTuple

from portico.config.nearest import did_you_mean, one_of
from portico.http.message import Request
from portico.policy.condition.error import ConditionError, Fault
from portico.policy.condition.names import ELEMENT, LIST, NAMES, PLACES, Kind, Place, Read, Value
from portico.policy.condition.regex import compile_regex
from portico.policy.condition.syntax import (
    Call,
    Choice,
    Index,
    ListOf,
    Literal,
    Member,
    Name,
    Not,
    Relation,
    Several,
    Tree,
    parse,
)

_REMEMBERED: Final = 1024
"""Addresses of which each test of an address knows whether it holds."""

_MAPPED: Final = IPv6Network("::ffff:0:0/96")
"""Where IPv6 has the addresses of IPv4 (RFC 4291 section 2.5.5.2)."""

_COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_TESTS: Final[dict[str, Callable[[str, str], bool]]] = {
    "startsWith": str.startswith,
    "endsWith": str.endswith,
    "contains": operator.contains,
}
_METHODS: Final = (*_TESTS, "matches", "size")
_TOP: Final = tuple(name for name in (*NAMES, *PLACES) if "." not in name)


class _Compiled(NamedTuple):
    """What came of an expression."""

    read: Callable[[Request], Any]
    captures: dict[str, int]
    """The path captures that it speaks of, each with where it does so first."""


@lru_cache(maxsize=_REMEMBERED)
def _compiled(text: str, kind: Kind, what: str) -> _Compiled:
    """Compile `text`, which must be of a kind; many routes have the same one. Raises ConditionError."""
    compiler = _Compiler()
    try:
        tree = parse(text)
        value = compiler.value(tree)
        if value.kind is not kind:
            raise Fault(f"{what}, and this is {value.kind.value}", tree.at)  # noqa: TRY301
    except Fault as fault:
        raise ConditionError(fault.message, text, fault.at, fault.hint) from None
    return _Compiled(value.read, compiler.captures)


class _Expression:
    """What conditions and texts have in common."""

    __slots__ = ("_read", "captures", "text")

    kind: ClassVar[Kind]
    what: ClassVar[str]

    def __init__(self, text: str) -> None:
        self.text = text
        self._read, self.captures = _compiled(text, self.kind, self.what)

    def check_captures(self, path: str, known: Iterable[str]) -> None:
        """Raise ConditionError where it speaks of a capture that is not among those of `path`."""
        names = sorted(known)
        for name, at in self.captures.items():
            if name not in names:
                has = f"the path {path} has only {one_of(names, 'and')}" if names else f"the path {path} has none"
                raise ConditionError(f"there is no capture '{name}': {has}", self.text, at, did_you_mean(name, names))

    def check_paths(self, captures: Mapping[str, Iterable[str]]) -> None:
        """Raise ConditionError where it speaks of a capture that one of these paths does not have."""
        for path, known in captures.items():
            self.check_captures(path, known)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.text!r})"


class Condition(_Expression):
    """An expression that holds for a request, or does not.

    Raises ConditionError where `text` is none.
    """

    __slots__ = ()

    kind = Kind.TRUTH
    what = "a condition is true or false"

    @property
    def holds(self) -> Callable[[Request], bool]:
        """Whether it holds. Raises HeadTooLarge for a request with a text that is too long to be matched."""
        return self._read


class Expression(_Expression):
    """An expression that is a text for each request, such as `headers['x-tenant']`; empty for what it does not have.

    Raises ConditionError where `text` is none.
    """

    __slots__ = ()

    kind = Kind.TEXT
    what = "a text is wanted here"

    @property
    def read(self) -> Callable[[Request], str]:
        """Return the text of a request. Raises HeadTooLarge where it has one that is too long to be matched."""
        return self._read


class _Compiler:
    """Turns trees into functions, and notes what it meets on the way."""

    def __init__(self) -> None:
        self.captures: dict[str, int] = {}

    def value(self, tree: Tree) -> Value:
        """Return what `tree` is; raise Fault where it is nothing."""
        match tree:
            case Literal():
                return _literal(tree.value)
            case Name() | Member():
                found = self._named(tree)
                if isinstance(found, Place):
                    raise Fault(f"'{tree.name}' holds values by name", tree.at, f"write which: {tree.name}['a']")
                return found
            case Index():
                return self._at(tree)
            case ListOf():
                return self._list(tree)
            case Call():
                return self._call(tree)
            case Not():
                return _not(self._of_kind(tree.operand, Kind.TRUTH, "! turns a truth value round"))
            case Several():
                return _several(tree.sign, [self._operand(tree.sign, operand) for operand in tree.operands])
            case Choice():
                return self._choice(tree)
            case Relation():
                return self._in(tree) if tree.sign == "in" else self._comparison(tree)

    def _of_kind(self, tree: Tree, kind: Kind, why: str) -> Value:
        value = self.value(tree)
        if value.kind is not kind:
            raise Fault(f"{why}, and this is {value.kind.value}", tree.at)
        return value

    def _operand(self, sign: str, tree: Tree) -> Value:
        return self._of_kind(tree, Kind.TRUTH, f"{sign} stands between truth values")

    def _named(self, tree: Name | Member) -> Value | Place:
        """Return what a name stands for, alone or behind another."""
        if isinstance(tree, Name):
            found = NAMES.get(tree.name) or PLACES.get(tree.name)
            if found is None:
                hint = did_you_mean(tree.name, _TOP) or f"there are {one_of(_TOP, 'and')}"
                raise Fault(f"there is no '{tree.name}'", tree.at, hint)
            return found
        of = tree.of.name if isinstance(tree.of, Name) else ""
        found = NAMES.get(f"{of}.{tree.name}") or PLACES.get(f"{of}.{tree.name}")
        if found is not None:
            return found
        if of in PLACES:
            raise Fault(f"there is no '{of}.{tree.name}'", tree.at, f"write {of}['{tree.name}']")
        value = self.value(tree.of)
        if tree.name in _METHODS and value.kind is Kind.TEXT:
            raise Fault(f"'{tree.name}' is a function", tree.at, f"write {tree.name}(...)")
        members = [name.partition(".")[2] for name in (*NAMES, *PLACES) if name.startswith(f"{of}.") and of]
        raise Fault(f"{of or value.kind.value} has no '{tree.name}'", tree.at, did_you_mean(tree.name, members))

    def _at(self, tree: Index) -> Value:
        read = self._by_name(tree.of, tree.key)
        return Value(kind=Kind.TEXT, read=lambda request: read(request) or "")

    def _by_name(self, of: Tree, key: Tree) -> Read:
        """Return what reads the value of a name in one of the places that have values by name, or None."""
        place = self._named(of) if isinstance(of, Name | Member) else self.value(of)
        if not isinstance(place, Place):
            raise Fault(f"[...] looks for a name, and this is {place.kind.value}", of.at)
        if not isinstance(key, Literal) or not isinstance(key.value, str):
            raise Fault("the name is a text that is written here", key.at, "write ['x-debug']")
        if isinstance(of, Name) and of.name == "captures":
            self.captures.setdefault(key.value, key.at)
        try:
            return place.at(key.value)
        except ValueError:
            raise Fault(f"{key.value!r} is not a header name", key.at) from None

    def _list(self, tree: ListOf) -> Value:
        if not tree.items:
            raise Fault("this list has nothing in it", tree.at)
        items = [self.value(item) for item in tree.items]
        kind = items[0].kind
        for item, value in zip(tree.items, items, strict=True):
            if value.kind is not kind:
                raise Fault(
                    f"a list has one kind of values: {kind.value} first, and this is {value.kind.value}", item.at
                )
        if kind not in LIST:
            raise Fault(f"{kind.value} cannot stand in a list", tree.items[0].at)
        reads = [item.read for item in items]
        if all(item.literal for item in items):
            found = tuple(read(_NO_REQUEST) for read in reads)
            return Value(kind=LIST[kind], read=lambda _: found, literal=True)
        return Value(kind=LIST[kind], read=lambda request: [read(request) for read in reads])

    def _choice(self, tree: Choice) -> Value:
        test = self._of_kind(tree.test, Kind.TRUTH, "what stands before ? is true or false").read
        then, otherwise = self.value(tree.then), self.value(tree.otherwise)
        if then.kind is not otherwise.kind:
            message = f"both sides of : are of one kind; the first is {then.kind.value}, this {otherwise.kind.value}"
            raise Fault(message, tree.otherwise.at)
        yes, no = then.read, otherwise.read
        return Value(
            kind=then.kind,
            read=lambda request: yes(request) if test(request) else no(request),
            address=then.address and otherwise.address,
        )

    def _comparison(self, tree: Relation) -> Value:
        left, right = self.value(tree.left), self.value(tree.right)
        if left.kind is not right.kind:
            raise Fault(f"{left.kind.value} cannot be compared with {right.kind.value}", tree.at, _quote(tree))
        if left.kind in ELEMENT or (left.kind is Kind.TRUTH and tree.sign not in ("==", "!=")):
            raise Fault(f"{tree.sign} does not compare {left.kind.value} with another", tree.at)
        for value, other, where in ((left, right, tree.right), (right, left, tree.left)):
            if value.address and other.literal:
                _check_address(other.read(_NO_REQUEST), where.at)
        return _truth(_compared(_COMPARE[tree.sign], left, right))

    def _in(self, tree: Relation) -> Value:
        right = tree.right
        if isinstance(right, Name | Member) and isinstance(self._named(right), Place):
            read = self._by_name(right, tree.left)
            return _truth(lambda request: read(request) is not None)
        left, several = self.value(tree.left), self.value(right)
        if left.address and several.literal and several.kind in (Kind.TEXT, Kind.TEXTS):
            written = several.read(_NO_REQUEST)
            items = right.items if isinstance(right, ListOf) else (right,)
            inside = _within((written,) if isinstance(written, str) else written, items)
            read = left.read
            return _truth(lambda request: inside(read(request)))
        if left.address and several.kind is Kind.TEXTS and isinstance(right, ListOf | Choice):
            hint = "combine tests: address in '10.0.0.0/8' || address == headers['x-a']"
            raise Fault("networks stand in a list that is written here, with nothing else in it", right.at, hint)
        if several.kind not in ELEMENT:
            hint = f"write {_shown(right)}.contains({_shown(tree.left)})" if several.kind is Kind.TEXT else ""
            if left.address:
                hint = "networks are written here: address in '10.0.0.0/8'"
            raise Fault(f"in looks into a list, and this is {several.kind.value}", right.at, hint)
        if ELEMENT[several.kind] is not left.kind:
            raise Fault(f"{left.kind.value} cannot be in {several.kind.value}", tree.at, _quote(tree))
        if several.literal:
            wanted, look = frozenset(several.read(_NO_REQUEST)), left.read
            return _truth(lambda request: look(request) in wanted)
        one, many = left.read, several.read
        return _truth(lambda request: one(request) in many(request))

    def _call(self, tree: Call) -> Value:
        if tree.of is None:
            if tree.name in _TESTS or tree.name == "matches":
                raise Fault(f"'{tree.name}' belongs to a text", tree.at, f"write path.{tree.name}(...)")
            if tree.name != "size":
                hint = did_you_mean(tree.name, ["size"])
                raise Fault(
                    f"there is no function '{tree.name}'", tree.at, hint or f"there are {one_of(_METHODS, 'and')}"
                )
            return self._size(tree, tree.arguments)
        if tree.name == "size":
            return self._size(tree, (tree.of, *tree.arguments))
        if tree.name not in _METHODS:
            hint = did_you_mean(tree.name, _METHODS) or f"there are {one_of(_METHODS, 'and')}"
            raise Fault(f"there is no function '{tree.name}'", tree.at, hint)
        of = self._of_kind(tree.of, Kind.TEXT, f"{tree.name} asks a text").read
        if len(tree.arguments) != 1:
            raise Fault(f"{tree.name} takes one text, not {len(tree.arguments)} values", tree.at)
        (tree_of_wanted,) = tree.arguments
        wanted = self._of_kind(tree_of_wanted, Kind.TEXT, f"{tree.name} takes a text")
        if tree.name == "matches":
            if not wanted.literal:
                raise Fault("a regular expression is a text that is written here", tree_of_wanted.at)
            matches = compile_regex(wanted.read(_NO_REQUEST), tree_of_wanted.at)
            return _truth(lambda request: matches(of(request)))
        test = _TESTS[tree.name]
        if wanted.literal:
            text = wanted.read(_NO_REQUEST)
            return _truth(lambda request: test(of(request), text))
        other = wanted.read
        return _truth(lambda request: test(of(request), other(request)))

    def _size(self, tree: Call, arguments: tuple[Tree, ...]) -> Value:
        if len(arguments) != 1:
            raise Fault(f"size takes one value, not {len(arguments)}", tree.at)
        value = self.value(arguments[0])
        if value.kind is not Kind.TEXT and value.kind not in ELEMENT:
            raise Fault(f"size is of a text or a list, and this is {value.kind.value}", arguments[0].at)
        read = value.read
        return Value(kind=Kind.NUMBER, read=lambda request: len(read(request)))


_NO_REQUEST: Final = Request("GET", "/")
"""What literals are read with."""


def _truth(read: Callable[[Request], bool]) -> Value:
    return Value(kind=Kind.TRUTH, read=read)


def _literal(value: str | int | bool) -> Value:
    kind = Kind.TRUTH if isinstance(value, bool) else Kind.TEXT if isinstance(value, str) else Kind.NUMBER
    return Value(kind=kind, read=lambda _: value, literal=True)


def _not(value: Value) -> Value:
    read = value.read
    return _truth(lambda request: not read(request))


def _several(sign: str, operands: list[Value]) -> Value:
    """Return operands with && or || between them; two, the usual number, without a loop."""
    reads = tuple(operand.read for operand in operands)
    if len(reads) == 2:
        one, two = reads
        if sign == "&&":
            return _truth(lambda request: one(request) and two(request))
        return _truth(lambda request: one(request) or two(request))
    settled: bool = sign == "||"

    def decide(request: Request) -> bool:
        for read in reads:
            if read(request) == settled:
                return settled
        return not settled

    return _truth(decide)


def _compared(compare: Callable[[Any, Any], bool], left: Value, right: Value) -> Callable[[Request], bool]:
    one, two = left.read, right.read
    if right.literal:
        wanted = two(_NO_REQUEST)
        return lambda request: compare(one(request), wanted)
    return lambda request: compare(one(request), two(request))


def _within(networks: Iterable[str], trees: Iterable[Tree]) -> Callable[[str], bool]:
    """Return what tells whether an address is in one of `networks`, as they stand in `trees`."""
    known: list[IPv4Network | IPv6Network] = []
    for text, tree in zip(networks, trees, strict=True):
        try:
            network = ip_network(text)
        except ValueError:
            hint = "write 10.0.0.0/8, fd00::/8 or 192.0.2.7"
            with suppress(ValueError):
                hint = f"write {ip_network(text, strict=False)}"
            raise Fault(f"{text!r} is not a network", tree.at, hint) from None
        if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):  # as are the addresses
            network = IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
        known.append(network)

    @lru_cache(_REMEMBERED)
    def inside(text: str) -> bool:
        try:
            address = ip_address(text)
        except ValueError:  # a Unix socket's client has none
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in known)

    return inside


def _check_address(text: str, at: int) -> None:
    """Raise Fault where the client's address cannot be `text`."""
    if text == "":
        return
    try:
        address = ip_address(text)
    except ValueError:
        hint = f"write address in '{text}'" if "/" in text else "write 192.0.2.7 or 2001:db8::1"
        raise Fault(f"{text!r} is not an address", at, hint) from None
    normal = str(getattr(address, "ipv4_mapped", None) or address)
    if normal != text:
        raise Fault(f"{text!r} is not how the address is written", at, f"write {normal}")


def _quote(tree: Relation) -> str:
    """Return the hint for a number where a text is meant, which is the usual mistake with two kinds."""
    for side, other in ((tree.left, tree.right), (tree.right, tree.left)):
        if isinstance(side, Literal) and isinstance(side.value, int) and isinstance(other, Index | Name | Member):
            return f"write '{str(side.value).lower()}' in quotes"
    return ""


def _shown(tree: Tree) -> str:
    """Return how a simple part is written, for hints."""
    if isinstance(tree, Literal):
        return repr(tree.value)
    return tree.name if isinstance(tree, Name) else "..."
