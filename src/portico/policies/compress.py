"""Compress answers for clients that can decompress them.

```yaml
policies:
  - compress
routes:
  - {path: /export/**, service: reports, policies: [{compress: {codings: [gzip], min_size: 10KiB, levels: {gzip: 6}}}]}
  - {path: /events, service: reports, policies: [{compress: {event_streams: true}}]}
  - {path: /login, service: reports, policies: [{compress: off}]}
```

Of the `codings`, the one to which the client's `Accept-Encoding` gives most weight is taken (RFC 9110 section 12.5.3);
where it gives several the same, the first listed. Nothing is compressed for a client that sends no `Accept-Encoding`,
or prefers `identity`; where it refuses everything that could be sent, the answer goes out as it is.

An answer is compressed if its `Content-Type` is among `types` and its `Content-Length`, if it has one, is at least
`min_size`. Never compressed is an answer that is encoded already, that is a part of another (206, `Content-Range`),
whose `Cache-Control` says `no-transform`, that has no content (204, 205, 304), or that changes the protocol. Each
answer that is, or for another client could have been, compressed says `Vary: Accept-Encoding`. A compressed one loses
`Content-Length`, `Accept-Ranges` and the digests of what it was (`Content-MD5`, `Digest`, `Content-Digest`,
`Repr-Digest`), and a strong `ETag` becomes a weak one (RFC 9110 section 8.8.3). The answer to HEAD has the headers of
the answer to GET.

Answers stream: each piece that the service sends goes on at once, flushed, so a slow stream is not held back. Large
ones are worked on in slices, between which other requests have their turn. A stream under way holds up to 0.4 MiB for
gzip, about 1 MiB for br, and 1.3 MiB for zstd.

A service may compress by itself, and then its answer passes as it is. To have the gateway do it,
`headers: {request: {remove: [Accept-Encoding]}}` further in keeps the service from it.

In its stage, policies that read or change the content of answers belong behind it. There it also stands behind a
cache, which keeps the answers compressed, one for each coding. With `stage: observe` it stands before the cache, which
then keeps one answer that is compressed anew each time; and it compresses what policies answer, too.

A secret can be guessed from the compressed size of an answer that also repeats what an attacker chooses, over TLS as
well (BREACH). Where an answer has both, such as a form with a token against request forgery that shows the query, write
`compress: off`, or mask the secret anew for each answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Final, Literal

from pydantic import Field, field_validator

from portico.plugin import (
    IDENTITY,
    SLICE,
    Body,
    Env,
    Key,
    Negotiation,
    Policy,
    PolicyConfig,
    Request,
    Response,
    Size,
    Stage,
    encode_at_once,
    encoded,
    may_be_recoded,
    recoded,
    vary_by_encoding,
)

Coding = Literal["zstd", "br", "gzip"]

_REMEMBERED: Final = 256
_EVENT_STREAM: Final = "text/event-stream"
_TYPES: Final = (
    "text/*",
    "*+json",
    "*+xml",
    "*+yaml",
    "application/json",
    "application/x-ndjson",
    "application/javascript",
    "application/xml",
    "application/yaml",
    "application/graphql",
    "application/wasm",
    "application/x-www-form-urlencoded",
    "application/vnd.ms-fontobject",
    "font/ttf",
    "font/otf",
    "image/bmp",
    "image/x-icon",
)


class Levels(PolicyConfig):
    """How hard to try. Each step up costs time for each answer and saves a little of its size."""

    zstd: Annotated[int, Field(ge=1, le=19)] = 3
    """From 1 to 19."""
    br: Annotated[int, Field(ge=0, le=11)] = 4
    """From 0 to 11; beyond 6 it is for files, not for answers."""
    gzip: Annotated[int, Field(ge=1, le=9)] = 2
    """From 1 to 9. Up to 3 ISA-L does it, which is several times as fast as zlib, whose levels begin with 4."""


class Compress(PolicyConfig):
    """What is compressed, and by what."""

    codings: Annotated[tuple[Coding, ...], Field(min_length=1)] = ("zstd", "br", "gzip")
    """What may be used, the best first."""
    min_size: Size = 1024
    """Answers that are known to be smaller stay as they are."""
    types: Annotated[tuple[str, ...], Field(min_length=1)] = _TYPES
    """Media types to compress; `*` stands for anything."""
    event_streams: bool = False
    """Compress `text/event-stream` as well. Not every client reads the events of a compressed stream one by one."""
    levels: Levels = Levels()
    """The level of each coding."""

    @field_validator("codings")
    @classmethod
    def _each_once(cls, codings: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(codings)) != len(codings):
            raise ValueError("each coding stands once")
        return codings

    @field_validator("types")
    @classmethod
    def _media_types(cls, types: tuple[str, ...]) -> tuple[str, ...]:
        for type_ in types:
            if re.fullmatch(r"[\w!#$&^.+*-]+(/[\w!#$&^.+*-]+)?", type_, re.ASCII) is None:
                raise ValueError(f"{type_!r} is not a media type; write application/json, text/* or *+json")
        return types


class CompressPolicy(Policy[Compress], name="compress", stages=(Stage.TRANSFORM, Stage.OBSERVE)):
    """Compresses answers."""

    def setup(self, env: Env) -> None:
        """Compile the choice of types and of codings."""
        config = self.config
        self._negotiation = Negotiation(config.codings)
        patterns = [re.escape(type_.lower()).replace(r"\*", ".*") for type_ in config.types]
        self._types = re.compile("|".join(patterns))
        self._known_types: dict[bytes, bool] = {}
        self._levels: dict[str, int] = {coding: getattr(config.levels, coding) for coding in config.codings}
        self._chosen: Key[str] = Key("compress")
        self._at_once: dict[str, Callable[[bytes], bytes]] = {
            coding: encode_at_once(coding, level) for coding, level in self._levels.items()
        }

    def request(self, request: Request) -> Response | None:
        """Choose a coding now: what the service is to be told of Accept-Encoding is another matter."""
        coding = self._negotiation.choose(request.headers)
        if coding != IDENTITY:
            request[self._chosen] = coding
        return None

    def response(self, request: Request, response: Response) -> Response:
        """Compress the answer, where that is wanted and worth it."""
        headers = response.headers
        size = self._size(request, response)
        if size is not None and (size < self.config.min_size or not size):
            return response
        kind = headers.index.get(b"content-type")
        if kind is None or b"content-encoding" in headers.index or not self._is_wanted(kind):
            return response
        if not may_be_recoded(response.status, headers):
            return response
        vary_by_encoding(headers)
        coding = request.get(self._chosen)
        if coding is None:
            return response
        recoded(headers)
        headers.set(b"Content-Encoding", coding.encode("ascii"))
        if request.method != "HEAD":
            response.body = self._compressed(response.body, coding)
        elif response.body.whole:
            response.body = Body()  # it will not be sent, but its length would
        response.body.of_answer = True
        return response

    def _size(self, request: Request, response: Response) -> int | None:
        """Return how long the content is said to be; for HEAD, what the answer to GET would have."""
        if request.method != "HEAD" or response.body.length:
            return response.body.length
        declared = response.headers.index.get(b"content-length", b"")
        return int(declared) if declared.isdigit() else None

    def _is_wanted(self, kind: bytes) -> bool:
        known = self._known_types.get(kind)
        return self._remember(kind) if known is None else known

    def _remember(self, kind: bytes) -> bool:
        name = kind.partition(b";")[0].strip(b" \t").decode("latin-1").lower()
        wanted = self.config.event_streams if name == _EVENT_STREAM else self._types.fullmatch(name) is not None
        if len(self._known_types) >= _REMEMBERED:
            self._known_types.clear()
        self._known_types[kind] = wanted
        return wanted

    def _compressed(self, body: Body, coding: str) -> Body:
        whole = body.whole
        if whole is not None and len(whole) <= SLICE:
            return Body(self._at_once[coding](whole))
        return encoded(body, coding, self._levels[coding])
