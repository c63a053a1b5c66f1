"""A connection that has stopped being HTTP's, such as a WebSocket's."""

from __future__ import annotations

from mypy_extensions import mypyc_attr


@mypyc_attr(allow_interpreted_subclasses=True)
class Duplex:
    """Both directions of an upgraded connection (RFC 9110 section 7.8), as seen from this side of it.

    A 101 Response carries one; the server joins it to the client's connection.
    """

    @property
    def half_closes(self) -> bool:
        """True while one direction can end and the other go on: on plain TCP, and not over TLS."""
        raise NotImplementedError

    @property
    def unread(self) -> bool:
        """True while bytes have come that `receive` would return at once."""
        raise NotImplementedError

    async def receive(self) -> bytes:
        """Return the next bytes from the other side; b"" is the end of its direction.

        Raises ConnectionError or an UpstreamError where the connection broke.
        """
        raise NotImplementedError

    async def send(self, data: bytes) -> None:
        """Send `data`; wait while too much is unsent. Raises as `receive` does, or DeadlineExceeded."""
        raise NotImplementedError

    def end(self) -> None:
        """Send no more. Where the connection cannot say so, nothing happens: see `half_closes`."""
        raise NotImplementedError

    def break_off(self) -> None:
        """End both directions, so that what was sent is not taken for all of it where the connection can say so."""
        raise NotImplementedError

    def close(self) -> None:
        """End both directions, after what was sent; may be called more than once."""
        raise NotImplementedError
