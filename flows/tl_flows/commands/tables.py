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
