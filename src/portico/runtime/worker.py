"""One worker process: takes its sockets and a snapshot of the configuration, serves, and drains when told to.

Started by the supervisor as `python -m portico.runtime.worker`, never imported by it. The descriptors that it
inherits are named on its command line; it writes one byte to the `--ready` descriptor when it takes traffic. Where it
cannot, it logs why and ends.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import pickle
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import uvloop

from portico.config.schema import Config
from portico.http.target import EncodedSlashes
from portico.net.listener import Listener
from portico.net.server import Server
from portico.net.stream import Outbox
from portico.runtime.compile import Surroundings, compile_config
from portico.runtime.listeners import Entrance, limits, redirect_to_https, trust
from portico.runtime.plugins import PluginSource, import_plugin, load_registry
from portico.runtime.shared import Leases

logger = logging.getLogger("portico.worker")


def pack(config: Config, plugins: Sequence[PluginSource]) -> bytes:
    """Return a snapshot: what a worker needs to run `config`, whatever happens to the files meanwhile."""
    return pickle.dumps((tuple(plugins), pickle.dumps(config)))


def unpack(snapshot: bytes) -> tuple[Config, tuple[PluginSource, ...]]:
    """Return what was packed; plugins are imported first, since the configuration holds values of their classes."""
    plugins, packed = pickle.loads(snapshot)  # noqa: S301 - it comes from the supervisor, by an inherited descriptor
    for plugin in plugins:
        import_plugin(plugin)
    config: Config = pickle.loads(packed)  # noqa: S301 - as above
    return config, plugins


@dataclass(frozen=True)
class Inherited:
    """What the supervisor has given: listening sockets, where to report, and the pipe that ends with the supervisor."""

    sockets: Sequence[socket.socket]
    ready: int
    lifeline: int


async def serve(config: Config, plugins: Sequence[PluginSource], inherited: Inherited) -> None:
    """Serve until SIGTERM, or until the supervisor is gone; then drain. The second SIGTERM ends at once."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    loop.add_reader(inherited.lifeline, stopping.set)
    async with asyncio.TaskGroup() as tasks:
        outbox = Outbox(loop)
        surroundings = Surroundings(load_registry(plugins), Leases(), tasks, outbox, loop.time)
        runtime = compile_config(config, surroundings).runtime
        rules = EncodedSlashes(config.path.encoded_slashes)
        server = Server(runtime.handle, limits(config), rules, tasks, outbox, trust(config))
        doors = [_listener(server, entrance) for entrance in runtime.entrances]
        listeners = [
            await loop.create_server(door.protocol, sock=sock, backlog=4096)
            for door, sock in zip(doors, inherited.sockets, strict=True)
        ]
        watching = tasks.create_task(surroundings.certificates.run(), name="certificates")
        gc.collect()
        gc.freeze()  # what a load has built lives as long as its runtime: no collection need walk it
        os.write(inherited.ready, b"\n")
        os.close(inherited.ready)
        await stopping.wait()
        loop.remove_reader(inherited.lifeline)
        watching.cancel()
        for listener in listeners:
            listener.close()
        loop.add_signal_handler(signal.SIGTERM, os._exit, 143)
        await server.drain(loop.time() + config.shutdown_timeout)
        runtime.close()


def _raise_descriptor_limit() -> None:
    """Take as many descriptors as the system allows: its first offer is often 1024, less than one worker's clients."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _listener(server: Server, entrance: Entrance) -> Listener:
    redirect = entrance.redirect_https
    handler = None if redirect is None else redirect_to_https(redirect, lambda: server.handler)
    return Listener(server, handler, entrance.tls, entrance.proxies)


def _tell_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """Tell of an error that could not be raised, unless it is a server name of TLS that is no ASCII.

    The ssl module has no other way to tell of that one, and any stranger can send it.
    """
    if unraisable.exc_type is not UnicodeDecodeError or not isinstance(unraisable.object, bytes):
        sys.__unraisablehook__(unraisable)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one worker."""
    parser = argparse.ArgumentParser(prog="portico worker", description="One worker; started by the supervisor.")
    parser.add_argument("--sockets", required=True, help="descriptors of listening sockets, comma-separated")
    parser.add_argument("--snapshot", required=True, type=int, help="descriptor of the snapshot")
    parser.add_argument("--ready", required=True, type=int, help="descriptor to report to")
    parser.add_argument("--lifeline", required=True, type=int, help="descriptor that closes with the supervisor")
    options: Any = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C goes to the whole group; the supervisor decides
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s worker[%(process)d] %(message)s")
    _raise_descriptor_limit()
    sys.unraisablehook = _tell_unraisable
    sockets = [socket.socket(fileno=int(number)) for number in options.sockets.split(",")]
    try:
        size = os.fstat(options.snapshot).st_size
        config, plugins = unpack(os.pread(options.snapshot, size, 0))
        os.close(options.snapshot)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(config, plugins, Inherited(sockets, options.ready, options.lifeline)))
    except Exception:  # the process boundary: the supervisor starts another
        logger.exception("the worker failed")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
