"""The log of requests: a line for each, where it goes, and what is left out of it."""

from __future__ import annotations

import os
import re
import stat
from typing import Annotated, Final, Literal, Self, TypeAlias, get_args

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, ValidationInfo, model_validator
from pydantic.json_schema import WithJsonSchema

from portico.config.addresses import HttpUrl, split_address
from portico.config.forms import OFF, Shorthand, is_off
from portico.config.part import Part
from portico.config.values import (
    BadValue,
    Context,
    Count,
    FilePath,
    HeaderName,
    HeaderValue,
    Positive,
    PositiveOrOff,
    Secret,
    Share,
    Size,
    beside,
    text_of,
)

FIELDS: Final = frozenset(
    (
        *("timestamp", "method", "url", "status_code", "duration_ms", "user_id", "correlation_id", "user_agent"),
        *("ip_address", "route", "service", "target", "tries", "upstream_ms", "bytes_in", "bytes_out", "outcome"),
        *("cache", "limit", "limit_policy", "idempotency", "stopped_by", "error", "error_source", "trace_id"),
        *("protocol", "referer", "path", "host"),
    )
)
"""What a line can tell of a request."""

SECRET_WORDS: Final = (
    *(
        "token",
        "key",
        "apikey",
        "password",
        "passwd",
        "passphrase",
        "pwd",
        "secret",
        "code",
        "signature",
        "sig",
        "auth",
    ),
    *("authorization", "jwt", "assertion", "session", "sessionid", "sid", "credential", "credentials", "otp", "ticket"),
)
"""Words by which the name of a query parameter says that its value is a secret."""

CREDENTIALS: Final = frozenset(("authorization", "proxy-authorization", "cookie", "set-cookie"))
"""Headers whose values no log shows as they are."""

MOST_HEADERS: Final = 32
PLACE: Final = re.compile(r"\{\{\s*(.*?)\s*\}\}")
"""A place in a template."""
_HEADER_PLACE: Final = re.compile(r"headers\.([A-Za-z0-9-]+)")
_NOTE_PLACE: Final = re.compile(r"notes\.[a-z0-9][a-z0-9._-]*")


def _level(value: object) -> object:
    if value == "":
        raise BadValue("an empty text is not a level", "write off, errors or all")
    return "off" if is_off(value) else value


Facility: TypeAlias = Literal[
    "kern",
    "user",
    "mail",
    "daemon",
    "auth",
    "syslog",
    "lpr",
    "news",
    "local0",
    "local1",
    "local2",
    "local3",
    "local4",
    "local5",
    "local6",
    "local7",
]

_FACILITIES: Final = {
    **{name: number for number, name in enumerate(get_args(Facility)[:8])},
    **{name: number for number, name in enumerate(get_args(Facility)[8:], 16)},
}

Level = Annotated[
    Literal["", "off", "errors", "all"],
    BeforeValidator(_level),
    WithJsonSchema({"anyOf": [{"enum": ["errors", "all"]}, OFF]}),
]
"""Which requests have a line: none, those that went wrong, or all."""


def _parse_syslog(value: object) -> str:
    """Return where a syslog listens, or raise BadValue."""
    text = text_of(value)
    hint = "write unix:/dev/log, udp://10.0.0.7:514 or tcp://logs.example.com:601"
    if text.startswith("unix:") and len(text) > len("unix:"):
        return text
    scheme, _, rest = text.partition("://")
    address = split_address(rest)
    if scheme not in ("udp", "tcp") or address is None or not address.host or not 0 < address.port < 65536:
        raise BadValue(f"{text!r} is not where a syslog listens", hint)
    return text


def _check_format(value: str) -> str:
    if value in ("json", "combined"):
        return value
    places = [match[1] for match in PLACE.finditer(value)]
    if not places:
        hint = "write json, combined, or a text such as '{{ method }} {{ url }} {{ status_code }}'"
        raise BadValue(f"{value!r} is not a format", hint)
    for place in places:
        header = _HEADER_PLACE.fullmatch(place)
        if header is not None and header[1].lower() in CREDENTIALS:
            raise BadValue(f"{{{{ {place} }}}} is a credential, which no log shows", "name it in `hashed`, with json")
        if place not in FIELDS and header is None and _NOTE_PLACE.fullmatch(place) is None:
            known = ", ".join((*sorted(FIELDS), "headers.NAME", "notes.NAME"))
            raise BadValue(f"{{{{ {place} }}}} is not known", f"known are {known}")
    if not value.isprintable() and not value.replace("\t", "").isprintable():
        raise BadValue("the format has a control character in it", "write it in one line")
    return value


def _check_shown(value: str) -> str:
    if value.lower() in CREDENTIALS:
        raise BadValue(f"{value} has credentials in it, which no log shows", "name it in `hashed` instead")
    return value


def _check_output(value: str, info: ValidationInfo[Context | None]) -> str:
    """Return the whole path of a file that can be written to, or be made."""
    if not value or "\0" in value:
        raise BadValue("an empty text is not the path of a file", "leave it out, or write a path")
    path = os.path.normpath(beside(value, info))
    problem = why_unwritable(path)
    if problem:
        raise BadValue(f"cannot write to {path}: {problem}", "write the path of a file in a folder that is there")
    return path


def why_unwritable(path: str) -> str:
    """Return why a file can neither be written to nor be made; an empty text where it can."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
    except FileNotFoundError:
        folder = os.path.dirname(path)  # noqa: PTH120
        if not os.path.isdir(folder):  # noqa: PTH112
            return f"{folder} is not a folder"
        return "" if os.access(folder, os.W_OK | os.X_OK) else "permission denied"
    except OSError as error:
        return error.strerror or str(error)
    if stat.S_ISDIR(mode):
        return "it is a folder"
    if stat.S_ISSOCK(mode):
        return "it is a socket"
    return "" if os.access(path, os.W_OK) else "permission denied"


OutputFile = Annotated[str, AfterValidator(_check_output), Field(examples=["access.log"])]
"""The path of a file to write to, which need not be there yet; relative to the folder of the file in which it is
written."""


class Syslog(Part):
    """A syslog that is sent a message for each line (RFC 5424). A text stands for its `address`."""

    address: Annotated[
        str,
        PlainValidator(_parse_syslog),
        WithJsonSchema({"type": "string", "examples": ["unix:/dev/log", "udp://10.0.0.7:514"]}),
    ]
    """Where it listens: `unix:` and the path of its socket, `udp://host:port` or `tcp://host:port`. Over TCP each
    message begins with its length (RFC 6587, section 3.4.1)."""
    facility: Facility = "local0"
    """What messages say that they come from."""
    app_name: Annotated[str, Field(pattern=r"^[!-~]{1,48}$")] = "portico"
    """What messages call the gateway."""

    @property
    def priority(self) -> int:
        """The number that a message begins with: facility, and severity 6 (informational)."""
        return _FACILITIES[self.facility] * 8 + 6


class Collector(Part):
    """A collector that is sent lines by POST, many at once. A text stands for its `url`."""

    url: HttpUrl
    """Where they are sent."""
    headers: dict[HeaderName, Secret] = Field(default_factory=dict)
    """Headers of each request, such as `Authorization`. They are secret."""
    content_type: HeaderValue = "application/x-ndjson"
    """The media type of the lines."""
    batch: Annotated[Count, Field(le=10_000)] = 1000
    """The most lines that are sent at once."""
    linger: Annotated[Positive, Field(le=60)] = 0.5
    """How long lines wait for others to be sent with, where there are fewer."""
    timeout: Annotated[Positive, Field(le=60)] = 5.0
    """How long the collector may take to answer; what it has not taken is sent again, three times in all."""
    ca: FilePath | None = None
    """The authorities that the collector's certificate may be from, where they are not the system's."""


class RouteAccessLog(Part):
    """Which requests of a route have a line in the access log. A text stands for its `level`; what is not given is as
    the file has it."""

    level: Annotated[Level, Field(validate_default=False)] = ""
    """Which requests have a line: `off`, `errors` or `all`."""
    sample: Share | None = None
    """The share of requests that have one."""
    slow: Positive | None = None
    """From how long on a request has one in any case."""


class AccessLog(Part):
    """A line for each request, once it is over. A text stands for its `file`.

    Lines are written behind the requests, many at once: nobody waits for a disk that is full or a collector that hangs.
    What is beyond `buffer` then has no line; `portico_access_log_dropped_total` counts those, and the log says so.
    """

    format: Annotated[str, AfterValidator(_check_format)] = "json"
    """`json`, `combined` (that of Apache and nginx), or a text with places such as `{{ method }}`: see
    [the access log](../operations/observing.md#the-access-log)."""
    file: OutputFile | None = None
    """The file that lines are added to. SIGUSR1 has it opened anew, once it was moved away. Standard output unless it,
    `syslog` or `collector` is given."""
    syslog: Annotated[Syslog, Shorthand("address")] | None = None
    """The syslog that is sent them."""
    collector: Annotated[Collector, Shorthand("url")] | None = None
    """The collector that is sent them over HTTP."""
    level: Level = "all"
    """Which requests have a line: `all`, `errors`, or none, with `off`. An error is a status of 400 or above, and
    whatever did not come to its proper end. `/health` and the other built-in routes have one for errors alone."""
    sample: Share = 1.0
    """The share of requests that have one; errors always do."""
    slow: PositiveOrOff = None
    """From how long on a request has one in any case, though `level` and `sample` say otherwise, but for `off`."""
    headers: Annotated[
        tuple[Annotated[HeaderName, AfterValidator(_check_shown)], ...], Field(max_length=MOST_HEADERS)
    ] = ()
    """The headers of requests that lines in `json` have as well. None that has credentials in it can be among them."""
    hashed: Annotated[tuple[HeaderName, ...], Field(max_length=MOST_HEADERS)] = ()
    """Headers of which lines in `json` have a print, which is the same for the same value: 16 hexadecimal digits of its
    HMAC-SHA-256 with `hash_key`."""
    hash_key: Secret | None = None
    """The key of the prints; nobody without it can find a value by trying many."""
    redact: tuple[str, ...] = SECRET_WORDS
    """The query parameters whose values are shown as `[redacted]`: those that have one of these words in their names,
    as `access_token` and `apiKey` have."""
    buffer: Annotated[Size, Field(ge=64 * 1024)] = 8 * 1024 * 1024
    """The most bytes of each worker that wait to be written."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        ways = [name for name in ("file", "syslog", "collector") if getattr(self, name) is not None]
        if len(ways) > 1:
            raise BadValue(f"lines cannot go to both {' and '.join(ways)}", "keep one of them")
        if self.hashed and self.hash_key is None:
            raise BadValue("`hashed` needs a key", "write hash_key: ${LOG_HASH_KEY}")
        if (self.headers or self.hashed) and self.format != "json":
            raise BadValue("only lines in json have `headers`", "write {{ headers.NAME }} in the format instead")
        return self
