"""Plans over a chain: what each strategy trains, and what it refuses."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
from chains import Rows, Steps, built, maps, tokens
from torch import nn

from tl_core.config import TuneConfig
from tl_core.errors import UserError
from tl_core.training.plan import Plan, first_trained, plan_of, updated, weighted
from tl_core.types import Identity


def tune(**values: Any) -> TuneConfig:
    return TuneConfig(**{"strategy": "finetune", **values})


def fault(backbone: Any, **values: Any) -> str:
    with pytest.raises(UserError) as caught:
        plan_of(tune(**values), backbone)
    return str(caught.value)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, Plan(0, (0,), "all", "zeros", False)),
        ({"train_from": 2}, Plan(1, (1,), "all", "zeros", False)),
        ({"train_from": 1, "update": "norms"}, Plan(3, (3,), "norms", "zeros", False)),
        ({"strategy": "lp_ft"}, Plan(0, (0,), "all", "probe", False)),
        ({"strategy": "gradual"}, Plan(0, (3, 1, 0), "all", "zeros", False)),
        ({"strategy": "gradual", "train_from": 2, "update": "biases"}, Plan(1, (3, 1), "biases", "zeros", False)),
        ({"strategy": "scratch"}, Plan(0, (0,), "all", "zeros", True)),
    ],
)
def test_plans(values: dict[str, Any], expected: Plan) -> None:
    assert plan_of(tune(**values), maps()) == expected


def test_a_table_of_word_vectors_is_left_alone_unless_asked_for() -> None:
    segments: list[tuple[str, nn.Module]] = [("table", Steps(nn.Embedding(50, 8))), ("layer", Steps(nn.Linear(8, 8)))]
    words = built(Rows(segments, 8, Identity("0" * 64, {}, "words")))
    assert [first_trained(words, k) for k in ("auto", "all", 2)] == [1, 0, 0]
    assert first_trained(maps(), "auto") == first_trained(tokens(), "auto") == 0
    assert plan_of(tune(), words).start == 1
    assert plan_of(tune(strategy="scratch"), words).start == 0


def test_segments_without_weights_count_for_nothing() -> None:
    assert weighted(maps()) == [0, 1, 3]
    assert [first_trained(maps(), k) for k in (1, 2, 3, "all")] == [3, 1, 0, 0]


@pytest.mark.parametrize("train_from", [0, -1, 4])
def test_train_from_must_fit_the_chain(train_from: int) -> None:
    assert fault(maps(), train_from=train_from) == (
        f"config key 'tune.train_from' can't be {train_from}: the backbone has 3 segments with weights; "
        "allowed: 1 to 3 (of stem, group, deep), auto or all"
    )


def test_a_network_without_weights_trains_its_head_alone() -> None:
    backbone = maps()
    for name in ("stem", "group", "deep"):
        backbone.segments[name] = Steps(nn.Identity())
    assert plan_of(tune(), built(backbone)) == Plan(5, (5,), "all", "zeros", False)
    assert fault(backbone, update="biases") == (
        "config key 'tune.update' can't be 'biases': there is no bias in the trained segments (none); allowed here: all"
    )


def test_gradual_needs_segments_to_unfreeze() -> None:
    assert fault(maps(), strategy="gradual", train_from=1) == (
        "config key 'tune.strategy' can't be 'gradual': 1 of the backbone's segments would train, and there is nothing "
        "to unfreeze one by one; allowed here: finetune or lp_ft, or tune.train_from from 2 to 3"
    )


def test_scratch_leaves_nothing_as_it_was() -> None:
    lines = fault(maps(), strategy="scratch", train_from=2, update="biases", l2_sp=0.1, wise=0.5).splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "config key 'tune.train_from' can't be 2 with tune.strategy=scratch",
        "config key 'tune.update' can't be 'biases' with tune.strategy=scratch",
        "config key 'tune.l2_sp' can't be 0.1 with tune.strategy=scratch",
        "config key 'tune.wise' can't be 0.5 with tune.strategy=scratch",
    ]


def test_an_adapter_is_not_pulled_to_where_it_starts() -> None:
    assert fault(maps(), update="lora", l2_sp=0.1).startswith(
        "config key 'tune.l2_sp' can't be 0.1 with tune.update=lora: it pulls weights"
    )


@pytest.mark.parametrize("update", ["biases", "lora"])
def test_biases_and_adapters_leave_the_statistics_of_batch_norms(update: str) -> None:
    assert fault(maps(), update=update, batch_norm="update") == (
        f"config key 'tune.batch_norm' can't be 'update' with tune.update={update}: what the batch-norms normalise by "
        "stays as it is; set it to keep, or tune.update to all or norms"
    )
    plan_of(tune(update="norms", batch_norm="update"), maps())


@pytest.mark.parametrize(
    ("update", "what"), [("norms", "norm"), ("biases", "bias"), ("lora", "plain linear or convolutional layer")]
)
def test_an_update_needs_something_to_move(update: str, what: str) -> None:
    backbone = maps()
    backbone.segments["deep"] = Steps(nn.Conv2d(8, 12, 1, groups=4, bias=False))
    assert fault(built(backbone), train_from=1, update=update) == (
        f"config key 'tune.update' can't be '{update}': there is no {what} in the trained segments (deep, pool); "
        "allowed here: all, or a higher tune.train_from"
    )


def test_adapters_need_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert fault(maps(), update="dora") == (
        "config key 'tune.update' can't be 'dora' without peft: pip install 'tl-core[adapters]', or set it to all"
    )


@pytest.mark.parametrize("strategy", ["probe", "auto"])
def test_strategies_that_train_no_backbone_have_no_plan(strategy: str) -> None:
    with pytest.raises(ValueError, match="trains no backbone"):
        plan_of(tune(strategy=strategy), maps())


def test_what_an_update_moves() -> None:
    stem, low = maps().segments["stem"], tokens().segments["low"]
    assert [name for name, _ in updated(stem, "all")] == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert [name for name, _ in updated(stem, "norms")] == ["1.weight", "1.bias"]
    assert [name for name, _ in updated(stem, "biases")] == ["0.bias", "1.bias"]
    assert [name for name, _ in updated(low, "biases")] == [
        "0.norm.bias", "0.attention.in_proj_bias", "0.attention.out_proj.bias", "0.mlp.bias"
    ]  # fmt: skip
    assert [name for name, _ in updated(low, "norms")] == ["0.norm.weight", "0.norm.bias"]
    assert [name for name, _ in updated(maps().segments["group"], "norms")] == ["1.weight", "1.bias"]
    assert [name for name, _ in updated(tokens().segments["end"], "norms")] == ["0.weight"]
