"""A server that answers each request with what aiohttp read of it: JSON in Base64, in a header, so that HEAD tells it
too. It prints its port, and ends with its input.

With AIOHTTP_NO_EXTENSIONS in its environment it is aiohttp's parser in Python, otherwise the one that is built on
llhttp.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys

from aiohttp import web


async def describe(request: web.BaseRequest) -> web.Response:
    shown = {
        "method": request.method,
        "target": request.raw_path,
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.raw_headers],
        "body": (await request.read()).decode("latin-1"),
        "trailers": None,  # it reads over them
    }
    return web.Response(headers={"Parsed": base64.b64encode(json.dumps(shown).encode()).decode()})


async def main() -> None:
    server = web.Server(describe, auto_decompress=False, access_log=None, max_line_size=65536, max_field_size=65536)
    listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.shutdown(0)
    listening.close()


asyncio.run(main())
