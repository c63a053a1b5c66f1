"""A client and a service that do what a plan says, on the loop of the gateway between them."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, cast

from tests.harness.broken_plans import Ending, Plan, Then

RST_ON_CLOSE = struct.pack("ii", 1, 0)
DEAF_FOR = 0.5
WARM = b"GET /warm HTTP/1.1\r\nHost: a\r\n\r\n"
NOT_SOUND = "a sound exchange has failed"
WARM_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwarm"

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked\r\n", re.IGNORECASE)


class Message(NamedTuple):
    """What has come of a message: whether that is all, its content, and how many bytes it had."""

    whole: bool
    content: bytes
    size: int


def framed(data: bytes, at: int, head: bytes, *, ended: bool = False) -> Message:
    """Read the content that begins at `at` and that `head`, its last CRLF included, announces.

    An answer without a length is whole where it has `ended` in good order.
    """
    if _CHUNKED.search(head):
        return _chunks(data, at)
    found = _LENGTH.search(head)
    if found is None and head.startswith(b"HTTP/"):
        return Message(ended, data[at:], len(data))
    end = at + (int(found[1]) if found else 0)
    return Message(len(data) >= end, data[at:end], end)


def _chunks(data: bytes, at: int) -> Message:
    pieces = []
    while (line := data.find(b"\r\n", at)) >= 0:
        try:
            size = int(data[at:line].split(b";")[0], 16)
        except ValueError:
            break
        if size < 0:
            break
        if size == 0:
            end = data.find(b"\r\n\r\n", line)
            return Message(end >= 0, b"".join(pieces), end + 4)
        at = line + 4 + size
        pieces.append(data[line + 2 : at - 2])
        if data[at - 2 : at] != b"\r\n":
            break
    return Message(False, b"", len(data))


class _End(asyncio.Protocol):
    """One end of a connection."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.data = bytearray()
        self.gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def say(self, data: bytes) -> None:
        """Send something, unless the other side is gone."""
        if not self.gone:
            self.transport.write(data)

    def leave(self, *, resets: bool) -> None:
        if self.gone:
            return
        if resets:
            with suppress(OSError):
                self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
            self.transport.abort()
        else:
            self.transport.close()


class Client(_End):
    """The client of one connection."""

    def __init__(self) -> None:
        super().__init__()
        self._changed: asyncio.Future[None] | None = None
        self.over = False
        self.ended = False
        """Whether the other side has ended its direction in good order."""

    def data_received(self, data: bytes) -> None:
        self.data += data
        self._wake()

    def eof_received(self) -> bool:
        self.over = self.ended = True
        self._wake()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = self.over = True
        self._wake()

    def _wake(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    async def more(self) -> None:
        """Wait for bytes, or the end."""
        if not self.over:
            self._changed = asyncio.get_running_loop().create_future()
            await self._changed

    def answer(self, method: str) -> tuple[int, Message | None]:
        """Return the status of the first final answer, or 0, and what has come of it."""
        data, at = bytes(self.data), 0
        while (end := data.find(b"\r\n\r\n", at)) >= 0:
            status = int(data[at + 9 : at + 12])
            head = data[at : end + 2]
            at = end + 4
            if status >= 200:
                if method == "HEAD" or status in (204, 304):
                    return status, Message(True, b"", at)
                return status, framed(data, at, head, ended=self.ended)
            if status == 101:
                return status, Message(False, data[at:], len(data))
        return 0, None

    def has_answer(self, method: str) -> bool:
        message = self.answer(method)[1]
        return message is not None and message.whole


async def play(plan: Plan, port: int, ended: Callable[[int], bool], cancel: Callable[[int], None]) -> str:
    """Do the client's side of a plan; return what is wrong with what came of it, or an empty text."""
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setblocking(False)
    if plan.then is Then.DEAF:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    try:
        await loop.sock_connect(sock, ("127.0.0.1", port))
        own_port = sock.getsockname()[1]
        _, client = await loop.create_connection(Client, sock=sock)
    except BaseException:
        sock.close()
        raise
    try:
        if not await _warm_up(plan, client):
            return NOT_SOUND
        await _send(plan, client)
        await _see_it_out(plan, client, ended, lambda: cancel(own_port))
        return judge(plan, client)
    except ConnectionError:
        return ""
    finally:
        client.leave(resets=plan.resets)
        while not client.gone:
            client.over = False
            await client.more()


async def _warm_up(plan: Plan, client: Client) -> bool:
    for _ in range(plan.warm):
        client.say(WARM)
        while not client.over and not client.has_answer("GET"):
            await client.more()
        status, message = client.answer("GET")
        if status != 200 or message is None or message.content != b"warm":
            return status in (408, 503, 504)  # where this machine is slow
        client.data.clear()
    return True


async def _send(plan: Plan, client: Client) -> None:
    if plan.then is Then.DEAF and not client.gone:
        client.transport.pause_reading()
    sent = plan.request[: plan.sends]
    step = len(sent) // plan.pieces + 1
    for at in range(0, len(sent), step):
        client.say(sent[at : at + step])
        await asyncio.sleep(0)


async def _see_it_out(plan: Plan, client: Client, ended: Callable[[int], bool], cancel: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    then = plan.then
    if then is Then.CANCEL:
        await asyncio.sleep(plan.patience / 10)  # somewhere within the exchange
        cancel()
    elif then is Then.DEAF:
        while not ended(plan.number):
            await asyncio.sleep(0.01)
        if not client.gone:
            client.transport.resume_reading()
    elif then is Then.HALF_CLOSE:
        if not client.gone:
            client.transport.write_eof()
    elif then is Then.STALL:
        timer = loop.call_later(plan.patience, lambda: client.leave(resets=plan.resets))
        try:
            while not client.over:
                await client.more()
        finally:
            timer.cancel()
        return
    leaves_at = plan.reads if then is Then.LEAVE else 1 << 30
    said = 0
    while not client.over and len(client.data) < leaves_at and not client.has_answer(plan.method):
        if client.data.startswith(b"HTTP/1.1 101") and said < len(plan.tunnel):
            client.say(plan.tunnel[said : said + 10_000])
            said += 10_000
        elif client.data.startswith(b"HTTP/1.1 101") and len(client.data) > len(plan.tunnel):
            return  # all was echoed
        await client.more()


def judge(plan: Plan, client: Client) -> str:
    """Say what is wrong with what the client has got."""
    status, message = client.answer(plan.method)
    if message is None or not message.whole or status != 200 or plan.kind in ("respond", "tunnel"):
        return ""
    if plan.method == "HEAD" or plan.reply.until_close:
        return ""
    if plan.refused:
        return "what is malformed was answered 200"
    if plan.reply.content is None:
        return "a malformed answer was passed on as whole"
    if message.content != plan.reply.content:
        return f"{len(message.content)} bytes passed for whole, and {len(plan.reply.content)} are"
    return ""


class ServiceEnd(_End):
    """One connection to the service."""

    def __init__(self, service: Service) -> None:
        super().__init__()
        self._service = service
        self._plan: Plan | None = None
        self._head = b""
        self._answered = False
        self._echoes = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._service.open.add(self)
        self._service.accepted += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        self._service.open.discard(self)

    def eof_received(self) -> bool:
        return False

    def data_received(self, data: bytes) -> None:
        if self._echoes:
            self.say(data)
            return
        self.data += data
        while not self.gone and self._step():
            pass

    def _step(self) -> bool:
        """Go on with what has come; tell whether more can be done."""
        if not self._head:
            end = self.data.find(b"\r\n\r\n")
            if end < 0:
                return False
            self._head = bytes(self.data[: end + 2])
            del self.data[: end + 4]
            self._plan = self._service.plan_of(self._head)
            if self._plan is not None and self._plan.reply.early:
                self._answer(self._plan)
        plan = self._plan
        if plan is not None and self._answered and plan.reply.ending is not Ending.KEEP:
            return False
        if _CHUNKED.search(self._head) and not self.data.endswith(b"\r\n\r\n"):
            return False
        message = framed(bytes(self.data), 0, self._head)
        if not message.whole:
            return False
        del self.data[: message.size]
        self._head = b""
        if plan is None:
            self.transport.write(WARM_ANSWER)
        else:
            self._service.took(plan, message.content)
            if not self._answered:
                self._answer(plan)
        self._answered = self._echoes
        return not self._echoes

    def _answer(self, plan: Plan) -> None:
        self._answered = True
        reply = plan.reply
        self.transport.write(reply.script[: reply.cut])
        if reply.ending is Ending.FIN:
            self.transport.close()
        elif reply.ending is Ending.RST:
            self._service.loop.call_soon(self._reset)  # what was said goes out first, as far as it goes at once
        elif reply.ending is Ending.DEAF:
            self.transport.pause_reading()
            self._service.loop.call_later(DEAF_FOR, self._hear)
        elif reply.ending is Ending.KEEP and reply.script.startswith(b"HTTP/1.1 101") and not plan.refused:
            self._echoes = plan.kind == "tunnel"

    def _reset(self) -> None:
        self.leave(resets=True)

    def _hear(self) -> None:
        """Read again: one who takes nothing does not even see that it was left."""
        if not self.gone:
            self.transport.resume_reading()


class Service:
    """A service that does to each request what its plan says; all others it answers well."""

    def __init__(self, plans: dict[int, Plan], ports: list[int]) -> None:
        self.loop = asyncio.get_running_loop()
        self.plans = plans
        self.ports = ports
        self.open: set[ServiceEnd] = set()
        self.accepted = 0
        self.wrong: list[str] = []
        self.wholes = 0

    def end(self) -> ServiceEnd:
        return ServiceEnd(self)

    def plan_of(self, head: bytes) -> Plan | None:
        """Return the plan of a request; None for one that is to be answered well."""
        path = head.split(b" ", 2)[1]
        number = path.rpartition(b"/")[2]
        if not number.isdigit():
            if path != b"/warm":
                self.wrong.append(f"a request that nobody made: {head[:200]!r}")
            return None
        plan = self.plans.get(int(number))
        if plan is not None and plan.refused:
            self.wrong.append(f"exchange {plan.number}: what is malformed reached the service")
        return plan  # None where its client has left already

    def took(self, plan: Plan, content: bytes) -> None:
        """Look at a request that came to its end."""
        self.wholes += 1
        if plan.sends < plan.whole_at or content != plan.upload:
            self.wrong.append(f"exchange {plan.number}: {len(content)} bytes passed for a whole upload")
