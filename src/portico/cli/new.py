"""`portico new`: a policy or an endpoint to start from, with a test that passes."""

from __future__ import annotations

import keyword
import re
import sys
from enum import StrEnum
from importlib import resources
from pathlib import Path
from string import Template
from typing import Final

from portico import plugin, testing
from portico.errors import PorticoError
from portico.runtime.plugins import load_registry

_MODULES: Final = ("conftest", "portico", "pytest")
"""Modules that the tests of what is begun import, beside those of Python."""


class Kind(StrEnum):
    """What can be begun."""

    POLICY = "policy"
    ENDPOINT = "endpoint"


class NotWritten(PorticoError):
    """Nothing was written; the message says why."""


def write_new(kind: Kind, name: str, folder: Path) -> tuple[Path, Path]:
    """Write the file and its test, and return where they are; raise NotWritten."""
    if re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) is None:
        raise NotWritten(f"{name!r} cannot be a {kind}'s name; write it in lower case with dashes, such as geo-fence")
    title = "".join(part.capitalize() for part in name.split("-"))
    if title in plugin.__all__ or title in testing.__all__:
        raise NotWritten(f"{name!r} would make a class {title}, which Portico has already; take another name")
    module = name.replace("-", "_")
    if keyword.iskeyword(title) or module in sys.stdlib_module_names or module in _MODULES:
        # A test's folder comes first where Python looks for modules, so the file would be taken for another.
        raise NotWritten(f"{name!r} would hide a name or a module of Python's; take another name")
    registry = load_registry(())
    if name in (registry.policies if kind is Kind.POLICY else registry.endpoints):
        raise NotWritten(f"{kind} {name!r} is there already; take another name")
    files = (folder / f"{module}.py", folder / f"test_{module}.py")
    for file in files:
        if file.exists():
            raise NotWritten(f"{file} exists already; it is left as it is")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, starter in zip(files, (f"{kind}.py.txt", f"{kind}_test.py.txt"), strict=True):
            text = resources.files("portico.cli").joinpath("starters", starter).read_text("utf-8")
            with file.open("x", encoding="utf-8") as target:
                target.write(Template(text).substitute(name=name, title=title, module=module))
    except OSError as error:
        raise NotWritten(f"{error.filename} cannot be written: {error.strerror}") from None
    return files
