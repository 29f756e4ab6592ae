"""Which column of a table means what: the user's word, else usual names, else what the cells look like."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from tl_core.config import DataConfig
from tl_core.errors import UserError, did_you_mean
from tl_core.manifest.modality import kinds, suffix_of
from tl_core.manifest.tables import Table
from tl_core.types import Loader

FILE_NAMES = (
    "file", "file_name", "filename", "path", "file_path", "filepath", "image", "image_path", "img", "img_path",
    "audio", "audio_path", "audio_file", "wav",
)  # fmt: skip
TEXT_NAMES = (
    "text", "sentence", "message", "review", "content", "utterance", "body", "document", "comment", "tweet",
    "question", "query", "description", "headline", "title",
)  # fmt: skip
LABEL_NAMES = (
    "label", "labels", "class", "class_name", "category", "categories", "target", "intent", "sentiment", "topic",
    "tag", "tags", "emotion", "genre", "species", "diagnosis", "rating", "score", "y",
)  # fmt: skip
SPLIT_COLUMNS = ("split", "subset", "partition")
MULTILABEL_NAMES = ("labels", "tags")


@dataclass(frozen=True)
class Columns:
    """The columns that are read.

    sample: holds paths, or (inline) the samples themselves; attributes: only kept, to compare results by.
    """

    sample: str
    inline: bool
    label: str
    split: str | None
    group: str | None
    notes: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()

    @property
    def read(self) -> list[str]:
        """Names of the columns, each once."""
        named = (self.sample, self.label, self.split, self.group, *self.attributes)
        return list(dict.fromkeys(name for name in named if name is not None))


def choose_columns(
    table: Table, data: DataConfig, loaders: Sequence[Loader], loader: Loader | None, split_named: bool
) -> Columns:
    """What the columns mean. loader: the user's modality, None where it is to be guessed.

    split_named: the table's name says its split, so that a split column counts only where the user names one.
    Raises UserError with every fault: columns that are not there, no label column, no sample column.
    """
    _require_named(table, data)
    notes: list[str] = []
    # attributes stay free: to compare results by a column must not change what else it is taken for
    taken = {name for name in (data.file, data.text, data.label, data.split, data.group) if name}
    free = [name for name in table.columns if name not in taken]

    split = data.split
    if split is None and not split_named:
        split = _by_name(SPLIT_COLUMNS, free)
        if split:
            notes.append(f"split column '{split}' (guessed; data.split sets it)")
            free.remove(split)
    label = data.label or _by_name(LABEL_NAMES, free)
    if label in free:
        free.remove(label)
    sample, inline, guessed = _sample_column(table, data, free, loaders, loader)
    if guessed and sample:
        notes.append(f"{'text' if inline else 'file'} column '{sample}' "
                     f"(guessed; data.{'text' if inline else 'file'} sets it)")  # fmt: skip
    if label is None and sample is not None:
        rest = [name for name in free if name != sample]
        label = rest[0] if len(rest) == 1 else None  # a table of two columns: the other one
    if data.label is None and label is not None:
        notes.append(f"label column '{label}' (guessed; data.label sets it)")

    faults = []
    if sample is None:
        wanted = "file or text" if loader is None else "text" if loader.inline else "file"
        keys = " or ".join(f"data.{kind}" for kind in wanted.split(" or "))
        faults.append(f"no {wanted} column found in {table.path}; set {keys} to one of: {_list(table.columns)}")
    if label is None:
        faults.append(f"no label column found in {table.path}; set data.label to one of: {_list(table.columns)}"
                      " (does the table have a header?)")  # fmt: skip
    if faults or sample is None or label is None:
        raise UserError("\n".join(faults))
    attributes = tuple(dict.fromkeys(data.attributes))
    return Columns(sample, inline, label, split, data.group, tuple(notes), attributes)


def require_columns(table: Table, columns: Columns) -> None:
    """Raises UserError where a further table of the same data lacks one of the columns."""
    missing = [name for name in columns.read if name not in table.columns]
    if missing:
        names = ", ".join(f"'{name}'" for name in missing)
        raise UserError(f"no column {names} in {table.path}; columns: {_list(table.columns)}")


def named_columns(data: DataConfig) -> list[tuple[str, str]]:
    """The columns that the config names, each with its config key."""
    keys = ("file", "text", "label", "split", "group")
    named = [(f"data.{key}", name) for key in keys if (name := getattr(data, key))]
    return [*named, *(("data.attributes", name) for name in dict.fromkeys(data.attributes))]


def _require_named(table: Table, data: DataConfig) -> None:
    faults = [
        f"{key}: no column '{name}' in {table.path}{did_you_mean(name, table.columns) or ';'} "
        f"columns: {_list(table.columns)}"
        for key, name in named_columns(data)
        if name not in table.columns
    ]
    if data.file and data.text:
        faults.append(f"data.file '{data.file}' and data.text '{data.text}' are both set; a sample is one of them")
    if faults:
        raise UserError("\n".join(faults))


def _sample_column(
    table: Table, data: DataConfig, free: Sequence[str], loaders: Sequence[Loader], loader: Loader | None
) -> tuple[str | None, bool, bool]:
    """(column, inline, guessed) of the samples."""
    if data.file or data.text:
        return data.file or data.text, data.text is not None, False
    served = [loader] if loader else list(loaders)
    claimed = {kind for item in served for kind in kinds(item, loaders)}

    def names_files(column: str) -> bool:
        cells = _texts(table, column)
        return bool(cells) and sum(suffix_of(cell) in claimed for cell in cells) > len(cells) / 2

    def holds_files(column: str) -> bool:
        there = (table.path.parent / cell for cell in _texts(table, column)[:20] if len(cell) < 1000)
        return names_files(column) and any(path.is_file() for path in there)

    inline = any(item.inline for item in served)
    file = _by_name(FILE_NAMES, free, names_files) or next(filter(holds_files, free), None)
    text = _by_name(TEXT_NAMES, free) if inline else None
    if text and (file is None or loader):  # the user asked for texts: not for the files that they belong to
        return text, True, True
    # a file column whose cells name no file that is read: the scan says so of each row
    file = file or _by_name(FILE_NAMES, free)
    if file or not inline:
        return file, False, True
    return _longest(table, free), True, True


def _by_name(names: Sequence[str], columns: Sequence[str], fits: Callable[[str], bool] = lambda _: True) -> str | None:
    """The first column, in the order of `names`, that has a usual name."""
    plain = {column: column.strip().lower().replace(" ", "_").replace("-", "_") for column in columns}
    return next((c for name in names for c in columns if plain[c] == name and fits(c)), None)


def _longest(table: Table, columns: Sequence[str]) -> str | None:
    """The column with the longest texts on average, None where all columns are numbers."""
    texts = {column: [t for t in _texts(table, column) if not _is_number(t)] for column in columns}
    lengths = {column: fmean(map(len, cells)) for column, cells in texts.items() if cells}
    return max(lengths, key=lengths.__getitem__, default=None)


def _texts(table: Table, column: str) -> list[str]:
    return [cell for cell in table.head.cells.get(column, ()) if isinstance(cell, str) and cell.strip()]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _list(columns: Sequence[str]) -> str:
    return ", ".join(columns) or "none"
