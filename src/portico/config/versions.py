"""Several versions of one API behind one route.

```yaml
routes:
  - name: orders
    path: /orders/**
    versions:
      by: header                  # Accept-Version: v1
      default: v2
      echo: API-Version
      v1: {service: orders-v1, deprecated: 2026-01-01, sunset: 2026-12-31, link: "https://example.com/v1"}
      v2: {service: orders-v2}
  - path: /api/{version}/users/**
    strip_prefix: /api
    versions:
      by: path                    # /api/v1/users and /api/v2/users
      v1: {service: users-v1}
      v2: {service: users-v2}
```

Each key that is no setting is a version; below it stands what the route ends in, and settings of that, `policies` (in
addition to the route's own), `max_body` and `errors`. A text is its `service`. What stands at the route is the same for
all versions. `deprecated`, `sunset` and `link` are those of the policy [deprecation](policies/deprecation.md).

The version is chosen

- by `header`: `Accept-Version: v1`, or the header of another `name`;
- by `query`: `?version=v1`, or the parameter of another `name`;
- by `media-type`: `Accept: application/vnd.acme.v1+json` or `application/vnd.acme+json;version=1` where `name` is
  `vnd.acme`, and `application/json;version=1` where no name is given. `v1` and `1` mean the same here. Where a client
  takes several versions, the first of the file goes first, and `default` last;
- by `path`: `{version}` in the path says where it stands; without that it stands at the beginning, as in
  `/v1/orders/**`. What the service sees is for `strip_prefix` and `rewrite` to say.

A request that names no version gets the `default`. One that names another version, or none where there is no default,
is answered with a problem, `unknown-version`, that names those that there are: 400, or 406 by `media-type`, or 404 by
`path`. `Vary` says what the answer depends on.

All of it is written out as routes when the file is read, one for each version and named after it (`orders-v1`), which
is what `portico explain` shows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from typing import Final, Literal, NamedTuple

from pydantic import ValidationInfo, field_validator

from portico.config.build import build
from portico.config.findings import Findings, Place
from portico.config.nearest import did_you_mean, one_of
from portico.config.nodes import Entry, Fields, Items, Node, Scalar, describe, is_null
from portico.config.part import Part
from portico.config.values import BadValue, HeaderName, check_header_name, check_name

DEPRECATION_KEYS: Final = ("deprecated", "sunset", "link")
"""What a version says beside what any route can say, for the policy `deprecation`."""
VERSION_KEYS: Final = ("policies", "max_body", "errors")
"""What a version can say of all that a route can, beside its endpoint."""


class Versions(Part):
    """By what a version is chosen. Beside these stand the versions themselves."""

    by: Literal["path", "header", "media-type", "query"]
    """Where a request names its version."""
    name: str | None = None
    """The header (`Accept-Version` unless given), the query parameter (`version` unless given), or the beginning of the
    media types, such as `vnd.acme`."""
    default: str | None = None
    """The version for requests that name none; they are refused unless given."""
    echo: HeaderName | None = None
    """The header of the answer that names the version; none unless given."""

    @field_validator("name")
    @classmethod
    def _fits(cls, name: str | None, info: ValidationInfo) -> str | None:
        by = info.data.get("by")
        if name is None or by is None:
            return name
        if by == "path":
            raise BadValue("a part of a path has no name", "write {version} where it stands in the path")
        if by == "header":
            return check_header_name(name)
        if by == "media-type" and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.-]*", name) is None:
            raise BadValue(f"{name!r} is not the beginning of a media type", "write one such as vnd.acme")
        return name


class RouteNode(NamedTuple):
    """A route as if it had been written by itself; a version's has what is to stand at the end of its name."""

    node: Fields
    version: str = ""


class Expansion:
    """Writes routes with versions out."""

    def __init__(self, own: Set[str], settings: Mapping[str, Set[str]], findings: Findings) -> None:
        """`own` are the keys of a route, `settings` those of each endpoint."""
        self._own = own
        self._settings = settings
        self._findings = findings

    def routes(self, node: Fields) -> list[RouteNode]:
        """Return the routes that `node` stands for: itself, unless it has versions."""
        entry = node.entries.get("versions")
        if entry is None:
            return [RouteNode(node)]
        if not isinstance(entry.node, Fields):
            if not (isinstance(entry.node, Scalar) and entry.node.broken):
                hint = "write {by: header, v1: {service: orders-v1}}"
                self._findings.error(
                    entry.node.place, f"versions: expected a mapping, not {describe(entry.node)}", hint
                )
            return []
        known = Versions.model_fields
        own = {key: each for key, each in entry.node.entries.items() if key in known}
        said = {key: each for key, each in entry.node.entries.items() if key not in known}
        strangers = [key for key, each in said.items() if isinstance(each.node, Scalar) and did_you_mean(key, known)]
        for key in strangers:
            self._findings.error(said[key].key, f"unknown key '{key}' in versions", did_you_mean(key, known))
        settings = build(Versions, Fields(entry.node.place, own), "versions", self._findings)
        if settings is None or strangers or not self._sound(said, settings, entry):
            return []
        written = _WAYS[settings.by](settings, list(said))
        return list(self._written(node.without("versions"), settings, said, written, entry.key))

    def _sound(self, said: Mapping[str, Entry], settings: Versions, entry: Entry) -> bool:
        assert isinstance(entry.node, Fields)
        if not said:
            hint = "add one such as v1: {service: orders-v1}"
            self._findings.error(entry.key, "versions: there is none among them", hint)
            return False
        for name, each in said.items():
            try:
                check_name(name)
            except BadValue as error:
                self._findings.error(each.key, error.message, error.hint)
                return False
        if settings.default is not None and settings.default not in said:
            hint = did_you_mean(settings.default, said) or f"the file has {one_of(list(said), 'and')}"
            place = entry.node.entries["default"].node.place
            self._findings.error(place, f"default: there is no version '{settings.default}'", hint)
            return False
        return True

    def _written(
        self, node: Fields, settings: Versions, said: Mapping[str, Entry], way: _Way, place: Place
    ) -> list[RouteNode]:
        # The default takes what none of the others has taken, and so does the refusal where there is no default.
        default = settings.default
        routes = []
        for name in sorted(said, key=lambda name: name == default):
            route = self._version(node, name, said[name])
            if route is not None:
                tell = {"vary": way.vary, "version": name if settings.echo else "", "echo": settings.echo or ""}
                routes.append(RouteNode(self._at(route, way, way.of(name, default), place, tell), name))
        if way.unknown is not None:
            refusal = self._at(self._refusal(node, list(said), way, place), way, way.unknown, place, {"vary": way.vary})
            routes.insert(-1 if default is not None and routes else len(routes), RouteNode(refusal, "unknown"))
        return routes

    def _version(self, node: Fields, name: str, entry: Entry) -> Fields | None:
        """Return what the route is for one version, before it is said how that is chosen."""
        below = entry.node
        if is_null(below):
            below = Fields(entry.key, {})
        elif isinstance(below, Scalar):
            below = Fields(entry.key, {"service": entry})
        elif not isinstance(below, Fields):
            hint = "write the name of a service, or {service: orders-v1}"
            self._findings.error(below.place, f"{name}: expected a version, not {describe(below)}", hint)
            return None
        mine = dict(below.entries)
        gone: dict[str, Entry] = {key: mine.pop(key) for key in DEPRECATION_KEYS if key in mine}
        for key in [key for key in mine if key in self._own and key not in VERSION_KEYS]:
            hint = "move it to the route, where it is for all versions"
            self._findings.error(mine.pop(key).key, f"'{key}' cannot stand at a version", hint)
        policies = [*_items(node.entries.get("policies")), *_items(mine.get("policies"))]
        if gone:
            place = next(iter(gone.values())).key
            policies.append(Fields(place, {"deprecation": Entry(place, Fields(place, gone))}))
        kind = next((kind for kind in self._settings if kind in mine), None)
        entries = {**(node.entries if kind is None else self._without_end(node.entries, kind)), **mine}
        return Fields(entry.key, _with_policies(entries, policies, entry.key))

    def _without_end(self, base: Mapping[str, Entry], kind: str) -> dict[str, Entry]:
        """Return a route's keys without those of its end, but for settings that the end of `kind` has as well."""
        others = {key for other, keys in self._settings.items() for key in (other, *keys)} - self._settings[kind]
        return {key: each for key, each in base.items() if key in self._own or key not in others}

    def _refusal(self, node: Fields, names: list[str], way: _Way, place: Place) -> Fields:
        """Return the route that answers whoever names no version that there is."""
        problem: dict[str, Node] = {
            "title": _text(place, "Unknown version"),
            "type": _text(place, "unknown-version"),
            "detail": _text(place, f"{way.asks} a version: {one_of(names)}."),
            "extensions": _fields(place, {"versions": Items(place, [_text(place, name) for name in names])}),
        }
        status = Scalar(place, str(way.status), way.status)
        answer = _fields(place, {"status": status, "problem": _fields(place, problem)})
        entries = {key: each for key, each in node.entries.items() if key in self._own}
        return Fields(node.place, {**entries, "respond": Entry(place, answer)})

    def _at(self, route: Fields, way: _Way, chosen: _Chosen | None, place: Place, tell: Mapping[str, str]) -> Fields:
        """Return the route with what chooses it, and with what it says of that."""
        entries = dict(route.entries)
        if chosen is not None and chosen.condition:
            part = entries.get(way.part)
            there = part.node.entries if part is not None and isinstance(part.node, Fields) else {}
            for name in there:
                if name.lower() == way.name.lower():
                    message = f"the condition on {name} is for versions to make"
                    self._findings.error(there[name].key, message, "leave one of them out")
            conditions = Fields(place, {**there, way.name: Entry(place, _text(place, chosen.condition))})
            if part is None or isinstance(part.node, Fields):
                entries[way.part] = Entry(place, conditions)
        if chosen is not None and chosen.segments:
            entries["path"] = self._paths(entries.get("path"), chosen.segments, place)
        said = {key: _text(place, value) for key, value in tell.items() if value}
        if "vary" in said or "echo" in said:
            policy = _fields(place, {"api-version": _fields(place, said)})
            entries = _with_policies(entries, [*_items(entries.get("policies")), policy], place)
        return Fields(route.place, entries)

    def _paths(self, entry: Entry | None, segments: tuple[str, ...], place: Place) -> Entry:
        """Return the paths with the version in each; the empty segment is for none."""
        nodes = [_text(place, "/**")] if entry is None else _items(entry) or [entry.node]
        paths: list[Node] = []
        for node in nodes:
            if not isinstance(node, Scalar) or not isinstance(node.value, str):
                paths.append(node)  # which is a mistake, and told as one
            elif node.value.startswith("~"):
                hint = "write it as /{version}/orders/**, or choose versions by something else"
                self._findings.error(node.place, "a regular expression has no place for a version", hint)
                paths.append(node)
            else:
                paths += [_text(node.place, _with_version(node.value, segment)) for segment in segments]
        return Entry(place if entry is None else entry.key, Items(place if entry is None else entry.key, paths))


class _Chosen(NamedTuple):
    """What chooses a version: what must be met, or what stands in the path."""

    condition: str = ""
    segments: tuple[str, ...] = ()


class _Way(NamedTuple):
    """A way to choose."""

    part: str
    """The key of the route that conditions stand under."""
    name: str
    """The header or the parameter that they are on."""
    chosen: Mapping[str, _Chosen]
    by_default: _Chosen
    """What chooses the version that is chosen by nothing else."""
    unknown: _Chosen | None
    status: int
    asks: str
    """The beginning of a sentence on what a request has to do."""
    vary: str = ""

    def of(self, name: str, default: str | None) -> _Chosen:
        """Return what chooses one version."""
        return self.by_default if name == default else self.chosen[name]


_VALUES: Final = {
    "header": ("headers", "Accept-Version", "The header"),
    "query": ("query", "version", "The query parameter"),
}


def _by_value(settings: Versions, names: list[str]) -> _Way:
    """Choose by a header or a query parameter whose value is the name."""
    part, usual, what = _VALUES[settings.by]
    name = settings.name or usual
    known = "|".join(re.escape(each) for each in names)
    unknown = _Chosen("" if settings.default is None else rf"~(?!(?:{known})\Z)(?s:.*)")
    chosen = {each: _Chosen(each) for each in names}
    vary = name if settings.by == "header" else ""
    return _Way(part, name, chosen, _Chosen(), unknown, 400, f"{what} {name} has to name", vary)


def _by_media_type(settings: Versions, names: list[str]) -> _Way:
    """Choose by a media type of Accept that has the version in its name, or in its parameter `version`."""

    def taken(version: str) -> str:
        ends = r"[ \t]*(?:[;,].*)?"
        parameter = rf'(?:;[^,;]*)*?;[ \t]*version="?(?:{version})"?{ends}'
        if settings.name is None:
            return rf"(?:.*,)?[ \t]*[^,; \t]+[ \t]*{parameter}"
        kinds = rf"[a-z]+/{re.escape(settings.name)}(?:\.[^\s;,+.]+)*"
        return rf"(?:.*,)?[ \t]*{kinds}(?:\.(?:{version})(?:\+[^\s;,]+)?{ends}|(?:\+[^\s;,]+)?[ \t]*{parameter})"

    chosen = {each: f"(?i:{taken(_either(each))})" for each in names}
    # Without blanks and quotes, which may follow it: two ways to read each of them would be too many for long headers.
    any_version = r'v?[0-9][^;, \t"+.]*'
    any_of_them = f"(?i:{taken(any_version)})"
    unknown = _Chosen()
    if settings.default is not None:
        known = "|".join(chosen.values())
        unknown = _Chosen(rf"~(?!(?:{known})\Z)(?!.*\*/\*){any_of_them}")
    ways = {each: _Chosen(f"~{regex}") for each, regex in chosen.items()}
    return _Way("headers", "Accept", ways, _Chosen(), unknown, 406, "A media type in Accept has to name", "Accept")


def _either(name: str) -> str:
    """Return a regular expression for a version with or without its `v`."""
    number = re.fullmatch(r"[vV]?([0-9].*)", name)
    return re.escape(name) if number is None else f"v?{re.escape(number[1])}"


def _by_path(settings: Versions, names: list[str]) -> _Way:
    """Choose by a segment of the path; what is like a version there and is none of them is a miss that says so."""
    chosen = {each: _Chosen(segments=(each,)) for each in names}
    by_default = _Chosen() if settings.default is None else _Chosen(segments=(settings.default, ""))
    stems = {name.rstrip("0123456789.") for name in names}  # with several, or none, anything would be like a version
    unknown = _Chosen(segments=(f"{stems.pop()}*",)) if len(stems) == 1 and "" not in stems else None
    return _Way("", "", chosen, by_default, unknown, 404, "The path has to name")


def _with_version(path: str, segment: str) -> str:
    """Return a path pattern with the version in its place, or without one where `segment` is empty."""
    if "{version}" not in path:
        return f"/{segment}{path}" if segment else path
    return path.replace("{version}", segment) if segment else path.replace("/{version}", "") or "/"


_WAYS: Final = {"header": _by_value, "query": _by_value, "media-type": _by_media_type, "path": _by_path}


def _text(place: Place, text: str) -> Scalar:
    return Scalar(place, text, text)


def _fields(place: Place, nodes: Mapping[str, Node]) -> Fields:
    return Fields(place, {key: Entry(place, node) for key, node in nodes.items()})


def _with_policies(entries: dict[str, Entry], policies: list[Node], place: Place) -> dict[str, Entry]:
    """Return a route's keys with these policies, unless what stands there is a mistake that is still to be told."""
    there = entries.get("policies")
    if not policies or not (there is None or is_null(there.node) or isinstance(there.node, Items)):
        return entries
    return {**entries, "policies": Entry(place, Items(place, policies))}


def _items(entry: Entry | None) -> list[Node]:
    return entry.node.nodes if entry is not None and isinstance(entry.node, Items) else []
