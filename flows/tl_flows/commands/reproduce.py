"""`tl reproduce`: a recorded run made anew, and whether it comes out the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tl_flows.reproduction.verdict import Reproduction


@click.command()
@click.argument("run")
@click.option(
    "--tolerance", type=click.FloatRange(0.0, 1.0), default=0.01, metavar="SHARE",
    help="How far apart metrics may be, and which share of test rows may be predicted otherwise [0.01].",
)  # fmt: skip
@click.option("--keep", type=click.Path(path_type=Path), metavar="FOLDER", help="Leave the new run in this folder.")
@click.option("--stored-features", is_flag=True, help="Take features from the store, instead of computing all anew.")
@click.option("--step-hours", default=24.0, metavar="HOURS", help="End a step that takes longer [24].")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def reproduce(
    run: str, tolerance: float, keep: Path | None, stored_features: bool, step_hours: float, as_json: bool
) -> int:
    """Make RUN anew in a clean folder and compare: a version (v3, champion) or a commit (HEAD, 1a2b3c4).

    Checks out the commit's data, parameters and code, computes every step with an empty feature store, and compares
    manifest, ranking, model, predictions and metrics with what the commit recorded. The project is left alone.

    The exit code is 0 where the run is the same to the byte or within the tolerance, 3 where it differs, 2 where it
    can't be made anew here, 1 where a step failed.
    """
    from tl_flows.model_names import revision_named
    from tl_flows.project import main_worktree, require_project
    from tl_flows.reproduction.run import Asked, reproduce

    main = main_worktree(require_project(Path.cwd()))
    asked = Asked(run, revision_named(main, run), tolerance, keep, stored_features, step_hours)
    made = reproduce(main, asked)
    if as_json:
        click.echo(json.dumps(made.as_json(), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        _print(made)
    return made.exit_code


def _print(made: Reproduction) -> None:
    click.echo(f"{made.outcome}: {made.sentence}")
    for one in made.differences:
        click.echo(f"  {one.step or 'environment':<11}  {one.describe()}")
    for line in made.code:
        click.echo(f"  {'code':<11}  {line}")
    if made.outcome != "identical" and not made.code and not any(d.kind == "environment" for d in made.differences):
        click.echo("  nothing that is recorded of the environment differs")
    click.echo(f"commit {made.commit[:12]}, {made.seconds:.0f} s" + (f", {made.folder}" if made.folder else ""))
