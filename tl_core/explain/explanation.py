"""One source and what a model looked at in it: from raw source to the fragment that a plugin draws."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from tl_core.errors import DecodeError, did_you_mean
from tl_core.explain.heats import Said, embed_windows, find_heats
from tl_core.saliency import Heat, Saliency
from tl_core.types import Backbone, Head, Loader, Source, Targets


class Model(Protocol):
    """What is explained: a bundle is one."""

    @property
    def loader(self) -> Loader: ...
    @property
    def backbone(self) -> Backbone: ...
    @property
    def head(self) -> Head: ...
    @property
    def targets(self) -> Targets: ...


@dataclass(frozen=True)
class Explanation:
    """html: a self-contained fragment; titles, texts: of each output that was asked for, its name with the score, and
    where the model looked. error: why there is nothing to see, None where there is; the fragment then says so."""

    html: str
    titles: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    error: str | None = None


def explain(model: Model, source: Source, labels: Sequence[str] = ()) -> Explanation:
    """What the model looked at in one source, for each of the classes; without any for the most probable one.

    Computed in float32 on the backbone's device, the same values for the same bytes. Never raises for the sake of a
    source or of a network that can't be explained: the error says why.
    """
    try:
        saliencies = _saliencies(model, source, labels)
        overlay = model.loader.overlay(source, saliencies)
        if overlay is None:
            raise ValueError(f"the {model.loader.modality} plugin draws no explanations")
    except (DecodeError, OSError, ValueError) as error:
        return failed(str(error))
    except Exception as error:  # whatever a stranger's network makes of gradients
        first = (str(error).strip().splitlines() or [""])[0][:200]
        return failed(f"{type(error).__name__}: {first}")
    return Explanation(overlay.html, tuple(s.title for s in saliencies), overlay.texts)


def failed(reason: str) -> Explanation:
    """What stands in for an explanation that there can't be."""
    return Explanation(f"<p>Can't tell what the model looked at: {html.escape(reason)}.</p>", error=reason)


def _saliencies(model: Model, source: Source, labels: Sequence[str]) -> list[Saliency]:
    """One for each label. Raises ValueError where there can be none, DecodeError where the source is unusable."""
    if isinstance(source, Path) and not source.is_file():
        raise DecodeError("no such file")
    backbone, targets = model.backbone, model.targets
    decoded = model.loader.decode_for(source, backbone.need)
    windows, places = backbone.prepare(decoded).windows, backbone.places(decoded)
    if places is None:
        raise ValueError("its backbone does not tell what of a sample its windows stand for")
    rows = embed_windows(backbone, windows)
    scores = _scores(model.head, rows)
    if targets.task == "regression":
        wanted: list[int] = [0]
    else:
        wanted = [_index(targets, label) for label in labels] or [int(scores.argmax())]
    saliencies = []
    for index in wanted:
        found = find_heats(backbone, windows, rows, _said(model.head, targets, index))
        heats = tuple(Heat(values, place) for values, place in zip(found.values, places, strict=True))
        label = targets.classes[index] if targets.classes else None
        saliencies.append(Saliency(label, float(scores[index]), heats, found.method))
    return saliencies


def _index(targets: Targets, label: str) -> int:
    if label not in targets.classes:
        raise ValueError(f"no class '{label}'{did_you_mean(label, targets.classes)}")
    return targets.classes.index(label)


def _scores(head: Head, rows: Tensor) -> Tensor:
    """The head's probabilities or value of a sample, float32 [outputs]. rows: its windows' embeddings."""
    with torch.no_grad():
        decoded: Tensor = head.decode(head(_beside(head, rows.mean(dim=0, keepdim=True))))
    return decoded.flatten().float().cpu()


def _said(head: Head, targets: Targets, index: int) -> Said:
    """What is explained: the value (regression), the logit (multi-label), or the log-odds of the class.

    Odds rather than a class's logit: they say why this class and not the others. Rather than its probability, whose
    gradient is gone where the model is sure.
    """

    def said(embeddings: Tensor) -> Tensor:
        logits = head(_beside(head, embeddings))
        if targets.task == "regression":
            value: Tensor = head.decode(logits)
            return value
        one, others = logits[:, index], torch.cat([logits[:, :index], logits[:, index + 1 :]], dim=1)
        alone = targets.task == "multilabel" or not others.shape[1]
        odds: Tensor = one if alone else one - others.logsumexp(dim=1)
        return odds

    return said


def _beside(head: Head, embeddings: Tensor) -> Tensor:
    """Embeddings on the head's device, which need not be the backbone's."""
    held = next(iter([*head.parameters(), *head.buffers()]), embeddings)
    return embeddings.to(held.device)
