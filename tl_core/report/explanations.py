"""The page of `tl explain`: each source with what the model looked at in it."""

from __future__ import annotations

from collections.abc import Sequence

from tl_core.report.templates import render


def render_explanations(model: str, modality: str, samples: Sequence[tuple[str, str]]) -> str:
    """One self-contained HTML page that loads nothing and runs no script; all is escaped but the fragments.

    model: its name, for people; samples: (name, fragment of `tl_core.explain`) of each.
    """
    return render("explanations.html", {"model": model, "modality": modality, "samples": samples})
