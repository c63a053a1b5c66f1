"""The documentation, and the programs that make its reference out of the code."""
