"""The order of candidates: the best probe first, and among equals the smaller network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tl_core.selection.crossval import ProbeScore
from tl_core.types import BackboneSpec


@dataclass(frozen=True)
class Candidate:
    """A backbone in the race. No times: the ranking is the same on every run; times go to the run's facts.

    probe: cross-validated metric with its interval; params: counted on the built network. A dropped candidate
    has a reason and no scores.
    """

    name: str
    status: Literal["ranked", "dropped"]
    reason: str | None
    logme: float | None
    probe: float | None
    probe_low: float | None
    probe_high: float | None
    params: int | None
    feature_dim: int | None
    licence: str | None
    source: str
    fingerprint: str | None

    @classmethod
    def ranked(
        cls, spec: BackboneSpec, facts: Mapping[str, Any], *, logme: float | None, probe: ProbeScore
    ) -> Candidate:
        """A candidate that was measured. facts: of its backbone, as artifacts record them."""
        return cls(
            name=spec.name,
            status="ranked",
            reason=None,
            logme=logme,
            probe=probe.value,
            probe_low=probe.low,
            probe_high=probe.high,
            params=facts["parameters"],
            feature_dim=facts["feature_dim"],
            licence=spec.licence,
            source=spec.source,
            fingerprint=facts["fingerprint"],
        )

    @classmethod
    def dropped(cls, spec: BackboneSpec, reason: str) -> Candidate:
        """A candidate that could not be measured, and why."""
        return cls(
            name=spec.name,
            status="dropped",
            reason=reason,
            logme=None,
            probe=None,
            probe_low=None,
            probe_high=None,
            params=spec.params,
            feature_dim=spec.feature_dim,
            licence=spec.licence,
            source=spec.source,
            fingerprint=None,
        )


def rank(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Candidates from the one to take to the last; dropped ones at the end, by name.

    By probe. Who reaches the lower end of the best one's interval ties with it, and among these the network with
    fewer parameters comes first (then fewer features, then the better probe, then the name); after them the rule
    starts again with the rest. Size stands for cost because, unlike seconds, it is the same on every run, whatever
    is cached.
    """
    every = list(candidates)
    rest = sorted((c for c in every if c.status == "ranked"), key=lambda c: (-_number(c.probe), c.name))
    order: list[Candidate] = []
    while rest:
        reach = min(_number(rest[0].probe), _number(rest[0].probe_low))
        tied = [c for c in rest if _number(c.probe) >= reach]
        order += sorted(tied, key=lambda c: (c.params or 0, c.feature_dim or 0, -_number(c.probe), c.name))
        rest = rest[len(tied) :]
    return order + sorted((c for c in every if c.status == "dropped"), key=lambda c: c.name)


def _number(value: float | None) -> float:
    return float("-inf") if value is None else value
