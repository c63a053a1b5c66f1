"""Ask a URL whether it answers: `python -m portico.cli.probe URL`, for health checks of containers, which have no curl.

It imports next to nothing, since it is run every few seconds. The exit code is 0 where the answer is 200, else 1.
"""

from __future__ import annotations

import sys
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from typing import Final
from urllib.parse import urlsplit

DEFAULT: Final = "http://127.0.0.1:8000/livez"
TIMEOUT: Final = 3.0
"""Seconds."""


def probe(url: str, timeout: float = TIMEOUT) -> str:
    """Return what is wrong with the answer of `url`, which is plain HTTP; empty where it is 200."""
    try:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            return f"{url} is not a URL such as {DEFAULT}"
        with closing(HTTPConnection(parts.hostname, parts.port, timeout=timeout)) as connection:
            connection.request("GET", parts.path or "/")
            status = connection.getresponse().status
    except (OSError, HTTPException, ValueError) as error:
        return f"{url} does not answer: {error}"
    return "" if status == 200 else f"{url} answers {status}"


def main(arguments: list[str]) -> int:
    """Ask the URL, or DEFAULT, and return the exit code."""
    wrong = probe(arguments[0] if arguments else DEFAULT)
    if wrong:
        sys.stderr.write(f"{wrong}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
