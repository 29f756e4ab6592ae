"""What people read: one line a step, one table a run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from tl_flows import summary
from tl_flows.engine import StepResult
from tl_flows.projects import ProjectRun
from tl_flows.runs import Run

from tl_core.errors import UserError
from tl_core.report import FloorSummary, RunSummary

METRICS = {
    "accuracy": 0.9, "accuracy_low": 0.85, "accuracy_high": 0.94, "macro_f1": 0.8, "macro_f1_low": 0.7,
    "macro_f1_high": 0.88, "floor_majority": 0.5, "floor_random_init": 0.61, "n_test": 1200,
}  # fmt: skip
OUTPUTS: dict[str, dict[str, Any]] = {
    "version": {
        "rows": 1500, "modality": "image", "classes": ["a", "b"], "splits": {"train": 1000, "val": 200, "test": 300},
        "quarantined": 2, "files": "1,500 files, 3.0 MB; unchanged since the last version",
        "changes": {"added": 3, "removed": 0, "modified": 1, "relabelled": 0, "unchanged": 1496}, "seconds": 1.25,
    },
    "select": {
        "chosen": "resnet18", "why": "first in the ranking", "computed": 800, "reused": 200, "seconds": 20.0,
        "candidates": [{"name": "resnet18", "status": "ranked", "computed": 300, "reused": 200},
                       {"name": "vit", "status": "dropped", "reason": "no network"}],
    },
    "extract": {
        "computed": 500, "reused": 1000, "truncated": 7, "audited": 2, "seconds": 30.0,
        "engine": "openvino-2026.4.1-cpu", "header": "openvino 2026.4.1, bfloat16, 2 threads on EPYC",
        "engine_note": "torch, because OpenVINO lacks an operator", "precision": "bfloat16",
        "backbone": {"computed": 500, "reused": 1000}, "random": {"computed": 1500, "reused": 0},
    },
    "tune": {"strategy": "probe", "strength": 3.0, "watch": "accuracy", "validation": 0.91234, "seconds": 2.0},
    "evaluate": {"verdict": "Accuracy 0.900 on 1,200 test rows.", "seconds": 4.0},
}  # fmt: skip


@pytest.mark.parametrize(
    ("step", "line"),
    [
        (
            "version",
            "1,500 image samples in 2 classes; 1,000 train, 200 val, 300 test; 2 quarantined; files: 1,500 files, "
            "3.0 MB; unchanged since the last version; rows since the last version: 3 added, 1 modified  [1.2 s]",
        ),
        ("select", "resnet18, first in the ranking; 2 candidates; vit dropped out: no network  [20.0 s]"),
        (
            "extract",
            "computed 500, reused 1,000; random weights: computed 1,500, reused 0; 2 stored rows computed again and "
            "confirmed; 7 samples truncated  [30.0 s]",
        ),
        ("tune", "probe, strength 3.0, validation accuracy 0.9123  [2.0 s]"),
        ("evaluate", "Accuracy 0.900 on 1,200 test rows.  [4.0 s]"),
    ],
)
def test_a_step_is_one_line(step: str, line: str) -> None:
    assert summary.describe(step, OUTPUTS[step]) == line


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (
            {"asked": "auto", "strategy": "lp_ft", "best_epoch": 6, "why": "fine-tuning pays: 0.93 against 0.90",
             "more_data": "more data would help", "memorised": False, "stopped": None},
            "auto: lp_ft, best epoch 6, validation accuracy 0.9300; fine-tuning pays: 0.93 against 0.90; more data "
            "would help",
        ),
        (
            {"asked": "finetune", "strategy": "finetune", "best_epoch": 2, "more_data": "can't tell",
             "memorised": True},
            "finetune, best epoch 2, validation accuracy 0.9300; can't tell whether more data would help; WARNING: it "
            "has memorised training rows (the report says more)",
        ),
    ],
)  # fmt: skip
def test_the_training_in_one_line_says_why_and_warns(told: dict[str, Any], line: str) -> None:
    assert summary.describe("tune", {"watch": "accuracy", "validation": 0.93, **told}) == line


def test_many_that_dropped_out_are_counted() -> None:
    gone = [{"name": f"vit{i}", "status": "dropped", "reason": "no network"} for i in range(3)]
    outputs = {"chosen": "a", "why": "the only one left", "candidates": [{"name": "a", "status": "ranked"}, *gone]}
    told = "a, the only one left; 4 candidates, 3 dropped out (ranking.json says why)"
    assert summary.describe("select", outputs) == told


def test_a_step_that_was_restored_says_so() -> None:
    assert summary.describe("tune", {}) == "restored from an earlier run"


def table_text(steps: dict[str, StepResult]) -> str:
    from rich.console import Console

    stream = io.StringIO()
    Console(width=100, file=stream, color_system=None).print(
        summary.table(Run(steps, METRICS, Path("r"), Path("f"), Path("m")))
    )
    return " ".join(stream.getvalue().split())


def test_the_table_has_metrics_floors_features_and_seconds() -> None:
    text = table_text({step: StepResult(step, False, OUTPUTS[step]) for step in OUTPUTS})
    assert text == (
        "accuracy 0.9000 (0.8500 to 0.9400) macro f1 0.8000 (0.7000 to 0.8800) floor: majority class 0.5000 "
        "floor: random weights 0.6100 test samples 1,200 features computed 800, reused 700; random weights: computed "
        "1,500, reused 0 other candidates: computed 500 openvino 2026.4.1, bfloat16, 2 threads on EPYC torch, because "
        "OpenVINO lacks an operator version 1.2 s select 20.0 s extract 30.0 s tune 2.0 s evaluate 4.0 s"
    )


def test_the_table_of_several_projects_fits_a_terminal() -> None:
    from rich.console import Console

    told = RunSummary(
        title="Text: minilm", modality="text", backbone="minilm", strategy="probe", metric="accuracy", value=0.8333,
        low=0.798, high=0.873, confidence=0.9, n_test=1257,
        floors=(FloorSummary("majority", "commonest class", 0.125), FloorSummary("random_init", "random weights", 0.5)),
        state="unclear", headline="Not clearly above one of its floors", sentence="s", meaning="m",
    )  # fmt: skip
    here = Path("here")
    steps = {step: StepResult(step, False, {"seconds": 1.5}) for step in ("version", "tune")}
    done = [
        ProjectRun("demo/audio", here, Run(steps, {}, here, here, here), told),
        ProjectRun("again", here, Run({"tune": StepResult("tune", True)}, {}, here, here, here), told),
        ProjectRun("broken", here, error=UserError("no data")),
    ]
    stream = io.StringIO()
    Console(width=80, file=stream, color_system=None).print(summary.projects_table(done))
    lines = [line.rstrip() for line in stream.getvalue().splitlines() if line.strip()]
    assert lines[0] == " project      test  result,"
    assert lines[1] == " modality     rows  interval        floors                 verdict     seconds"
    assert lines[3:] == [
        " demo/audio  1,257  0.833 accuracy  0.125 commonest class  can't tell      3.0",
        " text               0.798 to 0.873  0.500 random weights",
        " again       1,257  0.833 accuracy  0.125 commonest class  can't tell    up to",
        " text               0.798 to 0.873  0.500 random weights                  date",
        " broken                                                    failed",
    ]


@pytest.mark.parametrize(("metric", "label"), [("r2", "training mean"), ("micro_f1", "commonest labels")])
def test_the_constant_floor_is_named_by_what_it_answers(metric: str, label: str) -> None:
    rows = summary.metric_rows({metric: 0.7, f"{metric}_low": 0.6, f"{metric}_high": 0.8, "floor_majority": 0.1})
    assert rows[1] == (f"floor: {label}", "0.1000")


def test_where_nothing_ran_every_feature_was_reused() -> None:
    text = table_text({step: StepResult(step, True, OUTPUTS[step]) for step in OUTPUTS})
    assert "features computed 0, reused 1,500 version up to date" in text
    nothing_told = table_text({step: StepResult(step, True) for step in OUTPUTS})
    assert "features all reused version up to date" in nothing_told
    restored = table_text({step: StepResult(step, False) for step in OUTPUTS})
    assert "features restored from an earlier run version restored" in restored


def test_new_rows_count_once_also_where_the_ranking_computed_some_of_them() -> None:
    part = {"computed": 35, "reused": 3965}
    select = {"chosen": "a", "computed": 5, "reused": 795, "candidates": [{"name": "a", "status": "ranked"}]}
    extract = {**part, "backbone": part, "random": {"computed": 40, "reused": 3960}}
    ran = summary.features(StepResult("select", False, select), StepResult("extract", False, extract))
    assert ran == ["computed 40, reused 3,960"]
    again = summary.features(StepResult("select", False, select), StepResult("extract", True, extract))
    assert again == ["computed 5, reused 3,995; random weights: computed 0, reused 4,000"]
