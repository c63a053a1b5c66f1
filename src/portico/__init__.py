"""Portico: an API gateway that is programmed in Python."""

__version__ = "0.1.0"
