"""How exchanges break, drawn from a seed: what a client sends and how it leaves, what a service does to it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from random import Random
from typing import Final

PATTERN: Final = bytes(range(256)) * 5000
DEAF: Final = 1 << 20
"""Bytes of content that do not fit into the buffers on the way to one who takes nothing."""


class Then(Enum):
    """What a client does once it has sent what it means to send."""

    STAY = auto()
    """It reads to the end."""
    LEAVE = auto()
    """It leaves at once, or after some bytes of the answer."""
    HALF_CLOSE = auto()
    """It ends its direction, and reads to the end."""
    STALL = auto()
    """It sends no more, reads, and leaves after a while, unless it was left first."""
    DEAF = auto()
    """It takes nothing of its answer until the exchange has ended."""
    CANCEL = auto()
    """The worker's task is cancelled under it."""


class Ending(Enum):
    """What a service does at the end of what it says."""

    KEEP = auto()
    FIN = auto()
    RST = auto()
    STALL = auto()
    """It says no more and waits to be left."""
    DEAF = auto()
    """As STALL, and it does not read the upload."""


@dataclass(slots=True)
class Reply:
    """A service's side of an exchange."""

    script: bytes
    """Everything that it says; `cut` is how much of that it does."""
    cut: int
    ending: Ending
    early: bool
    """Whether it answers as soon as the request's head has come."""
    content: bytes | None
    """What may be taken for a whole answer's content; None where nothing may."""
    until_close: bool = False
    """Whether the close is the content's end, so that any part of it may be taken for whole."""


@dataclass(slots=True)
class Plan:
    """One exchange."""

    number: int
    kind: str
    """The first segment of its path: which route of the gateway it takes."""
    method: str
    warm: int
    """How many sound exchanges go before it on its connection."""
    request: bytes
    upload: bytes | None
    """What may be taken for a whole upload; None where nothing may."""
    refused: bool
    """Whether its head is such that no service may see it."""
    sends: int
    pieces: int
    then: Then
    reads: int
    """Bytes of the answer after which a client leaves that means to leave."""
    patience: float
    resets: bool
    """Whether it leaves by RST rather than by FIN."""
    reply: Reply
    tunnel: bytes = b""
    """What it says once it has been switched to another protocol."""
    whole_at: int = 0
    """Bytes of the request that a service must have got to take it for whole."""
    spoilt: bool = False
    """Whether the request is malformed, or something follows it."""


KINDS: Final[dict[str, int]] = {
    "plain": 68, "tunnel": 6, "refused": 3, "half": 4, "filled": 2, "few": 4, "deaf": 3, "respond": 3, "small": 3,
    "rewritten": 4,
}  # fmt: skip

CORRUPT_HEADS: Final = (
    b"GET  /{p} HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /{p} HTTP/3.1\r\nHost: a\r\n\r\n",
    b"GET /{p} HTTP/1.1\r\n\r\n",
    b"GET /{p} HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET /{p} HTTP/1.1\r\nHost : a\r\n\r\n",
    b"GET /{p} HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
    b"GET /{p} HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
    b"POST /{p} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /{p} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    b"POST /{p} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\nabcd",
    b"POST /{p} HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"CONNECT /{p} HTTP/1.1\r\nHost: a\r\n\r\n",
    b"TRACE /{p} HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /{p} HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 40_000 + b"\r\n\r\n",
    b"GET /{p}" + b"y" * 9_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
)
CORRUPT_BODIES: Final = (
    b"zz\r\n",
    b"3\r\nabcd\r\n",
    b"3\nabc\r\n",
    b"-1\r\n",
    b"5" * 300,
    b"1;" + b"e" * 400 + b"\r\n",
)
MALFORMED: Final = (
    b"220 mail.example ESMTP\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3, 4\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nX Y: 1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\n\r\nwelcome",
    b"HTTP/1.1 103 Early Hints\r\n\r\n" * 40,
    b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    b"HTTP/1.1 999999 What\r\n\r\n",
)
SIZES: Final = (0, 1, 100, 100, 5_000, 5_000, 70_000, 300_000)


def draw(seed: int, number: int) -> Plan:
    """Return the exchange with `number`, always the same for a seed; something breaks in each."""
    dice = Random(f"{seed}/{number}")
    kind = dice.choices(list(KINDS), list(KINDS.values()))[0]
    plan = _client(dice, number, kind)
    if plan.refused or dice.random() < 0.08:
        _corrupt_or_crowd(dice, plan)
    sound = _fate(dice, plan)
    plan.reply = _reply(dice, plan, breaks=sound or dice.random() < 0.4)
    if plan.then is Then.DEAF:
        plan.reply = _long_answer()
    return plan


def _client(dice: Random, number: int, kind: str) -> Plan:
    """Draw a sound request."""
    method = "GET" if kind == "tunnel" else dice.choices(["GET", "HEAD", "POST", "PUT"], [45, 5, 30, 20])[0]
    if kind == "deaf":
        method = "POST"
    size = 0
    if method in ("POST", "PUT"):
        size = DEAF if kind == "deaf" else dice.choice(SIZES)
    upload = PATTERN[number % 256 :][:size]
    minor = 0 if kind != "tunnel" and dice.random() < 0.05 else 1
    lines = [f"{method} /{kind}/{number} HTTP/1.{minor}", "Host: gateway.test"]
    if kind == "tunnel":
        lines += ["Connection: Upgrade", "Upgrade: echo"]
    elif dice.random() < 0.1:
        lines.append("Connection: close")
    if dice.random() < 0.1 and size and minor:
        lines.append("Expect: 100-continue")
    body = upload
    if method in ("POST", "PUT"):
        if minor and dice.random() < 0.5:
            lines.append("Transfer-Encoding: chunked")
            body = chunked(dice, upload, b"X-Sum: 1\r\n" if dice.random() < 0.3 else b"")
        else:
            lines.append(f"Content-Length: {size}")
    request = "\r\n".join([*lines, "", ""]).encode() + body
    nothing = Reply(b"", 0, Ending.KEEP, early=False, content=None)
    return Plan(
        number, kind, method, dice.choices([0, 1, 2], [80, 15, 5])[0], request, upload, refused=dice.random() < 0.05,
        sends=len(request), pieces=dice.choice([1, 1, 2, 3]), then=Then.STAY, reads=1 << 30, patience=0.0,
        resets=dice.random() < 0.5, reply=nothing, tunnel=PATTERN[: dice.choice(SIZES)] if kind == "tunnel" else b"",
        whole_at=len(request),
    )  # fmt: skip


def chunked(dice: Random, content: bytes, trailers: bytes = b"") -> bytes:
    """Return `content` in chunks of random sizes."""
    pieces, at = [], 0
    while at < len(content):
        size = min(dice.choice([1, 100, 4_096, 65_536, 1 << 20]), len(content) - at)
        pieces.append(b"%x\r\n%b\r\n" % (size, content[at : at + size]))
        at += size
        if len(pieces) > 20:
            pieces.append(b"%x\r\n%b\r\n" % (len(content) - at, content[at:]) if at < len(content) else b"")
            break
    return b"".join(pieces) + b"0\r\n" + trailers + b"\r\n"


def _corrupt_or_crowd(dice: Random, plan: Plan) -> None:
    """Spoil the request; or have something follow that the gateway cannot answer yet, or never."""
    if plan.refused:
        plan.request = dice.choice(CORRUPT_HEADS).replace(b"{p}", f"{plan.kind}/{plan.number}".encode())
        plan.upload = None
    elif b"Transfer-Encoding" in plan.request and dice.random() < 0.7:
        head, _, body = plan.request.partition(b"\r\n\r\n")
        whole = body.find(b"\r\n") + 2
        first = int(body[: whole - 2], 16)
        keep = body[: whole + first + 2] if first and dice.random() < 0.5 else b""
        plan.request = head + b"\r\n\r\n" + keep + dice.choice(CORRUPT_BODIES)
        plan.upload = None
    elif plan.kind != "tunnel":
        warm = b"GET /warm HTTP/1.1\r\nHost: a\r\n\r\n"
        plan.request += dice.choice([warm, warm * 5, warm[: dice.randrange(len(warm))], b"\x00\x01\x02", b"\r\n\r\n"])
    plan.spoilt = True
    plan.sends = len(plan.request)


def _fate(dice: Random, plan: Plan) -> bool:
    """Draw how the client breaks the exchange; tell whether it does not, nor has it."""
    plan.patience = dice.random() * 0.15
    fates = {"stay": 30, "cut": 32, "leave": 22, "deaf": 2, "cancel": 6, "half": 8}
    fate = dice.choices(list(fates), list(fates.values()))[0]
    if fate == "stay" or (fate == "deaf" and (plan.kind != "plain" or plan.spoilt or plan.method != "GET")):
        return not plan.spoilt
    if fate == "cut":
        head = plan.request.find(b"\r\n\r\n") + 4
        at = dice.choice([dice.randrange(head + 1), dice.randrange(len(plan.request)), len(plan.request) - 1])
        plan.sends = min(at, len(plan.request) - 1)
        plan.then = dice.choice([Then.LEAVE, Then.LEAVE, Then.HALF_CLOSE, Then.STALL, Then.STAY])
        plan.reads = 0
    elif fate == "leave":
        plan.then = dice.choice([Then.LEAVE, Then.LEAVE, Then.STALL])
        plan.reads = dice.choice([0, 1, dice.randrange(1, 300), dice.randrange(1, 300_000)])
    else:
        plan.then = {"deaf": Then.DEAF, "cancel": Then.CANCEL, "half": Then.HALF_CLOSE}[fate]
    return False


def _reply(dice: Random, plan: Plan, *, breaks: bool) -> Reply:
    """Draw the service's side."""
    content = PATTERN[plan.number % 251 :][: dice.choice(SIZES)]
    head = ["HTTP/1.1 200 OK"]
    form = dice.choices(["length", "chunked", "close"], [50, 40, 10])[0]
    body = content
    if plan.kind == "tunnel" and dice.random() < 0.9:
        head = ["HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: echo"]
        body = b""
    elif form == "chunked":
        head.append("Transfer-Encoding: chunked")
        body = chunked(dice, content, b"X-Sum: 42\r\n" if dice.random() < 0.4 else b"")
    elif form == "length":
        head.append(f"Content-Length: {len(content)}")
    else:
        head.append("Connection: close")
    if plan.method == "HEAD":
        body = b""
    script = "\r\n".join([*head, "", ""]).encode() + body
    ending = Ending.FIN if form == "close" else Ending.KEEP
    until_close = form == "close" or (plan.kind == "tunnel" and not body)
    whole = Reply(script, len(script), ending, early=dice.random() < 0.2, content=content, until_close=until_close)
    return _broken(dice, whole) if breaks else whole


def _broken(dice: Random, reply: Reply) -> Reply:
    script, head = reply.script, reply.script.find(b"\r\n\r\n") + 4
    how = dice.choices(["cut", "malformed", "too long", "interim", "stall", "deaf"], [50, 14, 8, 8, 16, 4])[0]
    if how == "cut":
        places = [0, dice.randrange(head), head, dice.randrange(len(script)), len(script) - 1, len(script)]
        reply.cut = dice.choice(places)
        reply.ending = dice.choice([Ending.FIN, Ending.RST])
        reply.early = reply.early or dice.random() < 0.4
    elif how == "malformed":
        malformed = dice.choice(MALFORMED)
        ending = dice.choice([Ending.FIN, Ending.STALL, Ending.KEEP])
        return Reply(malformed, len(malformed), ending, reply.early, None)
    elif how == "too long":
        reply.script += dice.choice([b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret", b"\r\n", b"x" * 100_000])
        reply.cut = len(reply.script)
    elif how == "interim":
        reply.script = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * dice.choice([1, 3, 20]) + script
        reply.cut = dice.choice([len(reply.script), dice.randrange(len(reply.script))])
        reply.ending = dice.choice([Ending.FIN, Ending.RST, Ending.STALL])
    else:
        reply.cut = dice.choice([0, dice.randrange(head), dice.randrange(len(script))])
        reply.ending = Ending.STALL if how == "stall" else Ending.DEAF
        reply.early = reply.early or how == "deaf"
    if reply.cut == len(reply.script) and reply.ending is Ending.STALL:
        reply.ending = Ending.KEEP  # all was said: it would be the next exchange that stalls
    return reply


def _long_answer() -> Reply:
    content = PATTERN[:DEAF]
    script = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content
    return Reply(script, len(script), Ending.KEEP, early=False, content=content)
