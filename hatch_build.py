"""Compiles the request's path with mypyc where there is a C compiler; otherwise the same files run interpreted.

PORTICO_COMPILE=0 builds the pure wheel, PORTICO_COMPILE=1 makes a failed compilation an error.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

COMPILED = (
    "observe/exchange",
    "state/slots",
    "http/headers",
    "http/duplex",
    "http/forwarded",
    "http/body",
    "http/problem",
    "http/message",
    "http/trace_context",
    "http/target",
    "http/user",
    "wire/events",
    "wire/fields",
    "wire/framing",
    "wire/h1",
    "routing/candidate",
    "routing/trie",
    "routing/matcher",
    "net/stream",
    "net/tls_stream",
    "net/client",
    "net/h1_client",
    "net/upgraded",
    "net/pool",
    "net/server",
    "net/server_stream",
    "net/multiplexed",
    "net/h1_server",
    "net/listener",
    "upstream/target",
    "upstream/balance/balancer",
    "upstream/balance/round_robin",
    "upstream/balance/lottery",
    "upstream/balance/ewma",
    "upstream/balance/ring",
    "upstream/balance/sticky",
    "upstream/fault",
    "upstream/retry",
    "upstream/roster",
    "upstream/breaker",
    "upstream/bulkhead",
    "upstream/stack",
    "policy/authentication",
    "policy/chain",
    "jose/verifier",
    "response_cache/memory",
    "response_cache/keys",
    "response_cache/telling",
    "response_cache/shelf",
    "response_cache/cache",
    "runtime/tracer",
    "runtime/runtime",
    "runtime/observing",
    "runtime/meter",
    "exporters/access_log/json_lines",
    "exporters/access_log/log",
    "exporters/access_log/recorder",
    "runtime/recorder",
)
"""What runs for each request. See docs/decisions for what each layer of it gains."""


class CompileHook(BuildHookInterface[Any]):
    """Puts the compiled modules into the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, unless this is an editable install, whose files are to be edited."""
        wanted = os.environ.get("PORTICO_COMPILE", "auto")
        if self.target_name != "wheel" or version == "editable" or wanted == "0":
            return
        try:
            extensions = _compile(Path(self.root))
        except (Exception, SystemExit) as error:  # mypyc ends the process where it finds a type error
            if wanted == "1":
                raise
            self.app.display_warning(f"portico is built without compiled modules: {error}")
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"].update(extensions)


def _compile(root: Path) -> dict[str, str]:
    """Return where each compiled module lies, and where in the wheel it belongs."""
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    work = root / "build" / f"mypyc-{sys.implementation.cache_tag}"
    shutil.rmtree(work, ignore_errors=True)
    (work / "lib").mkdir(parents=True)
    here = Path.cwd()
    os.chdir(root / "src")
    try:
        paths = [f"portico/{name}.py" for name in COMPILED]
        modules = mypycify(
            ["--config-file", str(root / "pyproject.toml"), "--cache-dir", str(work / "cache"), *paths],
            target_dir=str(work / "c"),
            strip_asserts=True,
        )
        command = build_ext(Distribution({"name": "portico", "ext_modules": modules}))
        command.build_lib = str(work / "lib")
        command.build_temp = str(work / "temp")
        command.ensure_finalized()
        command.run()
    finally:
        os.chdir(here)
    built = (work / "lib").rglob("*.so")
    return {str(path): str(path.relative_to(work / "lib")) for path in built}
