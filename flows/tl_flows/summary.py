"""What a run tells people: one line a step, and the table at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from tl_flows.engine import StepResult
    from tl_flows.projects import ProjectRun
    from tl_flows.runs import Run

SPLITS = ("train", "val", "test")  # tl_core.types.SPLITS, whose import would cost that of numpy
RESTORED = "restored from an earlier run"
PLAIN_WIDTH = 120  # of a table where no terminal says how wide it is
NAMED = 2  # candidates that dropped out whose reasons have room in a step's line
Outputs = Mapping[str, Any]
# by the verdict's state: what a table says of it beside the floors, and in which colour
VERDICTS = {"above": ("clearly above", "green"), "unclear": ("can't tell", "yellow"), "below": ("below", "red")}

FLOORS = {"floor_majority": "floor: majority class", "floor_random_init": "floor: random weights"}
# the answer that is the same for every row, by a metric of the task
CONSTANT = {"r2": "floor: training mean", "micro_f1": "floor: commonest labels"}


def describe(step: str, outputs: Outputs) -> str:
    """A finished step in one line, from its small results; only what it has told is named."""
    if not outputs:
        return RESTORED
    text = _LINES[step](outputs)
    return f"{text}  [{outputs['seconds']:.1f} s]" if "seconds" in outputs else text


def _version(outputs: Outputs) -> str:
    parts = [f"{outputs.get('rows', 0):,} {outputs.get('modality', '')} samples"]
    if outputs.get("classes"):
        parts[0] += f" in {len(outputs['classes'])} classes"
    if splits := outputs.get("splits"):
        parts.append(", ".join(f"{splits[split]:,} {split}" for split in SPLITS if split in splits))
    if outputs.get("quarantined"):
        parts.append(f"{outputs['quarantined']:,} quarantined")
    if files := outputs.get("files"):
        parts.append(f"files: {files}")
    changed = outputs.get("changes") or {}
    rows = [f"{changed[kind]:,} {kind}" for kind in ("added", "removed", "modified", "relabelled") if changed.get(kind)]
    if rows and changed.get("unchanged"):  # the first version adds every row: nothing to tell
        parts.append(f"rows since the last version: {', '.join(rows)}")
    return "; ".join(parts)


def _select(outputs: Outputs) -> str:
    candidates = outputs.get("candidates", ())
    dropped = [c for c in candidates if c["status"] == "dropped"]
    text = f"{outputs['chosen']}, {outputs['why']}"
    if len(candidates) > 1:
        text += f"; {len(candidates)} candidates"
    if len(dropped) > NAMED:
        return f"{text}, {len(dropped)} dropped out (ranking.json says why)"
    return text + "".join(f"; {c['name']} dropped out: {c['reason']}" for c in dropped)


def _extract(outputs: Outputs) -> str:
    parts = [_counts(outputs.get("backbone", outputs), outputs.get("random", {}))]
    if outputs.get("audited"):
        parts.append(f"{outputs['audited']:,} stored rows computed again and confirmed")
    if outputs.get("truncated"):
        parts.append(f"{outputs['truncated']:,} samples truncated")
    return "; ".join(parts)


def _tune(outputs: Outputs) -> str:
    asked = outputs.get("asked")
    parts = [f"{asked}: {outputs['strategy']}" if asked == "auto" else str(outputs["strategy"])]
    parts += [f"{key.replace('_', ' ')} {outputs[key]}" for key in ("strength", "best_epoch") if key in outputs]
    told = [", ".join([*parts, f"validation {outputs['watch']} {outputs['validation']:.4f}"])]
    told += [str(outputs[key]) for key in ("why", "stopped") if outputs.get(key)]
    if said := outputs.get("more_data"):
        told.append(f"{said} whether more data would help" if said == "can't tell" else str(said))
    if outputs.get("memorised"):
        told.append("WARNING: it has memorised training rows (the report says more)")
    return "; ".join(told)


def _evaluate(outputs: Outputs) -> str:
    return str(outputs["verdict"])


_LINES: dict[str, Callable[[Outputs], str]] = {
    "version": _version,
    "select": _select,
    "extract": _extract,
    "tune": _tune,
    "evaluate": _evaluate,
}


def features(select: StepResult, extract: StepResult) -> list[str]:
    """What a run did for its features, in lines: those of the chosen backbone, of other candidates, and the engine.

    Rows that the ranking computed and `extract` found in the store count once, as computed.
    """
    chosen, others = (0, 0) if select.fresh else _ranked(select.outputs)
    told = extract.outputs
    if not told:
        lines = ["all reused" if extract.fresh else RESTORED]
    else:
        own, twin = told.get("backbone", told), told.get("random", {})
        if extract.fresh:
            own, twin = _reused(own, 0), _reused(twin, 0)
        rows = own.get("computed", 0) + own.get("reused", 0)
        # a ranking for fine-tuning keeps other features of the same rows
        lines = [_counts(_reused(own, min(rows, own.get("computed", 0) + chosen)), twin)]
    if others:
        lines.append(f"other candidates: computed {others:,}")
    if not extract.fresh:
        lines += [str(told[key]) for key in ("header", "engine_note") if told.get(key)]
    return lines


def _counts(own: Outputs, twin: Outputs) -> str:
    """How many features were computed and reused; the random twin's where they differ from the backbone's."""
    text, of_twin = (f"computed {part.get('computed', 0):,}, reused {part.get('reused', 0):,}" for part in (own, twin))
    return f"{text}; random weights: {of_twin}" if twin and of_twin != text else text


def _reused(part: Outputs, computed: int) -> Outputs:
    """The same rows with so many of them computed, where there are any."""
    rows = sum(part.get(kind, 0) for kind in ("computed", "reused"))
    return {"computed": computed, "reused": rows - computed} if part else {}


def _ranked(outputs: Outputs) -> tuple[int, int]:
    """Features that the ranking computed: of the chosen backbone, of the others."""
    candidates, computed = outputs.get("candidates", ()), int(outputs.get("computed", 0))
    chosen: Outputs = next((c for c in candidates if c["name"] == outputs.get("chosen")), {})
    own = computed if len(candidates) <= 1 else int(chosen.get("computed", 0))
    return own, computed - own


def table(run: Run) -> Table:
    """The end of a run: metrics with intervals, floors, features, and seconds per step."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    result = Table(box=SIMPLE_HEAD, show_header=False, pad_edge=False)
    result.add_column(style="bold")
    result.add_column()
    for name, text in metric_rows(run.metrics):
        result.add_row(name, text)
    result.add_row("features", "\n".join(features(run.steps["select"], run.steps["extract"])))
    for step in run.steps.values():
        took = f"{step.seconds:.1f} s" if step.outputs else RESTORED
        result.add_row(step.step, "up to date" if step.fresh else took)
    return result


def projects_table(done: Iterable[ProjectRun]) -> Table:
    """The end of a run of several projects: a row each."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    result = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)  # narrow: two lines a row fit most terminals
    result.add_column("project\nmodality", overflow="fold")
    result.add_column("test\nrows", justify="right")
    result.add_column("result,\ninterval", no_wrap=True)
    result.add_column("floors", no_wrap=True)
    result.add_column("verdict")
    result.add_column("seconds", justify="right")
    for project in done:
        name = Text(project.name, style="bold")
        if project.run is None or project.summary is None:
            result.add_row(name, "", "", "", Text("failed", style="red"), "")
            continue
        told, fresh = project.summary, all(step.fresh for step in project.run.steps.values())
        result.add_row(
            name.append(f"\n{told.modality}", style="not bold"),
            f"{told.n_test:,}",
            f"{told.value:.3f} {told.metric}\n{told.low:.3f} to {told.high:.3f}",
            "\n".join(f"{floor.value:.3f} {floor.title}" for floor in told.floors),
            Text(*VERDICTS[told.state]),
            "up to\ndate" if fresh else f"{project.run.seconds:.1f}",
        )
    return result


def draw(table: Table) -> None:
    """A table, folded to the terminal's width."""
    from rich.console import Console

    console = Console()
    (console if console.is_terminal else Console(width=PLAIN_WIDTH)).print(table)


def metric_rows(metrics: Mapping[str, float]) -> list[tuple[str, str]]:
    """(name, value with interval) for metrics.json: the scores, the floors, the number of test rows."""
    rows = []
    for name, value in metrics.items():
        if f"{name}_low" in metrics:
            interval = f"{value:.4f}  ({metrics[f'{name}_low']:.4f} to {metrics[f'{name}_high']:.4f})"
            rows.append((name.replace("_", " "), interval))
    constant = next((label for metric, label in CONSTANT.items() if metric in metrics), FLOORS["floor_majority"])
    floors = FLOORS | {"floor_majority": constant}
    rows += [(label, f"{metrics[key]:.4f}") for key, label in floors.items() if key in metrics]
    if "n_test" in metrics:
        rows.append(("test samples", f"{metrics['n_test']:,.0f}"))
    return rows
