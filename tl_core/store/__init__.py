"""The content-addressed feature store: append-only, checksummed, safe for several processes and for kill -9.

One folder a key space (`spaces`), in it one shard a writer process (`shards`), found through sorted keys (`index`).
"""

from tl_core.store.features import TRUNCATED, FeatureStore, MissingRows, SpaceInfo, StoreFull, Writer
from tl_core.store.spaces import FORMAT_VERSION, Space

__all__ = [
    "FORMAT_VERSION",
    "TRUNCATED",
    "FeatureStore",
    "MissingRows",
    "Space",
    "SpaceInfo",
    "StoreFull",
    "Writer",
]
