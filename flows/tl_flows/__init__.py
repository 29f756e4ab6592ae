"""The application: flows, data versioning and the `tl` command. Names load on first use: importing is cheap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tl_flows.runs import Run as Run
    from tl_flows.runs import run as run

__all__ = ["Run", "run"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'tl_flows' has no attribute {name!r}")
    from tl_flows import runs

    return getattr(runs, name)
