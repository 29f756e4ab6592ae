"""What `tl predict` and `tl explain` read and write: files, folders, tables, texts in; aligned CSV or JSONL out."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from tl_core.bundle import ModelBundle, Prediction, read_facts
from tl_core.errors import UserError, did_you_mean
from tl_core.manifest.columns import FILE_NAMES, TEXT_NAMES
from tl_core.manifest.modality import kinds
from tl_core.manifest.tables import SUFFIXES, Table, open_table, read_table
from tl_core.registry import Registry
from tl_core.types import Loader, Source
from tl_core.workspace import write_text
from tl_flows.model_names import bundle_named

FORMATS = (".csv", ".jsonl")


@dataclass(frozen=True)
class Item:
    """One row to predict. source: None where there is nothing to read, for the reason in `error`."""

    id: str
    source: Source | None
    error: str | None = None


def opened(bundle: Path, registry: Registry, backbone: str | None) -> ModelBundle:
    """The model in a bundle or in a run's folder, or of a name in the model registry of the project here.

    Tells, on standard error, what differs from where it was trained. Raises UserError and FormatError as
    `ModelBundle.load` does, and UserError where the registry has no such model.
    """
    bundle, project = bundle_named(bundle)
    folder = bundle / "model" if (bundle / "model" / "bundle.json").is_file() else bundle
    if project is not None and backbone is None:  # weights of the project: their path is relative to it
        request = str(read_facts(folder)["backbone"]["request"])
        backbone = str(project / request) if request.startswith("./") else None
    model = ModelBundle.load(folder, registry, backbone)
    for note in model.notes:
        click.echo(f"tl: {note}", err=True)
    return model


def items(
    paths: Sequence[Path], texts: Sequence[str], loader: Loader, loaders: Sequence[Loader], column: str | None
) -> list[Item]:
    """Everything to predict, in the order given: files, folders' files by name, tables' rows, then texts.

    A file of a kind that the modality reads is a sample, also where it is a table. Raises UserError on a table
    without a usable column, an empty folder, or texts for a modality that reads files only.
    """
    readable = kinds(loader, loaders)
    found: list[Item] = []
    for path in paths:
        suffix = path.suffix.lower()
        if path.is_dir():
            found += _folder(path, readable, loader)
        elif suffix in SUFFIXES and suffix not in readable:
            found += _table(path, loader, column)
        else:
            found.append(_file(str(path), path))
    if texts and not loader.inline:
        raise UserError(f"--text goes with text models; this one reads {loader.modality} files")
    return found + [Item(f"text {number}", text) for number, text in enumerate(texts, 1)]


def predict(bundle: ModelBundle, rows: Sequence[Item]) -> list[Prediction]:
    """One prediction per item, in order; an item without a source keeps its error."""
    usable = [(item.id, item.source) for item in rows if item.source is not None]
    made = iter(bundle.predict([source for _, source in usable], [name for name, _ in usable]))
    return [next(made) if item.source is not None else Prediction(item.id, error=item.error) for item in rows]


def as_lines(predictions: Sequence[Prediction]) -> Iterator[str]:
    """Aligned columns for a terminal: id, label or value, probability, what is unusual; an error in their place."""
    cells = [_cells(p) for p in predictions]
    widths = [max((len(row[i]) for row in cells), default=0) for i in range(2)]
    for name, label, rest in cells:
        yield f"{name:<{widths[0]}}  {label:<{widths[1]}}  {rest}".rstrip()


def is_unusual(p: Prediction) -> bool:
    """Whether the source is too unlike the training rows for the prediction to be relied on."""
    return p.unusual is not None and p.unusual > 1


def write(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write predictions as CSV or JSONL, by the file's suffix. Raises UserError where it can't be written."""
    lines = _csv(predictions) if path.suffix.lower() == ".csv" else _jsonl(predictions)
    try:
        write_text(path, lines)
    except OSError as error:
        raise UserError(f"can't write {path}: {error.strerror or error}; choose another --out") from error


def require_format(path: Path) -> None:
    """Raises UserError where the file's suffix names no format that is written."""
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"can't write predictions as '{path.suffix or path.name}'; allowed: {', '.join(FORMATS)}")


def _folder(folder: Path, readable: frozenset[str], loader: Loader) -> list[Item]:
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in readable and not p.name.startswith("."))
    if not files:
        raise UserError(f"no {loader.modality} files in {folder}; read are {', '.join(sorted(readable))}")
    return [_file(str(path), path) for path in files]


def _file(name: str, path: Path) -> Item:
    return Item(name, path) if path.is_file() else Item(name, None, "missing file")


def _table(path: Path, loader: Loader, column: str | None) -> Iterator[Item]:
    table = open_table(path)
    chosen, inline = sample_column(table, loader, column)
    for block in read_table(table, [chosen]):
        for position, (number, cell) in enumerate(zip(block.numbers, block.cells[chosen])):
            name = f"{path.name}:{number}"
            if fault := block.faults.get(position):
                yield Item(name, None, fault)
            elif not isinstance(cell, str):
                yield Item(name, None, f"no value in column '{chosen}'")
            else:
                yield Item(name, cell) if inline else _file(name, path.parent / cell)


def sample_column(table: Table, loader: Loader, column: str | None) -> tuple[str, bool]:
    """(column, inline): the named one, else the first with a usual name for texts or files.

    Raises UserError where there is none.
    """
    texts = TEXT_NAMES if loader.inline else ()
    names = (column,) if column else (*texts, *FILE_NAMES)
    by_name = {c.strip().lower().replace(" ", "_").replace("-", "_"): c for c in table.columns} | {
        c: c for c in table.columns
    }
    found = next((by_name[name] for name in names if name in by_name), None)
    if found is None:
        what = f"no column '{column}'{did_you_mean(column, table.columns)}" if column else "no file or text column"
        raise UserError(f"{what} in {table.path}; name one with --column: {', '.join(table.columns)}")
    return found, loader.inline and found.strip().lower() not in FILE_NAMES


def _cells(p: Prediction) -> tuple[str, str, str]:
    if p.error is not None:
        return p.id, "-", f"error: {p.error}"
    strange = f"unusual {p.unusual:.2f}" if is_unusual(p) else ""
    if p.value is not None:
        return p.id, f"{p.value:.6g}", strange
    sure = "" if p.probability is None else f"{p.probability:.4f}"
    return p.id, p.label or "(none)", f"{sure:<6}  {strange}"


def _csv(predictions: Iterable[Prediction]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["id", "label", "probability", "value", "unusual", "error"])
    writer.writerows([p.id, p.label, p.probability, p.value, p.unusual, p.error] for p in predictions)
    return stream.getvalue()


def _jsonl(predictions: Iterable[Prediction]) -> str:
    return "".join(json.dumps(dataclasses.asdict(p), ensure_ascii=False) + "\n" for p in predictions)
