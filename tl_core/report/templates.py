"""Filling the pages' templates: escaped, deterministic, one style for all pages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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
    environment.filters |= {
        "short": short, "number": number, "percent": percent, "quantity": quantity, "multiple": multiple,
        "listed": listed, "first_up": first_up, "breakable": breakable, "coded": coded,
        "signed": signed,
    }  # fmt: skip
    style = (HERE / "style.css").read_text(encoding="utf-8")
    page = environment.get_template(template).render({**context, "style": style})
    return page.encode("utf-8", "replace").decode("utf-8")  # file names may hold what UTF-8 can't


def number(value: float) -> str:
    """Three decimals below 10 (metrics), four significant digits above (values with a unit)."""
    text = f"{value:.3f}" if abs(value) < 10 else f"{value:,.4g}" if abs(value) < 1e6 else f"{value:.3e}"
    return text.removeprefix("-" if text == "-0.000" else "").replace("-", "−")


def short(text: str, limit: int = LABEL_CHARACTERS) -> str:
    """The text in at most limit characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def breakable(text: str) -> Any:
    """A name as HTML that may wrap after its parts, rather than anywhere."""
    from markupsafe import Markup, escape

    return Markup("<wbr>").join(escape(part) for part in re.split(r"(?<=[._/#])", text))


def coded(text: str) -> Any:
    """A sentence as HTML in which what stands between backticks is code."""
    from markupsafe import Markup, escape

    parts = text.split("`")
    if len(parts) % 2 == 0:  # one of them has no other end
        return escape(text)
    return Markup("").join(Markup("<code>{}</code>").format(p) if i % 2 else escape(p) for i, p in enumerate(parts))


def signed(text: str) -> str:
    """A sentence with the minus sign before negative numbers, as everywhere on the pages."""
    return re.sub(r"(?<![^\s(])-(?=\d)", "−", text)


def first_up(text: str) -> str:
    """The text as a sentence begins."""
    return text[:1].upper() + text[1:]


def percent(share: float) -> str:
    """A probability; neither 0% nor 100% of what is only almost so."""
    return "<1%" if 0 < share < 0.01 else ">99%" if 0.99 < share < 1 else f"{100 * share:.0f}%"


def quantity(value: float) -> str:
    """A count of operations or parameters, three digits and a letter: `4.09 G`."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size * 0.9995:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g}"


def multiple(ratio: float) -> str:
    """How many times as much: `2.4x`."""
    return f"{ratio:.0f}x" if ratio >= 9.95 else f"{ratio:.1f}x" if ratio >= 0.095 else f"{ratio:.2g}x"


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
