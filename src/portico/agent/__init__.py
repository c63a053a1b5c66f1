"""The agent: does what happens once per machine, so that no worker has to. Traffic does not need it.

It loads and validates the file, has the workers swap to what was loaded, watches the files, and tells how the gateway
is. Another takes its place at any time; what must not be lost meanwhile the supervisor keeps for it.
"""
