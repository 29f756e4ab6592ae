"""Views of a backbone: its chain up to and including a segment, pooled, as a backbone of its own.

`NAME#layer3` is what stands after the segment layer3, pooled to one vector; `NAME#mean` the mean of these vectors over
all segments but the last, where they have one width, as in a transformer. The best features for a task are often not
the last.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tl_core.errors import UserError, did_you_mean
from tl_core.types import END, Backbone, BackboneSpec, Identity, Prepared, State

MEAN = "mean"
ALL = "*"  # no segment is called so; no user sees it
TAPS = "taps"
"""The key under which the pooled vectors of the segments so far ride along, one after the other: [B, sum of widths]."""

POOLING_VERSION = 1
"""Part of a view's fingerprint: raised when `Backbone.pooled` gives other vectors."""


def at_view(spec: BackboneSpec, view: str) -> BackboneSpec:
    """The spec of a backbone's view: a segment's name, or `mean`.

    Its build reads the whole backbone's weights and drops what comes after the view; the random twin is the whole
    random twin's view. Raises UserError where the spec is a view itself; its build() where there is no such view.
    """
    if spec.base is not None:
        raise UserError(f"{spec.name} is a view already, so it has no view {view!r}; name one: {spec.base.name}#{view}")
    return _derived(spec, view, _build_view, view)


def all_views(spec: BackboneSpec) -> BackboneSpec:
    """The spec of a backbone whose embedding holds all views at once, one after the other, the embedding itself last.

    One pass over the samples gives them all; slices() says where each lies.
    """
    return _derived(spec, ALL, _build_all, None)


def slices(facts: Mapping[str, Any]) -> dict[str, slice]:
    """Where each view lies in the rows of all_views(), `end` for the whole backbone; facts: backbone_facts() of it."""
    return {name: slice(view["start"], view["start"] + view["width"]) for name, view in facts["views"].items()}


def views(backbone: Backbone) -> list[str]:
    """Names of the views that a backbone offers, in the order of the chain, `mean` last.

    Not offered: what stands before the first weights, what can't be pooled, the last segment, and a view that is the
    embedding itself (the last block of a network whose end only takes the mean).
    """
    return _survey(backbone).offered


@dataclass(frozen=True)
class _Tap:
    """A place where a view can be taken: after segment number `index`; width: of the vector there."""

    name: str
    index: int
    width: int


@dataclass(frozen=True)
class _Survey:
    """Where views can be taken, and those that are offered.

    mean: how many have a mean, 0 where they have none; flops: of the example up to and including each segment, None
    where they were not or can't be counted.
    """

    taps: list[_Tap]
    offered: list[str]
    mean: int
    flops: list[float] | None = None


class View(Backbone):
    """A part of another backbone, which goes on preparing and batching the samples."""

    def __init__(
        self, base: Backbone, segments: Sequence[tuple[str, nn.Module]], feature_dim: int, identity: Identity
    ) -> None:
        super().__init__(segments, feature_dim, identity)
        self._base = (base,)  # in a tuple: its segments are these, and must not count twice
        self.need = base.need
        # what rides along beside x has no place in rows of one shape
        self.padded = base.padded
        self.ragged = base.ragged or any(isinstance(segment, Tapped) for _, segment in segments)

    def prepare(self, decoded: Any) -> Prepared:
        return self._base[0].prepare(decoded)

    def prepare_many(self, decoded: Iterable[Any]) -> list[Prepared]:
        return self._base[0].prepare_many(decoded)

    def collate(self, windows: Sequence[State]) -> State:
        return self._base[0].collate(windows)

    def perturb(self, state: State, rng: np.random.Generator) -> State:
        return self._base[0].perturb(state, rng)

    def bucket(self, window: State) -> int:
        return self._base[0].bucket(window)

    def batch_size(self, bucket: int) -> int:
        return self._base[0].batch_size(bucket)

    def boundary_rows(self, state: State, windows: Sequence[State]) -> list[State]:
        taps, rest = _parted(state)
        rows = self._base[0].boundary_rows(rest, windows)
        return rows if taps is None else [{**row, TAPS: tap} for row, tap in zip(rows, taps)]

    def boundary_bucket(self, row: State) -> int:
        return self._base[0].boundary_bucket(row)

    def collate_boundary(self, rows: Sequence[State]) -> State:
        parted = [_parted(row) for row in rows]
        state = self._base[0].collate_boundary([rest for _, rest in parted])
        taps = [tap for tap, _ in parted if tap is not None]
        return {**state, TAPS: torch.stack(taps)} if taps else state

    def example(self) -> State | None:
        return self._base[0].example()

    def pooled(self, state: State) -> Tensor:
        return self._base[0].pooled(state)

    def spatial(self, state: State) -> Tensor | None:
        return self._base[0].spatial(state)

    def places(self, decoded: Any) -> Sequence[Any] | None:
        return self._base[0].places(decoded)

    def blank(self, window: State) -> State | None:
        return self._base[0].blank(window)


class AllViews(View):
    """Every view of a backbone in one embedding.

    table: by view `start` and `width` in the embedding, `share` of the whole chain's floating-point operations
    (None where they can't be counted), `params` up to there, and the view's own `fingerprint`.
    """

    def __init__(
        self,
        base: Backbone,
        segments: Sequence[tuple[str, nn.Module]],
        table: dict[str, dict[str, Any]],
        identity: Identity,
    ) -> None:
        super().__init__(base, segments, table[END]["start"] + table[END]["width"], identity)
        self.table = table


class Pool(nn.Module):
    """The last segment of a view: the state before it, pooled. Runs in float32 also under autocast."""

    def __init__(self, base: Backbone) -> None:
        super().__init__()
        self._base = (base,)

    def forward(self, state: State) -> State:
        return {"x": _pooled(self._base[0], state)}


class Tapped(nn.Module):
    """A segment whose output, pooled, rides along to the end of the chain."""

    def __init__(self, segment: nn.Module, base: Backbone) -> None:
        super().__init__()
        self.segment = segment
        self._base = (base,)

    def forward(self, state: State) -> State:
        taps, rest = _parted(state)
        after = self.segment(rest)
        vector = _pooled(self._base[0], after)
        return {**after, TAPS: vector if taps is None else torch.cat([taps, vector], dim=-1)}


class Passed(nn.Module):
    """A segment that nothing is tapped of; what was tapped before it goes past it."""

    def __init__(self, segment: nn.Module) -> None:
        super().__init__()
        self.segment = segment

    def forward(self, state: State) -> State:
        taps, rest = _parted(state)
        after: State = self.segment(rest)
        return after if taps is None else {**after, TAPS: taps}


class Mean(nn.Module):
    """The last segment of a view: the mean over `count` vectors of one width."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, state: State) -> State:
        return {"x": _mean(state[TAPS], self.count)}


class Gather(nn.Module):
    """The last segment of all views: the backbone's own, and its output after all that has been tapped.

    count: vectors whose mean comes between; 0 for no mean.
    """

    def __init__(self, segment: nn.Module, count: int) -> None:
        super().__init__()
        self.segment = segment
        self.count = count

    def forward(self, state: State) -> State:
        taps, rest = _parted(state)
        parts = [] if taps is None else [taps]
        if taps is not None and self.count:
            parts.append(_mean(taps, self.count))
        return {"x": torch.cat([*parts, self.segment(rest)["x"].float()], dim=-1)}


def _derived(spec: BackboneSpec, name: str, builder: Any, view: str | None) -> BackboneSpec:
    return replace(
        spec, name=f"{spec.name}#{name}", builder=builder, view=view, base=spec, params=None, flops=None,
        feature_dim=None, presets=(),
    )  # fmt: skip


def _whole(spec: BackboneSpec, random_seed: int | None) -> Backbone:
    """The backbone that a view's spec is a part of; from the spec itself, which may name another revision by now."""
    assert spec.base is not None
    return replace(spec, name=spec.base.name, builder=spec.base.builder, view=None, base=None).build(random_seed)


def _build_view(spec: BackboneSpec, random_seed: int | None) -> Backbone:
    base = _whole(spec, random_seed)
    survey = _survey(base)
    named = {tap.name: tap for tap in survey.taps}
    if spec.view in named:
        tap = named[spec.view]
        segments = list(base.segments.items())[: tap.index + 1]
        end: nn.Module = Pool(base)
    elif spec.view == MEAN and survey.mean:
        tap = survey.taps[-1]
        segments = _tapped(base, named)[: tap.index + 1]
        end = Mean(survey.mean)
    else:
        raise UserError(_no_such_view(spec, survey))
    for name in base.segment_names[tap.index + 1 :]:  # out of the memory
        del base.segments[name]
    return View(base, [*segments, (_free_name(segments), end)], tap.width, _identity(base, spec.view))


def _build_all(spec: BackboneSpec, random_seed: int | None) -> Backbone:
    base = _whole(spec, random_seed)
    survey = _counted_survey(base)
    names = [tap.name for tap in survey.taps]
    *segments, (name, _) = _tapped(base, names)
    segments.append((name, Gather(base.segments[name], survey.mean)))
    return AllViews(base, segments, _table(base, survey), _identity(base, f"{ALL}{','.join(names)}"))


def _tapped(base: Backbone, names: Collection[str]) -> list[tuple[str, nn.Module]]:
    return [(name, Tapped(part, base) if name in names else Passed(part)) for name, part in base.segments.items()]


def _counted_survey(backbone: Backbone) -> _Survey:
    """_survey() with the operations counted in the same pass, where the network can be watched."""
    from torch.utils.flop_counter import FlopCounterMode

    try:
        with FlopCounterMode(display=False) as counter:
            return _survey(backbone, lambda: float(counter.get_total_flops()))
    except Exception:  # whatever a stranger's network makes of being watched
        return _survey(backbone)


def _survey(backbone: Backbone, counted: Callable[[], float] | None = None) -> _Survey:
    """Run the backbone's example through it, and see what can be pooled. counted: operations so far."""
    window = backbone.example()
    if window is None:
        return _Survey([], [], 0)
    taps, seen, flops = [], [], []
    state = backbone.collate([window])
    with torch.no_grad():
        for index, (name, segment) in enumerate(backbone.segments.items()):
            state = segment(state)
            if counted is not None:
                flops.append(counted())
            # a segment without weights shows nothing new
            if any(True for _ in segment.parameters()) and state["x"].is_floating_point():
                try:
                    vector = backbone.pooled(state)[0]
                except ValueError:  # no such state
                    continue
                if vector.ndim != 1:  # what the plugin takes for positions were features: pooled already
                    continue
                taps.append(_Tap(name, index, len(vector)))
                seen.append(vector)
    if taps and taps[-1].index == len(backbone.segments) - 1:  # the embedding itself
        taps.pop()
    offered = [tap.name for tap, vector in zip(taps, seen) if not _same(vector, state["x"][0])]
    alike = len(taps) > 1 and len({tap.width for tap in taps}) == 1 and MEAN not in {tap.name for tap in taps}
    return _Survey(
        taps, [*offered, MEAN] if alike else offered, len(taps) if alike else 0, flops if any(flops) else None
    )


def _table(base: Backbone, survey: _Survey) -> dict[str, dict[str, Any]]:
    """AllViews.table of a backbone: its taps one after the other, their mean where they have one, its embedding."""
    places = [(tap.name, tap.width, tap.index + 1) for tap in survey.taps]
    if survey.mean:
        places.append((MEAN, survey.taps[0].width, survey.taps[-1].index + 1))
    places.append((END, base.feature_dim, len(base.segments)))
    parts = list(base.segments.values())
    table: dict[str, dict[str, Any]] = {}
    start = 0
    for name, width, stop in places:
        if name in (*survey.offered, END):
            table[name] = {
                "start": start,
                "width": width,
                "share": None if survey.flops is None else survey.flops[stop - 1] / survey.flops[-1],
                "params": sum(p.numel() for p in nn.ModuleList(parts[:stop]).parameters()),
                "fingerprint": base.fingerprint if name == END else _identity(base, name).fingerprint,
            }
        start += width
    return table


def _identity(base: Backbone, view: str) -> Identity:
    own = base.identity
    return replace(
        own,
        architecture=f"{own.architecture}#{view}",
        preprocessing={**own.preprocessing, "view": POOLING_VERSION},
    )


def _no_such_view(spec: BackboneSpec, survey: _Survey) -> str:
    assert spec.base is not None
    name, view, offered = spec.base.name, str(spec.view), survey.offered
    if not offered:
        return f"{name} has no view {view!r}, nor any other; take {name} itself"
    there = f"it has {', '.join(offered)}; {name} alone is the whole"
    if view == MEAN:
        widths = ", ".join(f"{tap.name} {tap.width}" for tap in survey.taps)
        return f"{name} has no view 'mean', since its segments differ in width ({widths}); {there}"
    return f"{name} has no view {view!r}{did_you_mean(view, offered) or ';'} {there}"


def _free_name(segments: Sequence[tuple[str, nn.Module]]) -> str:
    name = "pool"
    while name in dict(segments):
        name += "_"
    return name


def _pooled(base: Backbone, state: State) -> Tensor:
    """Pooled in float32: in bfloat16 the mean loses more than the network."""
    with torch.autocast(state["x"].device.type, enabled=False):
        return base.pooled(state).float()


def _mean(taps: Tensor, count: int) -> Tensor:
    return taps.reshape(len(taps), count, -1).mean(dim=1)  # [B, count * D] -> [B, D]


def _parted(state: State) -> tuple[Tensor | None, State]:
    """What rides along, and the state as the backbone's own segments know it."""
    return state.get(TAPS), {key: tensor for key, tensor in state.items() if key != TAPS}


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b.float(), rtol=1e-4, atol=1e-5)
