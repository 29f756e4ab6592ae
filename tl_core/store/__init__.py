"""The content-addressed feature store: append-only, checksummed, safe for several processes and for kill -9.

One folder a key space (`spaces`), in it one shard a writer process (`shards`), found through sorted keys (`index`).
"""

from tl_core.store.claims import Claims
from tl_core.store.exchange import ExportResult, ImportResult
from tl_core.store.features import TRUNCATED, FeatureStore
from tl_core.store.gc import GcResult
from tl_core.store.reading import MissingRows
from tl_core.store.spaces import FORMAT_VERSION, Space
from tl_core.store.survey import SpaceInfo
from tl_core.store.writing import RaggedWriter, StoreFull, Writer

__all__ = [
    "FORMAT_VERSION",
    "TRUNCATED",
    "Claims",
    "ExportResult",
    "FeatureStore",
    "GcResult",
    "ImportResult",
    "MissingRows",
    "RaggedWriter",
    "Space",
    "SpaceInfo",
    "StoreFull",
    "Writer",
]
