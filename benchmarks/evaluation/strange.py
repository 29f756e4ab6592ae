"""How well the distance to training rows tells strange rows from known ones, beside other scores.

    OMP_NUM_THREADS=1 python -m benchmarks.evaluation.strange [--data FOLDER] [--cache FOLDER] [--only PAIR ...]
    python -m benchmarks.evaluation.strange --render

21 pairs of real data. What is learnt from and known are the training and test rows of a set, or of half of its classes,
or of one of its styles; strange are the rows of another set, of the other half or of another style. A fifth of the
training rows validates. The first score is the one that bundles keep (tl_core/reference.py). FOLDER (default:
$TL_SHARED_DATA or ../shared/data) holds datasets/ and weights/; features are kept in the cache (default:
.tl/benchmarks/evaluation). Results: benchmarks/results/evaluation_strange.{json,md}, written after each pair; a pair
that is there is not measured again.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.evaluation.material import STYLES, Embedded, embedded
from benchmarks.selection.setting import RESULTS, ROOT
from tl_core.config import validate
from tl_core.evaluation.bootstrap import Bools, Floats, Ints
from tl_core.evaluation.curves import Ranking
from tl_core.heads import linear_heads
from tl_core.reference import Features, Reference, sampled
from tl_core.registry import load_registry
from tl_core.training.probe import fit_probe
from tl_core.types import Targets
from tl_core.weights import read_json
from tl_core.workspace import write_json, write_text

PATH = RESULTS / "evaluation_strange.json"
OURS = "mean distance to 5 neighbours"
SCORES = (
    OURS, "distance to the nearest", "to the 5th", "to the 10th",
    "Mahalanobis to the nearest class, features of length 1", "the same of plain features",
    "the probe's highest probability",
)  # fmt: skip
VALIDATE = 0.2  # of the training rows
Score = Callable[[Features], Floats]


@dataclass(frozen=True)
class Part:
    """Some rows of a set: all, those of every second class from the first (0) or the second (1) on, or of one style."""

    set: str
    half: int | None = None
    style: str | None = None

    @property
    def name(self) -> str:
        halves = {None: "", 0: ", every second class", 1: ", the other classes"}
        return f"{self.set}{halves[self.half]}{f', {self.style}' if self.style else ''}"

    def rows(self, of: Embedded) -> Bools:
        chosen = np.ones(len(of.truth), np.bool_)
        if self.half is not None:
            chosen &= of.truth % 2 == self.half
        if self.style is not None and of.groups is not None:
            chosen &= np.asarray(of.groups) == self.style
        return chosen


def _halves(name: str) -> tuple[Part, Part]:
    return Part(name, half=0), Part(name, half=1)


PHOTO = Part(STYLES, style="photo")
PAIRS: tuple[tuple[Part, Part], ...] = (
    (Part("caltech20"), Part("sign_digits")),
    (Part("caltech20"), Part("hymenoptera")),
    (Part("caltech20"), Part(STYLES, style="sketch")),
    (Part("hymenoptera"), Part("caltech20")),
    (Part("sign_digits"), Part("caltech20")),
    (Part("banking77"), Part("trec6")),
    (Part("banking77"), Part("sst2_mini")),
    (Part("trec6"), Part("banking77")),
    (Part("trec6"), Part("sst2_mini")),
    (Part("sst2_mini"), Part("trec6")),
    (Part("esc10"), Part("fsdd")),
    (Part("fsdd"), Part("esc10")),
    *((PHOTO, Part(STYLES, style=style)) for style in ("sketch", "cartoon", "art_painting")),
    *(_halves(name) for name in ("caltech20", "sign_digits", "banking77", "trec6", "esc10", "fsdd")),
)
"""Known and strange; the last nine are of one set."""


def compared(known: Part, strange: Part, load: Callable[[str], Embedded]) -> dict[str, Any]:
    """Each score's AUROC, which share of either kind the reference rejects, and the probe's accuracy on known rows."""
    of, other = load(known.set), load(strange.set)
    inside, test = known.rows(of), of.splits == "test"
    learnt = np.random.default_rng(0).permutation(np.flatnonzero(inside & ~test))
    val, train = (np.sort(part) for part in np.split(learnt, [round(VALIDATE * len(learnt))]))
    seen, unseen = of.features[inside & test], other.features[strange.rows(other)]

    reference = Reference.of(of.features[sampled(train, 0)], of.features[sampled(val, 0)])
    said = _probe(of, train, val)
    truth = of.truth[inside & test]
    return {
        "rows": [len(train), len(seen), len(unseen)],
        "auroc": {
            name: round(_auroc(score(seen), score(unseen)), 4)
            for name, score in zip(SCORES, _scores(of, train, reference, said), strict=True)
        },
        "rejected": [round(float((reference.scores(rows) > 1).mean()), 4) for rows in (seen, unseen)],
        "accuracy": round(float((said(seen).argmax(axis=1) == np.searchsorted(_known(of, train), truth)).mean()), 4),
    }


def _scores(of: Embedded, train: Ints, reference: Reference, said: Score) -> tuple[Score, ...]:
    """In the order of SCORES, each higher for stranger rows."""
    rows = _unit(reference.rows)

    def to_neighbour(place: int) -> Score:
        return lambda new: -np.partition(_unit(new) @ rows.T, -place, axis=1)[:, -place]

    return (
        reference.scores, *(to_neighbour(place) for place in (1, 5, 10)),
        _mahalanobis(of, train, _unit), _mahalanobis(of, train, lambda x: x.astype(np.float64)),
        lambda new: -said(new).max(axis=1),
    )  # fmt: skip


def _mahalanobis(of: Embedded, train: Ints, prepared: Callable[[Any], Floats]) -> Score:
    """Squared distance to the nearest class mean under one covariance for all (Lee et al., NeurIPS 2018)."""
    from sklearn.covariance import ledoit_wolf

    x, truth = prepared(of.features[train]), of.truth[train]
    known = np.unique(truth)
    means = np.stack([x[truth == c].mean(axis=0) for c in known])
    covariance, _ = ledoit_wolf(x - means[np.searchsorted(known, truth)], assume_centered=True)
    values, axes = np.linalg.eigh(covariance)
    turn = axes / np.sqrt(values)
    centres = means @ turn

    def score(new: Features) -> Floats:
        turned = prepared(new) @ turn
        apart = (turned**2).sum(axis=1)[:, None] - 2 * turned @ centres.T + (centres**2).sum(axis=1)
        nearest: Floats = apart.min(axis=1)
        return nearest

    return score


def _probe(of: Embedded, train: Ints, val: Ints) -> Score:
    """Probabilities [N, C] of a calibrated probe, as tuning fits it, on the classes of the rows that it learns from."""
    tune, known = validate({}).tune, _known(of, train)
    targets = Targets("multiclass", tuple(of.manifest.targets.classes[c] for c in known))
    (head,) = (spec for spec in linear_heads(of.loader.modality) if spec.task == "multiclass")
    val = val[np.isin(of.truth[val], known)]
    x, y = torch.from_numpy(of.features), torch.from_numpy(np.searchsorted(known, of.truth))
    fitted = fit_probe(
        x[train], y[train], x[val], y[val], head.build(x.shape[1], targets), head, targets, tune.strengths, tune.refit,
        calibrate=True,
    ).head  # fmt: skip

    def said(new: Features) -> Floats:
        with torch.inference_mode():
            return fitted.decode(fitted(torch.from_numpy(new))).double().numpy()

    return said


def _known(of: Embedded, train: Ints) -> Ints:
    return np.unique(of.truth[train])


def _unit(x: Any) -> Floats:
    wide = x.astype(np.float64)
    unit: Floats = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    return unit


def _auroc(known: Floats, strange: Floats) -> float:
    """That a strange row scores higher than a known one."""
    scores = np.concatenate([known, strange])
    ones = np.ones(len(scores), np.float32)
    return Ranking(scores, np.arange(len(scores)) >= len(known)).areas(ones, float(len(scores)))[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("TL_SHARED_DATA", str(ROOT.parent / "shared" / "data"))
    names = [_name(*pair) for pair in PAIRS]
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--cache", type=Path, default=ROOT / ".tl" / "benchmarks" / "evaluation")
    parser.add_argument("--only", nargs="+", choices=names, metavar="PAIR", help="measured anew, by the page's names")
    parser.add_argument("--render", action="store_true", help="write the page from the results; measure nothing")
    arguments = parser.parse_args()
    kept: dict[str, Any] = read_json(PATH) if PATH.is_file() else {}
    registry = load_registry()
    load = cache(lambda name: embedded(name, arguments.data.resolve(), arguments.cache.resolve(), registry))
    for name, pair in zip(names, PAIRS) if not arguments.render else ():
        if name in arguments.only if arguments.only else name not in kept:
            kept[name] = compared(*pair, load)
            write_json(PATH, kept)
            print(name, kept[name], flush=True)
    write_text(PATH.with_suffix(".md"), page({name: kept[name] for name in names if name in kept}))


def _name(known: Part, strange: Part) -> str:
    return f"{known.name} | {strange.name}"


def page(kept: Mapping[str, Any]) -> str:
    """The means and the pairs, Markdown."""
    pairs = kept.values()
    rejected = np.mean([pair["rejected"] for pair in pairs], axis=0)
    within = sum(name.split(" | ")[0].split(",")[0] == name.split(" | ")[1].split(",")[0] for name in kept)
    lines = [
        "# Known and strange rows",
        "",
        f"Made by `python -m benchmarks.evaluation.strange`: {len(kept)} pairs, {within} of them of one data set. Area "
        "under the ROC curve, the mean over the pairs and the least.",
        "",
        "| score | mean AUROC | least |",
        "|---|---|---|",
        *(
            f"| {score} | {np.mean(areas := [pair['auroc'][score] for pair in pairs]):.2f} | {min(areas):.2f} |"
            for score in SCORES
        ),
        "",
        f"Of known rows the first score's threshold rejects {rejected[0]:.0%}, of strange ones {rejected[1]:.0%}.",
        "",
        "| known | strange | rows: train, known, strange | the probe is right | AUROC | Mahalanobis | "
        "highest probability | rejected: known, strange |",
        "|---" * 8 + "|",
    ]
    for name, pair in kept.items():
        cells = [
            ", ".join(f"{count:,}" for count in pair["rows"]),
            f"{pair['accuracy']:.0%}",
            *(f"{pair['auroc'][score]:.2f}" for score in (OURS, SCORES[4], SCORES[6])),
            ", ".join(f"{share:.0%}" for share in pair["rejected"]),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
