"""`tl monitor`: whether new data are still of the kind that a model was made for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tl_core.bundle import ModelBundle
    from tl_core.diagnostics.drift_result import Drift
    from tl_flows.monitoring import Watched

DRIFT, TOO_FEW = 3, 4  # exit codes
LISTED = 5  # samples and answers that the terminal shows; the page has more
PAGE_BYTES = 1_000_000  # of samples on the page


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("new_data", type=click.Path(path_type=Path))
@click.option("--column", help="Column of a table that holds the files or texts; guessed where not given.")
@click.option("--group", metavar="COLUMN", help="Column of a table whose rows of one value belong together, such as a "
              "video; 'folder': files of one folder do [the training data's group column].")  # fmt: skip
@click.option("--alarm-rate", type=click.FloatRange(0.0005, 0.5), default=0.05,
              help="How often data of the same kind may raise a false alarm [0.05].")  # fmt: skip
@click.option("--backbone", metavar="NAME", help="The backbone's weights, where they lie elsewhere than in training.")
@click.option("--json", "as_json", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Write everything as JSON as well.")  # fmt: skip
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Where the page goes [.tl/monitor/ of the project, else monitor.html].")  # fmt: skip
@click.option("--retrain", is_flag=True, help="On drift, retrain the project on its own data, as tl retrain does.")
@click.option("--wait", default=0.0, metavar="MINUTES", help="With --retrain: stand in the queue where one runs [0].")
def monitor(
    bundle: Path,
    new_data: Path,
    column: str | None,
    group: str | None,
    alarm_rate: float,
    backbone: str | None,
    as_json: Path | None,
    html: Path | None,
    retrain: bool,
    wait: float,
) -> int:
    """Tell, without labels, whether NEW_DATA are still of the kind that the model in BUNDLE was made for.

    BUNDLE is a run's model/ folder, or a name in the model registry of the project here: champion, challenger, or a
    version such as v3. NEW_DATA is a folder of files, or a table. Their features go through the feature store.

    The exit code is 0 where there is no sign of drift, 3 on drift, 4 where the rows are too few to tell, 2 where
    something given can't be used.
    """
    from tl_core.registry import load_registry
    from tl_flows import prediction_io
    from tl_flows.monitoring import watch
    from tl_flows.stores import workspace_at, workspace_of

    project = _project_of(bundle)
    if retrain:
        _require_project(bundle, project)
    registry = load_registry()
    model = prediction_io.opened(bundle, registry, backbone)
    workspace = workspace_of(project) if project else workspace_at(None, "tl-run")
    found = watch(
        model, new_data, registry, workspace, column=column, group=group, alarm_rate=alarm_rate
    )  # fmt: skip
    facts = {
        "model": str(bundle), "data": str(new_data), "computed": found.computed, "unusable": found.unusable,
        **found.drift.as_json(),
    }  # fmt: skip
    if as_json is not None:
        _write(as_json, json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False) + "\n", "--json")
    page = html or _usual_page(project, bundle, new_data)
    _write(page, _page(found, model, str(bundle), str(new_data)), "--html")
    _tell(found)
    click.echo(f"page: {page}")
    if retrain and project is not None and found.drift.state == "drift":
        _retrain(project, wait)
    return {"drift": DRIFT, "no drift": 0, "too few": TOO_FEW}[found.drift.state]


def _project_of(bundle: Path) -> Path | None:
    """The project whose registry names the model; None where a path names it."""
    from tl_flows.model_names import is_name, require_here

    return require_here(str(bundle)) if is_name(str(bundle)) and not bundle.exists() else None


def _require_project(bundle: Path, project: Path | None) -> None:
    from tl_core.errors import UserError

    if project is None:
        raise UserError(
            f"--retrain needs a model of a project's registry, and {bundle} is a path: no project is known that could "
            "be retrained; name the model champion, challenger or v3 from within its project, or leave --retrain out"
        )


def _retrain(project: Path, wait: float) -> None:
    """Retrain as `tl retrain` does: on the project's own data, which have labels; the new rows have none."""
    from tl_flows.project import main_worktree
    from tl_flows.runs import project_session

    root = main_worktree(project)
    click.echo(f"\nretrain of {root}, on its own data (the new samples have no labels)")
    outcome = project_session(root).retrain(root, None, None, 24.0, wait)
    click.echo(f"{outcome.state}: {outcome.reason}")
    if outcome.state != "promoted":
        click.echo(
            "tl: to learn from samples like the new ones, label some and add them to the project's data", err=True
        )


def _usual_page(project: Path | None, bundle: Path, data: Path) -> Path:
    if project is None:
        return Path("monitor.html")
    name = re.sub(r"[^\w.-]+", "_", f"{bundle}-{data.resolve().name}")
    return project / ".tl" / "monitor" / f"{name}.html"


def _page(found: Watched, model: ModelBundle, bundle: str, data: str) -> str:
    from tl_core.report.monitor_page import Monitored, render_monitor

    return render_monitor(
        Monitored(
            found.drift, bundle, str(model.facts["backbone"]["name"]), model.loader.modality, data, found.unusable,
            _fragments(found, model),
        )
    )  # fmt: skip


def _fragments(found: Watched, model: ModelBundle) -> dict[str, str]:
    """The strangest samples as their plugin draws them, as many as a page takes."""
    rows = found.manifest.rows()
    place = dict(zip(found.manifest.ids(rows), rows.tolist()))
    fragments: dict[str, str] = {}
    room = PAGE_BYTES
    for one in found.drift.strangest:
        try:
            fragment = model.loader.render(found.manifest.sample(place[one.id]).source)
        except Exception:  # a plugin that can't draw it: the page names it all the same
            continue
        size = len(fragment.encode("utf-8", "replace"))
        if size <= room:
            fragments[one.id], room = fragment, room - size
    return fragments


def _tell(found: Watched) -> None:
    from tl_flows.commands.tables import print_table

    drift = found.drift
    click.echo(f"{drift.state}: {drift.text}\n")
    tests = [(test.name, "differs" if test.alarm else "-", f"{test.corrected:.3f}") for test in drift.tests]
    print_table(("test", "result", "corrected p"), tests, below=[test.text for test in drift.tests])
    if drift.accuracy is not None and drift.known_accuracy is not None:
        value = drift.accuracy
        click.echo(
            f"expected accuracy: {value.value:.1%} ({value.low:.1%} to {value.high:.1%}), on held-out rows "
            f"{drift.known_accuracy:.1%}; by confidence, which takes for granted that it means what it meant"
        )
    _tell_rows(drift)
    for note in (*found.manifest.notes, *drift.notes):
        click.echo(f"- {note}")
    for row in found.unusable[:LISTED]:
        click.echo(f"tl: can't use {row['id']}: {row['reason']}", err=True)
    if len(found.unusable) > LISTED:
        click.echo(f"tl: and {len(found.unusable) - LISTED:,} more, which the page lists", err=True)


def _tell_rows(drift: Drift) -> None:
    from tl_flows.commands.tables import print_table

    moved = [row for row in drift.answers if row.p <= drift.alarm_rate][:LISTED]
    if moved:
        click.echo()
        rows = [(row.name, f"{row.known:.1%}", f"{row.new:.1%}", f"{row.p:.3f}") for row in moved]
        print_table(("answer", "held-out rows", "new rows", "corrected p"), rows)
    strange = [one for one in drift.strangest if one.score > 1][:LISTED]
    if strange:
        click.echo()
        print_table(("strangest", "unusual", "answered"), [(one.id, f"{one.score:.2f}", one.said) for one in strange])
    click.echo()


def _write(path: Path, text: str, option: str) -> None:
    from tl_core.errors import UserError
    from tl_core.workspace import write_text

    try:
        write_text(path.resolve(), text)
    except OSError as error:
        raise UserError(f"can't write {path}: {error.strerror or error}; choose another {option}") from error
