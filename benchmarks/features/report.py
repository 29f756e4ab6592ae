"""Results into docs/performance.md, between its markers, and the plots beside the results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.features import plots, tables
from benchmarks.features.goals import goals_table
from benchmarks.features.images import LOOP
from benchmarks.features.sounds import SINGLE
from benchmarks.features.texts import ENCODE
from tl_core.errors import UserError
from tl_core.weights import read_json
from tl_core.workspace import write_text

NOTHING = "Not measured yet."


def write_report(folder: Path, page: Path, out: Path) -> None:
    """The page with its blocks filled, into `out`, and the plots beside their results (features.json and
    store_formats.json in a folder).

    Raises UserError where there are no results, and where the page lacks a marker.
    """
    path = folder / "features.json"
    if not path.is_file():
        raise UserError(f"no results in {path}; measure first: python -m benchmarks.features")
    results = read_json(path)
    stores = folder / "store_formats.json"
    text = page.read_text(encoding="utf-8")
    for name, lines in blocks(results, read_json(stores) if stores.is_file() else None).items():
        text = insert(text, name, "\n".join(lines), str(page))
    for name, picture in pictures(results).items():
        write_text(folder / f"features_{name}.svg", picture)
    write_text(out, text)


def blocks(results: Mapping[str, Any], stores: dict[str, Any] | None) -> dict[str, list[str]]:
    """Lines by the name of their marker."""
    render = {
        "images": tables.images,
        "texts": tables.texts,
        "sounds": tables.sounds,
        "reruns": tables.reruns,
        "no_change": tables.no_change,
        "memory": tables.memory,
        "kills": tables.kills,
        "two_processes": tables.two_processes,
        "probe_accuracy": tables.probe_accuracy,
        "gpu": tables.gpu,
    }
    found = {name: make(results[name]) if name in results else [NOTHING] for name, make in render.items()}
    found["stores"] = [NOTHING] if stores is None else tables.stores(stores)
    found["machine"] = tables.machine(results)
    found["goals"] = goals_table(results)
    return found


def pictures(results: Mapping[str, Any]) -> dict[str, str]:
    """SVG by name, of the parts that were measured."""
    found = {}
    for part, rival in (("images", LOOP), ("texts", ENCODE), ("sounds", SINGLE)):
        if part in results:
            found[part] = plots.rates(results[part], rival, f"times the rate of: {rival}")
    if "memory" in results:
        found["memory"] = plots.memory(results["memory"])
    return found


def insert(text: str, name: str, block: str, where: str) -> str:
    """A page's text with the block between its markers. Raises UserError, naming `where`, on a page without them."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, first, rest = text.partition(start)
    _, last, after = rest.partition(end)
    if not (first and last):
        raise UserError(f"{where} has no {start} and {end}: put both on lines of their own, where the table should be")
    return f"{before}{start}\n{block}\n{end}{after}"
