"""A Stream over TLS, on either side, without a transport of the event loop's for it.

OpenSSL works in memory here: bytes of the socket are given to it as they come, and what it makes of them is fetched.
That costs no more than the event loop's own TLS, and leaves the handshake's deadline, the order at the end, and what
may come before the handshake (a PROXY header) to us.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, cast

from portico.net.pem import reason
from portico.net.stream import HIGH_WATER, NEVER, Outbox, Stream
from portico.net.tls import AcceptedTls

logger = logging.getLogger("portico.tls")

RECORD: Final = 16 * 1024
"""The most plaintext in one record (RFC 8446 section 5.1)."""

BATCH: Final = 64 * 1024
"""Bytes that are given to OpenSSL at a time: its buffers keep the largest size that they ever had."""

SPEAKS_HTTPS: Final = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 48\r\nConnection: close\r\n\r\n"
    b"This port speaks https, and got a http request.\n"
)
"""The answer to plain HTTP where TLS was expected, as nginx has one."""

MAX_ANSWERED: Final = 64 * 1024
"""Bytes with which TLS itself, and nobody else, may answer a peer that does not read."""


class PeerCertificate(NamedTuple):
    """The certificate that the other side has shown, and that was verified unless nobody asked for that."""

    der: bytes
    fields: Mapping[str, Any]
    """What is in it, as `ssl.SSLSocket.getpeercert` has it; empty where it was not verified."""


class TlsStream(Stream):
    """A connected socket on which TLS is spoken.

    `on_connected` is called once the handshake is complete, so nobody sees a peer who has not shown what it must.
    Until then `on_expired` is not the owner's, and nothing may be written. There is no half-close: who has ended its
    output still reads, but the other side may not. An end without a close_notify is a `broken` one (RFC 8446 6.1).
    """

    __slots__ = (
        "_answered",
        "_ended",
        "_error",
        "_handshake_by",
        "_incoming",
        "_open",
        "_opened",
        "_outgoing",
        "_sealed",
        "_tls",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        outbox: Outbox | None,
        context: ssl.SSLContext,
        handshake_by: float,
        asked_name: str | None = None,
    ) -> None:
        """Speak TLS as `context` says, with the handshake complete at `handshake_by`, a time of the loop's clock.

        `asked_name` is the server's name, which its certificate must have; where it is None, this side is the server.
        Raises ValueError where it cannot be a name.
        """
        super().__init__(loop, outbox)
        self._handshake_by = handshake_by
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=asked_name is None, server_hostname=asked_name
        )
        self._open = False
        self._sealed = False
        """True once nothing can be sent any more: close_notify has been, or the connection failed."""
        self._ended = False
        """True once the other side has said that it sends no more."""
        self._error: Exception | None = None
        self._opened: asyncio.Future[None] | None = None
        self._answered = 0

    # What the transport calls; asyncio.Protocol says when.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102 - as above
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(HIGH_WATER)
        self.made = True
        self.on_expired = self._handshake_late
        self.set_deadline(self._handshake_by)
        if not self._tls.server_side:
            self._shake_hands()

    def data_received(self, data: bytes) -> None:  # noqa: D102 - as above
        if len(data) <= BATCH:
            plain = self._decrypted(data)
        else:
            view = memoryview(data)
            plain = b"".join([self._decrypted(view[at : at + BATCH]) for at in range(0, len(data), BATCH)])
        if plain:
            super().data_received(plain)
        if self._error is not None:
            self._break_off(self._error)
        elif self._ended and not self.eof:
            super().eof_received()

    def eof_received(self) -> bool:  # noqa: D102 - as above
        if not self._open:
            self._refuse(ConnectionResetError("the other side closed it within the handshake"))
            return False
        if not self.eof:
            self.broken = True
            super().eof_received()
        return True  # the owner may still have something to send, and closes

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102 - as above
        if not self._open:
            self._refuse(ConnectionResetError("it was lost within the handshake") if exc is None else exc)
        super().connection_lost(exc)
        self.broken = not self._ended
        self.on_expired = None

    def resume_writing(self) -> None:  # noqa: D102 - as above
        self._answered = 0
        super().resume_writing()

    # What the owner calls, beside what it can of every Stream.

    async def handshake(self) -> None:
        """Wait until the handshake is complete; where it fails, or the wait is cancelled, the connection is closed.

        Raises ssl.SSLError, ConnectionError, or TimeoutError: all are OSErrors.
        """
        if self._open:
            return
        if self._error is not None:
            raise self._error
        opened = self._opened = self._loop.create_future()
        try:
            await opened
        except asyncio.CancelledError:
            self.abort()
            raise
        finally:
            self._opened = None

    def peer_certificate(self) -> PeerCertificate | None:
        """Return the certificate that the other side has shown; None where it has none."""
        der = self._tls.getpeercert(True) if self._open else None
        return None if der is None else PeerCertificate(der, self._tls.getpeercert() or {})

    @property
    def scheme(self) -> str:
        """`https`."""
        return "https"

    @property
    def half_closes(self) -> bool:
        """False: over TLS no direction outlives the other for sure."""
        return False

    @property
    def server_name(self) -> str | None:
        """The name that the server was asked for (SNI); None where it was not."""
        tls = self._tls
        return tls.server_name if isinstance(tls, AcceptedTls) else tls.server_hostname

    @property
    def version(self) -> str | None:
        """What was agreed on, such as `TLSv1.3`; None before the handshake."""
        return self._tls.version()

    @property
    def cipher(self) -> str | None:
        """The suite that was agreed on, such as `TLS_AES_256_GCM_SHA384`; None before the handshake."""
        cipher = self._tls.cipher()
        return None if cipher is None else cipher[0]

    @property
    def alpn(self) -> str | None:
        """The protocol that was agreed on (RFC 7301); None where there was no talk of it."""
        return self._tls.selected_alpn_protocol()

    @property
    def resumed(self) -> bool:
        """True where the session of an earlier connection goes on."""
        return bool(self._tls.session_reused)

    def end_output(self) -> None:
        """Say by a close_notify that nothing more will be sent."""
        self.flush()
        if not self._open or self._sealed or self.closed:
            return
        self._sealed = True
        with contextlib.suppress(ssl.SSLError):  # it wants the other side's close_notify, which may take time
            self._tls.unwrap()
        self._push()

    def close(self) -> None:
        """Close the connection after what was written, and a close_notify, has been sent."""
        self.end_output()
        super().close()

    def break_off(self) -> None:
        """Close the connection after what was written has been sent, without a close_notify."""
        self.flush()
        self._sealed = True
        super().close()

    def abort(self) -> None:
        """Close the connection at once, without a close_notify; what is unsent is lost."""
        self._sealed = True
        super().abort()

    # Within.

    def _transmit(self, data: bytes) -> None:
        if self._sealed:
            return
        if not self._open:
            raise RuntimeError("something was written before the handshake was complete")
        try:
            if len(data) <= BATCH:
                self._encrypt(data)
                self.transport.write(self._outgoing.read())
                return
            view = memoryview(data)
            for at in range(0, len(data), BATCH):
                self._encrypt(view[at : at + BATCH])
                self.transport.write(self._outgoing.read())
        except ssl.SSLError as error:
            logger.info("%s: TLS has failed: %s", self._peer(), reason(error))
            self.abort()

    def _encrypt(self, data: bytes | memoryview) -> None:
        """Have all of `data` encrypted: a call may take less than it is given."""
        tls = self._tls
        sent = tls.write(data)
        if sent < len(data):
            view = memoryview(data)
            while sent < len(data):
                sent += tls.write(view[sent:])

    def _decrypted(self, data: bytes | memoryview) -> bytes:
        """Return the plaintext of what has come; set `_ended`, or `_error`, where that is the end of it."""
        if self._ended or self._error is not None:
            return b""  # nothing counts after that
        incoming, tls = self._incoming, self._tls
        incoming.write(data)
        if not self._open and not self._shake_hands():
            return b""
        plain = b""
        pieces: list[bytes] | None = None
        try:
            # A call returns one record at most, and leaves nothing of it behind. So where nothing is pending, there is
            # nothing more, which costs less to know than to be told by an exception.
            while incoming.pending:
                piece = tls.read(RECORD)
                if not piece:
                    self._ended = True
                    break
                if pieces is not None:
                    pieces.append(piece)
                elif plain:
                    pieces = [plain, piece]
                else:
                    plain = piece
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._ended = True
        except ssl.SSLError as error:
            self._error = error.with_traceback(None)  # whose frames would hold the stream, and the stream it
            self._sealed = True  # before anybody is woken by what came ahead of it: OpenSSL takes no more
        if self._outgoing.pending:
            self._answer()
        return plain if pieces is None else b"".join(pieces)

    def _answer(self) -> None:
        """Send what TLS itself has to say while data is read, such as an update of keys that the peer asked for."""
        if self.congested:
            self._answered += self._outgoing.pending
            if self._answered > MAX_ANSWERED:
                self._error = ConnectionAbortedError("it asks without end and does not read")
                self._sealed = True
                return
        self._push()

    def _push(self) -> None:
        """Hand what OpenSSL has made to the transport."""
        if self._outgoing.pending and not self.closed:
            self.transport.write(self._outgoing.read())

    def _shake_hands(self) -> bool:
        """Go on with the handshake; tell whether it is complete and the connection of use."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._push()
            return False
        except ssl.SSLError as error:
            self._push()  # the alert
            self._refuse(error)
            return False
        self._push()
        self._open = True
        self.on_expired = None
        self.set_deadline(NEVER)
        if self._opened is not None and not self._opened.done():
            self._opened.set_result(None)
        self.tell_connected()
        return not self.transport.is_closing()

    def _refuse(self, error: Exception) -> None:
        """End a connection whose handshake has failed."""
        if self._error is not None:
            return
        self._error = error.with_traceback(None)
        self._sealed = True
        if isinstance(error, ssl.SSLError) and error.reason == "HTTP_REQUEST" and self._tls.server_side:
            self.transport.write(SPEAKS_HTTPS)
        if isinstance(error, ssl.SSLError):
            # Toward a service it is told where the service could not be reached.
            level = logging.INFO if self._tls.server_side else logging.DEBUG
            logger.log(level, "%s: the TLS handshake failed: %s", self._peer(), reason(error))
        else:
            logger.debug("%s: the TLS handshake failed: %s", self._peer(), error)
        if self._opened is not None and not self._opened.done():
            self._opened.set_exception(error)
        super().close()

    def _handshake_late(self) -> None:
        self._refuse(TimeoutError("the TLS handshake took too long"))

    def _break_off(self, error: Exception) -> None:
        """End a connection on which something came that is not what TLS allows, or an alert."""
        if self.broken or not self._open:
            return
        self.broken = self._sealed = True
        why = reason(error) if isinstance(error, ssl.SSLError) else str(error)
        other = "a client" if self._tls.server_side else self.server_name
        logger.info("%s: TLS with %s has failed: %s", self._peer(), other, why)
        super().eof_received()
        super().close()

    def _take_left_behind(self) -> None:
        plain, self._received = self._received, b""
        super()._take_left_behind()
        left, self._received = self._received, plain
        if left and self._open:
            self._received += self._decrypted(left)

    def _peer(self) -> str:
        peer = self.transport.get_extra_info("peername")
        return f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "unix"
