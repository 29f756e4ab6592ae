"""What a retrain had registered that was killed or failed after that: its decision is carried out, published, told."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection

from tl_core.errors import UserError
from tl_flows.git import git
from tl_flows.model_registry import ModelRegistry
from tl_flows.registry_state import CHAMPION
from tl_flows.retraining.decided import Decided
from tl_flows.retraining.outcome import Outcome
from tl_flows.retraining.publishing import REPORTS, publish_missing
from tl_flows.retraining.test_sets import DECISION

LATE = "(Decided by an earlier retrain, which did not come to its end.)"


def settle(registry: ModelRegistry, whys: Collection[str]) -> Outcome | None:
    """Carry out and publish the decision of the last version whose facts have one of these origins; its outcome.

    None where there is no such version. The same call again changes nothing. Raises UserError where the registry can't
    be written.
    """
    from tl_core.gate import Decision

    state = registry.state()
    found = (version for version in reversed(state.versions) if version.facts and version.facts.why in whys)
    version = next(found, None)
    if version is None or version.facts is None:
        return None
    decision = Decision.from_json(json.loads(git(registry.root, "show", f"{version.commit}:./{DECISION}")))
    promoted = any(event.alias == CHAMPION and event.version == version.name for event in state.history)
    overtaken = None
    held = decision.champion.name if decision.champion else None
    if decision.promote and not promoted:
        overtaken = promote(registry, version.name, held, decision.sentence)
    serves = registry.state().champion
    kept = Decided.load(registry.root, version.facts.why)
    outcome = Outcome(
        state="promoted" if decision.promote and not overtaken else "refused",
        reason=decision.sentence + (f" Not promoted all the same: {overtaken}" if overtaken else ""),
        version=version.name,
        champion=serves.name if serves else None,
        data=kept.incoming if kept else "",
        quarantined=kept.quarantined if kept else 0,
        decision=decision.as_json(),
        folder=str(registry.root / REPORTS / version.name),
    )
    champion = next((one for one in state.versions if one.name == held), None)
    publish_missing(registry.root, version, champion, outcome, kept.contest if kept else None)
    return dataclasses.replace(outcome, reason=f"{outcome.reason} {LATE}")


def promote(registry: ModelRegistry, name: str, against: str | None, why: str) -> str | None:
    """Promote a version that was decided on against a champion; who has overtaken it, in words, where someone has.

    Raises UserError where the registry can't be written: nothing is decided otherwise then, a later try may do it.
    """
    try:
        registry.promote(name, expected_champion=against, why=why)
    except UserError as error:
        now = registry.state().champion
        if (now.name if now else None) == against:
            raise
        return str(error)
    return None
