"""Integrated gradients: what each word or token adds to what is said, on the way from nothing to the sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tl_core.types import Backbone, State

POINTS = 16  # on the way: a batch of that many forwards and backwards for each explanation


def integrated(start: Tensor, here: Tensor, say: Callable[[Tensor], Tensor]) -> Tensor:
    """What each value adds to what is said; together they add what lies between the way's two ends.

    start, here: float32 of one shape; say: of [POINTS, *shape] what is said, [POINTS]. Gradients along the straight way
    times its length, by Gauss-Legendre quadrature. Sundararajan et al., ICML 2017, arXiv:1703.01365.
    """
    nodes, weights = np.polynomial.legendre.leggauss(POINTS)
    steps = (POINTS, *(1 for _ in here.shape))
    points = torch.tensor((nodes + 1) / 2, dtype=here.dtype, device=here.device).reshape(steps)
    shares = torch.tensor(weights / 2, dtype=here.dtype, device=here.device).reshape(steps)
    way = (here - start).detach()
    path = (start.detach() + points * way).requires_grad_()
    (gradient,) = torch.autograd.grad(say(path).sum(), path)
    return way * (shares * gradient).sum(dim=0)


def are_words(batch: State) -> bool:
    """Whether a batch holds numbers of words, int [B, T]."""
    x = batch["x"]
    return x.ndim == 2 and not x.is_floating_point()


def find_table(backbone: Backbone, batch: State) -> nn.Embedding | None:
    """The table that the network looks the words of a batch up in; None where it has none."""
    found: list[nn.Embedding] = []

    def seen(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], _: Any) -> None:
        given = next(iter([*arguments, *keywords.values()]), None)
        if isinstance(given, Tensor) and isinstance(module, nn.Embedding) and _same(given, batch["x"]):
            found.append(module)

    tables = [module for module in backbone.modules() if isinstance(module, nn.Embedding)]
    handles = [table.register_forward_hook(seen, with_kwargs=True) for table in tables]
    try:
        with torch.no_grad():
            backbone(batch)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


@contextmanager
def looked_up(table: nn.Embedding, rows: Tensor) -> Iterator[None]:
    """While this holds, the table's next look-up gives these rows."""
    left = [rows]

    def replaced(*_: object) -> Tensor | None:
        return left.pop() if left else None

    handle = table.register_forward_hook(replaced)
    try:
        yield
    finally:
        handle.remove()


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool((a == b).all())
