"""What a model keeps of its training rows, to tell how unlike them a new one is."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from tl_core.errors import FormatError, UserError
from tl_core.held import Held
from tl_core.workspace import write_bytes

FORMAT_VERSION = 2  # 1 had no held-out rows
MOST_ROWS = 2000  # of either kind; on real sets a quarter of the training rows told strange ones nearly as well
NEIGHBOURS = 5
KEPT = 0.95
BLOCK = 1024  # rows compared at a time
NOISE = 1e-3  # a distance that rounding to float16 makes; no threshold is below it
DIGITS = 4  # of a score: below what the order of additions changes

Floats = npt.NDArray[np.float64]
Features = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Reference:
    """A sample of training embeddings, and how far validation embeddings lie from them.

    rows: float16 [R, D], each of length 1; distances: float32 [M], ascending, of validation rows; kept: the share of
    rows like the validation rows that are to pass as familiar. All in the feature space of the model's own backbone.
    held: validation rows that drift is told by, None in a file of format 1; groups: int64 [R] of `rows`, None where
    each stands for itself; group_column: what the data call them.
    """

    rows: npt.NDArray[np.float16]
    distances: npt.NDArray[np.float32]
    kept: float = KEPT
    held: Held | None = None
    groups: npt.NDArray[np.int64] | None = None
    group_column: str | None = None

    @classmethod
    def of(cls, train: Features, val: Features, kept: float = KEPT) -> Reference:
        """The reference that embeddings [N, D] and [M, D] of training and validation rows make, without held-out rows.

        Raises ValueError where either is empty or not finite, or kept is not between 0 and 1.
        """
        if len(train) == 0 or len(val) == 0 or not 0 < kept < 1:
            raise ValueError(f"a reference of {len(train)} training and {len(val)} validation rows that keeps {kept}")
        if not (np.isfinite(train).all() and np.isfinite(val).all()):
            raise ValueError("embeddings that aren't finite make no reference")
        rows = unit(train).astype(np.float16)
        return cls(rows, np.sort(_distances(rows, val)).astype(np.float32), kept)

    @property
    def threshold(self) -> float:
        """The distance above which a row is unusual: the smallest that keeps `kept` of rows like the validation rows.

        It is the ceil((M + 1) kept)-th distance of M validation rows, so that a new row like them lies within it with
        probability `kept` or more whatever the distances' distribution (split conformal prediction, Vovk et al. 2005);
        of fewer rows than that takes, the largest, with probability M / (M + 1).
        """
        count = len(self.distances)
        place = min(count, math.ceil(round((count + 1) * self.kept, 9)))
        return float(self.distances[place - 1])

    def scores(self, features: Features) -> Floats:
        """How unusual rows [N, D] are, float64 [N], in units of the threshold: above 1 they are to be rejected.

        The mean distance to the 5 nearest training rows, all divided by their length (nearest neighbours of normalised
        features: Sun et al., ICML 2022, arXiv:2204.06507). Raises ValueError where the width is not the reference's.
        """
        if features.shape[1] != self.rows.shape[1]:
            raise ValueError(f"features of width {features.shape[1]}, the reference has {self.rows.shape[1]}")
        scores: Floats = np.round(_distances(self.rows, features) / max(self.threshold, NOISE), DIGITS)
        return scores

    def facts(self) -> dict[str, float | int]:
        """What people are told of it: rows, validation_rows, kept and threshold."""
        return {
            "rows": len(self.rows),
            "validation_rows": len(self.distances),
            "kept": self.kept,
            "threshold": round(self.threshold, 6),
            "held_out_rows": 0 if self.held is None else len(self.held.rows),
        }

    def save(self, path: Path) -> None:
        """Write it as safetensors; the same reference gives the same bytes."""
        facts = json.dumps(  # under one key: several come in any order
            {"format": FORMAT_VERSION, "kept": self.kept, "group_column": self.group_column}
        )
        tensors: dict[str, npt.NDArray[Any]] = {"distances": self.distances, "rows": np.ascontiguousarray(self.rows)}
        if self.groups is not None:
            tensors["groups"] = self.groups
        if self.held is not None:
            tensors |= self.held.tensors()
        write_bytes(path, save(tensors, {"reference": facts}))

    @classmethod
    def load(cls, path: Path) -> Reference:
        """Read it. Raises UserError where it can't be read, FormatError on a newer format."""
        try:
            with safe_open(path, "numpy") as opened:
                facts = json.loads((opened.metadata() or {})["reference"])
                version, kept = int(facts["format"]), float(facts["kept"])
                if version > FORMAT_VERSION:
                    raise FormatError(f"{path} has format {version}, this tl reads up to {FORMAT_VERSION}; update tl")
                found = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
                return cls(
                    found["rows"], found["distances"], kept, Held.from_tensors(found), found.get("groups"),
                    facts.get("group_column"),
                )  # fmt: skip
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise UserError(
                f"unreadable {path}: {str(error).splitlines()[0]}; train again or fetch it again"
            ) from error


def sampled(rows: npt.NDArray[np.int64], seed: int, most: int = MOST_ROWS) -> npt.NDArray[np.int64]:
    """At most so many of these rows, drawn by the seed, in their order."""
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(seed).permutation(rows)[:most])


def unit(features: npt.NDArray[np.floating]) -> Features:
    """Rows [N, D] divided by their length."""
    wide = features.astype(np.float64)
    short: Features = (wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)).astype(np.float32)
    return short


def _distances(rows: npt.NDArray[np.float16], features: Features) -> Floats:
    """The mean distance of each feature row to its nearest reference rows, [N], in blocks."""
    known, new = unit(rows), unit(features)
    k = min(NEIGHBOURS, len(known))
    found = np.empty(len(new))
    for at in range(0, len(new), BLOCK):
        cosines = new[at : at + BLOCK] @ known.T  # [block, R]
        nearest = np.partition(cosines, len(known) - k, axis=1)[:, len(known) - k :].astype(np.float64)
        found[at : at + BLOCK] = np.sqrt(np.maximum(2 - 2 * nearest, 0.0)).mean(axis=1)
    return found
