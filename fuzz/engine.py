"""Starts atheris: a corpus that the rows of the tests seed, a dictionary, and libFuzzer's own options."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path

import atheris

BUILD = Path(__file__).parent.parent / "build" / "fuzz"
MAX_LENGTH = 768

TOKENS = (
    b"\r\n", b"\r\n\r\n", b"\n", b"\r", b" ", b"\t", b"\0", b"\x7f", b"\xff", b":", b";", b",", b"0", b"1", b"a",
    b"GET ", b"POST ", b"HEAD ", b"CONNECT ", b"OPTIONS * ", b"PROPFIND ", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n",
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 204 X\r\n", b"HTTP/1.1 304 X\r\n", b"HTTP/1.1 103 X\r\n", b"HTTP/1.1 101 X\r\n",
    b"Host: a\r\n", b"Content-Length: ", b"Transfer-Encoding: ", b"chunked", b"gzip", b"identity", b"Connection: ",
    b"close", b"keep-alive", b"Upgrade: ", b"websocket", b"Expect: 100-continue\r\n", b"Trailer: ", b"A: b\r\n",
    b"0\r\n\r\n", b"5\r\nhello\r\n", b"http://a/", b"a:443", b"*",
)  # fmt: skip
"""What HTTP/1 is made of, so that the engine need not find it letter by letter."""


def run(name: str, target: Callable[[bytes], None], seeds: Iterable[bytes]) -> None:
    """Fuzz `target` with libFuzzer's options from the command line; what it finds stays in `build/fuzz/<name>`."""
    corpus = BUILD / name / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        (corpus / sha256(seed).hexdigest()[:16]).write_bytes(seed)
    dictionary = BUILD / name / "tokens.dict"
    dictionary.write_text("".join(f'"{_escaped(token)}"\n' for token in TOKENS))
    own = [f"-dict={dictionary}", f"-max_len={MAX_LENGTH}", f"-artifact_prefix={BUILD / name}/", "-timeout=10"]
    given = sys.argv[1:]
    again = any(not argument.startswith("-") for argument in given)  # what was found is run, and nothing else
    atheris.Setup([sys.argv[0], *own, *given, *([] if again else [str(corpus)])], target)
    atheris.Fuzz()


def _escaped(token: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in token)
