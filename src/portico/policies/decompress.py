"""Undo the compression of what clients send, for services that cannot.

```yaml
routes:
  - {path: /ingest/**, service: metrics, policies: [decompress]}
  - {path: /upload/**, service: files, policies: [{decompress: {max: 100MiB, codings: [gzip, zstd]}}]}
  - {path: /archive/**, service: files, policies: [{decompress: {responses: true}}]}
```

A request whose `Content-Encoding` is gzip, deflate, br or zstd goes to the service without it. Content is decoded as it
streams, and never held as a whole unless it is small. What becomes larger than `max` is answered 413, however small it
came: a few kilobytes can stand for a gigabyte. Other codings are answered 415 with `Accept-Encoding`, the list of those
that are known; content that is not of the coding it says is answered 400.

`max_body` of the route, and `request-size`, count what the client sends; `max` counts what comes of it.

With `responses`, an answer is decoded for a client that does not accept the coding in which the service sent it, or
does not say what it accepts. A part of an answer (206), and what says `Cache-Control: no-transform`, stays as it is.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from portico.plugin import (
    MAX_CODINGS,
    AcceptEncoding,
    Env,
    Key,
    MalformedContent,
    Policy,
    PolicyConfig,
    Request,
    Response,
    Size,
    Stage,
    UpstreamError,
    codings_of,
    decoded,
    may_be_recoded,
    recoded,
    vary_by_encoding,
)


class Decompress(PolicyConfig):
    """What is decoded."""

    max: Size = 10 * 1024 * 1024
    """Bytes that the content of a request may have once it is decoded."""
    codings: Annotated[tuple[Literal["gzip", "deflate", "br", "zstd"], ...], Field(min_length=1)] = (
        "gzip",
        "deflate",
        "br",
        "zstd",
    )
    """The codings that clients may use."""
    responses: bool = False
    """Decode answers as well, for clients that do not accept their coding."""


class DecompressPolicy(Policy[Decompress], name="decompress", stages=(Stage.TRANSFORM, Stage.GUARD)):
    """Decodes content."""

    def setup(self, env: Env) -> None:
        """Prepare what a refusal says."""
        self._known = frozenset(self.config.codings)
        self._accepted = ", ".join(self.config.codings).encode("ascii")
        self._accepts: Key[bytes] = Key("decompress")

    def request(self, request: Request) -> Response | None:
        """Have the content decoded, or refuse it."""
        headers = request.headers
        if self.config.responses:  # kept now: what the service is to be told is another matter
            request[self._accepts] = b",".join(headers.get_all(b"accept-encoding"))
        if b"content-encoding" not in headers.index:
            return None
        codings = codings_of(headers)
        if len(codings) > MAX_CODINGS or not self._known.issuperset(codings):
            refusal = Response.problem(415, "unknown-content-coding", detail="This Content-Encoding is not known here.")
            refusal.headers.set(b"Accept-Encoding", self._accepted)
            return refusal
        headers.remove(b"content-encoding")
        if not codings:
            return None
        try:
            body = decoded(request.body, codings)
        except MalformedContent as error:  # so that policies further out see an answer
            return Response.problem(error.status, error.type, detail=error.detail)
        if not body.restrict(self.config.max):
            return Response.problem(413, "content-too-large", detail=f"The limit is {self.config.max} bytes, decoded.")
        recoded(headers)
        request.body = body
        return None

    def response(self, request: Request, response: Response) -> Response:
        """Have the answer decoded, where that is wanted and the client needs it."""
        headers = response.headers
        if not self.config.responses or b"content-encoding" not in headers.index:
            return response
        if not may_be_recoded(response.status, headers):
            return response
        codings = codings_of(headers)
        if not codings or len(codings) > MAX_CODINGS or not self._known.issuperset(codings):
            return response
        vary_by_encoding(headers)
        if AcceptEncoding(request[self._accepts].decode("latin-1")).accepts(codings):
            return response
        if request.method != "HEAD":
            try:
                response.body = decoded(response.body, codings)
            except UpstreamError as error:
                return Response.problem(error.status, error.type, error.title)
            response.body.of_answer = True
        headers.remove(b"content-encoding")
        recoded(headers)
        return response
