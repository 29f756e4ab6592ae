"""`tl retrain`: new data in, a better model out, or the reason why not."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("project", default=".", type=click.Path(path_type=Path))
@click.option("--data", metavar="PATH", help="Folder or table whose content becomes the data [the project's own].")
@click.option("--revision", metavar="REV", help="Commit whose code, parameters and data are used; origin/main is "
              "fetched first [the last commit here, with the data as they lie here].")  # fmt: skip
@click.option("--wait", default=0.0, metavar="MINUTES", help="Stand in the queue where another retrain runs [0].")
@click.option("--step-hours", default=24.0, metavar="HOURS", help="End a step that takes longer [24].")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def retrain(
    project: Path, data: str | None, revision: str | None, wait: float, step_hours: float, as_json: bool
) -> int:
    """Retrain PROJECT on its newest data, and promote the new model only where it is better than the champion.

    Works in a git worktree of its own (.tl/retrain): the files here and the model that serves are left alone.

    The exit code is 0 where a model was promoted or nothing is new, 3 where the gate refused it, 1 or 2 where the
    retrain failed.
    """
    from tl_flows.project import main_worktree, require_project
    from tl_flows.runs import project_session

    root = main_worktree(require_project(project))
    given = str(Path(data).expanduser().resolve()) if data is not None else None
    outcome = project_session(root).retrain(root, given, revision, step_hours, wait)
    if as_json:
        click.echo(json.dumps(outcome.as_json(), indent=2, ensure_ascii=False))
        return outcome.exit_code
    click.echo(f"{outcome.state}: {outcome.reason}")
    if outcome.made_good:
        click.echo(f"before that: {outcome.made_good}")
    if outcome.decision:
        from tl_flows.commands.tables import print_table

        click.echo()
        rules = outcome.decision["rules"]
        names = [(rule["name"], rule["state"]) for rule in rules]
        print_table(("rule", "verdict"), names, below=[rule["text"] for rule in rules])
        for warning in outcome.decision["warnings"]:
            click.echo(f"- {warning}")
    if outcome.version:
        click.echo(f"version:  {outcome.version}; {outcome.champion or 'no model'} serves")
    if outcome.folder:
        if (page := Path(outcome.folder, "decision.html")).is_file():
            click.echo(f"decision: {page}")
        click.echo(f"report:   {outcome.folder}/report.html")
    return outcome.exit_code
