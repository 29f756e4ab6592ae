"""Where in its windows a backbone finds what an output goes by: one value for each place, by gradients.

Maps are asked at boundaries between segments. Words are varied at the network's embedding table, tokens where they are
made, and any other input as it is, by integrated gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tl_core.explain.integrated import are_words, find_table, integrated, looked_up
from tl_core.types import Backbone, State

Said = Callable[[Tensor], Tensor]
"""What a head says for one output, float32 [B], of embeddings [B, feature_dim]; differentiable."""

FINE = 8  # places a side that a map should have: coarser ones, as at a network's end, hardly beat a guess at the centre
INPUT_CELLS = 14  # a side of the map that the gradients of single pixels are averaged to: one by one they are noise


@dataclass(frozen=True, eq=False)
class Found:
    """values: of each window, float32 [H, W]; method: how they were found, in words for people."""

    values: list[np.ndarray]
    method: str


@dataclass(frozen=True)
class _Way:
    """heat: of a window and what is said of its embedding, float32 [H, W]."""

    heat: Callable[[State, Said], Tensor]
    method: str


def embed_windows(backbone: Backbone, windows: Sequence[State]) -> Tensor:
    """The embedding of each window, float32 [W, D], on the backbone's device."""
    with torch.no_grad():
        return torch.cat([backbone(_batch(backbone, window))["x"].float() for window in windows])


def find_heats(backbone: Backbone, windows: Sequence[State], rows: Tensor, said: Said) -> Found:
    """How much each place of a sample's windows spoke for what `said` says of the mean of their embeddings.

    rows: embed_windows() of them. The backbone is in eval mode. Raises ValueError, with the reason, where no place of
    the sample can be told.
    """
    total = rows.sum(dim=0)
    way: _Way | None = None
    values: list[np.ndarray] = []
    for window, row in zip(windows, rows, strict=True):

        def of_this(embedding: Tensor, rest: Tensor = total - row) -> Tensor:
            """What is said as the embedding of this window changes and all others stay."""
            return said((rest + embedding.float()) / len(rows))

        way = way or _way(backbone, window, of_this)  # one for all windows: their values are to compare
        values.append(way.heat(window, of_this).float().cpu().numpy())
    if way is None or not all(np.isfinite(value).all() for value in values):
        raise ValueError("the model gives no finite number for it")
    if not any(value.any() for value in values):
        raise ValueError("nothing in the sample moves what the model says")
    return Found(values, way.method)


def _way(backbone: Backbone, window: State, said: Said) -> _Way:
    batch = _batch(backbone, window)
    table = find_table(backbone, batch) if are_words(batch) else None
    if table is not None:
        return _Way(partial(_by_words, backbone, table), "integrated gradients of its words")
    cuts = _cuts(backbone, batch, said)
    if cuts:
        names = " and ".join(backbone.segment_names[cut - 1] for cut in cuts)
        with torch.no_grad():
            tokens = backbone(batch, stop=cuts[0])["x"].ndim == 3
        if tokens:
            return _Way(partial(_by_tokens, backbone, cuts[0]), f"integrated gradients after {names}")
        return _Way(partial(_by_maps, backbone, cuts), f"gradients after {names}")
    if are_words(batch) or backbone.spatial(batch) is None:
        raise ValueError("the network has no places between its segments")
    return _Way(partial(_by_input, backbone), "integrated gradients of the input")


def _cuts(backbone: Backbone, batch: State, said: Said) -> list[int]:
    """The boundaries that are looked at, in order: of maps the last, and before it a finer one; of tokens the first.

    Tokens have looked at each other by the end, and mean more than their place.
    """
    with torch.no_grad():
        states = [batch]
        for index in range(len(backbone.segments)):
            states.append(backbone(states[-1], start=index, stop=index + 1))
    usable = [cut for cut in range(1, len(backbone.segments)) if _has_places(backbone, states[cut])]
    while usable and not _reached(backbone, usable[-1], states[usable[-1]], said):
        usable.pop()  # behind the last attention of a class token
    if usable and states[usable[-1]]["x"].ndim == 3:
        return [next(cut for cut in usable if states[cut]["x"].ndim == 3)]
    fine = [cut for cut in usable if min(_places(backbone, states[cut]).shape[2:]) >= FINE]
    return sorted({*usable[-1:], *fine[-1:]})


def _by_words(backbone: Backbone, table: nn.Embedding, window: State, said: Said) -> Tensor:
    batch, blank = _batch(backbone, window), backbone.blank(window)
    with torch.no_grad():
        here = table(batch["x"])[0]  # [T, D]
        start = table.weight.mean(dim=0).expand_as(here)
        if blank is not None:
            start = table(_batch(backbone, blank)["x"])[0]

    def say(path: Tensor) -> Tensor:
        with looked_up(table, path):
            return said(backbone(_repeated(batch, len(path)))["x"])

    return integrated(start, here, say).sum(dim=1)[None, : len(window["x"])]  # [T, D] -> [1, T]


def _by_tokens(backbone: Backbone, cut: int, window: State, said: Said) -> Tensor:
    with torch.no_grad():
        state = backbone(_batch(backbone, window), stop=cut)
        start = backbone(_batch(backbone, _blank(backbone, window)), stop=cut)["x"][0].float()
    say = partial(_say, backbone, state, cut, said)
    return _summed(backbone, state, integrated(start, state["x"][0].float(), say))


def _by_input(backbone: Backbone, window: State, said: Said) -> Tensor:
    """Summed up over cells."""
    state = _batch(backbone, window)
    start = _batch(backbone, _blank(backbone, window))["x"][0].float()
    heat = _summed(backbone, state, integrated(start, state["x"][0].float(), partial(_say, backbone, state, 0, said)))
    height, width = (min(INPUT_CELLS, side) for side in heat.shape)
    return F.adaptive_avg_pool2d(heat[None], (height, width))[0]


def _by_maps(backbone: Backbone, cuts: Sequence[int], window: State, said: Said) -> Tensor:
    """At each place the gradient times what stands there (HiResCAM, Draelos and Carin, arXiv:2011.08891).

    At each boundary the places add up to about what is said, so the map of a coarse one, which knows what, is added to
    that of a fine one, which knows where: each cell's value is spread over the finer cells in it.
    """
    heats = []
    for cut in cuts:
        with torch.no_grad():
            state = backbone(_batch(backbone, window), stop=cut)
        gradient = _gradient(backbone, cut, state, said)
        heats.append(_summed(backbone, state, (gradient * state["x"])[0]))
    shape = heats[0].shape  # of the finest
    spread = [F.interpolate(h[None, None], shape, mode="bilinear")[0, 0] * (h.numel() / shape.numel()) for h in heats]
    return torch.stack(spread).sum(dim=0)


def _blank(backbone: Backbone, window: State) -> State:
    """The window with nothing in it: by default all of it alike, a grey picture or silence."""
    x = window["x"]
    return backbone.blank(window) or {**window, "x": torch.full_like(x, x.float().mean().item())}


def _say(backbone: Backbone, state: State, cut: int, said: Said, path: Tensor) -> Tensor:
    """What is said of many variants of a state's x."""
    return said(backbone({**_repeated(state, len(path)), "x": path}, start=cut)["x"])


def _gradient(backbone: Backbone, cut: int, state: State, said: Said) -> Tensor:
    """Of what is said, with respect to a boundary's x."""
    x = state["x"].detach().requires_grad_()
    return torch.autograd.grad(said(backbone({**state, "x": x}, start=cut)["x"]).sum(), x)[0]


def _summed(backbone: Backbone, state: State, values: Tensor) -> Tensor:
    """Values of one window, like its x in the state, by place: [H, W]."""
    return _places(backbone, {**state, "x": values[None]}).sum(dim=1)[0]


def _reached(backbone: Backbone, cut: int, state: State, said: Said) -> bool:
    """Whether what stands at the places of a boundary changes what is said."""
    return bool(_places(backbone, {**state, "x": _gradient(backbone, cut, state, said)}).any())


def _has_places(backbone: Backbone, state: State) -> bool:
    places = backbone.spatial(state)
    return state["x"].is_floating_point() and places is not None and places.shape[2] * places.shape[3] > 1


def _places(backbone: Backbone, state: State) -> Tensor:
    places = backbone.spatial(state)
    assert places is not None, "only states with places are asked for them"
    return places


def _batch(backbone: Backbone, window: State) -> State:
    """A batch of one window, on the backbone's device."""
    device = next((p.device for p in backbone.parameters()), torch.device("cpu"))
    return {key: tensor.to(device) for key, tensor in backbone.collate([window]).items()}


def _repeated(state: State, rows: int) -> State:
    """A batch of one as one of `rows`."""
    return {key: tensor.expand(rows, *tensor.shape[1:]) for key, tensor in state.items()}
