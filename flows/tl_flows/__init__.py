"""The application: flows, data versioning and the `tl` command. Names load on first use: importing is cheap."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tl_flows.projects import ProjectRun as ProjectRun
    from tl_flows.projects import run_projects as run_projects
    from tl_flows.runs import Run as Run
    from tl_flows.runs import run as run

_MODULE_OF = {"ProjectRun": "projects", "Run": "runs", "run": "runs", "run_projects": "projects"}
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'tl_flows' has no attribute {name!r}")
    return getattr(importlib.import_module(f"tl_flows.{_MODULE_OF[name]}"), name)
