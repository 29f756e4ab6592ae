"""Export and import: rows of some spaces as one Arrow IPC file, from one machine's store to another's.

The file is a table of its own right (space, digest, row, crc, flags, engine); what the numbers in `space` and
`engine` stand for is JSON in the schema's metadata, under `tl_features`.
"""

from __future__ import annotations

import json
import os
import uuid
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tl_core.errors import FormatError, UserError
from tl_core.store.reading import MissingRows, chunks
from tl_core.store.rows import sound_rows
from tl_core.store.shards import Made, digest_of, keys_of, made_by, shard_sizes
from tl_core.store.spaces import Space, SpaceFacts, facts_as_json, facts_from, open_space, sync_folder
from tl_core.store.survey import folder_size
from tl_core.store.writing import FULL, BytesWriter, StoreFull

if TYPE_CHECKING:
    import pyarrow as pa

    from tl_core.store.features import FeatureStore

EXPORT_VERSION = 1
_METADATA = b"tl_features"


@dataclass(frozen=True)
class ExportResult:
    """What an export wrote. bytes: of the file; damaged: digests left out because their rows do not read well."""

    rows: int
    bytes: int
    damaged: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImportResult:
    """What an import did. present: rows that the store held already; damaged: digests of rows that it refused."""

    added: int
    present: int
    damaged: tuple[str, ...] = ()


def export_rows(
    store: FeatureStore, path: Path, selections: Sequence[tuple[Space, Sequence[str] | None]]
) -> ExportResult:
    """FeatureStore.export()."""
    import pyarrow as pa

    facts = [_facts_of(store, space) for space, _ in selections]
    asked = [store.digests(space) if digests is None else sorted(set(digests)) for space, digests in selections]
    sizes = [store.records(space, digests)["size"] for (space, _), digests in zip(selections, asked)]
    # last: shards with another header that come while rows are looked up may hold some of them
    folders = {space.folder(store.root) for space, _ in selections}
    headers = {made_by(folder, name).json for folder in folders for name in shard_sizes(folder)}
    engines = {header: number for number, header in enumerate(sorted(headers))}
    about = {
        "format_version": EXPORT_VERSION,
        "spaces": [facts_as_json(one) for one in facts],
        "engines": [json.loads(header) for header in engines],
    }
    schema = _schema().with_metadata({_METADATA: json.dumps(about, sort_keys=True).encode()})
    rows, damaged = 0, list[str]()
    with (
        _whole_file(path, sum(int(each.sum()) + 33 * len(each) for each in sizes)) as part,
        part.open("xb") as stream,
        pa.ipc.new_file(stream, schema) as writer,
    ):
        for number, (space, only) in enumerate(selections):
            for which in chunks(sizes[number]):
                batch, lost = _batch(store, space, number, asked[number][which], only is None, engines, schema)
                writer.write_batch(batch)
                rows += len(batch)
                damaged += lost
    return ExportResult(rows, path.stat().st_size, tuple(damaged))


def import_rows(store: FeatureStore, path: Path) -> ImportResult:
    """FeatureStore.import_()."""
    import pyarrow as pa

    with ExitStack() as stack:
        with _read(path):
            reader = pa.ipc.open_file(stack.enter_context(pa.memory_map(str(path))))
            spaces, engines = _about(path, reader.schema)
        _refuse_misfits(store, path, spaces)
        intake, numbers = _Intake(store, stack), range(reader.num_record_batches)
        for number in numbers:
            with _read(path):
                batch = _Batch(reader.get_batch(number), len(spaces), len(engines))
            try:
                for (space, engine), at in batch.groups():
                    intake.take(spaces[space], engines[engine], batch, at)
            except StoreFull:
                rest = sum(reader.get_batch(n).num_rows for n in numbers) - intake.seen
                raise StoreFull(store.root, intake.added, rest) from None
    return ImportResult(intake.added, intake.present, tuple(intake.damaged))


class _Intake:
    """Rows from a file on their way into the store; a writer a space and engine."""

    def __init__(self, store: FeatureStore, stack: ExitStack) -> None:
        self._store = store
        self._stack = stack
        self._writers: dict[tuple[Space, str], BytesWriter] = {}
        self.added = self.present = 0
        self.damaged: list[str] = []

    @property
    def seen(self) -> int:
        return self.added + self.present + len(self.damaged)

    def take(self, facts: SpaceFacts, made: Made, batch: _Batch, at: np.ndarray) -> None:
        """Store the rows at these places in the batch, those that are whole and new."""
        digests, rows = batch.digests(at), batch.rows(at)
        whole = _checks(digests, batch.flags[at], rows) == batch.crc[at]
        whole[whole] = sound_rows(facts, [row for row, ok in zip(rows, whole) if ok])
        new = whole & ~self._store.present(facts.space, digests)
        chosen = np.flatnonzero(new).tolist()
        if chosen:
            key = (facts.space, made.json)
            if key not in self._writers:
                self._writers[key] = self._stack.enter_context(BytesWriter(self._store.root, facts, made))
            names, data = [digests[i] for i in chosen], [rows[i] for i in chosen]
            self._writers[key].append(names, data, batch.flags[at[chosen]])
        self.added += len(chosen)
        self.present += int(np.count_nonzero(whole & ~new))
        self.damaged += [digest for digest, ok in zip(digests, whole) if not ok]


class _Batch:
    """A record batch of a file from elsewhere, as arrays. Raises ValueError where it is not sound in itself."""

    def __init__(self, batch: pa.RecordBatch, spaces: int, engines: int) -> None:
        batch.validate(full=True)
        if any(column.null_count for column in batch.columns):
            raise ValueError("values that are missing")
        digest = batch.column("digest")
        self._keys = np.frombuffer(digest.buffers()[1], "S16", len(digest), 16 * digest.offset)
        self._rows = batch.column("row")
        self.crc: np.ndarray = batch.column("crc").to_numpy()
        self.flags: np.ndarray = batch.column("flags").to_numpy()
        self._of = np.stack([batch.column(name).to_numpy() for name in ("space", "engine")], axis=1)  # [N, 2]
        if len(self._of) and not (self._of.min() >= 0 and (self._of.max(axis=0) < (spaces, engines)).all()):
            raise ValueError("spaces or engines that the file does not name")

    def groups(self) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
        """((space, engine), indices of the rows of both), each digest once."""
        for space, engine in np.unique(self._of, axis=0).tolist():
            at = np.flatnonzero((self._of == (space, engine)).all(axis=1))
            yield (space, engine), at[np.unique(self._keys[at], return_index=True)[1]]

    def digests(self, at: np.ndarray) -> list[str]:
        return [digest_of(key) for key in self._keys[at].tolist()]

    def rows(self, at: np.ndarray) -> list[bytes]:
        return [self._rows[i].as_py() for i in at.tolist()]


def _facts_of(store: FeatureStore, space: Space) -> SpaceFacts:
    facts = open_space(space.folder(store.root), space)
    if facts is None:
        raise UserError(
            f"the feature store {store.root} has no features of backbone {space.fingerprint[:16]} at {space.cut} in "
            f"{space.precision}; `tl cache info` lists what it has"
        )
    return facts


def _batch(
    store: FeatureStore,
    space: Space,
    number: int,
    digests: Sequence[str],
    forgiven: bool,
    engines: dict[str, int],
    schema: pa.Schema,
) -> tuple[pa.RecordBatch, list[str]]:
    """Rows of one space as a record batch, and the digests of those that do not read well (raised if not forgiven)."""
    import pyarrow as pa

    lost: list[str] = []
    while True:
        try:
            rows, records, made = store.read_raw(space, digests)
            break
        except MissingRows as missing:
            if not forgiven:
                raise
            gone = set(missing.digests)
            lost += sorted(gone)
            digests = [digest for digest in digests if digest not in gone]
    n = len(rows)
    columns = [
        pa.array(np.full(n, number, np.int32)),
        pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), n, [None, pa.py_buffer(keys_of(digests).tobytes())]),
        pa.array(rows, pa.large_binary()),
        pa.array(_checks(digests, records["flags"], rows)),
        pa.array(np.ascontiguousarray(records["flags"])),
        pa.array([engines[one.json] for one in made], pa.int32()),
    ]
    return pa.record_batch(columns, schema=schema), lost


def _checks(digests: Sequence[str], flags: np.ndarray, rows: Sequence[bytes]) -> np.ndarray:
    """crc32 over digest, flags and bytes of each row, uint32 [N]: none of them may change on the way."""
    heads = (zlib.crc32(bytes.fromhex(digest) + bytes([flag])) for digest, flag in zip(digests, flags.tolist()))
    return np.fromiter(map(zlib.crc32, rows, heads), np.uint32, len(rows))


def _schema() -> pa.Schema:
    import pyarrow as pa

    fields = {
        "space": pa.int32(),
        "digest": pa.binary(16),
        "row": pa.large_binary(),
        "crc": pa.uint32(),
        "flags": pa.uint8(),
        "engine": pa.int32(),
    }
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in fields.items()])


def _about(path: Path, schema: pa.Schema) -> tuple[list[SpaceFacts], list[Made]]:
    """What the file's numbers for spaces and engines stand for. Raises ValueError, TypeError or KeyError."""
    about = json.loads((schema.metadata or {})[_METADATA])
    version = int(about["format_version"])
    if version > EXPORT_VERSION:
        raise FormatError(
            f"{path} is of format version {version}, this tl reads up to {EXPORT_VERSION}; upgrade tl here, or export "
            "with this version there"
        )
    if not schema.equals(_schema()):
        raise ValueError(f"columns {schema.names}")
    engines = [Made(str(e["engine"]), {str(k): str(v) for k, v in e["made"].items()}) for e in about["engines"]]
    spaces = [facts_from(facts) for facts in about["spaces"]]
    if len({facts.space for facts in spaces}) < len(set(spaces)):
        raise ValueError("one space with rows of two kinds")
    return spaces, engines


def _refuse_misfits(store: FeatureStore, path: Path, spaces: Sequence[SpaceFacts]) -> None:
    """Raise UserError where the store holds rows of another shape or dtype, before anything is written."""
    for facts in spaces:
        held = open_space(facts.space.folder(store.root), facts.space)
        if held is not None and held != facts:
            raise UserError(
                f"{path} has rows of {facts.dtype} {facts.shape}, the store's {facts.space.folder(store.root)} those "
                f"of {held.dtype} {held.shape}; set store.path to another folder"
            )


@contextmanager
def _read(path: Path) -> Iterator[None]:
    """Say that a file is no export, or none any more."""
    import pyarrow as pa

    try:
        yield
    except FormatError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path} is not there; name a file that `tl cache export` wrote") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, pa.ArrowException) as error:
        raise UserError(
            f"{path} is no file of exported features, or was cut off or changed on its way; copy it again, or write "
            "it anew with `tl cache export`"
        ) from error


@contextmanager
def _whole_file(path: Path, size: int) -> Iterator[Path]:
    """A path to write about so many bytes to; the file appears under its name once it is on the disk, or not at all."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield part
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        part.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        if error.errno in FULL:
            lacking = max(0, size - folder_size(part)) / 1e6
            raise UserError(
                f"the disk of {path} is full: {lacking:,.1f} of {size / 1e6:,.1f} MB did not fit, and nothing is left "
                "of the file; free some space or name one on another disk"
            ) from error
        raise UserError(f"can't write {path}: {error.strerror}; name a file in a folder that can be written") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
