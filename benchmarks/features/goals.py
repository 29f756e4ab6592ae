"""What was to be shown, what was measured, and whether that is enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.features.images import LOOP
from benchmarks.features.sounds import PADDED as PADDED_BATCHES
from benchmarks.features.sounds import SINGLE
from benchmarks.features.tables import all_points, leading, table
from benchmarks.features.texts import ENCODE, ENCODE_HALF, PADDED

Results = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Goal:
    """A line of the table. wanted: the bound; most: whether it is an upper one; read: the measured number, KeyError,
    IndexError or TypeError where it was not measured; shown: how a number is written."""

    what: str
    wanted: float
    read: Callable[[Results], float]
    most: bool = False
    shown: str = "{:.1f}x"

    def met(self, value: float) -> bool:
        return value <= self.wanted if self.most else value >= self.wanted


def goals() -> list[Goal]:
    """Every goal, in the order of the page."""
    loop = [("resnet50", 10.0), ("mobilenetv3_large_100", 7.0), ("vit_small_patch16_224", 4.5)]
    return [
        *(Goal(f"{name}, end to end over the loop", bound, _over_loop(name)) for name, bound in loop),
        *(
            Goal(f"{name}, share of forward alone", 0.8, _of_forward(name), shown="{:.0%}")
            for name in ("resnet50", "vit_small_patch16_224")
        ),
        Goal("texts over sentence-transformers float32", 3.5, _over("texts", "minilm", ENCODE)),
        Goal("texts over sentence-transformers bfloat16", 1.3, _over("texts", "minilm", ENCODE_HALF), shown="{:.2f}x"),
        Goal("texts over padding to the maximum", 12, _over("texts", "minilm", PADDED)),
        Goal("texts, least cosine of bfloat16 to float32", 0.9999, _cosine, shown="{:.6f}"),
        Goal("sounds over padded float32 batches", 5, _over("sounds", "wav2vec2-base", PADDED_BATCHES)),
        Goal("sounds over one by one float32", 3, _over("sounds", "wav2vec2-base", SINGLE)),
        Goal("sounds whose bits do not depend on company", 1, _company("sounds", "wav2vec2-base"), shown="{:.0%}"),
        Goal("first run over the rival's, CPU", 40 / 12, _rerun("first_converted")),
        Goal("another head setting over the rival's, CPU", 40 / 0.5, _rerun("other_setting")),
        Goal("1% more texts over the rival's, CPU", 39 / 1.5, _rerun("more_texts")),
        Goal("no change, 50,000 texts, seconds", 5, lambda r: r["no_change"]["texts"]["seconds"], True, "{:.2f}"),
        Goal("no change, 10,000 images, seconds", 5, lambda r: r["no_change"]["images"]["seconds"], True, "{:.2f}"),
        Goal("growth of peak memory, ten times the vectors", 0.1, _growth("vectors"), True, "{:+.1%}"),
        Goal("growth of peak memory, ten times the texts", 0.1, _growth("texts"), True, "{:+.1%}"),
        Goal("kills without a fault and with equal bytes", 100, _kills, shown="{:.0f}"),
        Goal("rows that two processes compute twice, of 100", 5, _twice, True, "{:.1f}"),
        Goal("points of probe accuracy lost in bfloat16", 0.3, _lost, True, "{:+.2f}"),
    ]


def goals_table(results: Results) -> list[str]:
    """Goal, measured, and in words whether it is met."""
    rows = []
    for goal in goals():
        bound = ("at most " if goal.most else "at least ") + goal.shown.replace("+", "").format(goal.wanted)
        try:
            value = goal.read(results)
        except (KeyError, IndexError, TypeError):
            rows.append([goal.what, bound, "not measured", ""])
            continue
        verdict = "met" if goal.met(value) else "**falls short**"
        rows.append([goal.what, bound, goal.shown.format(value), verdict])
    return table(["goal", "wanted", "measured", ""], rows)


def _over_loop(case: str) -> Callable[[Results], float]:
    return lambda results: float(_leading(results["images"][case])["over"][LOOP])


def _of_forward(case: str) -> Callable[[Results], float]:
    return lambda results: float(_leading(results["images"][case])["of_forward"])


def _leading(found: Mapping[str, Any]) -> Mapping[str, Any]:
    name = leading(found)
    if name is None:
        raise KeyError("tl")
    ratios: Mapping[str, Any] = found["ratios"][name]
    return ratios


def _over(part: str, case: str, rival: str) -> Callable[[Results], float]:
    return lambda results: float(_leading(results[part][case])["over"][rival])


def _cosine(results: Results) -> float:
    pairs = results["texts"]["minilm"]["cosine"]
    return min(float(found["min"]) for pair, found in pairs.items() if "bfloat16 to torch float32" in pair)


def _company(part: str, case: str) -> Callable[[Results], float]:
    def read(results: Results) -> float:
        company = results[part][case]["company"]
        return float(company["equal"] / company["samples"])

    return read


def _rerun(run: str) -> Callable[[Results], float]:
    return lambda results: float(results["reruns"]["texts"]["ratios"][run])


def _growth(case: str) -> Callable[[Results], float]:
    return lambda results: float(results["memory"][case]["growth"])


def _kills(results: Results) -> float:
    found = results["kills"]["texts"]
    whole = not found["verify_faults"] and found["stores_byte_equal"] == found["stores"]
    return float(found["kills"] if whole else 0)


def _twice(results: Results) -> float:
    cases = results["two_processes"].values()
    return max(100 * float(found["computed_twice"]) / float(found["rows"]) for found in cases)


def _lost(results: Results) -> float:
    points = all_points(results["probe_accuracy"])
    return -sum(points) / len(points)
