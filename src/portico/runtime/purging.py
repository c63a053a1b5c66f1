"""A purge, as the worker carries it out that the agent has asked to."""

from __future__ import annotations

from portico.errors import StoreUnavailable
from portico.runtime.protocol import Purge, Purged
from portico.runtime.serving import Serving
from portico.state.purges import BadPurge, keys_to_purge


async def purge(order: Purge, serving: Serving) -> Purged:
    """Purge by what is served now, and say how that went."""
    try:
        keys = keys_to_purge(order.urls, order.tags, everything=order.everything, slashes=serving.slashes)
        purges = None if serving.runtime is None else serving.runtime.purges
        if purges is None:
            return Purged(order.ticket, 409, "nothing that is served keeps answers, so there is nothing to purge")
        await purges.purge(keys)
    except BadPurge as error:
        return Purged(order.ticket, 400, str(error))
    except StoreUnavailable as error:
        return Purged(order.ticket, 503, f"nothing was purged: {error}")
    return Purged(order.ticket, 200, "")
