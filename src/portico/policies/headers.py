"""Set, add, remove and rename headers.

```yaml
policies:
  - headers:
      request:
        remove: [x-internal-*, X-Debug]
        set: {X-Gateway: portico, X-Client: "{{ client.address }}"}
      response:
        remove: [Server, x-internal-*]
        add: {Link: '</terms>; rel="terms-of-service"'}
routes:
  - path: /users/{id}/**
    service: users
    policies:
      - headers:
          request:
            set: {X-User-Id: "{{ captures.id }}"}
            rename: {X-Api-Key: X-Legacy-Key}
          response:
            set: {X-Answer: "{{ status }} for {{ method }} {{ path }}"}
        name: user-headers
```

The changes are made in this order, whatever their order in the file: `rename`, `remove`, `set`, `add`. Values may have
places: `{{ method }}`, `{{ path }}`, `{{ query }}`, `{{ host }}`, `{{ client.address }}`, `{{ captures.NAME }}` and
`{{ headers.NAME }}`, which is a header of the request; for answers also `{{ status }}`. Values are made before the
first change, so a header can be read and removed at once; but what an answer is told of the request is the request as
the service saw it.

What a client sends cannot forge a header: line breaks and other control characters are left out of what fills a place,
and characters beyond Latin-1 are percent-encoded. It can hold commas, semicolons and quotes; do not put it where these
have a meaning. Where a value comes out empty, `set` removes the header, so that a client cannot choose what should have
been there, and `add` adds nothing.

In requests, a header that `remove`, `set` or `rename` names goes in all its spellings: `X_Internal_User` is what many
services read as `X-Internal-User`. It goes from the trailers after a body as well, which some take for headers.

Headers that frame a message, that belong to one connection, or that another setting decides cannot be named, and no
`*` removes them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import ClassVar, Final
from urllib.parse import quote

from pydantic import field_validator, model_validator

from portico.plugin import (
    HOP_BY_HOP,
    ConfigError,
    Env,
    HeaderBlock,
    HeaderName,
    Headers,
    Key,
    Policy,
    PolicyConfig,
    Request,
    Response,
    Stage,
    Template,
)

STATUS: Key[int] = Key("status")

_CODING = "compress and decompress are the policies that change it together with the content"
_FORWARDED = "what a service is told of the client is for `forwarded` to say"
_FRAMING: Final[Mapping[str, str]] = {name.decode("ascii"): "it belongs to one connection" for name in HOP_BY_HOP} | {
    "content-length": "the gateway counts the content that it sends",
    "transfer-encoding": "the gateway frames the content that it sends",
    "upgrade": "`upgrades` of the service says which protocols a client may change to",
    "content-encoding": _CODING,
}
_OF_REQUESTS: Final[Mapping[str, str]] = {
    "host": "`preserve_host` of the route sends the client's, and the service's `url` has its own",
    "expect": "the gateway answers it",
} | dict.fromkeys(
    ("forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "x-real-ip"),
    _FORWARDED,
)


class Changes(PolicyConfig):
    """What changes in the headers of one direction."""

    refused: ClassVar[Mapping[str, str]] = _FRAMING

    set: dict[HeaderName, str] = {}  # noqa: RUF012 - pydantic copies it
    """Headers that get this value, and no other."""
    add: dict[HeaderName, str | list[str]] = {}  # noqa: RUF012
    """Values, or lists of them, that headers get beside those they have."""
    remove: list[str] = []  # noqa: RUF012
    """Headers that do not pass; `*` in a name stands for anything."""
    rename: dict[HeaderName, HeaderName] = {}  # noqa: RUF012
    """Headers that get another name, in place of any that had it."""

    @field_validator("remove")
    @classmethod
    def _names(cls, names: list[str]) -> list[str]:
        for name in names:
            if re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", name) is None:
                raise ValueError(f"{name!r} is not a header name; write one such as X-Debug, or x-internal-*")
        return names

    @model_validator(mode="after")
    def _none_that_are_refused(self) -> Changes:
        exact = [name for name in self.remove if "*" not in name]
        for name in (*self.set, *self.add, *exact, *self.rename, *self.rename.values()):
            why = self.refused.get(name.lower())
            if why is not None:
                raise ValueError(f"{name} is not to be changed here: {why}")
        for names in (self.set, self.add, self.rename):
            keys = [name.lower() for name in names]
            twice = next((key for key in keys if keys.count(key) > 1), None)
            if twice is not None:
                raise ValueError(f"{twice} stands twice")
        return self


class RequestChanges(Changes):
    """What changes in the headers that the service is sent."""

    refused: ClassVar[Mapping[str, str]] = {**_FRAMING, **_OF_REQUESTS}


class ResponseChanges(Changes):
    """What changes in the headers that the client is sent."""


class HeadersConfig(PolicyConfig):
    """What changes in which direction."""

    request: RequestChanges = RequestChanges()
    """On the way to the service."""
    response: ResponseChanges = ResponseChanges()
    """On the way to the client."""


class HeadersPolicy(Policy[HeadersConfig], name="headers", stages=(Stage.TRANSFORM, Stage.OBSERVE, Stage.GUARD)):
    """Changes headers."""

    def setup(self, env: Env) -> None:
        """Compile the changes."""
        self._request = _Compiled(self.config.request, env, {})
        self._response = _Compiled(self.config.response, env, {"status": lambda request: str(request[STATUS])})

    def request(self, request: Request) -> Response | None:
        """Change the headers of a request."""
        changes = self._request
        if changes.spellings:
            changes.remove_spellings(request.headers)
            request.body.refuse_trailers(changes.spellings)
        changes.apply(request.headers, request)
        return None

    def response(self, request: Request, response: Response) -> Response:
        """Change the headers of an answer."""
        changes = self._response
        if changes.has_places:
            request[STATUS] = response.status
        changes.apply(response.headers, request)
        return response


class _Compiled:
    """The changes of one direction, ready to be made."""

    __slots__ = (
        "_add",
        "_block",
        "_fill_add",
        "_fill_set",
        "_globs",
        "_kept",
        "_moved",
        "_removed",
        "_rename",
        "_underscores",
        "spellings",
    )

    def __init__(self, changes: Changes, env: Env, places: Mapping[str, Callable[[Request], str]]) -> None:
        self._kept = frozenset(name.encode("ascii") for name in changes.refused)
        keys = [name.lower().encode("ascii") for name in changes.remove]
        self._removed = tuple(key for key in keys if b"*" not in key)
        globs = [key for key in keys if b"*" in key]
        # Names that begin with something are by far the most, and need no regular expression.
        self._globs = _beginnings(globs) or _matcher(globs)
        self._rename = tuple((old.lower().encode("ascii"), new.encode("ascii")) for old, new in changes.rename.items())
        constant: list[tuple[bytes, bytes]] = []
        self._fill_set: list[tuple[bytes, Template]] = []
        for name, text in changes.set.items():
            _put(name, _template(name, text, env, places), constant, self._fill_set)
        self._block = HeaderBlock(constant)
        self._add: list[tuple[bytes, bytes]] = []
        self._fill_add: list[tuple[bytes, Template]] = []
        for name, texts in changes.add.items():
            for text in [texts] if isinstance(texts, str) else texts:
                _put(name, _template(name, text, env, places), self._add, self._fill_add)
        self._moved = frozenset(key for key, _ in self._rename)
        named = (*keys, *(name.lower().encode("ascii") for name in changes.set), *self._moved)
        self._underscores = any(b"_" in key for key in named)
        self.spellings = _matcher([key.replace(b"_", b"-") for key in named])

    @property
    def has_places(self) -> bool:
        """Whether a value has places that are filled for each message."""
        return bool(self._fill_set or self._fill_add)

    def apply(self, headers: Headers, request: Request) -> None:
        """Make the changes."""
        filled = [(name, _fill(template, request)) for name, template in self._fill_set]
        added = [(name, _fill(template, request)) for name, template in self._fill_add]
        if self._rename:
            _rename(headers, self._rename)
        index = headers.index
        for key in self._removed:
            if key in index:
                headers.remove(key)
        if self._globs is not None:
            self._remove_matching(headers, self._globs)
        if self._block.pairs:
            headers.set_block(self._block)
        for name, value in filled:
            if value:
                headers.set(name, value)
            else:
                headers.remove(name.lower())
        for name, value in self._add:
            headers.put_parsed(name, value)
        for name, value in added:
            if value:
                headers.add(name, value)

    def remove_spellings(self, headers: Headers) -> None:
        """Remove headers that pass for those that are named, once a service has read `_` as `-`."""
        spellings = self.spellings
        assert spellings is not None
        if not self._underscores and b"_" not in b"".join(headers.index):  # one step for most requests
            return
        for key in [key for key in headers.index if self._underscores or b"_" in key]:
            if key not in self._moved and key not in self._kept and spellings(key.replace(b"_", b"-")):
                headers.remove(key)

    def _remove_matching(self, headers: Headers, globs: tuple[bytes, ...] | Callable[[bytes], object]) -> None:
        if isinstance(globs, tuple):
            found = [key for key in headers.index if key.startswith(globs)]
        else:
            found = [key for key in headers.index if globs(key)]
        for key in found:
            if key not in self._kept:
                headers.remove(key)


def _beginnings(patterns: list[bytes]) -> tuple[bytes, ...]:
    """Return the beginnings that patterns ask for, where that is all that they ask for; otherwise nothing."""
    plain = all(pattern.endswith(b"*") and b"*" not in pattern[:-1] for pattern in patterns)
    return tuple(pattern[:-1] for pattern in patterns) if plain else ()


def _matcher(patterns: list[bytes]) -> Callable[[bytes], object] | None:
    """Return what tells whether a name is one of `patterns`, in which `*` stands for anything; None where none is."""
    if not patterns:
        return None
    return re.compile(b"|".join(re.escape(pattern).replace(rb"\*", b".*") for pattern in patterns)).fullmatch


def _put(
    name: str, template: Template, constant: list[tuple[bytes, bytes]], filled: list[tuple[bytes, Template]]
) -> None:
    if template.constant is None:
        filled.append((name.encode("ascii"), template))
    else:
        constant.append((name.encode("ascii"), template.constant.encode("latin-1")))


def _template(name: str, text: str, env: Env, places: Mapping[str, Callable[[Request], str]]) -> Template:
    """Return the value of a header, whose text outside of places must be fit for one."""
    if not text.strip():
        raise ConfigError(f"headers: {name} is given no value; to take a header away, name it under remove")
    try:
        template = Template(text.strip(), _safe, literal=_literal, places=MappingProxyType(dict(places)))
    except ValueError as error:
        raise ConfigError(f"headers: {name}: {error}") from None
    env.route.check_captures(template.captures)
    return template


_CONTROLS: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]+")
_BEYOND: Final = re.compile(r"[^\x00-\xff]+")


def _literal(text: str) -> str:
    if _CONTROLS.search(text) is not None or _BEYOND.search(text) is not None:
        raise ValueError("a header can have neither control characters nor characters beyond Latin-1")
    return text


def _safe(value: str) -> str:
    """Return what fills a place, without what no header can have."""
    if value.isascii() and value.isprintable():
        return value
    return _BEYOND.sub(lambda match: quote(match[0], errors="replace"), _CONTROLS.sub("", value))


def _fill(template: Template, request: Request) -> bytes:
    return template.fill(request).encode("latin-1").strip(b" \t")


def _rename(headers: Headers, names: tuple[tuple[bytes, bytes], ...]) -> None:
    """Give headers other names, all at once, so that two can change places."""
    moved = [(key, name, headers.get_all(key)) for key, name in names if key in headers.index]
    for key, _, _ in moved:
        headers.remove(key)
    for _, name, values in moved:
        headers.set(name, values[0])
        for value in values[1:]:
            headers.add(name, value)
