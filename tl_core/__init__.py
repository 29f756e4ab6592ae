"""tl's library: what plugins and Python users import. Names load on first use, so that importing is cheap."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tl_core.errors import DecodeError as DecodeError
    from tl_core.errors import FormatError as FormatError
    from tl_core.errors import UserError as UserError
    from tl_core.heads import LinearHead as LinearHead
    from tl_core.heads import linear_heads as linear_heads
    from tl_core.hookspecs import hookimpl as hookimpl
    from tl_core.networks import Backbone as Backbone
    from tl_core.networks import Head as Head
    from tl_core.networks import State as State
    from tl_core.saliency import Heat as Heat
    from tl_core.saliency import Overlay as Overlay
    from tl_core.saliency import Saliency as Saliency
    from tl_core.saliency import coloured as coloured
    from tl_core.types import PRESETS as PRESETS
    from tl_core.types import BackboneSpec as BackboneSpec
    from tl_core.types import Corrupt as Corrupt
    from tl_core.types import Facts as Facts
    from tl_core.types import FitWarning as FitWarning
    from tl_core.types import HeadSpec as HeadSpec
    from tl_core.types import Identity as Identity
    from tl_core.types import Loader as Loader
    from tl_core.types import Plain as Plain
    from tl_core.types import Prepared as Prepared
    from tl_core.types import Sample as Sample
    from tl_core.types import Source as Source
    from tl_core.types import Targets as Targets
    from tl_core.weights import drawn_digest as drawn_digest
    from tl_core.weights import find_weights as find_weights
    from tl_core.weights import folder_here as folder_here
    from tl_core.weights import hub_folder as hub_folder
    from tl_core.weights import load_strict as load_strict
    from tl_core.weights import package_folder as package_folder
    from tl_core.weights import random_weights as random_weights
    from tl_core.weights import read_json as read_json
    from tl_core.weights import read_weights as read_weights
    from tl_core.weights import weights_digest as weights_digest
    from tl_core.workspace import Workspace as Workspace

__version__ = "0.1.0"

_HOME = {
    "errors": ("DecodeError", "FormatError", "UserError"),
    "heads": ("LinearHead", "linear_heads"),
    "hookspecs": ("hookimpl",),
    "networks": ("Backbone", "Head", "State"),
    "saliency": ("Heat", "Overlay", "Saliency", "coloured"),
    "types": (
        "PRESETS", "BackboneSpec", "Corrupt", "Facts", "FitWarning", "HeadSpec", "Identity", "Loader", "Plain",
        "Prepared", "Sample", "Source", "Targets",
    ),
    "weights": (
        "drawn_digest", "find_weights", "folder_here", "hub_folder", "load_strict", "package_folder", "random_weights",
        "read_json", "read_weights", "weights_digest",
    ),
    "workspace": ("Workspace",),
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'tl_core' has no attribute {name!r}")
    return getattr(importlib.import_module(f"tl_core.{_MODULE_OF[name]}"), name)
