"""The configuration: read from files, validated against the policies and endpoints that there are, frozen."""

from portico.config.document import Document, Plugin, read
from portico.config.findings import Finding, Place, Severity, report
from portico.config.json_schema import json_schema
from portico.config.load import Loaded, validate
from portico.config.schema import Config
from portico.config.source import ConfigSource, FileSource, TextSource

__all__ = [
    "Config",
    "ConfigSource",
    "Document",
    "FileSource",
    "Finding",
    "Loaded",
    "Place",
    "Plugin",
    "Severity",
    "TextSource",
    "json_schema",
    "read",
    "report",
    "validate",
]
