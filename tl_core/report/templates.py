"""Filling the pages' templates: escaped, deterministic, one style for all pages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LABEL_CHARACTERS = 24  # of a class name along a picture's edge


def render(template: str, context: Mapping[str, Any]) -> str:
    """A page from a template of this folder; the style sheet is put into it as `style`."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"short": short, "number": number}
    style = (HERE / "style.css").read_text(encoding="utf-8")
    page = environment.get_template(template).render({**context, "style": style})
    return page.encode("utf-8", "replace").decode("utf-8")  # file names may hold what UTF-8 can't


def number(value: float) -> str:
    """Three decimals below 10 (metrics), four significant digits above (values with a unit)."""
    text = f"{value:.3f}" if abs(value) < 10 else f"{value:,.4g}" if abs(value) < 1e6 else f"{value:.3e}"
    return text.replace("-", "−")


def short(text: str, limit: int = LABEL_CHARACTERS) -> str:
    """The text in at most limit characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
