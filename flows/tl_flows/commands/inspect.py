"""Commands that only look: plugins, backbones, reports."""

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
@click.argument("modality", required=False)
@click.option("--offline", is_flag=True, help="Only those whose weights are on this machine.")
def backbones(modality: str | None, offline: bool) -> None:
    """List the catalogue of backbones, of one modality or of all. A folder with weights works too.

    The column "offline" says which need no network: their weights came with a package or were downloaded before.
    """
    from tl_core.registry import load_registry
    from tl_core.weights import weights_here

    registry = load_registry()
    if modality is not None:
        registry.loader(modality)
    listed = [(spec, weights_here(spec)) for spec in registry.backbones(modality)]
    if offline:
        listed = [(spec, here) for spec, here in listed if here]
    print_table(
        ("backbone", "modality", "parameters", "features", "weights", "licence", "pretrained on", "default", "offline"),
        [
            (
                spec.name,
                spec.modality,
                "" if spec.params is None else f"{spec.params / 1e6:.1f} M",
                "" if spec.feature_dim is None else str(spec.feature_dim),
                f"{spec.source}: {spec.location}",
                spec.licence or "",
                spec.pretrained_on or "",
                "yes" if spec.default else "",
                "yes" if here else "",
            )
            for spec, here in listed
        ],
    )
    if not listed:
        click.echo("none; `tl backbones` lists those that can be downloaded, and a folder with weights works too")


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
