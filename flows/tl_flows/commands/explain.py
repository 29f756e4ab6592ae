"""`tl explain`: what a model looked at in new files and texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tl_core.types import Targets

MOST = 50  # samples on a page: some 100 kB and some seconds each


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("files", nargs=-1, type=click.Path(path_type=Path), metavar="[FILE]...")
@click.option("--text", "texts", multiple=True, help="A text to explain, instead of a file; may be repeated.")
@click.option("--class", "labels", multiple=True, metavar="NAME", help="Why this class; may be repeated [predicted].")
@click.option("--column", help="Column of a table that holds the files or texts; guessed where not given.")
@click.option("--backbone", metavar="NAME", help="The backbone's weights, where they lie elsewhere than in training.")
@click.option("--out", "--output", type=click.Path(path_type=Path), default=Path("explain.html"), help="[explain.html]")
def explain(
    bundle: Path,
    files: tuple[Path, ...],
    texts: tuple[str, ...],
    labels: tuple[str, ...],
    column: str | None,
    backbone: str | None,
    out: Path,
) -> None:
    """Show what the model in BUNDLE (a run's model/ folder) looked at in files, folders, table rows or texts.

    BUNDLE may also be a name in the model registry of the project here: champion, challenger, or a version such as v3.

    Prints where it looked, and writes one HTML page with the pictures, words or sounds marked.
    """
    from tl_core.errors import UserError
    from tl_core.explain import explain as explain_one
    from tl_core.explain import failed
    from tl_core.registry import load_registry
    from tl_core.report.explanations import render_explanations
    from tl_flows import prediction_io

    if not files and not texts:
        raise UserError("nothing to explain: name files, folders or tables, or give --text TEXT")
    registry = load_registry()
    model = prediction_io.opened(bundle, registry, backbone)
    _require_classes(labels, model.targets)
    rows = prediction_io.items(files, texts, model.loader, registry.loaders(), column)
    if len(rows) > MOST:
        raise UserError(f"{len(rows):,} samples are too many for one page, which takes {MOST}; name fewer")
    samples, bad = [], 0
    for row in rows:
        found = explain_one(model, row.source, labels) if row.source is not None else failed(str(row.error))
        samples.append((row.id, found.html))
        bad += found.error is not None
        for line in [f"error: {found.error}"] if found.error else map(": ".join, zip(found.titles, found.texts)):
            click.echo(f"{row.id}  {line}")
    _write(out, render_explanations(str(model.facts["backbone"]["name"]), model.loader.modality, samples))
    click.echo(f"{len(samples):,} samples in {out}")
    if bad:
        click.echo(f"tl: {bad:,} of {len(samples):,} samples could not be explained; their error says why", err=True)


def _require_classes(labels: tuple[str, ...], targets: Targets) -> None:
    """Raises UserError that names every label which is no class of the model."""
    from tl_core.errors import UserError, did_you_mean

    if labels and not targets.classes:
        raise UserError("--class goes with models of classes; this one predicts a number")
    faults = [
        f"no class '{label}'{did_you_mean(label, targets.classes)}; the model knows {', '.join(targets.classes[:20])}"
        + (f" and {len(targets.classes) - 20:,} more" if len(targets.classes) > 20 else "")
        for label in labels
        if label not in targets.classes
    ]
    if faults:
        raise UserError("\n".join(faults))


def _write(out: Path, page: str) -> None:
    from tl_core.errors import UserError
    from tl_core.workspace import write_text

    try:
        write_text(out, page)
    except OSError as error:
        raise UserError(f"can't write {out}: {error.strerror or error}; choose another --out") from error
