"""What the report says of the training: the decision, what it tells, and the pictures."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import tunings
from pydantic import TypeAdapter

from tl_core.config import apply_override, describe, parse_overrides, validate
from tl_core.errors import FormatError
from tl_core.report.lines import MAX_DOTS, Lines, Series, picture
from tl_core.report.templates import render
from tl_core.report.tuning import Tuning
from tl_core.report.tuning_pictures import curve_picture, rate_picture, search_picture, training_pictures
from tl_core.report.tuning_section import tuning_section
from tl_core.report.units import amount, difference, unit_of


def read(value: dict[str, Any]) -> Tuning:
    return TypeAdapter(Tuning).validate_python(value)


class Words(HTMLParser):
    """The section's text as a reader has it, and whether its tags nest."""

    VOID = frozenset({"wbr", "br"})

    def __init__(self, value: dict[str, Any]) -> None:
        super().__init__()
        self.text, self.open = "", list[str]()
        self.images: list[str] = []
        self.feed(render("tuning.html", {"training": tuning_section(read(value))}))
        assert not self.open
        self.text = re.sub(r"\s+", " ", self.text).strip()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if found.get("role") == "img":
            self.images.append(found["aria-label"] or "")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None: ...

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def in_order(parts: list[str], text: str) -> None:
    at = 0
    for part in parts:
        assert part in text[at:], (part, text[at : at + 400])
        at = text.index(part, at)


def test_the_decision_comes_first_then_what_it_tells_and_the_pictures() -> None:
    told = Words(tunings.by_auto())
    in_order(
        [
            "How it was trained, and what that tells",
            "Fine-tuned from the probe's weights. Fine-tuning pays: lp_ft 0.930 against 0.899 of the probe on 412",
            "lp_ft leads probe by 3.1 points of accuracy (1.2 to 5.0). Accuracy 0.930 on the validation rows, with the "
            "weights of epoch 6 of 9; it ended early: 3 epochs without a better accuracy on validation.",
            "A gap of 4.1 points (1.9 to 6.3). Accuracy is 0.953 on training rows and 0.912 on validation rows.",
            "More data would help. Twice the rows are expected to change accuracy by +0.021 (+0.008 to +0.034).",
            "Calibrated. It was not sure enough of its answers, so logits are divided by 0.87, found on validation.",
            "The trial",
            "Accuracy on 412 rows held out as validation; 90% intervals. Gap to the best in points",
            "lp_ft chosen", "0.930 0.910–0.950", "82%", "leads", "5.2 T",
            "finetune", "17%", "0.9 −0.6 to 2.4",
            "probe", "3.1 1.2 to 5.0", "≈ 0",
            "The training", "The validation rows chose the epoch",
            "The probe that it started from",
            "Would more data help?",
            "In detail", "trained segments", "layer3 and layer4", "all their weights: 22.1 M parameters", "bfloat16",
            "2,060 rows, 823 MB; an epoch from them takes an estimated 42% of one from the images",
        ],
        told.text,
    )  # fmt: skip
    assert told.images[:3] == [
        f"{title} over 9 epochs. Best epoch: 6. The table below says the same in numbers."
        for title in ("Accuracy", "Loss", "Learning rate")
    ]
    assert told.images[-1] == (
        "Accuracy over the number of rows to learn from, from 0.710 on 206 to 0.899 on 2060. More data would help."
    )


def test_a_probe_as_asked_for() -> None:
    told = Words(tunings.tuning())
    in_order(
        [
            "A probe on the frozen backbone. As asked for (tune.strategy=probe).",
            "Accuracy 0.912 on the validation rows, at the L2 strength 3; then fitted again on training and validation",
            "It was too sure of its answers, so logits are divided by 1.31",
            "The probe's path",
        ],
        told.text,
    )
    assert "The trial" not in told.text
    assert "In detail" not in told.text


def test_strategies_that_were_not_tried_say_why() -> None:
    told = Words(tunings.DEMOS["probe by auto"])
    in_order(
        [
            "A probe on the frozen backbone. Fine-tuning could not be tried.",
            "412 rows held out in turn, in 5 parts",
            "probe chosen",
            "lp_ft skipped Its trial would take about 48 min.",
        ],
        told.text,
    )
    assert "leads probe" not in told.text


def test_a_lead_that_may_be_luck_says_so() -> None:
    near = tunings.candidate("lp_ft", 0.92, gap=0.004, gap_low=-0.01, gap_high=0.018)
    decision = tunings.decision(chosen="probe", candidates=[near, tunings.candidate("probe", 0.924)])
    told = Words(tunings.tuning(asked="auto", decision=decision))
    assert "probe leads lp_ft by 0.4 points of accuracy (−1.0 to 1.8), which these rows cannot tell from" in told.text


def test_equals_have_no_leader() -> None:
    same = tunings.candidate("probe", 0.92, gap=0.0, gap_low=-0.01, gap_high=0.01)
    decision = tunings.decision(candidates=[tunings.candidate("lp_ft", 0.92), same])
    told = Words(tunings.tuning(asked="auto", decision=decision))
    assert "lp_ft and probe are equal in accuracy. " in told.text
    assert "leads probe" not in told.text


def test_what_was_memorised_is_warned_of() -> None:
    told = Words(tunings.DEMOS["memorised"])
    assert "Warning: It has memorised training rows. Accuracy is 1.000 on training rows and 0.680 on" in told.text
    assert [f.warned for f in tuning_section(read(tunings.DEMOS["memorised"])).findings] == [True, False, False]
    assert "Warning" not in Words(tunings.tuning()).text


def test_a_training_that_diverged_is_warned_of() -> None:
    why = "the training diverged in epoch 4, batch 12: the loss is not finite"
    told = Words(tunings.by_auto(finetune=tunings.finetune(stopped=why, diverged=True)))
    assert f"Warning: It broke off. T{why[1:]}; the model has the weights of epoch 6." in told.text
    assert "it ended early" not in told.text


def test_a_tuning_by_pairs() -> None:
    told = Words(tunings.DEMOS["contrastive"])
    in_order(
        [
            "Tuned by pairs of samples, then a probe. As asked for (tune.strategy=contrastive).",
            "The tuning by pairs", "The probe's path", "layer.4 and layer.5", "all their weights: 3.55 M parameters",
        ],
        told.text,
    )  # fmt: skip
    assert told.images[0] == "Loss of pairs over 3 epochs, from 0.210 to 0.080."


def test_a_search_says_what_it_found_and_what_mattered() -> None:
    told = Words(tunings.DEMOS["search"])
    assert (
        "Searched. 40 settings tried, 12 of them stopped early; the best: lr = 0.00032, train_from = 2 and "
        "weight_decay = 0.05, with accuracy 0.912 on validation rows (the best of many looks better there than it "
        "is)." in told.text
    )
    assert "What mattered in the search, as shares of the differences: lr 71%, train_from 24%" in told.text


def test_as_little_as_there_can_be() -> None:
    assert Words(tunings.bare()).text == (
        "How it was trained, and what that tells A probe on the frozen backbone. As asked for (tune.strategy=probe). "
        "Accuracy 0.912 on the validation rows."
    )


@pytest.mark.parametrize("name", tunings.DEMOS)
def test_numbers_that_are_not_there_leave_no_trace(name: str) -> None:
    told = Words(tunings.DEMOS[name])
    assert not re.search(r"\b(None|nan|null)\b", told.text)
    assert all(told.images)


def test_differences_have_the_unit_of_the_metric() -> None:
    assert [unit_of(m) for m in ("accuracy", "micro_f1", "r2", "mae")] == ["points", "points", "R²", ""]
    assert difference(-0.0312, "accuracy") == "−3.1"
    assert amount(0.031, "macro_f1", "macro F1") == "3.1 points of macro F1"
    assert (amount(0.031, "r2", "R²"), amount(3.5, "mae", "mean absolute error")) == ("0.031 of R²", "3.500")
    explained = Words(tunings.by_auto(watch="r2"))
    assert "lp_ft leads probe by 0.031 of R² (0.012 to 0.050)." in explained.text


def drawn(lines: Lines | None) -> Lines:
    assert lines is not None
    return lines


def test_training_rows_and_validation_rows_look_the_same_in_each_picture() -> None:
    facts = read(tunings.by_auto(finetune=tunings.finetune())).finetune
    assert facts is not None
    metric, loss, rate = training_pictures(facts, "accuracy")
    assert [(line.name, line.style) for line in metric.lines] == [("training rows", 0), ("validation rows", 1)]
    assert [(line.name, line.style) for line in loss.lines] == [("training rows", 0), ("validation rows", 1)]
    assert (metric.chosen, metric.chosen_title) == (62.5, "best epoch: 6")
    assert [text for _, text in metric.x_ticks] == [str(e) for e in range(1, 10)]
    assert rate.lines[0].dots[0][2] == "9.755e-05 at 1"
    blind = tunings.finetune()
    for epoch in blind["history"]:
        epoch |= {"train": None, "lr": None}
    facts = read(tunings.by_auto(finetune=blind)).finetune
    assert facts is not None
    pictures = training_pictures(facts, "accuracy")
    assert [p.title for p in pictures] == ["Accuracy", "Loss"]
    assert [(line.name, line.style) for line in pictures[0].lines] == [("validation rows", 1)]


def test_a_single_epoch_has_a_picture() -> None:
    facts = read(tunings.by_auto(finetune=tunings.finetune(epochs=1, best=1))).finetune
    assert facts is not None
    assert all(p.lines for p in training_pictures(facts, "accuracy"))


def test_the_learning_curve_has_a_band_and_looks_ahead() -> None:
    curve = read(tunings.tuning()).curve
    assert curve is not None
    lines = drawn(curve_picture(curve, "accuracy"))
    measured, ahead = lines.lines
    assert len(measured.band.split()) == 2 * len(curve.points)
    assert measured.polyline.split()[-1] == ahead.polyline.split()[0]
    assert ahead.dots[-1][:1] == (100.0,)
    assert ahead.dots[-1][2] == "0.92 at 4120"
    plain = read(tunings.tuning(curve=tunings.curve(gain=None, gain_low=None, gain_high=None))).curve
    assert plain is not None
    assert len(drawn(curve_picture(plain, "accuracy")).lines) == 1


def test_a_range_test_is_drawn_until_it_blows_up() -> None:
    found = read(
        tunings.by_auto(finetune=tunings.finetune(found_lr={"lr": 1e-3, "points": [
            [1e-5, 2.0], [1e-4, 1.8], [1e-3, 1.2], [1e-2, 1.0], [1e-1, 90.0], [0.5, 1e9], [1.0, None],
        ]}))
    ).finetune  # fmt: skip
    assert found is not None
    assert found.found_lr is not None
    lines = drawn(rate_picture(found.found_lr))
    assert [text for _, _, text in lines.lines[0].dots][-1] == "90 at 0.1"
    assert lines.lines[0].dots[-1][1] == 0  # at the upper edge
    assert (lines.chosen, lines.chosen_title) == (50.0, "taken: 0.001")


def test_the_best_so_far_rises_in_steps() -> None:
    search = read(tunings.tuning(search=tunings.search(values=[None, 0.5, 0.5, 0.7, 0.7, 0.7]))).search
    assert search is not None
    lines = drawn(search_picture(search, "accuracy"))
    assert [text for _, _, text in lines.lines[0].dots] == ["0.5 at 2", "0.5 at 4", "0.7 at 4", "0.7 at 6"]
    many = read(tunings.tuning(search=tunings.search(values=[i // 7 / 1000 for i in range(5000)]))).search
    assert many is not None
    assert not drawn(search_picture(many, "accuracy")).lines[0].dots
    nothing = read(tunings.tuning(search=tunings.search(values=[]))).search
    assert nothing is not None
    assert search_picture(nothing, "accuracy") is None


def test_crowded_lines_have_no_dots() -> None:
    points = [(float(x), 0.5) for x in range(MAX_DOTS + 1)]
    lines = drawn(picture("t", "x", "w", [Series("s", 0, points), Series("empty", 1, [])]))
    assert len(lines.lines) == 1
    assert not lines.lines[0].dots
    assert len(lines.lines[0].polyline.split()) == MAX_DOTS + 1


def test_a_tuning_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tune.json"
    assert Tuning.load(tunings.write(tunings.by_auto(), path)) == read(tunings.by_auto())
    for content, message in (
        ({"format": 3}, "has format 3, this tl reads format 2; update tl"),
        ({"format": 1}, "has format 1, of an older tl; run `tl tune` again"),
        ({"format": 2}, "unreadable tuning .*: ValidationError; run `tl tune` again"),
    ):
        with pytest.raises(FormatError, match=message):
            Tuning.load(tunings.write(content, path))


GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "tuning.md").read_text(encoding="utf-8")


def test_the_guide_reads_it_and_names_every_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tl-run").mkdir()
    tunings.write(tunings.by_auto(), tmp_path / "tl-run" / "tune.json")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.S)
    said: list[tuple[Any, ...]] = []
    exec(code, {"print": lambda *words: said.append(words)})
    assert said[0] == ("lp_ft", "accuracy", 0.93)
    assert said[-1] == ("more data would help",)
    blocks = (tunings.tuning(), tunings.finetune(), tunings.probe(), tunings.search(), tunings.curve(), tunings.gap())
    keys = {key for block in blocks for key in block if not key.endswith(("_low", "_high"))} - {"low", "high"}
    assert {key for key in keys if f"`{key}`" not in GUIDE} == set()


def test_the_guide_names_every_setting() -> None:
    settings = {name for name, *_ in describe() if name.startswith("tune.")}
    assert {name for name in settings if f"`{name}" not in GUIDE} == set()
    named = set(re.findall(r"tune(?:\.[a-z0-9_]+)+", GUIDE)) - {"tune.json"}
    assert named <= settings | {"tune.search"}


def test_the_guides_settings_are_valid() -> None:
    lines = re.findall(r"^.*\btl_?\w* .*--set .*$", GUIDE, flags=re.M)
    assert len(lines) > 8
    for line in lines:
        values: dict[str, Any] = {}
        for key, value in parse_overrides(re.findall(r"--set (\S+)", line)).items():
            apply_override(values, key, value)
        validate(values)
