"""`tl schedule`: retrains by the clock, and on new data."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("project", default=".", type=click.Path(path_type=Path))
@click.option("--cron", metavar="TEXT", help='When, in five fields: "0 3 * * *" is every night at three.')
@click.option("--timezone", default="UTC", metavar="NAME", help="Of --cron, such as Europe/Berlin [UTC].")
@click.option("--watch", type=click.FloatRange(min=0, min_open=True), metavar="MINUTES",
              help="Look at the data so often, and retrain when a change has come to rest.")  # fmt: skip
@click.option("--data", metavar="PATH", help="As in `tl retrain`; what is watched too.")
@click.option("--revision", metavar="REV", help="As in `tl retrain`.")
def schedule(
    project: Path, cron: str | None, timezone: str, watch: float | None, data: str | None, revision: str | None
) -> None:
    """Stay and retrain PROJECT by the clock (--cron), on new data (--watch), or both.

    One retrain runs at a time; one that comes due meanwhile is dropped. Runs can be started from elsewhere too:
    prefect deployment run tl-retrain/NAME, where NAME is the project's folder. A Prefect server is started on this
    machine where none runs, and ends with this command.
    """
    from tl_core.config import load_config
    from tl_core.errors import UserError
    from tl_flows.project import PARAMS, main_worktree, require_project
    from tl_flows.retraining.schedule import Schedule, serve

    if cron is None and watch is None:
        raise UserError('say when: --cron "0 3 * * *" for every night at three, --watch 5 for a look every 5 minutes')
    if watch is not None and revision is not None and data is None:
        raise UserError("--watch looks at files and --revision takes the data from git; leave one of them out")
    root = main_worktree(require_project(project))
    source = Path(data).expanduser().resolve() if data else root / load_config(root / PARAMS).data.path
    if watch is not None and not source.exists():
        raise UserError(f"nothing to watch: {source} is not there; name the data with --data PATH")
    parameters = {"folder": str(root), "data": str(source) if data else None, "revision": revision}
    serve(Schedule(root, cron, timezone, watch, parameters), source, root / ".prefect")
