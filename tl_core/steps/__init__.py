"""The steps as functions over files: each reads the former steps' outputs and writes its own.

The command, DVC's stages and the Prefect flow all call these. Each loads on first use: `version` needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tl_core.steps.evaluate_step import evaluate as evaluate
    from tl_core.steps.extract_step import extract as extract
    from tl_core.steps.select_step import select as select
    from tl_core.steps.tune_step import tune as tune
    from tl_core.steps.version_step import version as version

# no module here is called as a step is: its import would put the module in the function's place
__all__ = ["evaluate", "extract", "select", "tune", "version"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'tl_core.steps' has no attribute {name!r}")
    return getattr(importlib.import_module(f"tl_core.steps.{name}_step"), name)
