"""`tl report`: the page of a finished run, made anew from its report.json."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import click


@click.command()
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Where the page goes [where `tl run` puts it].")  # fmt: skip
@click.option("--open", "show", is_flag=True, help="Open the report in the browser.")
def report(run: Path | None, output: Path | None, show: bool) -> None:
    """Render the report of RUN with the seconds of each step, and print its verdicts and where it lies.

    RUN is a project, an output folder of `tl run --data` or an artifacts folder; without it the project that this
    folder lies in, else tl-run/. It may also be a name in the model registry of the project here: champion, challenger,
    or a version such as v3.
    """
    from tl_core.workspace import Workspace
    from tl_flows.runs import render_timed

    with TemporaryDirectory(prefix="tl-report-") as scratch:
        folder, target = _registered(run, Path(scratch)) or _places(run)
        workspace = Workspace(root=folder, store=folder / ".tl", cache=folder / ".tl")
        path = render_timed(workspace, output.resolve() if output else target)
        for line in _said(workspace.step("evaluate") / "report.json"):
            click.echo(line)
    click.echo(str(path))
    if show:
        click.launch(str(path))


def _registered(run: Path | None, scratch: Path) -> tuple[Path, Path] | None:
    """The same for a name in the model registry: `scratch` with what its commit holds; None where it is no such name.

    A path that exists wins, which is said.
    """
    from tl_flows.model_names import is_name, require_here, say_path_wins, version_named

    if run is None or not is_name(str(run)):
        return None
    if run.exists():
        say_path_wins(run)
        return None
    from tl_flows.version_facts import REPORT
    from tl_flows.versioning import outputs_at

    project = require_here(str(run))
    version = version_named(project, str(run))
    outputs_at(project, version.commit, [REPORT], scratch)
    return scratch, project / ".tl" / f"report-{version.name}.html"


def _places(run: Path | None) -> tuple[Path, Path]:
    """The folder that holds the run's artifacts, and where its report belongs."""
    from tl_flows.commands.options import DEFAULT_OUT
    from tl_flows.project import find_project

    if run is not None and (run / "evaluate").is_dir() and run.resolve().name == "artifacts":
        run = run.resolve().parent
    outside = run is not None and (run / "model").is_dir()
    project = None if outside else find_project(run or Path.cwd())
    folder = (project or run or Path(DEFAULT_OUT)).resolve()
    return folder, folder / ".tl" / "report.html" if project else folder / "report.html"


def _said(facts: Path) -> list[str]:
    """The verdicts, and what to do next, as lines."""
    from tl_core.report import ReportFacts
    from tl_core.report.actions import actions
    from tl_core.report.verdicts import verdicts

    found = ReportFacts.load(facts)
    said = verdicts(found.evaluation, found.strategy, found.tuning, found.diagnostics)
    lines = [f"{one.topic}: {one.word}. {one.text}" for one in said]
    next_ = [f"  {i}. {a.title}{f' ({a.key})' if a.key else ''}: {a.why}" for i, a in enumerate(actions(found), 1)]
    return [*lines, *(["What to do next:", *next_] if next_ else [])]
