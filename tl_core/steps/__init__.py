"""The steps as functions over files: each reads the former steps' outputs and writes its own.

The command, DVC's stages and the Prefect flow all call these.
"""

from tl_core.steps.evaluate import evaluate
from tl_core.steps.extract import extract
from tl_core.steps.select import select
from tl_core.steps.tune import tune
from tl_core.steps.version import version

__all__ = ["evaluate", "extract", "select", "tune", "version"]
