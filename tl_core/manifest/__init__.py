"""The manifest: what the data are, which samples are unusable and why, and which split each sample is in."""

from tl_core.manifest.compare import Changes, compare
from tl_core.manifest.scan import scan
from tl_core.manifest.table import FORMAT_VERSION, Manifest
from tl_core.manifest.test_set import TestSet

__all__ = ["FORMAT_VERSION", "Changes", "Manifest", "TestSet", "compare", "scan"]
