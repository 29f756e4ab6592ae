"""Commands that only look: plugins, reports."""

from __future__ import annotations

from pathlib import Path

import click

from tl_flows.commands.tables import print_table


@click.command()
def plugins() -> None:
    """List the installed plugins, and what is wrong with one that does not load."""
    from tl_core.registry import load_registry

    found = load_registry().plugins
    print_table(("plugin", "dist", "version", "error"), [(p.name, p.dist, p.version, p.error or "") for p in found])
    if not found:
        click.echo("no plugins; install one, such as tl-text")


@click.command()
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.option("--open", "show", is_flag=True, help="Open the report in the browser.")
def report(run: Path | None, show: bool) -> None:
    """Render the report of RUN (an output folder or a project) with the seconds of each step, and say where it lies.

    Without RUN: the project that this folder lies in, else tl-run/.
    """
    from tl_core.workspace import Workspace
    from tl_flows.commands.options import DEFAULT_OUT
    from tl_flows.project import find_project
    from tl_flows.runs import render_timed

    start = run or Path.cwd()
    project = find_project(start) if run is None or not (run / "model").is_dir() else None
    folder = (project or run or Path(DEFAULT_OUT)).resolve()
    workspace = Workspace(root=folder, store=folder / ".tl", cache=folder / ".tl")
    path = render_timed(workspace, (workspace.state if project else folder) / "report.html")
    click.echo(str(path))
    if show:
        click.launch(str(path))
