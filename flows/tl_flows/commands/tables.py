"""Tables on the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Sequence

import click

WIDTH = 120


def print_table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Collection[str] = (),
    below: Sequence[str] = (),
) -> None:
    """Aligned columns, without the ones that are empty in every row; never cut to the terminal's width.

    right: headers of the columns that are aligned to the right. below: words under each row, indented and wrapped.
    """
    lines = [tuple(header), *map(tuple, rows)]
    if len(lines) == 1:
        return
    kept = [i for i in range(len(header)) if any(row[i] for row in lines[1:])]
    widths = {i: max(len(row[i]) for row in lines) for i in kept}
    for row, words in zip(lines, ("", *below) if below else [""] * len(lines), strict=True):
        cells = (f"{row[i]:{'>' if header[i] in right else '<'}{widths[i]}}" for i in kept)
        click.echo("  ".join(cells).rstrip())
        for line in textwrap.wrap(words, WIDTH - 4):
            click.echo(f"    {line}")


def draw_texts(header: Sequence[str] | None, rows: Iterable[Sequence[str]]) -> None:
    """A table of plain texts, folded to the terminal's width; the first column stands out."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from tl_flows import summary

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_header=header is not None)
    for column in header or ("", ""):
        table.add_column(column, overflow="fold")
    for row in rows:  # as text: a decision may have brackets, which rich takes for markup
        table.add_row(*(Text(cell, style="bold" if i == 0 else "") for i, cell in enumerate(row)))
    summary.draw(table)
