"""The chosen backbone, rebuilt from the ranking, and its random twin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from tl_core.bundle import backbone_facts
from tl_core.pins import at_commit, pinned
from tl_core.registry import Registry
from tl_core.steps.known import KnownBackbones, key_of, of_rows
from tl_core.types import Backbone, BackboneSpec
from tl_core.weights import read_json
from tl_core.workspace import Workspace


def chosen(registry: Registry, workspace: Workspace, modality: str) -> tuple[str, BackboneSpec]:
    """(request, spec) of the ranking's winner, at the revision that is pinned, else at the one that was ranked."""
    ranking = read_json(workspace.ranking)
    request = ranking["request"]
    spec = pinned(registry.backbone(located(request, workspace.root), modality), workspace.root)
    ranked = (c.get("revision") for c in ranking["candidates"] if c["name"] == ranking["chosen"])
    return request, at_commit(spec, next(ranked, None))


def located(request: str, root: Path) -> str:
    """A request as the registry takes it: a path inside the project becomes absolute."""
    return str(root / request) if request.startswith("./") else request


class Lazy:
    """Builds a backbone on first use: where every feature is in the store, nothing is opened."""

    def __init__(self, spec: BackboneSpec, random_seed: int | None = None) -> None:
        self._spec, self._seed = spec, random_seed
        self.built: Backbone | None = None  # once it has been called
        self._remembered: tuple[Path, str | None, str] | None = None  # cache, key, fingerprint

    def __call__(self) -> Backbone:
        if self.built is None:
            self.built = self._spec.build(self._seed)
            if self._remembered and self._remembered[2] != self.built.fingerprint:
                with closing(KnownBackbones(self._remembered[0])) as known:  # the next run must not trust it again
                    known.forget(self._remembered[1])
        return self.built

    def facts(self, request: str, cache: Path) -> dict[str, Any]:
        """backbone_facts() of it; where nothing has changed since they were last taken, without building it."""
        with closing(KnownBackbones(cache)) as known:
            key = key_of(self._spec, request, self._seed)
            facts = known.get(key)
            if facts is None:
                facts = backbone_facts(self._spec, request, self())
                known.put(key, facts)
            else:
                self._remembered = cache, key, facts["fingerprint"]
            return facts

    def flops(self, request: str, cache: Path, digests: Sequence[str], count: Callable[[Backbone], float]) -> float:
        """count() of it, over samples with these digests; remembered as facts() are."""
        with closing(KnownBackbones(cache)) as known:
            key = of_rows(key_of(self._spec, request, self._seed), "flops", digests)
            found = known.get(key)
            if found is None:
                found = {"flops": count(self())}
                known.put(key, found)
            return float(found["flops"])
