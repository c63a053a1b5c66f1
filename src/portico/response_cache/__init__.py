"""A response cache at work: what `portico.caching` decides, with a store, a memory in front of it, and fetches that
several requests share.
"""

from portico.response_cache.cache import ResponseCache
from portico.response_cache.keys import KeySettings
from portico.response_cache.settings import CacheSettings, Users

__all__ = ["CacheSettings", "KeySettings", "ResponseCache", "Users"]
