"""`tl bundle-offline` and `tl restore-offline`: a project for a machine without network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tl_flows.offline.making import Models


@click.command("bundle-offline")
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("project", default=".", type=click.Path(path_type=Path))
@click.option("--models", type=click.Choice(["champion", "all", "none"]), default="champion", show_default=True,
              help="Which versions of the registry travel.")  # fmt: skip
@click.option("--features", is_flag=True, help="The feature store too, so that nothing is computed again.")
def bundle_offline(out: Path, project: Path, models: Models, features: bool) -> None:
    """Collect all that PROJECT needs on a machine without network in OUT: a folder, or a tar where it ends with .tar.

    The repository with its tags, the data, models, and weights, configurations and tokenizers of the backbones. What
    is committed travels. `tl restore-offline` makes a project of it there.
    """
    from tl_flows.offline import make
    from tl_flows.project import require_project

    done = make(require_project(project), out, models=models, features=features)
    for note in done.notes:
        click.echo(f"tl: {note}", err=True)
    named = ", ".join(done.contents.versions) or "no version of the model"
    click.echo(f"{done.out}: {len(done.contents.files):,} files, {done.size / 1e6:,.1f} MB, with {named}")
    click.echo(f"on the other machine: tl restore-offline {done.out.name} {done.contents.name}")


@click.command("restore-offline")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
def restore_offline(bundle: Path, folder: Path) -> None:
    """Make the project of BUNDLE, which `tl bundle-offline` wrote, in FOLDER. Needs no network.

    Every file is verified first. Weights of the hub are put into its cache here (HF_HOME).
    """
    from tl_flows.offline import restore

    done = restore(bundle, folder)
    for note in done.notes:
        click.echo(f"tl: {note}", err=True)
    click.echo(f"{done.project}: at commit {done.contents.commit[:12]}, champion {done.contents.champion or 'none'}")
    if done.hub is not None:
        click.echo(f"weights of the hub: {done.hub}; set HF_HUB_OFFLINE=1, so that nothing waits for a network")
