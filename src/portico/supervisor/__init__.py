"""The root of the processes: it owns the listening sockets and the board, and starts, watches, replaces and ends the
agent and the workers.

It imports neither the agent nor the workers: they are started by module name. What it imports beside the standard
library is four small modules that need nothing else themselves: the board, channels, their messages, and titles.
"""
