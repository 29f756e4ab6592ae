"""The network trained from random weights, to compare with: like fine-tuning, within its budget, or said why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from chains import maps
from jobs import job_of, write_maps

from tl_core.errors import UserError
from tl_core.training import rival
from tl_core.training.rival import from_scratch


def test_is_trained_whole_from_random_weights_with_the_recipe_of_fine_tuning(tmp_path: Path) -> None:
    job = job_of(
        write_maps(tmp_path / "maps"), tmp_path, strategy="lp_ft", train_from=2, update="biases", epochs=2, l2_sp=0.1
    )
    found = from_scratch(job, 1.0, 1e12)
    assert found.reason is None
    assert found.epochs == 2
    assert found.gflops > 0
    assert found.fitted is not None
    assert found.fitted.backbone is not None
    assert found.fitted.trained == tuple(found.fitted.backbone.segment_names)
    assert found.fitted.facts["strategy"] == "scratch"
    assert len(found.fitted.facts["finetune"]["history"]) == 2
    pretrained = maps().state_dict()
    assert any(not torch.equal(value, pretrained[key]) for key, value in found.fitted.backbone.state_dict().items())


def test_a_budget_that_does_not_suffice_is_told_with_what_would(tmp_path: Path) -> None:
    job = job_of(write_maps(tmp_path / "maps"), tmp_path)
    found = from_scratch(job, 0.25, 1e3)
    assert found.fitted is None
    assert found.reason is not None
    assert found.reason.startswith("it would take about ")
    assert found.reason.endswith(" min; evaluate.scratch_minutes is 0.25")
    needed = float(found.reason.split()[4])
    assert from_scratch(job, needed * 1.1, 1e3).fitted is not None


def test_a_training_that_fails_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverges(job: Any) -> None:
        raise UserError("the training diverged in epoch 1")

    monkeypatch.setattr(rival, "fit", diverges)
    found = from_scratch(job_of(write_maps(tmp_path / "maps"), tmp_path), 1.0, 1e12)
    assert (found.fitted, found.reason) == (None, "the training diverged in epoch 1")
