"""The verdicts at the page's top: result, transfer, strategy, data and checks, each a word and a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tl_core.diagnostics.results import Diagnostics
from tl_core.evaluation import Evaluation, meaning, metric_title, transfer, verdict
from tl_core.report.templates import first_up, listed
from tl_core.report.tuning import Tuning
from tl_core.report.tuning_section import leads

Colour = Literal["good", "open", "bad", "plain"]
RESULT: dict[str, tuple[Colour, str]] = {
    "above": ("good", "above its floors"), "unclear": ("open", "can't tell"), "below": ("bad", "below a floor"),
}  # fmt: skip
TRANSFER: dict[str | None, tuple[Colour, str]] = {
    "helps": ("good", "helps"), "hurts": ("bad", "hurts"), "can't tell": ("open", "can't tell"),
    None: ("plain", "not compared"),
}  # fmt: skip
DATA: dict[str, tuple[Colour, str]] = {
    "more data would help": ("plain", "more would help"),
    "more data would not help": ("good", "enough"),
    "can't tell": ("open", "can't tell"),
}
STATES: dict[str, tuple[Colour, str]] = {
    "ok": ("good", "nothing found"), "warn": ("bad", "act on it"), "unclear": ("open", "can't tell"),
}  # fmt: skip


@dataclass(frozen=True)
class Said:
    """A verdict. topic: on what; word: what it comes to; text: a sentence with its evidence; about: where more is."""

    topic: str
    colour: Colour
    word: str
    text: str
    about: str


def verdicts(
    evaluation: Evaluation, strategy: str, tuning: Tuning | None, diagnostics: Diagnostics | None
) -> list[Said]:
    """What a reader must know first, in the order of its weight; what was not looked at is left out."""
    said = verdict(evaluation)
    found = [Said("Result", *RESULT[said.state], said.sentence, "result"), pretraining(evaluation, strategy)]
    if tuning:
        found.append(_strategy(tuning))
        if tuning.curve:
            text = tuning.curve.text.removeprefix(f"{tuning.curve.verdict}: ")
            found.append(Said("Data", *DATA[tuning.curve.verdict], sentence(text), "training"))
    checked = states(diagnostics) if diagnostics else []
    if checked:
        found.append(_checks(checked))
    return found


def pretraining(evaluation: Evaluation, strategy: str) -> Said:
    """Whether pretraining helps on these data."""
    word = transfer(evaluation, strategy)
    return Said("Transfer", *TRANSFER[word], sentence(meaning(evaluation, strategy)), "result")


def states(diagnostics: Diagnostics) -> list[tuple[str, str]]:
    """(title, state) of each check that was made."""
    parts = [
        ("leakage", diagnostics.leakage), ("label errors", diagnostics.labels), ("shift", diagnostics.shift),
        *((f"groups by {group.column}", group) for group in diagnostics.subgroups),
        ("calibration", diagnostics.calibration), ("unusual rows", diagnostics.unusual),
        ("robustness", diagnostics.robustness),
    ]  # fmt: skip
    return [(title, part.state) for title, part in parts if part is not None]


def sentence(text: str) -> str:
    """The text as a sentence: a capital first, a full stop last."""
    return first_up(text) + ("" if text[-1:] in (".", "!", "?") else ".")


def _strategy(tuning: Tuning) -> Said:
    text = f"{sentence(tuning.reason())} {leads(tuning, metric_title(tuning.watch))}".strip()
    if tuning.gap and tuning.gap.memorised:
        return Said("Strategy", "bad", "memorised", f"{text} {sentence(tuning.gap.text)}", "training")
    if tuning.finetune and tuning.finetune.diverged:
        return Said("Strategy", "bad", "broke off", f"{text} {sentence(tuning.finetune.stopped or '')}", "training")
    tried = tuning.decision.tried if tuning.decision else []
    clear = len(tried) > 1 and (tried[1].gap_low or 0.0) > 0
    return Said("Strategy", "good" if clear else "plain", tuning.strategy, text, "training")


def _checks(checked: list[tuple[str, str]]) -> Said:
    found = [title for title, state in checked if state == "warn"]
    doubtful = [title for title, state in checked if state == "unclear"]
    count = f"{len(checked)} check{'s' if len(checked) != 1 else ''}"
    open_ones = f" Too few rows to say: {listed(doubtful)}." if doubtful else ""
    if found:
        return Said("Checks", *STATES["warn"], f"{len(found)} of {count} found something: {listed(found)}.{open_ones}",
                    "checks")  # fmt: skip
    if len(doubtful) == len(checked):
        return Said("Checks", *STATES["unclear"], open_ones.strip(), "checks")
    return Said("Checks", *STATES["ok"], f"{count} looked at; none found anything to act on.{open_ones}", "checks")
