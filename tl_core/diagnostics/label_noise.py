"""How many labels are wrong, told apart from how often the model itself errs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from tl_core.evaluation import Interval
from tl_core.evaluation.bootstrap import Floats, Ints, percentile_interval, resample_weights

TEMPERATURES = np.geomspace(0.1, 20, 34)
NEAR_TEMPERATURES = 9  # of the second look, among those that fit some likely share best
SHARES = np.concatenate([[0.0], np.geomspace(2e-4, 0.5, 120)])  # more than half can't be told from another labelling
COARSE = 4  # every so manieth share at first
LIKELY = 40.0  # log-likelihood below the best from which a share is out of question, also in a resample
AT_ONCE = 64  # resamples in memory
STEPS = 200  # of a logarithm that are told apart in the first look
TINY = 1e-30

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LabelNoise:
    """share: of wrong labels, with its interval; right: float64 [N], how likely each label is right."""

    share: Interval
    right: Floats


def label_noise(
    logits: Logits, usual: Logits, given: Ints, units: Ints, confidence: float, resamples: int, seed: int
) -> LabelNoise:
    """The share of wrong labels among given ones, by what held-out logits [N, C] say of them.

    A model that knows how sure it is gives label y the probability p = softmax(end + (logits - end) / T)[y]; where a
    share e of the labels is replaced by another class at random, that becomes (1 - e) p + e (1 - p) / (C - 1). T takes
    up all the doubt that falls as the model becomes surer; labels that contradict it however sure it is leave nothing
    but e. Doubt ends at even odds, or at how frequent the classes are, which is what a model says that knows nothing of
    the rows: without the second way all labels of a rare class would look wrong where the model is weak. Ways, T and e
    are found by maximum likelihood on grids. The interval spans those of the profile likelihood and of the bootstrap:
    the first knows what no wrong label in so many rows means, the second what whole groups mean. Where the model tells
    little, a high T and a high e explain the labels alike, and the interval is wide.
    usual: log frequencies of the classes, [N, C] or [1, C]; units: int64 [N] from 0 on, what is resampled.
    """
    classes = logits.shape[1]
    ends = np.zeros_like(usual), usual
    ways, shares = _plausible(logits, ends, given)
    likely = [_self_confidence(logits, ends[end], given, t) for end, t in ways]
    # differences to one place of the grid: their sums over many rows lose no digits
    base = _log_likelihood(likely[len(likely) // 2], shares[:1], classes)[0]
    count = int(units.max()) + 1
    table = np.empty((len(likely), len(shares), count), np.float32)
    for planes, p in zip(table, likely, strict=True):
        for plane, share in zip(planes, shares, strict=True):
            gained = _log_likelihood(p, np.array([share]), classes)[0] - base
            plane[:] = np.bincount(units, gained, minlength=count)
    total = table.sum(axis=2, dtype=np.float64)
    warm, place = np.unravel_index(int(total.argmax()), total.shape)
    share = float(shares[place])

    bootstrap = percentile_interval(share, _resampled(table, shares, resamples, seed), confidence, None)
    profile = total.max(axis=0)
    inside = shares[profile >= profile.max() - NormalDist().inv_cdf((1 + confidence) / 2) ** 2 / 2]
    interval = Interval.of(share, min(bootstrap.low, inside.min()), max(bootstrap.high, inside.max()))
    wrong = share * (1 - likely[warm]) / (classes - 1)
    right = (1 - share) * likely[warm]
    return LabelNoise(interval, right / np.maximum(wrong + right, TINY))


def _plausible(logits: Logits, ends: Sequence[Logits], given: Ints) -> tuple[list[tuple[int, float]], Floats]:
    """Ways (number of the end, temperature) and shares of wrong labels that may be the likeliest, here or resampled."""
    classes = logits.shape[1]
    coarse = SHARES[::COARSE]

    def fits(end: Logits, temperature: float) -> Floats:
        likely, times = _alike(_self_confidence(logits, end, given, temperature))
        return np.asarray((_log_likelihood(likely, coarse, classes) * times).sum(axis=1))

    total = np.array([[fits(end, t) for t in TEMPERATURES] for end in ends])  # [ends, temperatures, shares]
    kept = np.flatnonzero(total.max(axis=(0, 1)) >= total.max() - LIKELY)
    ways: list[tuple[int, float]] = []
    for end, warmest in enumerate(total.argmax(axis=1)[:, kept]):
        if total[end].max() >= total.max() - LIKELY:
            low, high = max(0, int(warmest.min()) - 1), min(len(TEMPERATURES) - 1, int(warmest.max()) + 1)
            near = np.geomspace(TEMPERATURES[low], TEMPERATURES[high], NEAR_TEMPERATURES)
            ways += [(end, float(t)) for t in near]
    first, last = max(0, COARSE * (int(kept.min()) - 1)), min(len(SHARES) - 1, COARSE * (int(kept.max()) + 1))
    return ways, SHARES[first : last + 1]


def _alike(likely: Floats) -> tuple[Floats, Ints]:
    """Probabilities without those that differ by less than half a percent, and how many there are of each."""
    steps, times = np.unique(np.rint(np.log(np.maximum(likely, TINY)) * STEPS), return_counts=True)
    return np.exp(steps / STEPS), times


def _self_confidence(logits: Logits, end: Logits, given: Ints, temperature: float) -> Floats:
    """The probability of each given label at a temperature, [N]. end: what the logits are without any confidence."""
    share = np.float32(1 / temperature)
    scaled = logits * share + end * (1 - share)
    scaled = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    own: Floats = (scaled[np.arange(len(given)), given] / scaled.sum(axis=1)).astype(np.float64)
    return own


def _log_likelihood(likely: Floats, shares: Floats, classes: int) -> Floats:
    """Of each given label under each share of wrong ones, [shares, N]."""
    mixed: Floats = np.outer(1 - shares, likely) + np.outer(shares, (1 - likely) / (classes - 1))
    return np.log(np.maximum(mixed, TINY, out=mixed), out=mixed)


def _resampled(table: npt.NDArray[np.float32], shares: Floats, resamples: int, seed: int) -> Floats:
    """The likeliest share in each resample; table: log-likelihoods [temperatures, shares, units]."""
    sums = table.reshape(-1, table.shape[2])
    weights = (drawn.astype(np.float32) for drawn in resample_weights(np.arange(table.shape[2]), resamples, seed))
    found: list[Ints] = []
    while batch := list(islice(weights, AT_ONCE)):
        found.append((np.stack(batch) @ sums.T).argmax(axis=1) % len(shares))
    return shares[np.concatenate(found)]
