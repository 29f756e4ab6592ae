"""`tl predict`: labels for new files and texts."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("files", nargs=-1, type=click.Path(path_type=Path), metavar="[FILE]...")
@click.option("--text", "texts", multiple=True, help="A text to label, instead of a file; may be repeated.")
@click.option("--column", help="Column of a table that holds the files or texts; guessed where not given.")
@click.option("--backbone", metavar="NAME", help="The backbone's weights, where they lie elsewhere than in training.")
@click.option("--out", type=click.Path(path_type=Path), help="Write FILE.csv or FILE.jsonl instead of printing.")
def predict(
    bundle: Path,
    files: tuple[Path, ...],
    texts: tuple[str, ...],
    column: str | None,
    backbone: str | None,
    out: Path | None,
) -> None:
    """Label files, folders, the rows of tables, or texts with the model in BUNDLE (a run's model/ folder).

    BUNDLE may also be a name in the model registry of the project here: champion, challenger, or a version such as v3.

    Rows keep the order of the input; one that can't be used gets its error. One that is unlike the training data is
    marked with how unusual it is: 1 is the distance that 95% of rows like the validation rows lie within.
    """
    from tl_core.errors import UserError
    from tl_core.registry import load_registry
    from tl_flows import prediction_io

    if out is not None:
        prediction_io.require_format(out)
    if not files and not texts:
        raise UserError("nothing to predict: name files, folders or tables, or give --text TEXT")
    registry = load_registry()
    model = prediction_io.opened(bundle, registry, backbone)
    rows = prediction_io.items(files, texts, model.loader, registry.loaders(), column)
    predictions = prediction_io.predict(model, rows)
    if out is not None:
        prediction_io.write(out, predictions)
        click.echo(f"{len(predictions):,} predictions in {out}")
    else:
        for line in prediction_io.as_lines(predictions):
            click.echo(line)
    strange = sum(prediction_io.is_unusual(p) for p in predictions)
    if strange:
        click.echo(
            f"tl: {strange:,} of {len(predictions):,} rows are unlike the training data (unusual above 1); "
            "don't rely on what the model says of them",
            err=True,
        )
    bad = sum(p.error is not None for p in predictions)
    if bad:
        click.echo(f"tl: {bad:,} of {len(predictions):,} rows could not be used; their error says why", err=True)
