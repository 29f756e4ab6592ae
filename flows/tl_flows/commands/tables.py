"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Aligned columns, without the ones that are empty in every row; never cut to the terminal's width."""
    lines = [tuple(header), *map(tuple, rows)]
    if len(lines) == 1:
        return
    kept = [i for i in range(len(header)) if any(row[i] for row in lines[1:])]
    widths = {i: max(len(row[i]) for row in lines) for i in kept}
    for row in lines:
        click.echo("  ".join(f"{row[i]:<{widths[i]}}" for i in kept).rstrip())
