"""Imported by the server that killed runs are forked from: what an extraction of texts imports, and no more.

Nothing here may start threads: they would not be there in the forked processes.
"""

import contextlib

import tl_text.backbones
import transformers.models.bert.modeling_bert

import tl_core.extraction
import tl_core.store
from benchmarks.features.plugins import registry_here

registry_here()  # imports the plugins
with contextlib.suppress(ImportError):
    import openvino

__all__ = ["openvino", "tl_core", "tl_text", "transformers"]
