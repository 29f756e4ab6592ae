"""`tl init`: a project around the user's data."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("data", required=False, type=click.Path(path_type=Path))
@click.option("--no-git", is_flag=True, help="Make a project without a git repository: no history, no experiments.")
def init(data: Path | None, no_git: bool) -> None:
    """Make this folder a DVC project: params.yaml, dvc.yaml, .gitignore, and DATA tracked. Nothing is overwritten."""
    from tl_flows.scaffold import init_project

    for line in init_project(Path.cwd().resolve(), data, git=not no_git):
        click.echo(line)
