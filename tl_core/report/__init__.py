"""The report of a run, the index page of several, and the small files for `dvc plots`.

Names load on first use: what reads summaries and writes the index does without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tl_core.report.card import model_card as model_card
    from tl_core.report.compare import Comparison as Comparison
    from tl_core.report.compare import compare_runs as compare_runs
    from tl_core.report.compare_page import render_comparison as render_comparison
    from tl_core.report.compared_run import ComparedRun as ComparedRun
    from tl_core.report.facts import BackboneFacts as BackboneFacts
    from tl_core.report.facts import DataFacts as DataFacts
    from tl_core.report.facts import Example as Example
    from tl_core.report.facts import ReportFacts as ReportFacts
    from tl_core.report.facts import Sample as Sample
    from tl_core.report.index import IndexEntry as IndexEntry
    from tl_core.report.index import render_index as render_index
    from tl_core.report.page import render_report as render_report
    from tl_core.report.plot_files import write_plots as write_plots
    from tl_core.report.ranking import RankedBackbone as RankedBackbone
    from tl_core.report.ranking import Ranking as Ranking
    from tl_core.report.samples import choose_samples as choose_samples
    from tl_core.report.summary import FloorSummary as FloorSummary
    from tl_core.report.summary import RunSummary as RunSummary
    from tl_core.report.tuning import Tuning as Tuning

_HOME = {
    "card": ("model_card",),
    "compare": ("Comparison", "compare_runs"),
    "compare_page": ("render_comparison",),
    "compared_run": ("ComparedRun",),
    "facts": ("BackboneFacts", "DataFacts", "Example", "ReportFacts", "Sample"),
    "index": ("IndexEntry", "render_index"),
    "page": ("render_report",),
    "plot_files": ("write_plots",),
    "ranking": ("RankedBackbone", "Ranking"),
    "samples": ("choose_samples",),
    "summary": ("FloorSummary", "RunSummary"),
    "tuning": ("Tuning",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'tl_core.report' has no attribute {name!r}")
    return getattr(importlib.import_module(f"tl_core.report.{_MODULE_OF[name]}"), name)
