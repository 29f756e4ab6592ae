"""The feature store beside other formats: write, read, append and look up rows of features.

    python -m benchmarks.store_formats [--rows 1000000] [--dim 768] [--repeats 3] [--folder FOLDER]

Needs about ten times the rows' bytes on the disk of FOLDER (a temporary folder by default). Formats whose packages
are not installed (pylance, zarr, lmdb) are named as missing. Repeats are interleaved over the formats; medians count.
Results: benchmarks/results/store_formats.{json,md}.

Only the store checks what it reads (a CRC-32 a row) and finds rows by digest on its own. To the arrays, which know
rows by number, an array of the keys is added; it is loaded and sorted to look digests up, and random reads are given
the rows' numbers.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import statistics
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from benchmarks.end_to_end import RESULTS, machine
from tl_core.store import FeatureStore, Space

PART = 65536  # rows that are written and read at a time
TAKEN = 10_000  # rows of the random read


class Format(ABC):
    """Rows of features in a folder. name: in the tables; package: what it needs besides our own dependencies."""

    name: ClassVar[str]
    package: ClassVar[str | None] = None

    def __init__(self, folder: Path, dim: int) -> None:
        self.folder = folder
        self.dim = dim

    @abstractmethod
    def write(self, keys: np.ndarray, rows: np.ndarray) -> None:
        """Store rows float16 [N, D] under keys S16 [N]; also used to append."""

    @abstractmethod
    def scan(self) -> Iterator[np.ndarray]:
        """All rows in the order written, some at a time."""

    @abstractmethod
    def take(self, keys: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """The rows of these keys, which have these numbers, in this order."""

    def find(self, keys: np.ndarray) -> int:
        """How many of the keys are there; by default through a sorted array of them."""
        known = np.concatenate([np.load(path) for path in sorted(self.folder.glob("*.keys.npy"))])
        halves, asked = known.view(np.uint64).reshape(-1, 2), keys.view(np.uint64).reshape(-1, 2)
        order, by = np.argsort(halves[:, 0]), np.argsort(asked[:, 0])
        at = np.searchsorted(halves[order, 0], asked[by, 0])
        at[at == len(known)] = 0
        return int((halves[order[at]] == asked[by]).all(axis=1).sum())

    def part(self) -> int:
        """Number of the next file."""
        return len(list(self.folder.glob("*.keys.npy")))

    def keep_keys(self, keys: np.ndarray) -> None:
        """Keep the keys of one write beside it."""
        np.save(self.folder / f"{self.part():04d}.keys.npy", keys)


class Store(Format):
    name = "tl feature store"
    space = Space(hashlib.sha256(b"benchmark").hexdigest(), "end", "bfloat16")

    def write(self, keys: np.ndarray, rows: np.ndarray) -> None:
        self.names = digests(keys)
        with FeatureStore(self.folder).writer(self.space, (self.dim,), rows.dtype, "benchmark") as writer:
            for start in range(0, len(keys), PART):
                writer.append(self.names[start : start + PART], rows[start : start + PART])

    def scan(self) -> Iterator[np.ndarray]:
        store = FeatureStore(self.folder)
        for start in range(0, len(self.names), PART):
            yield store.read(self.space, self.names[start : start + PART])[0]

    def take(self, keys: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        return FeatureStore(self.folder).read(self.space, digests(keys))[0]

    def find(self, keys: np.ndarray) -> int:
        return int(FeatureStore(self.folder).present(self.space, digests(keys)).sum())


class Raw(Format):
    name = "npy by memory map"

    def write(self, keys: np.ndarray, rows: np.ndarray) -> None:
        with (self.folder / "rows").open("ab") as stream:
            for start in range(0, len(keys), PART):
                stream.write(rows[start : start + PART].data)
        self.keep_keys(keys)

    def rows(self) -> np.ndarray:
        return np.memmap(self.folder / "rows", np.float16, "r").reshape(-1, self.dim)

    def scan(self) -> Iterator[np.ndarray]:
        rows = self.rows()
        for start in range(0, len(rows), PART):
            yield rows[start : start + PART]

    def take(self, keys: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        return in_order(lambda at: self.rows()[at], numbers)


class ArrowFile(Format):
    name = "Arrow IPC by memory map"

    def write(self, keys: np.ndarray, rows: np.ndarray) -> None:
        with pa.OSFile(str(self.folder / f"{self.part():04d}.arrow"), "wb") as stream:
            schema = pa.schema({"key": pa.binary(16), "row": pa.list_(pa.float16(), self.dim)})
            with pa.ipc.new_file(stream, schema) as writer:
                for start in range(0, len(keys), PART):
                    writer.write_batch(arrow(schema, keys[start : start + PART], rows[start : start + PART]))
        self.keep_keys(keys)

    def tables(self) -> list[np.ndarray]:
        found = []
        for path in sorted(self.folder.glob("*.arrow")):
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            for number in range(reader.num_record_batches):
                found.append(numbers_of(reader.get_batch(number).column("row"), self.dim))
        return found

    def scan(self) -> Iterator[np.ndarray]:
        yield from self.tables()

    def take(self, keys: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        tables = self.tables()
        sizes = [len(table) for table in tables]
        return in_order(lambda at: by_part(tables, sizes, lambda table, inside: table[inside], at), numbers)


class Safetensors(Format):
    name = "safetensors shards"

    def write(self, keys: np.ndarray, rows: np.ndarray) -> None:
        from safetensors.numpy import save_file

        first = len(list(self.folder.glob("*.safetensors")))
        for number, start in enumerate(range(0, len(keys), PART), first):
            save_file({"rows": rows[start : start + PART]}, self.folder / f"{number:04d}.safetensors")
        self.keep_keys(keys)

    def scan(self) -> Iterator[np.ndarray]:
        from safetensors.numpy import load_file

        for path in sorted(self.folder.glob("*.safetensors")):
            yield load_file(path)["rows"]

    def take(self, keys: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        from safetensors import safe_open

        opened: list[Any] = [safe_open(path, "numpy") for path in sorted(self.folder.glob("*.safetensors"))]
        shards = [file.get_slice("rows") for file in opened]

        def rows(shard: Any, inside: np.ndarray) -> np.ndarray:
            return np.concatenate([shard[i : i + 1] for i in inside.tolist()])

        sizes = [shard.get_shape()[0] for shard in shards]
        return in_order(lambda at: by_part(shards, sizes, rows, at), numbers)


class Lance(Format):
    name = "Lance"
    package = "pylance"

    def write(self, keys: np.ndarray, rows: np.ndarray) -> None:
        schema = pa.schema({"key": pa.binary(16), "row": pa.list_(pa.float16(), self.dim)})
        starts = range(0, len(keys), PART)
        batches = (arrow(schema, keys[start : start + PART], rows[start : start + PART]) for start in starts)
        reader = pa.RecordBatchReader.from_batches(schema, batches)
        mode = "append" if (self.folder / "lance").exists() else "create"
        importlib.import_module("lance").write_dataset(reader, str(self.folder / "lance"), mode=mode)

    def opened(self) -> Any:
        return importlib.import_module("lance").dataset(str(self.folder / "lance"))

    def scan(self) -> Iterator[np.ndarray]:
        for batch in self.opened().to_batches(columns=["row"], batch_size=8192):
            yield numbers_of(batch.column("row"), self.dim)

    def take(self, keys: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        column = self.opened().take(numbers.tolist(), columns=["row"])["row"].combine_chunks()
        return numbers_of(column, self.dim)

    def find(self, keys: np.ndarray) -> int:
        column = self.opened().to_table(columns=["key"])["key"].combine_chunks()
        self.keep_keys(np.frombuffer(column.buffers()[1], "S16", len(column), 16 * column.offset))
        found = super().find(keys)
        (self.folder / "0000.keys.npy").unlink()
        return found


class Zarr(Format):
    name = "Zarr, uncompressed"
    package = "zarr"

    def write(self, keys: np.ndarray, rows: np.ndarray) -> None:
        zarr = importlib.import_module("zarr")
        path = str(self.folder / "zarr")
        if (self.folder / "zarr").exists():
            zarr.open_array(path, mode="r+").append(rows)
        else:
            chunks, shards = (256, self.dim), (PART, self.dim)
            array = zarr.create_array(
                path, shape=rows.shape, dtype=rows.dtype, chunks=chunks, shards=shards, compressors=None
            )
            for start in range(0, len(keys), PART):
                array[start : start + PART] = rows[start : start + PART]
        self.keep_keys(keys)

    def scan(self) -> Iterator[np.ndarray]:
        array = importlib.import_module("zarr").open_array(str(self.folder / "zarr"), mode="r")
        for start in range(0, array.shape[0], PART):
            yield array[start : start + PART]

    def take(self, keys: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        array = importlib.import_module("zarr").open_array(str(self.folder / "zarr"), mode="r")
        return in_order(lambda at: np.asarray(array.oindex[at]), numbers)


class Lmdb(Format):
    name = "LMDB"
    package = "lmdb"

    def opened(self) -> Any:
        return importlib.import_module("lmdb").open(str(self.folder / "lmdb"), map_size=1 << 40, max_spare_txns=4)

    def write(self, keys: np.ndarray, rows: np.ndarray) -> None:
        with self.opened() as base, base.begin(write=True) as transaction, transaction.cursor() as cursor:
            cursor.putmulti((whole(key), row.data) for key, row in zip(keys.tolist(), rows))

    def scan(self) -> Iterator[np.ndarray]:
        with self.opened() as base, base.begin(buffers=True) as transaction, transaction.cursor() as cursor:
            for _, row in cursor:
                yield np.frombuffer(row, np.float16)[None]

    def take(self, keys: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        with self.opened() as base, base.begin(buffers=True) as transaction:
            return np.stack([np.frombuffer(transaction.get(whole(key)), np.float16) for key in keys.tolist()])

    def find(self, keys: np.ndarray) -> int:
        with self.opened() as base, base.begin(buffers=True) as transaction:
            return sum(transaction.get(whole(key)) is not None for key in keys.tolist())


FORMATS: tuple[type[Format], ...] = (Store, Raw, ArrowFile, Safetensors, Lance, Zarr, Lmdb)


def digests(keys: np.ndarray) -> list[str]:
    """Keys as the md5 hex that the store takes."""
    names = np.ascontiguousarray(keys).tobytes().hex()
    return [names[at : at + 32] for at in range(0, len(names), 32)]


def whole(key: bytes) -> bytes:
    """A key in all its bytes; numpy strips the zeros at the end."""
    return key.ljust(16, b"\0")


def arrow(schema: pa.Schema, keys: np.ndarray, rows: np.ndarray) -> pa.RecordBatch:
    """Keys and rows as a record batch, without a copy of the rows."""
    key = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(keys), [None, pa.py_buffer(keys.tobytes())])
    row = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])
    return pa.record_batch([key, row], schema=schema)


def numbers_of(column: Any, dim: int) -> np.ndarray:
    """A column of fixed-size lists as an array [N, D], without a copy."""
    found: np.ndarray = column.flatten().to_numpy(zero_copy_only=True).reshape(-1, dim)
    return found


def in_order(read: Callable[[np.ndarray], np.ndarray], numbers: np.ndarray) -> np.ndarray:
    """Read rows along the file, which every format likes best, and give them in the order asked."""
    order = np.argsort(numbers)
    sorted_rows = read(numbers[order])
    rows = np.empty_like(sorted_rows)
    rows[order] = sorted_rows
    return rows


def by_part(
    parts: list[Any], sizes: list[int], read: Callable[[Any, np.ndarray], np.ndarray], numbers: np.ndarray
) -> np.ndarray:
    """Rows with these ascending numbers out of parts that have so many rows each."""
    ends = np.cumsum(sizes)
    at = np.searchsorted(ends, numbers, side="right")
    inside = numbers - (ends - sizes)[at]
    return np.concatenate([read(parts[part], inside[at == part]) for part in np.unique(at).tolist()])


def settle(folder: Path, forget: bool = False) -> None:
    """Wait until a folder's files are on the disk; forget: drop them from memory, where the system can."""
    for path in folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
                if forget:
                    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(handle)


def measure(kind: type[Format], folder: Path, keys: np.ndarray, rows: np.ndarray, seed: int) -> dict[str, float]:
    """One round of a format, seconds by operation and bytes on the disk; checks that it gives back what it took."""
    held = len(rows) - len(rows) // 100
    rng = np.random.default_rng(seed)
    asked, everyone = rng.choice(held, min(TAKEN, held), replace=False), rng.permutation(held)
    one, seconds = kind(folder, rows.shape[1]), {}
    folder.mkdir()

    def timed(name: str, work: Callable[[], Any]) -> Any:
        begin = time.perf_counter()
        result = work()
        seconds[name] = time.perf_counter() - begin
        return result

    def write(part: slice) -> None:
        one.write(keys[part], rows[part])
        settle(folder)

    def scan() -> int:
        at, buffer = 0, np.empty((PART, rows.shape[1]), np.float16)
        for chunk in one.scan():
            buffer[: len(chunk)] = chunk
            at += len(chunk)
        return at

    timed("write", lambda: write(slice(0, held)))
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    settle(folder, forget=True)
    assert timed("scan cold", scan) == held
    assert timed("scan warm", scan) == held
    settle(folder, forget=True)
    assert (timed("take cold", lambda: one.take(keys[asked], asked)) == rows[asked]).all()
    assert (timed("take warm", lambda: one.take(keys[asked], asked)) == rows[asked]).all()
    assert timed("find", lambda: one.find(keys[everyone])) == held
    timed("append", lambda: write(slice(held, len(rows))))
    last = np.arange(held, len(rows))
    assert (one.take(keys[last], last) == rows[held:]).all()
    return {**seconds, "bytes": float(size)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="on the disk to measure; a temporary folder by default")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    total = arguments.rows + arguments.rows // 99
    keys = np.frombuffer(rng.bytes(16 * total), "S16")
    bits = np.frombuffer(rng.bytes(2 * total * arguments.dim), np.uint16).reshape(total, arguments.dim)
    rows = (bits & np.uint16(0xBFFF)).view(np.float16)  # any bits but those of infinity: numbers between -2 and 2
    del bits
    rounds: dict[str, list[dict[str, float]]] = {}
    missing = []
    for number in range(arguments.repeats):
        turn = 2 * number % len(FORMATS)  # nobody always goes first
        for kind in (*FORMATS[turn:], *FORMATS[:turn]):
            if kind.package and not installed(kind.package):
                missing += [kind.package] if number == 0 else []
                continue
            with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
                result = measure(kind, Path(scratch) / "data", keys, rows, number)
            rounds.setdefault(kind.name, []).append(result)
            print(kind.name, {name: round(value, 3) for name, value in result.items()}, flush=True)
    names = ["numpy", "pyarrow", "safetensors", *(kind.package for kind in FORMATS if kind.package)]
    results = {
        "machine": machine(),
        "rows": arguments.rows,
        "dim": arguments.dim,
        "repeats": arguments.repeats,
        "versions": {name: version(name) for name in names if name not in missing},
        "missing": missing,
        "medians": {
            name: {key: statistics.median(r[key] for r in each) for key in each[0]} for name, each in rounds.items()
        },
        "rounds": rounds,
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "store_formats.json").write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    (RESULTS / "store_formats.md").write_text(table(results))
    print(table(results))


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Of each figure over the rounds."""
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}


def installed(package: str) -> bool:
    """Whether a package is there, by the name that it is installed under."""
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def table(results: dict[str, Any]) -> str:
    """The medians as Markdown."""
    gigabytes = results["rows"] * results["dim"] * 2 / 1e9
    facts = ", ".join(f"{key} {value}" for key, value in results["machine"].items() if key != "torch")
    lines = [
        f"# Store formats: {results['rows']:,} rows x {results['dim']} float16 ({gigabytes:.2f} GB)",
        "",
        f"{facts}; medians of {results['repeats']} interleaved rounds of `python -m benchmarks.store_formats`.",
        "The store's figures include looking digests up, durable writes and a checksum a row; the arrays are given row",
        "numbers, and find keys through a sorted array kept beside them.",
        "",
        "| format | write GB/s | sequential cold / warm GB/s | 10k random rows cold / warm ms | append 1% ms | "
        "find all keys s | size GB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, m in results["medians"].items():
        lines.append(
            f"| {name} | {gigabytes / m['write']:.2f} | {gigabytes / m['scan cold']:.2f} / "
            f"{gigabytes / m['scan warm']:.2f} | {m['take cold'] * 1e3:,.0f} / {m['take warm'] * 1e3:,.0f} | "
            f"{m['append'] * 1e3:,.0f} | {m['find']:.2f} | {m['bytes'] / 1e9:.3f} |"
        )
    if results["missing"]:
        lines += ["", f"Not installed, not measured: {', '.join(results['missing'])}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
