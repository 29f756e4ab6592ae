"""The rows of ranking.json, and the words for why one of them was chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tl_core.licences import LicenceKind, licence_kind
from tl_core.selection.standing import Prefer, Standing
from tl_core.types import BackboneSpec

ScoreRow = Mapping[str, float | None]
"""A score as `value`, `low` and `high`; the last two None where it has no interval."""

_PREFERRED: dict[Prefer, str] = {"cost": "the cheapest", "size": "the smallest", "accuracy": "first"}


@dataclass(frozen=True)
class Candidate:
    """A backbone in the ranking. No times: the ranking is the same on every run; times go to the run's facts.

    Shares between 0 and 1, as in Standing; probe: the cross-validated metric with its interval; flops: of one sample,
    params: of the built network, both as the catalogue states them where nothing was opened; base, cut: of a view, what
    it was cut from and where. One that dropped out has a reason and no numbers.
    """

    name: str
    status: Literal["ranked", "eliminated", "dropped"]
    reason: str | None
    source: str
    licence: str | None
    licence_kind: LicenceKind
    params: int | None
    feature_dim: int | None
    flops: int | None
    fingerprint: str | None = None
    revision: str | None = None
    base: str | None = None
    cut: str | None = None
    rank: int | None = None
    rank_low: int | None = None
    rank_high: int | None = None
    rows: int | None = None
    probe: float | None = None
    probe_low: float | None = None
    probe_high: float | None = None
    p_best: float | None = None
    regret: float | None = None
    gap: float | None = None
    gap_low: float | None = None
    gap_high: float | None = None
    tied: bool = False
    scores: Mapping[str, ScoreRow] = field(default_factory=dict)
    warnings: Sequence[Mapping[str, str]] = ()

    @classmethod
    def measured(
        cls,
        spec: BackboneSpec,
        facts: Mapping[str, Any],
        standing: Standing,
        *,
        eliminated: str | None,
        flops: float | None,
        scores: Mapping[str, ScoreRow],
        warnings: Sequence[Mapping[str, str]] = (),
    ) -> Candidate:
        """A candidate with its place. facts: of its backbone, as artifacts record them; eliminated: why it left early.

        Scores that are no finite numbers are left out.
        """
        return cls(
            name=spec.name,
            status="ranked" if eliminated is None else "eliminated",
            reason=eliminated,
            source=spec.source,
            licence=facts["licence"],
            licence_kind=licence_kind(facts["licence"]),
            params=facts["parameters"],
            feature_dim=facts["feature_dim"],
            flops=None if flops is None else round(flops),
            fingerprint=facts["fingerprint"],
            revision=facts["revision"],
            base=spec.base.name if spec.base else None,
            cut=spec.view,
            rank=standing.rank,
            rank_low=standing.rank_low,
            rank_high=standing.rank_high,
            rows=standing.rows,
            probe=standing.value,
            probe_low=standing.low,
            probe_high=standing.high,
            p_best=standing.p_best,
            regret=standing.regret,
            gap=standing.gap,
            gap_low=standing.gap_low,
            gap_high=standing.gap_high,
            tied=standing.tied,
            scores={name: row for name, row in sorted(scores.items()) if _finite(row)},
            warnings=warnings,
        )

    @classmethod
    def dropped(cls, spec: BackboneSpec, reason: str, warnings: Sequence[Mapping[str, str]] = ()) -> Candidate:
        """A candidate that could not be measured, and why."""
        return cls(
            name=spec.name,
            status="dropped",
            reason=reason,
            source=spec.source,
            licence=spec.licence,
            licence_kind=licence_kind(spec.licence),
            params=spec.params,
            feature_dim=spec.feature_dim,
            flops=spec.flops,
            revision=spec.revision,
            base=spec.base.name if spec.base else None,
            cut=spec.view,
            warnings=warnings,
        )


def why_chosen(*, contenders: int, measured: int, entered: int, prefer: Prefer) -> str:
    """In a few words, why choose() takes the one that it takes.

    Numbers of candidates: entered the race, measured: have a place in it, contenders: those that one was taken from.
    """
    if entered == 1:
        return "the only candidate"
    if measured == 1:
        return "the only one left"
    if contenders == 1:
        return "first in the ranking"
    return f"{_PREFERRED[prefer]} of {contenders} that tie"


def _finite(row: ScoreRow) -> bool:
    return all(value is None or math.isfinite(value) for value in row.values()) and row["value"] is not None


def rounded(value: Any) -> Any:
    """The same with floats to six decimals: beyond that a ranking knows nothing, and a diff shows what counts."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, (list, tuple)) else value
