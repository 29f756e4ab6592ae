"""`tl compare`: finished runs side by side, on the terminal, as a page and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.table import Table

    from tl_core.report import Comparison
    from tl_core.report.compare import Pair

LISTED = 5  # classes and samples of a kind that the terminal shows; the page has all
RESULT = Path("evaluate", "report.json")
OUTPUTS = ("version/manifest.parquet", "evaluate/predictions.parquet", "evaluate/report.json")
ARTIFACTS = "artifacts"


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Where the page goes [compare.html beside the first run's report].")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON; the page only with --html.")
@click.option("--store", type=click.Path(path_type=Path), metavar="FOLDER",
              help="A feature store to look in as well [those of the projects and of the user's cache].")  # fmt: skip
def compare(runs: tuple[str, ...], html: Path | None, as_json: bool, store: Path | None) -> None:
    """Hold finished runs against the first one: metrics, paired tests on the test rows that they share, what differs.

    Rows that only one of them has are compared with the other's, by features that are stored already.

    RUN is a project, an output folder of `tl run --data`, an artifacts folder, or a git revision of the project here:
    tl compare HEAD~1 . Its models' names in the registry do as well: tl compare champion challenger
    """
    from tl_core.errors import UserError

    if len(runs) < 2:
        raise UserError(f"only one run is named ({runs[0]}); name at least two, the first is the reference")
    with ExitStack() as stack:
        places = find_runs(runs, lambda: Path(stack.enter_context(TemporaryDirectory(prefix="tl-compare-"))))
        from tl_core.report import ComparedRun, compare_runs, render_comparison
        from tl_core.workspace import write_text

        comparison = compare_runs(
            [ComparedRun.load(name, place.artifacts) for name, place in places.items()],
            stores=_stores([place.root for place in places.values()], store),
        )
    if as_json:
        click.echo(json.dumps(comparison.as_json(), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        _tell(comparison)
    if html is not None or not as_json:
        page = html or _beside_report(next(iter(places.values())).root)
        write_text(page.resolve(), render_comparison(comparison))
        click.echo(f"page: {page}", err=as_json)


@dataclass(frozen=True)
class Place:
    """Where a run's outputs lie, and the project or output folder whose run it is."""

    artifacts: Path
    root: Path


def find_runs(runs: Sequence[str], scratch: Callable[[], Path]) -> dict[str, Place]:
    """The runs by what they are called: their folder, or as given where two are alike.

    scratch: gives an empty folder for what a git revision holds. Raises UserError, naming all that have no result or
    are named twice.
    """
    from tl_core.errors import UserError
    from tl_flows.model_names import revision_named, say_path_wins
    from tl_flows.project import find_project

    project = find_project(Path.cwd())
    found: dict[str, Place] = {}
    faults = []
    for run in runs:
        folder = Path(run)
        artifacts = next((p for p in (folder, folder / ARTIFACTS) if (p / RESULT).is_file()), None)
        if run in found or (artifacts and artifacts.resolve() in {place.artifacts for place in found.values()}):
            faults.append(f"{run} is named twice; name each run once")
        elif artifacts is not None:
            say_path_wins(folder)
            found[run] = Place(artifacts.resolve(), artifacts.resolve().parent)
        elif not folder.exists() and project is not None:
            from tl_flows.versioning import outputs_at

            place = Place(scratch() / ARTIFACTS, project)
            revision = revision_named(project, run)
            outputs_at(project, revision, [f"{ARTIFACTS}/{output}" for output in OUTPUTS], place.artifacts.parent)
            found[run] = place
        else:
            faults.append(
                f"no result in {run}: neither {ARTIFACTS / RESULT} nor {RESULT} is there; name a project, an output "
                "folder of `tl run --data` or an artifacts folder, and evaluate it first with `tl run`"
            )
    if faults:
        raise UserError("\n".join(faults))
    names = {run: place.root.name if Path(run).exists() else run for run, place in found.items()}
    alike = Counter(names.values())
    return {run if alike[names[run]] > 1 else names[run]: place for run, place in found.items()}


def _stores(roots: Sequence[Path], named: Path | None) -> list[Path]:
    """The feature stores that runs in these folders use, each once, and the one that the user names."""
    from tl_flows.stores import open_store, workspace_of

    workspaces = [workspace_of(root) for root in roots]
    also = [] if named is None else [open_store(named, workspaces[0]).root]
    return list(dict.fromkeys([*(workspace.store for workspace in workspaces), *also]))


def _beside_report(root: Path) -> Path:
    from tl_flows.project import find_project

    return (root / ".tl" if find_project(root) == root else root) / "compare.html"


def _tell(comparison: Comparison) -> None:
    from tl_flows import summary

    summary.draw(_metrics(comparison))
    for pair in comparison.pairs:
        _tell_pair(pair, comparison.runs[0].name)


def _metrics(comparison: Comparison) -> Table:
    """The metrics of all runs with their intervals."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from tl_core.evaluation import metric_title

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("", style="bold")
    for run in comparison.runs:
        table.add_column(run.name, overflow="fold")
    for metric in dict.fromkeys(metric for run in comparison.runs for metric in run.metrics):
        intervals = [run.metrics.get(metric) for run in comparison.runs]
        cells = (f"{i.value:.4f} ({i.low:.4f} to {i.high:.4f})" if i else "" for i in intervals)
        table.add_row(metric_title(metric), *cells)
    table.add_row("test samples", *(f"{run.n_test:,}" for run in comparison.runs))
    table.add_row("backbone", *(run.backbone for run in comparison.runs))
    table.add_row("strategy", *(run.strategy for run in comparison.runs))
    return table


def _tell_pair(pair: Pair, reference: str) -> None:
    from tl_core.report.compare_page import data_changes, details, shift_sentences
    from tl_flows.commands.tables import print_table

    click.echo("\n".join([pair.result.text, *details(pair, reference)]))
    moved = [row for row in pair.classes if row.difference.low > 0 or row.difference.high < 0]
    if moved:
        click.echo()
        print_table(
            ("class", "rows", f"F1 in {reference}", f"in {pair.name}", "difference", "interval"),
            [
                (
                    row.name, f"{row.support:,}", f"{row.first:.3f}", f"{row.second:.3f}",
                    f"{row.difference.value:+.3f}", f"{row.difference.low:+.3f} to {row.difference.high:+.3f}",
                )
                for row in moved[:LISTED]
            ],
            right=("rows", f"F1 in {reference}", f"in {pair.name}", "difference"),
        )  # fmt: skip
    samples = [row for change in ("lost", "won") for row in [m for m in pair.moved if m.change == change][:LISTED]]
    if samples:
        click.echo()
        print_table(
            ("sample", "label", reference, pair.name), [(row.id, row.label, row.first, row.second) for row in samples]
        )
    click.echo(f"\ndata: {data_changes(pair)}")
    for sentence in shift_sentences(pair):
        click.echo(f"shift: {sentence}")
    for title, rows in (("config", pair.config), ("made of", pair.made_of)):
        for row in rows:
            click.echo(f"{title}: {row.key}: {row.first} -> {row.second}")
    click.echo()
