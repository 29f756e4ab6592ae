"""What it costs a model when samples are harmed as they are in the world: blurred, misspelt, noisy."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tl_core.diagnostics.results import Corruption, Robustness, State
from tl_core.evaluation import Interval, metric_title
from tl_core.evaluation.bootstrap import Numbers
from tl_core.evaluation.metrics import measure, watch_name
from tl_core.evaluation.paired import Paired, paired
from tl_core.extraction import decoded
from tl_core.selection.sample import strata
from tl_core.types import Corrupt, Loader, Sample, Targets

if TYPE_CHECKING:
    from tl_core.manifest import Manifest

SLIGHT = 0.05  # of the metric: a mild corruption that surely costs less leaves the model usable


def robustness(
    manifest: Manifest,
    rows: npt.NDArray[np.int64],
    loader: Loader,
    predict: Callable[[Sequence[Any]], Numbers],
    truth: npt.NDArray[np.generic],
    targets: Targets,
    *,
    most: int = 64,
    severities: Sequence[int] = (1, 3, 5),
    need: Any = None,
    confidence: float = 0.9,
    resamples: int = 1000,
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> Robustness | None:
    """The watched metric under each of the loader's corruptions, on at most `most` test rows, stratified.

    predict: decoded samples to probabilities [N, C] or values [N]; truth, groups: of rows; need: as
    `Loader.decode_for` takes it. The same rows are predicted as they are, so that each drop is paired. A sample is
    harmed the same way in every run, at a higher severity in the same places. None where the loader knows no
    corruption, fewer than two rows are asked for, or the metric is undefined on them. `warn`: some kind surely costs
    at the mildest severity; its interval is widened for how many kinds there are, so that kinds which cost nothing
    bring a warning with probability 1 - confidence at most, all together. Raises UserError where a sample is no
    longer what was checked.
    """
    taken = _spread(manifest.digests(rows), strata(truth, targets.task), most, seed)
    if not loader.corruptions or len(taken) < 2:
        return None
    samples = list(manifest.samples(rows[taken]))
    whole = [decoded(sample, loader, need) for sample in samples]
    labels, plain = truth[taken], predict(whole)
    if not np.isfinite(measure(targets, plain, labels, np.arange(len(taken))).watch(np.ones(len(taken)))):
        return None

    def against_plain(harmed: Numbers, confidence: float) -> Paired:
        chosen = None if groups is None else [groups[i] for i in taken]
        return paired(
            targets, plain, harmed, labels, groups=chosen, confidence=confidence, resamples=resamples, seed=seed
        )  # fmt: skip

    severities, doubt = sorted(set(severities)), (1 - confidence) / len(loader.corruptions)
    before, kinds, costly = against_plain(plain, confidence).first, [], []
    for name, corrupt in loader.corruptions.items():
        points = []
        for severity in severities:
            harmed = [_harmed(corrupt, name, one, severity, sample, seed) for one, sample in zip(whole, samples)]
            said = predict(harmed)
            found = against_plain(said, confidence)
            points.append((severity, found.second, found.difference))
            if severity == severities[0] and _surely_worse(against_plain(said, 1 - doubt), doubt):
                costly.append(name)
        kinds.append(Corruption(name, tuple(points)))
    mild = {kind.name: kind.points[0][2] for kind in kinds}
    state: State = "warn" if costly else "ok" if min(drop.low for drop in mild.values()) > -SLIGHT else "unclear"
    worst = min(kinds, key=lambda kind: kind.points[-1][2].value)
    return Robustness(
        state=state,
        text=_text(state, kinds, costly, worst, before, len(taken), confidence, metric_title(watch_name(targets))),
        rows=len(taken),
        plain=before,
        worst=worst.name if worst.points[-1][2].value < 0 else None,
        corruptions=tuple(kinds),
    )


def _spread(digests: Sequence[str], stratum: npt.NDArray[np.int64], most: int, seed: int) -> npt.NDArray[np.int64]:
    """Positions of at most `most` rows in order, each stratum in proportion, drawn by a hash of seed and digest."""
    keys = np.array([zlib.crc32(f"{seed}:{digest}".encode()) for digest in digests], np.int64)
    drawn = np.lexsort((keys, stratum))
    counts = np.bincount(stratum)
    place = np.empty(len(drawn))
    place[drawn] = np.arange(len(drawn)) - (np.cumsum(counts) - counts)[stratum[drawn]]  # within the stratum
    order = np.lexsort((keys, (place + 0.5) / counts[stratum])) if len(drawn) else drawn
    return np.sort(order[:most])


def _harmed(corrupt: Corrupt, name: str, whole: Any, severity: int, sample: Sample, seed: int) -> Any:
    rng = np.random.default_rng([seed, zlib.crc32(sample.digest.encode()), zlib.crc32(name.encode())])
    return corrupt(whole, severity, rng)


def _surely_worse(found: Paired, doubt: float) -> bool:
    """By the interval and, where rows are right or wrong, by the exact test too: few rows mislead the resamples."""
    p = found.mcnemar.p if found.mcnemar else None
    return found.state == "worse" and (p is None or p <= doubt)


def _text(
    state: State,
    kinds: Sequence[Corruption],
    costly: Sequence[str],
    worst: Corruption,
    before: Interval,
    rows: int,
    confidence: float,
    title: str,
) -> str:
    def change(kind: Corruption, at: int) -> str:
        _, after, drop = kind.points[at]
        return (
            f"from {before.value:.3f} to {after.value:.3f} (change {drop.value:+.3f}, {confidence:.0%} interval "
            f"{drop.low:+.3f} to {drop.high:+.3f})"
        )

    severity, _, last = worst.points[-1]
    most = (
        f"At severity {severity} {title} loses most by {worst.name}: it goes {change(worst, -1)}."
        if last.high < 0
        else f"Not even at severity {severity} does any of the {len(kinds)} kinds surely cost {title}."
    )
    mildest = min(kinds, key=lambda kind: kind.points[0][2].value)
    if state == "warn":
        mildest = min((kind for kind in kinds if kind.name in costly), key=lambda kind: kind.points[0][2].value)
        others = [name for name in costly if name != mildest.name]
        also = f"; it falls by {', '.join(others)} as well" if others else ""
        said = f"by {mildest.name} {title} goes {change(mildest, 0)} on {rows} test rows{also}"
        return f"Even mild harm costs: {said}. {most}"
    if state == "ok":
        return f"None of {len(kinds)} kinds of mild harm costs {SLIGHT} of {title} on {rows} test rows. {most}"
    if mildest.points[0][2].high < 0:
        return (
            f"Mild harm may cost: by {mildest.name} {title} goes {change(mildest, 0)} on {rows} test rows, but so few "
            f"rows can bring that about by chance. {most}"
        )
    return (
        f"{rows} test rows can't tell whether mild harm costs: by {mildest.name} {title} goes "
        f"{change(mildest, 0)}. {most}"
    )
