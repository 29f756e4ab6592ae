"""Training that goes on from another model: what it takes of it, what pulls it back, and what stays frozen."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chains import maps
from jobs import SHAPE, job_of, manifest_of, start_of, write_maps

from tl_core.errors import FormatError, UserError
from tl_core.heads import LinearHead, MulticlassHead
from tl_core.manifest import Manifest
from tl_core.training import Fitted, Job, fit
from tl_core.training.plan import plan_of
from tl_core.training.seen import Seen
from tl_core.training.start import Start
from tl_core.training.trained import Trained

STILL = {"lr": 1e-12, "head_lr": 1e-12, "weight_decay": 0.0, "epochs": 1, "calibrate": False, "augment": False}


def labelled(folder: Path, names: str, train: int = 18, val: int = 9) -> Manifest:
    """Maps whose classes, one letter each, are told apart by their means."""
    rng = np.random.default_rng(len(names))
    folder.mkdir(parents=True, exist_ok=True)
    label = [names[i % len(names)] for i in range(train + val)]
    files = [folder / f"{names}-{i:03}.map" for i in range(train + val)]
    for path, name in zip(files, label):
        (rng.normal(size=SHAPE) + (ord(name) - ord("a"))).astype(np.float32).tofile(path)
    return manifest_of(files, ["train"] * train + ["val"] * val, label, "map")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, Fitted]:
    """A fine-tuning on the classes a and b that moved every segment."""
    folder = tmp_path_factory.mktemp("first")
    job = job_of(write_maps(folder / "data"), folder, lr=1e-2, head_lr=1e-2, train_from="all", calibrate=False)
    return job, fit(job)


@pytest.fixture
def start(first: tuple[Job, Fitted]) -> Start:
    job, fitted = first
    return start_of(fitted, job)


def tensors(fitted: Fitted) -> dict[str, torch.Tensor]:
    assert fitted.backbone is not None
    return fitted.backbone.state_dict()


def test_it_begins_as_the_model_says(first: tuple[Job, Fitted], start: Start) -> None:
    job, fitted = first
    still = fit(job.tuned(**STILL).replace(start=start, state=job.state / "still"))
    for name, tensor in tensors(fitted).items():
        torch.testing.assert_close(tensors(still)[name], tensor)
    np.testing.assert_allclose(still.said, fitted.said, atol=1e-5)
    cold = fit(job.tuned(**STILL).replace(state=job.state / "cold"))
    assert np.abs(cold.said - fitted.said).max() > 0.1


@pytest.mark.parametrize("strategy", ["finetune", "lp_ft", "gradual"])
def test_classes_go_by_name(tmp_path: Path, start: Start, strategy: str) -> None:
    """b was known, c is new, a is gone."""
    job = job_of(labelled(tmp_path / "data", "cb"), tmp_path, strategy=strategy, train_from="all", **STILL)
    fitted = fit(job.replace(start=start))
    assert start.head is not None
    assert start.new(job.task.classes) == ["c"]
    assert start.gone(job.task.classes) == ["a"]
    assert isinstance(fitted.head, LinearHead)
    weight = fitted.head.linear.weight
    torch.testing.assert_close(weight[0], start.head["linear.weight"][1])
    if strategy == "lp_ft":  # the new class begins as a probe on the model's own embeddings has it
        assert fitted.said.argmax(axis=1).tolist() != [0] * len(fitted.said)
        assert float(weight[1].abs().sum()) > 0
    else:
        assert float(weight[1].abs().max()) < 1e-9


def test_a_row_of_a_new_class_says_what_it_said() -> None:
    generator = torch.Generator().manual_seed(0)
    head, other = MulticlassHead(4, 3), MulticlassHead(4, 2)
    for one in (head, other):
        for tensor in one.state_dict().values():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    x = torch.rand(5, 4, generator=generator)
    own, known = head(x).detach(), other(x).detach()
    start = Start("0" * 32, (), {}, dict(other.state_dict()), ("x", "y"), Seen(*2 * (np.zeros(0, np.uint64),)))
    said = start.carry(head, ("y", "new", "x"))(x).detach()
    torch.testing.assert_close(said, torch.stack([known[:, 1], own[:, 1], known[:, 0]], dim=1))


def test_another_kind_of_head_is_begun_anew(first: tuple[Job, Fitted], start: Start) -> None:
    job, fitted = first
    still = fit(job.tuned(**STILL).replace(start=dataclasses.replace(start, head=None), state=job.state / "head"))
    assert isinstance(still.head, LinearHead)
    assert float(still.head.linear.weight.abs().max()) < 1e-9
    x = still.head.mean  # of the started backbone's embeddings, not of the pretrained one's
    assert not torch.allclose(x, job.features(job.train).mean(dim=0), atol=1e-3)
    for name, tensor in tensors(fitted).items():
        torch.testing.assert_close(tensors(still)[name], tensor)


def test_the_pretrained_weights_stay_what_it_is_pulled_to_and_mixed_with(
    first: tuple[Job, Fitted], start: Start
) -> None:
    job, _ = first
    backbone = maps()
    pretrained = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    tune = job.tuned(wise=0.0, l2_sp=1.0).config.tune
    trained = Trained(backbone, plan_of(tune, backbone), tune, start=start)
    moved = sum(
        float((start.backbone[name] - pretrained[name]).square().sum())
        for name, _ in backbone.named_parameters()
        if name in start.backbone
    )
    pull = trained.penalty()
    assert pull is not None
    assert float(pull.detach()) == pytest.approx(moved / 2, rel=1e-4)
    assert moved > 0
    trained.finish()
    for name, tensor in backbone.state_dict().items():
        torch.testing.assert_close(tensor, pretrained[name])


@pytest.mark.parametrize("update", ["biases", "lora"])
def test_what_an_update_leaves_alone_is_the_models_too(first: tuple[Job, Fitted], start: Start, update: str) -> None:
    job, fitted = first
    still = fit(job.tuned(**STILL, update=update).replace(start=start, state=job.state / update))
    for name, tensor in tensors(fitted).items():
        torch.testing.assert_close(tensors(still)[name], tensor, rtol=1e-4, atol=1e-5)


def test_segments_that_stay_frozen_make_it_unfit(first: tuple[Job, Fitted], start: Start) -> None:
    job, _ = first
    shallow = job.tuned(train_from=1).replace(start=start, state=job.state / "shallow")
    with pytest.raises(ValueError, match=r"it has tuned segments that stay frozen here \(.*\); raise tune.train_from"):
        fit(shallow)
    name, tensor = next(iter(start.backbone.items()))
    other = dataclasses.replace(start, backbone={**start.backbone, name: torch.cat([tensor, tensor])})
    assert "other names or shapes" in str(other.misfit(maps(), plan_of(job.config.tune, maps())))


class Grouped:
    """What Seen asks of a manifest."""

    def __init__(self, digests: list[str], groups: list[str] | None = None) -> None:
        self._digests, self._groups = digests, groups

    def digests(self, rows: np.ndarray) -> list[str]:
        return [self._digests[i] for i in rows]

    def groups(self, rows: np.ndarray) -> list[str] | None:
        return None if self._groups is None else [self._groups[i] for i in rows]


def test_what_was_seen_goes_by_content_and_by_group(tmp_path: Path) -> None:
    def digest(letter: str) -> str:
        return letter * 32

    then: Any = Grouped([digest("a"), digest("b"), digest("c")], ["anna", "anna", "bert"])
    now: Any = Grouped([digest("d"), digest("c"), digest("b"), digest("e")], ["anna", "carl", "carl", "emil"])
    rows = np.arange(4)
    seen = Seen.of(then, np.array([0, 1]), np.array([2]))
    assert seen.taught(now, rows).tolist() == [True, False, True, False]
    assert seen.met(now, rows).tolist() == [True, True, True, False]
    older: Any = Grouped([digest("e")])
    both = seen.joined(Seen.of(older, np.array([0]), np.zeros(0, np.int64)))
    assert both.taught(now, rows).tolist() == [True, False, True, True]

    path = tmp_path / "seen.safetensors"
    both.save(path)
    first = path.read_bytes()
    Seen.load(path).save(path)
    assert path.read_bytes() == first
    assert Seen.load(path).met(now, rows).all()
    path.write_bytes(first.replace(b'\\"format\\": 1', b'\\"format\\": 2'))
    with pytest.raises(FormatError, match="has format 2, this tl reads up to 1; update tl"):
        Seen.load(path)
    path.write_bytes(first[:20])
    with pytest.raises(UserError, match=r"unreadable .*seen\.safetensors.*; train again or fetch it again"):
        Seen.load(path)
