"""The decision: which rule lets through what, what it says, and how much it leaves open."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tl_core.config import GateConfig
from tl_core.errors import FormatError
from tl_core.evaluation import evaluate_predictions, majority_predictions
from tl_core.evaluation.paired import coin_p
from tl_core.gate import Asked, Candidate, Decision, judge, placed
from tl_core.types import Targets

from .material import Duel, answers

RESAMPLES = 200


def decide(duel: Duel, settings: Mapping[str, Any] | None = None, **asked: Any) -> Decision:
    champion, challenger = duel.models()
    return judge(
        duel.asked(**asked), challenger, champion, duel.test_set, GateConfig(**(settings or {})), resamples=RESAMPLES
    )


def test_a_better_model_is_promoted_and_the_sentence_says_why() -> None:
    decision = decide(Duel(1000, 0.2, 0.15))
    metric = decision.rule("metric")
    assert decision.promote
    assert (metric.state, metric.limit, metric.further_rows) == ("pass", 0.0, None)
    assert metric.interval is not None
    assert 0 < metric.interval.low < (metric.value or 0) < metric.interval.high
    assert decision.sentence.startswith("Promoted: v2. Surely higher: accuracy 0.8")
    assert decision.sentence.endswith("No guard failed.")
    assert decision.challenger.score is not None
    assert decision.champion is not None
    assert decision.champion.score is not None
    assert decision.challenger.score.value - decision.champion.score.value == pytest.approx(metric.value, abs=1e-5)
    assert {rule.name: rule.state for rule in decision.rules} == {
        "metric": "pass", "newest": "skipped", "classes": "pass", "groups": "skipped", "calibration": "pass",
        "former": "skipped", "latency": "skipped", "size": "skipped",
    }  # fmt: skip


def test_an_equal_model_is_refused_with_the_rows_that_would_decide() -> None:
    decision = decide(Duel(400, 0.2, 0.19, seed=2))
    assert not decision.promote
    metric = decision.rule("metric")
    assert metric.state == "can't tell"
    assert decision.further_rows == metric.further_rows
    assert decision.further_rows
    assert f"About {decision.further_rows:,} more labelled test rows would decide it" in decision.sentence
    assert decision.sentence.startswith("Refused: v2 (metric can't be told). Can't tell whether it is higher: ")


def test_the_rows_that_it_asks_for_do_decide() -> None:
    """With as many more, a difference as measured is found in about four of five test sets."""
    duel, place = Duel(300), np.arange(300)
    duel.wrong = [place < 52, (place < 40) | (place >= 292)]  # 12 rows won, 8 lost
    more = decide(duel).rule("metric").further_rows
    assert more is not None
    assert 1500 < more < 2600
    drawn = np.random.default_rng(0).multinomial(300 + more, [12 / 300, 8 / 300, 280 / 300], size=400)
    found = np.mean([coin_p(int(lost), int(won), "one") <= 0.05 for won, lost, _ in drawn])
    assert found == pytest.approx(0.8, abs=0.07)


def test_a_worse_model_fails_and_no_number_of_rows_is_offered() -> None:
    decision = decide(Duel(1000, 0.2, 0.35))
    assert decision.rule("metric").state == "fail"
    assert decision.rule("classes").state == "fail"
    assert "Not higher: " in decision.sentence
    assert decision.further_rows is None


def test_a_gain_below_the_one_asked_for_is_refused() -> None:
    duel = Duel(2000, 0.2, 0.17)
    assert decide(duel).promote
    decision = decide(duel, {"min_gain": 0.03})
    assert not decision.promote
    assert decision.rule("metric").text.startswith("Can't tell whether it is higher by more than 0.03: ")
    assert decide(duel, {"min_gain": 0.2}).rule("metric").text.startswith("Not higher by more than 0.2: ")


def test_an_interval_above_0_is_not_enough_where_the_exact_test_says_no() -> None:
    """Four rows won and none lost: every resample that draws one is a gain, and a coin does it once in 16."""
    duel = Duel(60, 0.2)
    duel.wrong = [np.arange(60) < 14, (np.arange(60) < 14) & (np.arange(60) >= 4)]
    metric = decide(duel).rule("metric")
    assert metric.interval is not None
    assert metric.interval.low > 0
    assert metric.state == "can't tell"
    assert "(p 0.062)" in metric.text
    assert metric.further_rows
    assert metric.further_rows > 60


def test_few_groups_that_agree_do_not_promote() -> None:
    duel = Duel(400, 0.3)
    duel.wrong = [np.arange(400) % 4 == 0, np.arange(400) % 8 == 0]
    assert decide(duel).promote
    metric = decide(duel, groups=tuple(str(i // 100) for i in range(400))).rule("metric")
    assert metric.state == "can't tell"
    assert "(p 0.062)" in metric.text  # four coins that fall alike
    assert metric.further_rows
    assert metric.further_rows > 400


def test_the_same_bytes_are_refused_as_the_same_model() -> None:
    duel = Duel(50)
    champion, challenger = duel.models()
    decision = judge(duel.asked(), replace(challenger, digest="x"), champion, duel.test_set, GateConfig())
    assert (decision.promote, decision.rules) == (False, ())
    assert decision.sentence == "Refused: v2 is the same model as the champion v1, byte by byte."


def test_the_same_answers_are_refused_without_a_number() -> None:
    duel = Duel(200)
    duel.wrong[1] = duel.wrong[0]
    decision = decide(duel)
    assert decision.rule("metric").text.startswith("No row is decided otherwise: ")
    assert decision.further_rows is None


def test_rows_that_a_model_has_learned_from_count_nowhere() -> None:
    duel = Duel(400, 0.3, 0.3)
    duel.wrong[1] = duel.wrong[1] & (np.arange(400) >= 200)  # right on all that it learned
    learned = np.arange(400) < 200
    assert decide(duel).promote
    decision = decide(duel, learned=learned)
    assert not decision.promote
    assert (decision.test_set.judged, decision.test_set.learned) == (200, 200)
    assert decision.warnings == (
        "200 rows of the test set were left out, since one of the models has learned from them",
    )
    nothing = decide(duel, learned=np.ones(400, bool))
    assert nothing.rule("metric").text.startswith("Can't compare the two: no row of the test set is left that neither")
    assert not nothing.promote


def test_harm_on_the_newest_rows_refuses() -> None:
    duel = Duel(1000, 0.25, 0.15)
    newest = np.arange(1000) >= 900
    duel.wrong[1] = np.where(newest, duel.wrong[0] | (np.arange(1000) % 5 == 0), duel.wrong[1])
    assert decide(duel).promote
    decision = decide(duel, newest=newest)
    assert decision.rule("newest").state == "fail"
    assert decision.sentence.startswith("Refused: v2 (newest failed). Accuracy on test rows that are new since the ")
    assert decision.test_set.newest == 100


def test_newest_rows_need_not_be_frozen_ones() -> None:
    duel = Duel(1000, 0.2, 0.14)
    frozen = np.arange(1000) < 800
    decision = decide(duel, frozen=frozen, newest=~frozen)
    assert (decision.test_set.judged, decision.test_set.newest) == (800, 200)
    assert "(200 rows)" in decision.rule("newest").text


def test_a_class_that_falls_refuses_whatever_the_others_gain() -> None:
    duel = Duel(2000, 0.2, 0.1)
    duel.wrong[1] = np.where(duel.truth == 2, duel.wrong[0] | (np.arange(2000) % 3 == 0), duel.wrong[1])
    decision = decide(duel)
    rule = decision.rule("classes")
    assert decision.rule("metric").state == "pass"
    assert (rule.state, rule.limit, rule.parts[0].name) == ("fail", -0.1, "c")
    assert "F1 of 'c' (" in rule.text
    assert "more than the 0.1 that is let pass, and more than chance explains" in rule.text
    assert decide(duel, {"class_drop": 0.5}).promote


def test_a_group_that_falls_refuses() -> None:
    duel = Duel(1000, 0.2, 0.12)
    device = ["old" if i % 8 == 0 else "new" for i in range(1000)]
    old = np.array([name == "old" for name in device])
    duel.wrong[1] = np.where(old, duel.wrong[0] | (np.arange(1000) % 24 < 12), duel.wrong[1])
    decision = decide(duel, columns={"device": device, "few": ["x"] * 9 + ["y"] * 991})
    rule = decision.rule("groups")
    assert (rule.state, rule.parts[0].name) == ("fail", "device is 'old'")
    assert [part.name for part in rule.parts[1:]].count("few is 'x'") == 0
    assert not decision.promote


def test_overconfidence_refuses() -> None:
    duel = Duel(1000, 0.2, 0.15)
    champion, _ = duel.models(0.8)
    _, challenger = duel.models(0.999)
    decision = judge(duel.asked(), challenger, champion, duel.test_set, GateConfig(), resamples=RESAMPLES)
    rule = decision.rule("calibration")
    assert rule.state == "fail"
    assert rule.value == pytest.approx(0.149, abs=0.03)
    assert not decision.promote


def test_a_calibration_error_that_chance_explains_refuses_nothing() -> None:
    """Three rows lost to none: the error is beyond the limit, and a coin makes it so once in eight."""
    duel = Duel(30)
    duel.wrong = [np.arange(30) < 3, np.arange(30) < 6]
    champion, challenger = duel.models(0.9)
    rule = judge(duel.asked(), challenger, champion, duel.test_set, GateConfig(), resamples=RESAMPLES).rule(
        "calibration"
    )
    assert rule.value is not None
    assert rule.value > 0.03
    assert rule.state == "pass"
    duel.wrong = [np.arange(30) < 3, np.arange(30) < 12]
    champion, challenger = duel.models(0.9)
    rule = judge(duel.asked(), challenger, champion, duel.test_set, GateConfig(), resamples=RESAMPLES).rule(
        "calibration"
    )
    assert rule.state == "fail"
    assert rule.text.endswith("more than the 0.03 that is let pass, and more than chance explains (p 0.005).")


def test_what_the_replaced_test_set_asked_must_not_be_forgotten() -> None:
    duel = Duel(1000, 0.2, 0.1)
    former = np.arange(1000) < 300
    duel.wrong[1] = np.where(former, duel.wrong[0] | (np.arange(1000) % 9 == 0), duel.wrong[1])
    decision = decide(duel, former=former)
    assert decision.rule("former").state == "fail"
    assert decide(duel, {"forgetting": 0.5}, former=former).promote


def test_new_classes_count_and_the_known_ones_must_not_be_forgotten() -> None:
    """The champion can't name the new class: the gain on it must not hide what was lost on the others."""
    duel = Duel(1000, 0.1, 0.1)
    champion, challenger = duel.models()
    known = ("a", "b", "c", "d")
    targets = Targets("multiclass", known)
    said = placed(answers(np.minimum(duel.truth, 3), duel.wrong[0], 4), known, duel.targets)
    assert (said[:, 4] == 0).all()
    champion = replace(champion, classes=known, predictions=said)
    decision = judge(duel.asked(), challenger, champion, duel.test_set, GateConfig(), resamples=RESAMPLES)
    assert decision.promote
    assert decision.rule("known").state == "pass"
    assert "e" not in [part.name for part in decision.rule("classes").parts]
    forgot = duel.wrong[1] | ((duel.truth < 4) & (np.arange(1000) % 9 == 0))
    worse = replace(challenger, predictions=answers(duel.truth, forgot, 5))
    decision = judge(duel.asked(), worse, champion, duel.test_set, GateConfig(class_drop=0.9), resamples=RESAMPLES)
    assert decision.rule("metric").state == "pass"
    assert decision.rule("known").state == "fail"
    assert targets.outputs == 4


def test_strict_asks_for_proof_and_says_what_it_takes() -> None:
    duel = Duel(400, 0.2, 0.14)
    lax = decide(duel)
    assert lax.promote
    assert "can't be ruled out" in lax.rule("classes").text
    strict = decide(duel, {"strict": True, "class_drop": 0.0})
    assert not strict.promote
    assert strict.rule("classes").state == "can't tell"
    assert strict.further_rows
    assert "a fall beyond the 0 that is let pass can't be ruled out" in strict.sentence
    assert decide(Duel(4000, 0.2, 0.12), {"strict": True}).promote


@pytest.mark.parametrize(
    ("limits", "measured", "state", "text"),
    [
        ({"max_latency_ms": 20.0}, {"milliseconds": 12.5}, "pass", "One sample takes 12.5 ms, 20 are allowed"),
        ({"max_latency_ms": 10.0}, {"milliseconds": 12.5}, "fail", "One sample takes 12.5 ms, 10 are allowed"),
        ({"max_latency_ms": 10.0}, {}, "can't tell", "It was not measured, and gate.max_latency_ms is 10."),
        ({"max_megabytes": 90.0}, {"megabytes": 91.0}, "fail", "take 91 MB, 90 are allowed"),
        ({}, {"megabytes": 91.0}, "skipped", "take 91 MB; no limit is set"),
    ],
)
def test_time_and_size_have_limits(limits: dict[str, float], measured: dict[str, Any], state: str, text: str) -> None:
    duel = Duel(500, 0.25, 0.12)
    champion, challenger = duel.models()
    settings = GateConfig.model_validate(limits)
    decision = judge(
        duel.asked(), replace(challenger, **measured), champion, duel.test_set, settings, resamples=RESAMPLES
    )
    name = "latency" if "max_latency_ms" in limits else "size"
    assert decision.rule(name).state == state
    assert text in decision.rule(name).text
    assert decision.promote == (state in ("pass", "skipped"))


def test_a_first_model_must_beat_its_floors() -> None:
    duel = Duel(300, 0.2, 0.2)
    _, challenger = duel.models()
    for wrong, promote, state in ((duel.wrong[1], True, "pass"), (np.arange(300) % 5 > 0, False, "can't tell")):
        said = answers(duel.truth, wrong, 5)
        evaluation = evaluate_predictions(
            "multiclass", duel.targets, said, duel.truth, confidence=0.9, resamples=200, seed=0,
            floors={"majority": majority_predictions(duel.targets, duel.truth, 300)},
        )  # fmt: skip
        decision = judge(
            duel.asked(), replace(challenger, predictions=said), None, duel.test_set, GateConfig(),
            evaluation=evaluation,
        )  # fmt: skip
        assert (decision.promote, decision.rule("floors").state, decision.champion) == (promote, state, None)
        assert "No champion to compare with. Accuracy 0." in decision.sentence
    nothing = judge(duel.asked(), challenger, None, duel.test_set, GateConfig())
    assert not nothing.promote
    assert "nothing that a first model could be held against" in nothing.sentence


@pytest.mark.parametrize(
    ("plain", "strict", "promote", "state"),
    [(0.21, False, True, "pass"), (0.21, True, False, "can't tell"), (0.05, False, False, "fail")],
)
def test_a_first_model_must_not_be_worse_than_plain_features(
    plain: float, strict: bool, promote: bool, state: str
) -> None:
    duel = Duel(300, 0.2, 0.2)
    _, challenger = duel.models()
    said = answers(duel.truth, duel.wrong[1], 5)
    simple = answers(duel.truth, np.random.default_rng(5).random(300) < plain, 5)
    evaluation = evaluate_predictions(
        "multiclass", duel.targets, said, duel.truth, confidence=0.9, resamples=200, seed=0,
        floors={"majority": majority_predictions(duel.targets, duel.truth, 300), "baseline": simple},
    )  # fmt: skip
    settings = GateConfig(strict=strict)
    decision = judge(duel.asked(), challenger, None, duel.test_set, settings, evaluation=evaluation)
    assert (decision.promote, decision.rule("floors").state) == (promote, state)
    assert "(plain features)" in decision.rule("floors").text


def test_a_test_set_wears_out() -> None:
    duel = Duel(100)
    champion, challenger = duel.models()

    def told(uses: int) -> Decision:
        return judge(
            duel.asked(), challenger, champion, duel.test_set, GateConfig(max_uses=3), uses=uses, resamples=100
        )

    assert told(2).warnings == ()
    assert (told(2).test_set.uses, told(3).test_set.uses) == (3, 4)
    assert told(3).warnings[0].startswith("This is decision 4 on one test set (gate.max_uses 3): ")


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_labels_and_values_are_judged_by_their_own_metric(task: str) -> None:
    rng = np.random.default_rng(0)
    if task == "multilabel":
        targets = Targets("multilabel", ("x", "y", "z"))
        truth: np.ndarray = (rng.random((500, 3)) < 0.4).astype(np.float32)
        said = [np.clip(0.5 + (truth - 0.5) * 0.6 + spread * rng.normal(size=(500, 3)), 0, 1) for spread in (0.4, 0.3)]
    else:
        targets = Targets("regression")
        truth = rng.normal(size=500).astype(np.float32)
        said = [truth + spread * rng.normal(size=500) for spread in (0.6, 0.5)]
    duel = Duel(500)
    asked = replace(duel.asked(), targets=targets, truth=truth, newest=np.arange(500) > 450)
    champion, challenger = (Candidate(n, n, targets.classes, p) for n, p in zip(("old", "new"), said))
    decision = judge(asked, challenger, champion, duel.test_set, GateConfig(calibration_rise=0.5), resamples=RESAMPLES)
    assert decision.promote, decision.sentence
    assert decision.metric == {"multilabel": "micro_f1", "regression": "r2"}[task]
    assert decision.rule("classes").state == ("pass" if task == "multilabel" else "skipped")
    back = judge(asked, champion, challenger, duel.test_set, GateConfig(), resamples=RESAMPLES)
    assert back.rule("metric").state == "fail"


def test_a_decision_is_json_and_the_same_every_time() -> None:
    duel = Duel(300, 0.2, 0.15)
    one, two = decide(duel), decide(duel)
    text = json.dumps(one.as_json(), allow_nan=False, sort_keys=True)
    assert text == json.dumps(two.as_json(), allow_nan=False, sort_keys=True)
    assert Decision.from_json(json.loads(text)) == one
    with pytest.raises(FormatError, match="a decision of format 2, this tl reads up to 1; update tl"):
        Decision.from_json({**one.as_json(), "format": 2})
    with pytest.raises(FormatError, match="damaged decision"):
        Decision.from_json({"format": 1})
    with pytest.raises(KeyError):
        one.rule("luck")


def test_what_became_of_the_test_set_is_told() -> None:
    duel = Duel(200)
    nobody = np.zeros(0, np.int64)
    found = replace(duel.asked().set_match, gone=("x",), quarantined=("y", "z"), relabelled=np.array([3]))
    asked: Asked = duel.asked(set_match=replace(found, due=("1 of its rows is gone",), added=nobody))
    champion, challenger = duel.models()
    decision = judge(asked, challenger, champion, duel.test_set, GateConfig(), resamples=100)
    kept = decision.test_set
    assert (kept.gone, kept.quarantined, kept.relabelled, kept.rows) == (1, 2, 1, 200)
    assert decision.warnings == (
        "The test set should be frozen anew: 1 of its rows is gone",
        "2 rows of the test set are unusable in these data, and were left out",
    )
