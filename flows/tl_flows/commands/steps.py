"""One command per step, run in this process: DVC's stages call these, and so may a user."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from tl_flows.commands.options import RunOptions, run_options

if TYPE_CHECKING:
    from tl_core.workspace import Workspace


@click.command()
@run_options
def version(**given: Any) -> None:
    """Scan the data: digests, splits, what changed, and which samples are unusable."""
    _run("version", RunOptions(**given))


@click.command()
@run_options
def select(**given: Any) -> None:
    """Rank the candidate backbones on a sample of the training rows."""
    _run("select", RunOptions(**given))


@click.command()
@run_options
def extract(**given: Any) -> None:
    """Compute the features that the store lacks."""
    _run("extract", RunOptions(**given))


@click.command()
@run_options
def tune(**given: Any) -> None:
    """Train the head, and the top of the backbone where asked."""
    _run("tune", RunOptions(**given))


@click.command()
@run_options
def evaluate(**given: Any) -> None:
    """Measure the model on the test rows, beside both floors."""
    _run("evaluate", RunOptions(**given))


def _run(step: str, options: RunOptions) -> None:
    from pathlib import Path

    from tl_core.config import load_config, parse_overrides
    from tl_core.errors import UserError
    from tl_flows.project import PARAMS, outside_workspace, project_workspace, require_project, sole_run
    from tl_flows.runs import outside_config
    from tl_flows.stage_process import end_with_owner

    end_with_owner()
    settings = parse_overrides(options.settings)
    if options.data is not None:
        from contextlib import nullcontext

        from tl_core.registry import load_registry
        from tl_flows.steps import run_step

        config = outside_config(options.data, options.modality, options.backbones, settings)
        workspace = outside_workspace(options.folder, config)
        # processes that train together are one run: the first of them holds the folder
        with sole_run(options.folder) if _rank() == 0 else nullcontext():
            outputs = run_step(step, config, load_registry(), workspace)
    else:
        if options.out or options.modality or options.backbones or options.settings:
            raise UserError(
                f"in a project `tl {step}` reads {PARAMS} and takes no options; edit that file, use "
                f"`tl run --set key=value`, or give --data for a run outside of the project"
            )
        root = require_project(Path.cwd())
        config = load_config(root / PARAMS)
        from tl_core.registry import load_registry
        from tl_flows.steps import run_project_step

        workspace = project_workspace(root, config)
        outputs = run_project_step(step, config, load_registry(), workspace)
    if _rank() > 0:
        return
    for line in _told(step, outputs, workspace):
        click.echo(line)
    for note in outputs.get("notes", ()):
        click.echo(f"  - {note}")


def _rank() -> int:
    """Which of the processes that `accelerate launch` started together this is; 0 where it is alone."""
    return int(os.environ.get("RANK", "0"))


def _told(step: str, outputs: Mapping[str, Any], workspace: Workspace) -> list[str]:
    """What came out in a line; of select after the table of the candidates."""
    from tl_flows.summary import describe, draw

    if step != "select":
        return [f"{step}: {describe(step, outputs)}"]
    from tl_core.report import Ranking
    from tl_flows.ranking_table import ranking_lines, ranking_table

    ranking = Ranking.load(workspace.ranking)
    if len(ranking.measured) > 1:
        draw(ranking_table(ranking))
    *lines, chosen = ranking_lines(ranking)
    return [*lines, f"{chosen}  [{outputs['seconds']:.1f} s]"]
