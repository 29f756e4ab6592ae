"""The report of a run, and the small files for `dvc plots`."""

from __future__ import annotations

from tl_core.report.facts import BackboneFacts, DataFacts, Example, ReportFacts
from tl_core.report.page import render_report
from tl_core.report.plot_files import write_plots

__all__ = ["BackboneFacts", "DataFacts", "Example", "ReportFacts", "render_report", "write_plots"]
