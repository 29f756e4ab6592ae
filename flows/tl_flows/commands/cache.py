"""`tl cache`: what the feature store holds, whether it is whole, what may go, and taking features elsewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tl_flows.commands.options import DEFAULT_OUT
from tl_flows.commands.tables import print_table

if TYPE_CHECKING:
    from tl_core.store import FeatureStore, SpaceInfo

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


class Size(click.ParamType[int]):
    """Bytes as people write them: 500MB, 2 GB, 1.5GiB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"\s*(\d{1,18}(?:\.\d+)?)\s*([kmgt]i?)?b?\s*", str(value).lower())
        if found is None:
            self.fail(f"'{value}' is no size; give bytes, or a number with a unit: 500MB, 2GB, 1.5GiB", param, ctx)
        return int(float(found[1]) * UNITS[found[2] or ""])


def store_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --store."""
    what = "The feature store's folder [of the project that this folder lies in, else in the user's cache]."
    return click.option("--store", type=click.Path(path_type=Path), help=what)(command)


@click.group()
def cache() -> None:
    """The feature store: what it holds, whether it is whole, what may go, and taking features elsewhere."""


@cache.command()
@store_option
def info(store: Path | None) -> None:
    """What the store holds: features by backbone, cut and precision, and converted models of engines."""
    from tl_flows.stores import backbone_names, open_store, workspace_at

    workspace = workspace_at(None, DEFAULT_OUT)
    features, names = open_store(store, workspace), backbone_names(workspace)
    spaces = features.info()
    _print_spaces(spaces, names)
    sizes, models = _models(features.root, names)
    if models:
        click.echo()
        print_table(("converted model", "cut", "engine", "MB", "state"), models)
    _tell_unreadable(features)
    total = f"{sum(space.rows for space in spaces):,} rows, {_mb(sum(space.bytes for space in spaces))} MB"
    click.echo(f"{features.root}: {total}" + (f"; converted models {_mb(sum(sizes))} MB" if models else ""))


@cache.command()
@store_option
def verify(store: Path | None) -> int:
    """Read every row and check its sum. Exit code 1 where anything is damaged; damaged rows are computed again."""
    from tl_core.progress import progress
    from tl_flows.stores import open_store, workspace_at

    features = open_store(store, workspace_at(None, DEFAULT_OUT))
    checked = 0
    with progress(sum(space.rows for space in features.info()), "verify", unit="row") as bar:

        def tell(rows: int) -> None:
            nonlocal checked
            checked += rows
            bar.update(rows)

        faults = features.verify(tell)
    for fault in faults:
        click.echo(fault)
    found = f"{len(faults):,} fault{'s' if len(faults) > 1 else ''}" if faults else "all whole"
    click.echo(f"{features.root}: {checked:,} rows checked, {found}")
    return 1 if faults else 0


@cache.command()
@click.option("--keep-last", type=click.IntRange(min=1), metavar="N",
              help="Drop features that none of the last N versions of the data used.")  # fmt: skip
@click.option("--max-size", type=Size(), metavar="SIZE",
              help="Then drop what was not used for longest, until the store is no larger: 500MB, 2GB.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@store_option
def gc(keep_last: int | None, max_size: int | None, dry_run: bool, store: Path | None) -> None:
    """Drop features that are no longer needed; a run that needs them after all computes them again.

    Safe beside runs that read and write the store. What killed runs left is swept, and small files are merged.
    """
    from tl_core.errors import UserError
    from tl_flows.stores import backbone_names, open_store, workspace_at

    if keep_last is None and max_size is None:
        raise UserError(
            "nothing says what may go; give --keep-last N (drops features that none of the last N versions of the data "
            "used) or --max-size SIZE (such as 2GB), and --dry-run to look first"
        )
    workspace = workspace_at(None, DEFAULT_OUT)
    features, names = open_store(store, workspace), backbone_names(workspace)
    before = {space.space.name: _described(space, names) for space in features.info()}
    done = features.gc(keep_last=keep_last, max_size=max_size, dry_run=dry_run)
    _tell_unreadable(features)
    went, stayed = ("would go", "would stay") if dry_run else ("gone", "kept")
    for name in done.spaces_removed:
        click.echo(f"{went}: {before.get(name, name)}")
    click.echo(f"{went} in all: {done.rows_freed:,} rows, {_mb(done.bytes_freed)} MB")
    click.echo(f"{stayed}: {done.rows_kept:,} rows, {_mb(done.bytes_kept)} MB")
    if done.shards_skipped:
        click.echo(f"left alone, because a run works there: {done.shards_skipped:,} files; run again when it has ended")
    if done.full:
        click.echo("the disk has no room for moving rows that stay; free some space and run again")


@cache.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help=f"A run's output folder [{DEFAULT_OUT}].")
@click.option("--all", "everything", is_flag=True, help="The whole store.")
@store_option
def export(file: Path, out: Path | None, everything: bool, store: Path | None) -> None:
    """Write features to FILE, such as features.arrow, for another machine's store.

    Those of the data's version at hand, of the backbone that was chosen for it and of its random twin.
    """
    from tl_core.errors import UserError
    from tl_core.store import MissingRows
    from tl_flows.stores import open_store, rows_of_run, whole_store, workspace_at

    if everything and out is not None:
        raise UserError("--all exports the whole store and --out what one run needs; give one of them")
    workspace = workspace_at(out, DEFAULT_OUT)
    features = open_store(store, workspace)
    try:
        done = features.export(file, whole_store(features) if everything else rows_of_run(workspace))
    except MissingRows as error:
        raise UserError(
            f"{len(error.digests):,} features of this run are not in {features.root}; run `tl extract` (or `tl run`), "
            "or name the store with --store"
        ) from error
    if everything:
        _tell_unreadable(features)
    click.echo(f"{file}: {done.rows:,} rows, {_mb(done.bytes)} MB; on the other machine: tl cache import {file.name}")
    if done.damaged:
        click.echo(f"left out, because they are damaged: {len(done.damaged):,} rows; `tl cache verify` lists them")


@cache.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@store_option
def import_(files: tuple[Path, ...], store: Path | None) -> int:
    """Add the features of FILEs that `tl cache export` wrote. Rows that are there already stay as they are.

    Exit code 1 where rows of a FILE are damaged; the others are added.
    """
    from tl_flows.stores import open_store, workspace_at

    features = open_store(store, workspace_at(None, DEFAULT_OUT), new=True)
    damaged = 0
    for file in files:
        done = features.import_(file)
        click.echo(f"{file}: {done.added:,} rows added, {done.present:,} were there already")
        if done.damaged:
            click.echo(f"{file}: {len(done.damaged):,} rows are damaged and were left out; copy or export it again")
        damaged += len(done.damaged)
    return 1 if damaged else 0


def _print_spaces(spaces: Sequence[SpaceInfo], names: Mapping[str, str]) -> None:
    from tl_core.store import FORMAT_VERSION

    print_table(
        ("backbone", "cut", "precision", "rows", "shape", "MB", "engines", "last used", "note"),
        [
            (
                names.get(s.space.fingerprint, s.space.fingerprint[:16]),
                s.space.cut,
                s.space.precision,
                f"{s.rows:,}",
                "ragged" if s.ragged else "x".join(map(str, s.shape)),
                _mb(s.bytes),
                ", ".join(s.engines),
                datetime.fromtimestamp(s.last_used).strftime("%Y-%m-%d %H:%M") if s.last_used else "",
                "" if s.format_version == FORMAT_VERSION else "of an older tl, no longer read; gc removes it",
            )
            for s in spaces
        ],
    )


def _models(store: Path, names: Mapping[str, str]) -> tuple[list[int], list[tuple[str, ...]]]:
    """Bytes of each converted model, and the rows of their table."""
    sizes: list[int] = []
    rows: list[tuple[str, ...]] = []
    for path in sorted((store / "engines").glob("*/meta.json")):
        with suppress(OSError, ValueError, KeyError):  # of another version of tl, or gone by now
            meta = json.loads(path.read_text(encoding="utf-8"))
            size = sum(file.stat().st_size for file in path.parent.rglob("*") if file.is_file())
            refused = "; ".join(f"{name}: {why}" for name, why in sorted(meta["refused"].items()))
            state = f"not used in {refused}" if refused else ""
            backbone = names.get(meta["fingerprint"], meta["fingerprint"][:16])
            rows.append((backbone, meta["cut"], meta["version"], _mb(size), state))
            sizes.append(size)
    return sizes, rows


def _described(space: SpaceInfo, names: Mapping[str, str]) -> str:
    backbone = names.get(space.space.fingerprint, space.space.fingerprint[:16])
    return f"all {space.rows:,} rows of {backbone}, {space.space.cut}, {space.space.precision}"


def _tell_unreadable(features: FeatureStore) -> None:
    for why in features.unreadable():
        click.echo(f"left out: {why}")


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f}"
