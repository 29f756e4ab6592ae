"""`tl run`: the whole pipeline."""

from __future__ import annotations

from typing import Any

import click

from tl_flows.commands.options import RunOptions, run_options


@click.command()
@run_options
def run(**given: Any) -> None:
    """Version, select, extract, tune and evaluate, as one flow.

    With --data it works in any folder and writes only under --out and the user's cache. Without, it runs the stale
    stages of the DVC project it is called in; --set, --backbone and --modality then edit params.yaml.
    """
    from pathlib import Path

    from rich.console import Console

    from tl_core.config import parse_overrides
    from tl_core.errors import UserError
    from tl_flows import runs, summary
    from tl_flows.project import require_project

    options = RunOptions(**given)
    settings = parse_overrides(options.settings)
    if options.data is not None:
        config = runs.outside_config(options.data, options.modality, options.backbones, settings)
        done = runs.run_outside(config, options.folder)
    else:
        if options.out is not None:
            raise UserError("--out goes with --data; a project's outputs lie in its artifacts/ folder")
        root = require_project(Path.cwd())
        edits = settings | runs.option_edits(options.modality, options.backbones, root)
        done = runs.run_project(root, edits)
    Console().print(summary.table(done))
    click.echo(f"report: {done.report}\nmodel:  {done.model_folder}")
