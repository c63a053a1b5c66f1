"""What the supervisor, the agent and the workers of one gateway say to each other.

::

    supervisor -> agent     Plan (what stands, with its snapshot)  Remembered  WorkerReady (with a channel)  WorkerGone
                            ReloadWanted  SlotSockets (with sockets)  Bound  Declined  Adopted
    agent -> supervisor     Plan (a proposal, with its snapshot)  Accept  Withdraw  WantSockets
                            WantWorker  Remember  Reloading
    supervisor -> worker    Meet (with a channel to the agent)
    agent -> worker         Prepare (with a snapshot and sockets)  Commit  Abandon  Report  Purge  Upstream
                            UpstreamOver  Seek  Tail  TailOver
    worker -> agent         Prepared  Refused  Committed  Reported  Purged  Sought  Tailed

A reload is a proposal to the supervisor, which binds what is new and hands out the sockets; `Prepare` to every worker,
which compiles while it serves on; and where all of them are `Prepared`, `Accept`, and `Commit` to every worker, which
swaps. Whatever fails before that withdraws all of it, and nothing has changed.

An address that clients connect to is a *door*: the supervisor gives it a number, which it keeps from one configuration
to the next, and a socket for each worker.

Standard library only: the supervisor reads this.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True)
class Plan:
    """What to run; its snapshot is what workers compile."""

    file: str
    """The configuration's file, as it was named; from the folder that the gateway was started in."""
    revision: int
    """Counts the configurations that were served since the gateway started."""
    origin: str
    """What brought it: `start`, `SIGHUP`, `watch`, `portico reload`, `SIGUSR2`."""
    loaded_at: float
    """When it was loaded, in seconds since the epoch."""
    listen: list[list[str | int]]
    """Host, port and scheme of each address; the port is 0 for any free one."""
    workers: int
    drain_timeout: float
    """Seconds that requests under way have when a worker is to end."""
    watchdog: float
    """Seconds that a worker's loop may stand still before the worker is replaced; 0 for any number."""
    files: list[str] = field(default_factory=list)
    """Every file that it was made of."""
    patterns: list[str] = field(default_factory=list)
    """The patterns by which it includes more."""
    watch: bool = False
    """Whether it is loaded again when one of them changes."""
    status: list[str | int] = field(default_factory=list)
    """Host and port of the status listener; empty where there is none."""
    log: list[str] = field(default_factory=lambda: ["text", "info"])
    """Format and level of the log."""
    consumer_database: str = ""
    """The database of consumers; empty where there is none."""
    doors: list[int] = field(default_factory=list)
    """The doors of `listen`, once the supervisor has bound them."""


@dataclass(frozen=True)
class Remember:
    """A text to keep for the agent after this one: how the last reload went."""

    text: str


@dataclass(frozen=True)
class Reloading:
    """A reload has begun, or is over, whatever came of it."""

    begun: bool


@dataclass(frozen=True)
class Remembered:
    """The text that the agent before this one has left; empty where there is none."""

    text: str


@dataclass(frozen=True)
class WorkerReady:
    """A worker serves; with a channel to it."""

    slot: int
    pid: int


@dataclass(frozen=True)
class WorkerGone:
    """A worker has ended."""

    slot: int
    pid: int
    how: str


@dataclass(frozen=True)
class ReloadWanted:
    """The file is to be loaded anew."""

    origin: str


@dataclass(frozen=True)
class WantSockets:
    """The sockets of one worker are wanted, all of them: it has missed something."""

    slot: int


@dataclass(frozen=True)
class WantWorker:
    """A new channel to this worker is wanted, if it is still there: the one before was cut."""

    slot: int
    pid: int


@dataclass(frozen=True)
class SlotSockets:
    """The sockets of one worker for doors that are new, in this order, ahead of `Bound`; or for all that are wanted."""

    slot: int
    doors: list[int]


@dataclass(frozen=True)
class Bound:
    """The doors of a proposal, all bound."""

    revision: int
    doors: list[int]


@dataclass(frozen=True)
class Declined:
    """A proposal cannot be run."""

    revision: int
    reason: str


@dataclass(frozen=True)
class Accept:
    """The proposal is what stands from now on: what starts, starts with it."""

    revision: int


@dataclass(frozen=True)
class Adopted:
    """It does."""

    revision: int


@dataclass(frozen=True)
class Withdraw:
    """The proposal is no more."""

    revision: int


@dataclass(frozen=True)
class Meet:
    """Here is a channel to the agent; one that was there before is over."""


@dataclass(frozen=True)
class Prepare:
    """Compile this snapshot, and be ready to serve it. The snapshot comes first, then the sockets of `fresh`."""

    revision: int
    doors: list[int]
    """The door of each of the configuration's listeners, in its order."""
    fresh: list[int]


@dataclass(frozen=True)
class Prepared:
    """It is compiled; it took so many seconds, of which the loop was kept for `longest` at a time."""

    revision: int
    seconds: float
    longest: float


@dataclass(frozen=True)
class Refused:
    """It cannot be run here."""

    revision: int
    reasons: list[str]


@dataclass(frozen=True)
class Commit:
    """Serve what was prepared, from the next request on."""

    revision: int


@dataclass(frozen=True)
class Committed:
    """It is served."""

    revision: int


@dataclass(frozen=True)
class Abandon:
    """Drop what was prepared."""

    revision: int


@dataclass(frozen=True)
class Report:
    """Tell what you know."""

    ticket: int


@dataclass(frozen=True)
class Reported:
    """What a worker knows that is not on the board."""

    ticket: int
    state: dict[str, object]


@dataclass(frozen=True)
class Purge:
    """Let nothing be given any more that was kept of these, or of anything."""

    ticket: int
    urls: list[str]
    tags: list[str]
    everything: bool


@dataclass(frozen=True)
class Purged:
    """How it went."""

    ticket: int
    status: int
    """As in HTTP: 200, 400 where it makes no sense, 409 where nothing keeps answers, 503 where the store is down."""
    why: str


@dataclass(frozen=True)
class Upstream:
    """What the agent knows of a service's targets: all of it, or what has changed. A long text is told in pieces."""

    service: str
    source: str
    """Where its targets are from (`Discover.source`); empty where the file says them."""
    begins: bool
    ends: bool
    """Whether this is the first, and the last, of its pieces."""
    trouble: str
    """Why the targets could not be found out the last time; empty where they could."""
    targets: list[list[object]] = field(default_factory=list)
    """All targets, in their order; none where they are the same as before, or not known."""
    verdicts: dict[str, tuple[bool, float, str]] = field(default_factory=dict)
    """By target: whether it is well, since when, and why."""
    everything: bool = False
    """Whether of what is not among the verdicts nothing is known, rather than what was known before."""


@dataclass(frozen=True)
class UpstreamOver:
    """Of this nothing more will be said: what stands now does not have it."""

    service: str
    source: str


@dataclass(frozen=True)
class Seek:
    """Tell what you remember of the requests with this id."""

    ticket: int
    wanted: str
    """A correlation id, the id of a trace, or `#` and the number that a request has in its worker."""


@dataclass(frozen=True)
class Sought:
    """What a worker remembers of them, the newest first."""

    ticket: int
    found: list[dict[str, object]]


@dataclass(frozen=True)
class Tail:
    """Tell of each request from now on that is like this."""

    tail: int
    routes: list[str] = field(default_factory=list)
    """Their names; none for all. So are the others."""
    methods: list[str] = field(default_factory=list)
    statuses: list[list[int]] = field(default_factory=list)
    """The lowest and the highest of each range."""
    slow: float = 0.0
    """Seconds that it has taken at least."""


@dataclass(frozen=True)
class TailOver:
    """Tell of them no more."""

    tail: int


@dataclass(frozen=True)
class Tailed:
    """Some requests that have ended."""

    tail: int
    records: list[dict[str, object]]
    lost: int
    """How many more there were, since the message before."""


KINDS: Final[tuple[type, ...]] = (
    Plan,
    Remember,
    Reloading,
    Remembered,
    WorkerReady,
    WorkerGone,
    ReloadWanted,
    WantSockets,
    WantWorker,
    SlotSockets,
    Bound,
    Declined,
    Accept,
    Adopted,
    Withdraw,
    Meet,
    Prepare,
    Prepared,
    Refused,
    Commit,
    Committed,
    Abandon,
    Report,
    Reported,
    Purge,
    Purged,
    Upstream,
    UpstreamOver,
    Seek,
    Sought,
    Tail,
    TailOver,
    Tailed,
)
