"""`tl run`: the whole pipeline, of one project or of several."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tl_flows.commands.options import RunOptions, run_options

INDEX = Path("artifacts", "index.html")


@click.command()
@click.argument("projects", nargs=-1, metavar="[PROJECT]...")
@run_options
def run(projects: tuple[str, ...], **given: Any) -> int:
    """Version, select, extract, tune and evaluate, as one flow.

    With --data it works in any folder and writes only under --out and the user's cache. Without, it runs the stale
    stages of the DVC project PROJECT, or the one it is called in; --set, --backbone and --modality then edit
    params.yaml.

    Several projects run one after the other, one that fails does not stop the others, and a page over all of them is
    written to artifacts/index.html here.
    """
    from tl_core.config import parse_overrides
    from tl_core.errors import UserError

    options = RunOptions(**given)
    settings = parse_overrides(options.settings)
    if options.data is not None and projects:
        raise UserError("--data is for a run outside of any project; give either --data or PROJECT")
    if options.data is None and options.out is not None:
        raise UserError("--out goes with --data; a project's outputs lie in its artifacts/ folder")
    if len(projects) > 1:
        if options.modality is not None or options.backbones:
            raise UserError("--modality and --backbone go with one project; --set changes a value in each of several")
        return _run_several(projects, settings)
    _run_one(options, settings, projects)
    return 0


def _run_one(options: RunOptions, settings: Mapping[str, Any], projects: tuple[str, ...]) -> None:
    from tl_flows import runs, summary
    from tl_flows.project import named_projects, require_project

    if options.data is not None:
        config = runs.outside_config(options.data, options.modality, options.backbones, settings)
        done = runs.run_outside(config, options.folder)
    else:
        (root,) = named_projects(projects) if projects else [require_project(Path.cwd())]
        edits = {**settings, **runs.option_edits(options.modality, options.backbones, root)}
        done = runs.run_project(root, edits)
    summary.draw(summary.table(done))
    told = done.summary()
    backbone = ", ".join(filter(None, (told.backbone, told.choice)))
    click.echo(f"backbone: {backbone}\nmeaning:  {told.meaning}")
    click.echo(f"report:   {done.report}\nmodel:    {done.model_folder}")


def _run_several(projects: tuple[str, ...], settings: Mapping[str, Any]) -> int:
    from tl_flows import faults, summary
    from tl_flows.projects import run_projects, write_index

    done = run_projects(projects, settings=settings)
    summary.draw(summary.projects_table(done))
    for project in done:
        if project.run is not None:
            click.echo(f"report of {project.name}: {project.run.report}")
    click.echo(f"index: {write_index(done, Path.cwd() / INDEX)}")
    debug = bool(click.get_current_context().find_root().params.get("debug"))
    failed = [(project.name, project.error) for project in done if project.error is not None]
    return min((faults.tell(error, debug=debug, where=f"{name}: ") for name, error in failed), default=0)
