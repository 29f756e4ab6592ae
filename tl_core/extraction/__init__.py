"""Features: what the store lacks is computed, each sample once, in batches of fixed shape, at any cut of the chain."""

from tl_core.engines import resolve_device
from tl_core.extraction.boundaries import boundaries
from tl_core.extraction.decoding import decoded, decoder_pool
from tl_core.extraction.embedding import by_bucket, collate_samples, embed
from tl_core.extraction.extract import Extraction, extract, features, fill, precision_of, space_of
from tl_core.extraction.rows import DTYPES, NotFinite, pool_windows
from tl_core.types import END

__all__ = [
    "DTYPES",
    "END",
    "Extraction",
    "NotFinite",
    "boundaries",
    "by_bucket",
    "collate_samples",
    "decoded",
    "decoder_pool",
    "embed",
    "extract",
    "features",
    "fill",
    "pool_windows",
    "precision_of",
    "resolve_device",
    "space_of",
]
