"""The kinds of values that a configuration is written in, each with its parser and its JSON Schema.

Policies and endpoints use the same ones: `ttl: Duration = 60.0`. A parser raises BadValue, which says what is wrong and
how to mend it; a plain ValueError from a policy's own validator is reported just as well.
"""

from __future__ import annotations

import os
import re
import stat
from typing import Annotated, Literal, NamedTuple, Protocol

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    SecretStr,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import PydanticKnownError

from portico.config.forms import Off
from portico.http import headers


class BadValue(ValueError):
    """A value is not what it should be."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message}; {hint}" if hint else message)
        self.message = message
        self.hint = hint


def text_of(value: object) -> str:
    """Return `value`, a text, or raise what pydantic raises for anything else."""
    if isinstance(value, str):
        return value
    raise PydanticKnownError("string_type")


# Numbers

_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_NUMBER = r"\d{1,12}(?:\.\d{1,12})?"
_DURATION = f"({_NUMBER})|" + "".join(f"(?:({_NUMBER}){unit})?" for unit in _SECONDS)
_BYTES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_SIZE = rf"({_NUMBER})({'|'.join(unit for unit in _BYTES if unit)})?"
_MOST = 10**12
"""More of anything than anyone means, and few enough for every timer, counter and float."""


def parse_duration(value: object) -> float:
    """Return the seconds that `5s`, `250ms`, `1m30s` or a bare number stand for."""
    seconds = value if isinstance(value, int | float) and not isinstance(value, bool) else _seconds(text_of(value))
    if seconds is None or not 0 <= seconds <= _MOST:
        raise BadValue(f"{value!r} is not a duration", "write 5s, 250ms, 1m30s, 2h or 1d; a bare number is seconds")
    return float(seconds)


def parse_size(value: object) -> int:
    """Return the bytes that `10MiB`, `64KiB`, `5MB` or a bare number stand for."""
    size = value if isinstance(value, int) and not isinstance(value, bool) else _bytes(text_of(value))
    if size is None or not 0 <= size <= _MOST:
        raise BadValue(f"{value!r} is not a size", "write 64KiB, 10MiB, 5MB or 1GiB; a bare number is bytes")
    return size


def parse_share(value: object) -> float:
    """Return the part of one that `20%` or `0.5%` stand for."""
    if isinstance(value, float) and not isinstance(value, bool):  # from the code; in a file it would be ambiguous
        share: float | None = value
    else:
        match = re.fullmatch(rf"({_NUMBER})%", value, re.ASCII) if isinstance(value, str) else None
        share = float(match[1]) / 100 if match is not None else None
    if share is None or not 0 <= share <= 1:
        raise BadValue(f"{value!r} is not a share", "write 20%, from 0% to 100%")
    return share


def _seconds(text: str) -> float | None:
    match = re.fullmatch(_DURATION, text, re.ASCII)
    if match is None or not text:
        return None
    numbers = zip(match.groups(), (1.0, *_SECONDS.values()), strict=True)
    return sum(float(number) * unit for number, unit in numbers if number)


def _bytes(text: str) -> int | None:
    match = re.fullmatch(_SIZE, text, re.ASCII)
    return round(float(match[1]) * _BYTES[match[2] or ""]) if match is not None else None


def _no_truth(value: object) -> object:
    if isinstance(value, bool):
        raise PydanticKnownError("int_type")
    return value


def _whole(value: object) -> object:
    if isinstance(value, int | float) and abs(value) > _MOST:
        raise BadValue("the number is larger than anyone means", f"write one up to {_MOST}")
    return _no_truth(value)


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    WithJsonSchema(
        {
            "type": ["string", "number"],
            "pattern": f"^(?=.)({_DURATION})$",
            "minimum": 0,
            "examples": ["5s", "250ms", "1m30s"],
        }
    ),
]
"""Seconds; in the file `5s`, `250ms`, `1m30s`, `2h`, `1d`, or a bare number of seconds."""

DurationOrOff = Annotated[Duration | None, Off()]
"""A Duration that can be switched off, which gives None."""

Size = Annotated[
    int,
    BeforeValidator(parse_size),
    WithJsonSchema(
        {
            "type": ["string", "integer"],
            "pattern": f"^({_SIZE})$",
            "minimum": 0,
            "examples": ["64KiB", "10MiB", "5MB"],
        }
    ),
]
"""Bytes; in the file `64KiB`, `10MiB`, `5MB`, or a bare number of bytes."""

Share = Annotated[
    float,
    BeforeValidator(parse_share),
    WithJsonSchema({"type": "string", "pattern": f"^{_NUMBER}%$", "examples": ["20%", "0.5%"]}),
]
"""A part of the whole; in the file `20%`."""

Positive = Annotated[Duration, Field(gt=0)]
"""A Duration that is not 0."""

PositiveOrOff = Annotated[Positive | None, Off()]
"""A Duration that is not 0, or none at all."""

Whole = Annotated[int, BeforeValidator(_whole)]
"""A whole number; `true` is not one."""

Count = Annotated[int, Field(ge=1), BeforeValidator(_whole)]
"""A whole number from 1."""

Port = Annotated[int, Field(ge=1, le=65535), BeforeValidator(_no_truth)]
"""The number of a TCP port."""

StatusCode = Annotated[int, Field(ge=200, le=599), BeforeValidator(_no_truth)]
"""The status of a final answer."""


# Names

NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_TCHARS = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_HOST_PATTERN = r"(\*\.)?[a-z0-9_]([a-z0-9._-]*[a-z0-9_])?\.?|\*|\[[0-9a-f:.]+\]"


def check_name(value: str) -> str:
    """Return `value` if something can be called so, or raise BadValue."""
    if re.fullmatch(NAME_PATTERN, value) is None:
        raise BadValue(f"{value!r} is not a name", "a name has letters, digits, '-', '_' and '.', such as orders-v2")
    return value


def check_header_name(value: str) -> str:
    """Return `value` if it is the name of a header, or raise BadValue."""
    try:
        headers.check_name(value.encode())
    except ValueError:
        raise BadValue(f"{value!r} is not a header name", "write one such as X-Request-Id") from None
    return value


def _check_header_value(value: str) -> str:
    try:
        headers.check_value(value.encode("latin-1"))
    except ValueError:
        raise BadValue("this cannot stand in a header", "leave out line breaks and characters beyond Latin-1") from None
    return value


def _check_method(value: str) -> str:
    if re.fullmatch(_TCHARS, value) is None:
        raise BadValue(f"{value!r} is not a method", "write GET, or a list: [GET, POST]")
    return value.upper()


_FRAMING = headers.HOP_BY_HOP | {b"content-length"}


def not_framing(value: str) -> str:
    """Return the name of a header that says nothing of how a message is framed, or of its connection."""
    if value.lower().encode("ascii") in _FRAMING:
        raise BadValue(f"{value} is for the gateway to say", "leave it out")
    return value


def _check_token(value: str) -> str:
    if re.fullmatch(_TCHARS, value) is None:
        raise BadValue(f"{value!r} is not a token", "write one word such as portico, without spaces or slashes")
    return value


def _check_host_pattern(value: str) -> str:
    if re.fullmatch(_HOST_PATTERN, value.lower()) is None:
        hint = "write api.example.com or *.example.com, without scheme, port or path"
        raise BadValue(f"{value!r} is not the name of a host", hint)
    return value.lower()


def _check_path(value: str) -> str:
    if not value.startswith(("/", "~")):
        raise BadValue(f"{value!r} is not a path", f"it starts with a slash: /{value.lstrip('*')}")
    return value


Name = Annotated[str, AfterValidator(check_name), Field(json_schema_extra={"pattern": f"^{NAME_PATTERN}$"})]
"""What a service, a route or a policy is called: letters, digits, `-`, `_` and `.`."""

HeaderName = Annotated[str, AfterValidator(check_header_name), Field(examples=["X-Request-Id"])]
"""The name of a header, with the case it was given."""

HeaderValue = Annotated[str, AfterValidator(_check_header_value)]
"""The value of a header: no line break can be smuggled in by it."""

Method = Annotated[str, AfterValidator(_check_method), Field(examples=["GET", "POST"])]
"""A request method, in upper case."""


_NO_PROTOCOLS = frozenset(("true", "on", "yes", "ws", "wss", "websockets"))
"""What people write who mean WebSockets."""


def _check_upgrade(text: str) -> str:
    protocol = text.lower()
    if re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9a-z/]+", protocol) is None:
        raise BadValue(f"{text!r} is not a protocol to upgrade to", "write websocket")
    if protocol in _NO_PROTOCOLS:
        raise BadValue(f"{text!r} is not a protocol to upgrade to", "write websocket, or leave it out")
    if protocol == "h2c":
        raise BadValue("h2c would take all later requests past the gateway", "leave it out")
    return protocol


Token = Annotated[str, AfterValidator(_check_token), Field(examples=["portico", "edge-1.example.com"])]
"""One word of a header: letters, digits, and the signs that RFC 9110, section 5.6.2, has for it."""

Upgrade = Annotated[str, AfterValidator(_check_upgrade), Field(examples=["websocket"])]
"""A protocol to change to (RFC 9110, section 7.8), in lower case."""

HostPattern = Annotated[str, AfterValidator(_check_host_pattern), Field(examples=["api.example.com", "*.example.com"])]
"""The name of a host, in lower case, or `*.` and the name of a domain."""

PathText = Annotated[str, AfterValidator(_check_path), Field(examples=["/orders/**", "/orders/{id}"])]
"""A pattern for paths, or `~` and a regular expression: see [path patterns](#path-patterns)."""

# In code, only `get_secret_value()` returns the text.
Secret = Annotated[SecretStr, Field(min_length=1)]
"""A text that no log, dump or message shows."""


# Conditions and references


class Condition(NamedTuple):
    """What a header, a query parameter or a cookie must be like."""

    test: Literal["equals", "matches", "present", "absent"]
    value: str = ""
    """The exact text, or the regular expression that a value must match as a whole."""


def parse_condition(value: object) -> Condition:
    """Return the condition that a text (exact), `~` and a regular expression, or a truth value (present) stand for."""
    if isinstance(value, Condition):
        return value
    if isinstance(value, bool):
        return Condition("present" if value else "absent")
    text = text_of(value)
    if not text.startswith("~"):
        return Condition("equals", text)
    try:
        re.compile(text[1:])
    except (re.error, OverflowError, RecursionError) as error:
        raise BadValue(f"{text[1:]!r} is not a regular expression: {error}", "'~' starts one; ~^v[12]$") from None
    return Condition("matches", text[1:])


ValueCondition = Annotated[
    Condition,
    PlainValidator(parse_condition),
    WithJsonSchema({"type": ["string", "boolean", "number"], "examples": ["v2", "~v[12]", True, False]}),
]
"""A text that must be met exactly, `~` and a regular expression, `true` for present, `false` for absent."""


class Services(Protocol):
    """The services that a reference can name."""

    def refer(self, name: str) -> None:
        """Note that `name` is used, or raise BadValue where there is no such service."""
        ...


class Context(NamedTuple):
    """What a value's meaning depends on, given to validation as pydantic's context; none for what no file says."""

    file: str
    """The file in which the value stands."""
    services: Services | None = None
    """The services of the configuration."""


def _check_reference(value: str, info: ValidationInfo[Context | None]) -> str:
    if info.context is not None and info.context.services is not None:
        info.context.services.refer(value)
    return value


def beside(value: str, info: ValidationInfo[Context | None]) -> str:
    """Return a path that is relative to the folder of the file in which it is written, as it was written."""
    folder = os.path.dirname(os.path.abspath(info.context.file)) if info.context is not None else os.getcwd()  # noqa: PTH100, PTH109, PTH120
    return os.path.join(folder, value)  # noqa: PTH118


def _check_file(value: str, info: ValidationInfo[Context | None]) -> str:
    if not value:
        raise BadValue("an empty text is not the path of a file", "leave it out, or write a path")
    if "-----BEGIN" in value:  # never shown: it may be a private key
        raise BadValue("this is what a file holds, and not its path", "write the path of the PEM file")
    path = beside(
        value, info
    )  # the message has it as it was written, so that a secret in it is found there, and hidden
    problem = why_unreadable(os.path.normpath(path))
    if problem:
        hint = "'~' has no meaning here; write the whole path" if value.startswith("~") else ""
        raise BadValue(f"cannot read {path}: {problem}", hint)
    return os.path.normpath(path)


def _check_folder(value: str, info: ValidationInfo[Context | None]) -> str:
    if not value or "\0" in value:
        raise BadValue("an empty text is not the path of a folder", "leave it out, or write a path")
    path = os.path.normpath(beside(value, info))
    problem = why_unusable(path)
    if problem:
        raise BadValue(f"cannot use {path}: {problem}", "write the path of a folder that only the gateway can write to")
    return path


def why_unusable(path: str) -> str:
    """Return why a folder cannot be made, or be written to by its owner alone; an empty text where it can."""
    there = path
    while not os.path.lexists(there):
        there = os.path.dirname(there)  # noqa: PTH120
    try:
        found = os.lstat(there) if there == path else os.stat(there)  # noqa: PTH116
    except OSError as error:
        return error.strerror or str(error)
    if not stat.S_ISDIR(found.st_mode):
        return "it is not a folder" if there == path else f"{there} is not a folder"
    if not os.access(there, os.W_OK | os.X_OK):
        return "permission denied"
    if there == path and found.st_mode & 0o022:
        return "others can write to it"
    return ""


def why_unreadable(path: str) -> str:
    """Return why a file cannot be read, or an empty text."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO would be waited for
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    try:
        return "" if stat.S_ISREG(os.fstat(file).st_mode) else "it is not a regular file"
    finally:
        os.close(file)


ServiceName = Annotated[str, AfterValidator(_check_reference), Field(examples=["orders", "orders:8080"])]
"""The name of a service of the file, or the `host:port` or URL of one that the file does not declare."""

FilePath = Annotated[str, AfterValidator(_check_file), Field(examples=["/etc/portico/tls.crt", "tls/server.pem"])]
"""The path of a file that is there and can be read; relative to the folder of the file in which it is written."""

FolderPath = Annotated[str, AfterValidator(_check_folder), Field(examples=["/var/lib/portico"])]
"""The path of a folder that is the gateway's own, or can be made; relative to the folder of the file in which it is
written."""
