"""Which target gets the next request: each algorithm of `Balance`, behind one class."""

from __future__ import annotations

from portico.upstream.balance.balancer import Balancer, Make, group, groups_of
from portico.upstream.balance.choose import balancing
from portico.upstream.balance.ewma import observe
from portico.upstream.balance.key import key_of
from portico.upstream.balance.round_robin import RoundRobin

__all__ = ["Balancer", "Make", "RoundRobin", "balancing", "group", "groups_of", "key_of", "observe"]
