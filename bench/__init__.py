"""Portico beside its peers: CPU time a request, measured in one run on one machine (see README.md)."""


class BenchError(Exception):
    """The run cannot give a result that means anything; the message says why."""
