"""The views of a race's finalists as further candidates: one pass over the sample gives all of a backbone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_core.config import ExtractConfig
from tl_core.extraction import END, Extraction, features, fill
from tl_core.selection.outcomes import Outcomes
from tl_core.selection.standing import standings
from tl_core.steps.backbone import Lazy
from tl_core.steps.entrants import Entered, hits_all, reason
from tl_core.store import FeatureStore, Space
from tl_core.types import BackboneSpec, Loader
from tl_core.views import all_views, at_view, slices

if TYPE_CHECKING:
    from tl_core.manifest import Manifest


@dataclass(frozen=True)
class ViewCandidate:
    """A view of a finalist, with its features.

    request: what names it in the config; features: float32 [N, D], in the order of the rows; flops: of one row, the
    view's share of the whole's (None where that is not known); own_facts: `fingerprint`, `feature_dim`, `parameters`,
    `revision` and `licence`, as backbone_facts() will say when it is built.
    """

    request: str
    spec: BackboneSpec
    features: np.ndarray
    flops: float | None
    own_facts: dict[str, Any]


@dataclass
class FinalistViews:
    """What the finalists' views are. dropped: why a finalist's could not be had; computed: rows; both by its name."""

    candidates: list[ViewCandidate] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)
    computed: dict[str, int] = field(default_factory=dict)
    reused: int = 0


def views_of_finalists(
    finalists: Iterable[Entered],
    manifest: Manifest,
    rows: np.ndarray,
    loader: Loader,
    store: FeatureStore,
    cache: Path,
    settings: ExtractConfig,
) -> FinalistViews:
    """Every view of each finalist on the sample's rows, int64 [N]; the wholes are not among them.

    A finalist's features, of all views at once, are kept in the store under a fingerprint of their own, so that a
    second call computes nothing and opens no weights. A finalist that is a view itself has none. What is wrong with
    one finalist's views does not stop the others'; a full disk and samples that have changed are raised as they are.
    """
    found = FinalistViews()
    for entered in finalists:
        name = entered.spec.name
        if entered.spec.view is not None:
            continue
        try:
            facts, together, done = _all_views(entered, manifest, rows, loader, store, cache, settings)
        except Exception as error:  # whatever a stranger's pooled(), lost weights and short memory may raise
            if hits_all(error):
                raise
            found.dropped[name] = reason(error)
            continue
        if done is not None:
            found.computed[name] = done.computed
            found.reused += done.reused
        for view, place in slices(facts).items():
            if view != END:
                found.candidates.append(_candidate(entered, view, facts, together[:, place]))
    return found


def _all_views(
    entered: Entered,
    manifest: Manifest,
    rows: np.ndarray,
    loader: Loader,
    store: FeatureStore,
    cache: Path,
    settings: ExtractConfig,
) -> tuple[dict[str, Any], np.ndarray, Extraction | None]:
    """backbone_facts() of all views, their features side by side [N, sum of widths], and what it took.

    No features, and nothing computed, where there are no views.
    """
    lazy = Lazy(all_views(entered.spec))
    facts = lazy.facts(entered.request, cache)
    if list(slices(facts)) == [END]:
        return facts, np.zeros((len(rows), 0), np.float32), None
    done = fill(
        manifest, rows, loader, facts["fingerprint"], lazy, store,
        device=settings.device, precision=entered.precision or settings.precision, engine=settings.engine,
        label=f"views of {entered.spec.name}",
    )  # fmt: skip
    found = features(
        manifest, rows, loader, lazy, Space(facts["fingerprint"], END, done.precision), store,
        device=settings.device, engine=settings.engine,
    )  # fmt: skip
    return facts, found, done


def _candidate(entered: Entered, view: str, facts: dict[str, Any], features: np.ndarray) -> ViewCandidate:
    told = facts["views"][view]
    whole, share = entered.flops, told["share"]
    return ViewCandidate(
        request=f"{entered.request}#{view}",
        spec=at_view(entered.spec, view),
        features=np.ascontiguousarray(features),
        flops=None if whole is None or share is None else whole * share,
        own_facts={
            "fingerprint": told["fingerprint"],
            "feature_dim": told["width"],
            "parameters": told["params"],
            "revision": facts["revision"],
            "licence": facts["licence"],
        },
    )


def clearly_better(
    whole: Outcomes, views: Mapping[str, Outcomes], *, looked_at: int, confidence: float, seed: int
) -> list[str]:
    """The views that beat their whole backbone beyond doubt, by name. looked_at: views in all, of other finalists too.

    The best of a dozen cuts looks better than it is, and every cut is cheaper than the whole: to let all of them tie
    with it would trade accuracy for nothing but luck. So each view's interval of the difference must lie on its side,
    at a level shared among all that were looked at (Bonferroni).
    """
    level = 1 - (1 - confidence) / max(1, looked_at)
    better = []
    for name, outcomes in sorted(views.items()):
        first, second = standings({"": [whole], name: [outcomes]}, confidence=level, seed=seed)
        if first.name == name and not second.tied:
            better.append(name)
    return better
