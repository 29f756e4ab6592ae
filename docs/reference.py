"""Writes the reference pages from the code: `python -m docs.reference` (tests fail where they are out of date)."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from tl_core.config import describe
from tl_core.report.facts import FORMAT_VERSION, ReportFacts
from tl_core.report.summary import RunSummary

DOCS = Path(__file__).resolve().parent
REPORT_HEAD = f"""# The format of report.json

Written by `make docs` from the code. `tl evaluate` writes `artifacts/evaluate/report.json`; the page, `tl report`,
`tl compare` and the model card are made from it alone. Its format is **{FORMAT_VERSION}**: a newer one is refused with
a remedy, an older one is read, and keys that it has not yet are taken as empty. Keys that a reader does not know are to
be passed over. Numbers are rounded to 6 decimals; there are no times and no host facts in it.

| key | holds |
|---|---|
| `format` | {FORMAT_VERSION} |
| `summary` | [RunSummary](#runsummary): the run in a few numbers and words |
| `facts` | [ReportFacts](#reportfacts): everything that the page shows |
"""


def cli_page() -> str:
    """The help of `tl` and of every command, as Markdown."""
    from tl_flows.cli import tl

    lines = ["# The `tl` command", "", "Written by `make docs` from the commands themselves.", ""]
    lines += _help("tl", tl, None)
    return "\n".join(lines)


def _help(name: str, command: click.Command, parent: click.Context | None) -> list[str]:
    context = click.Context(
        command, info_name=name.split()[-1], parent=parent, terminal_width=100, max_content_width=100,
        **command.context_settings,
    )  # fmt: skip
    lines = [f"## `{name}`", "", "```text", command.get_help(context), "```", ""]
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            if found is not None and not found.hidden:
                lines += _help(f"{name} {child}", found, context)
    return lines


def config_page() -> str:
    """Every configuration key with its type, default and meaning."""
    lines = [
        "# Configuration",
        "",
        "Written by `make docs` from the code. A key is set in `params.yaml`, by `--set key=value`, or in Python as",
        '`run(..., settings={"tune.strategy": "finetune"})`. Unknown keys and bad values are refused, all at once.',
        "",
        "| key | values | default | meaning |",
        "|---|---|---|---|",
    ]
    for key, kind, default, meaning in describe():
        cells = [f"`{key}`", kind.replace("|", "\\|"), f"`{default}`".replace("|", "\\|"), meaning]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def report_page() -> str:
    """Every class of report.json with its keys and their types, as Markdown."""
    parts = [REPORT_HEAD]
    for kind in _reached(RunSummary, ReportFacts):
        hints = typing.get_type_hints(kind)
        rows = [f"| `{f.name}` | {_type(hints[f.name])} |" for f in dataclasses.fields(kind)]
        said = " ".join(inspect.cleandoc(kind.__doc__ or "").split())
        # where a class says nothing, Python makes a signature of its fields
        text = "" if said.startswith(f"{kind.__name__}(") else f"{said}\n\n"
        parts.append("\n".join([f"## {kind.__name__}\n\n{text}| key | type |", "|---|---|", *rows, ""]))
    return "\n".join(parts)


def _reached(*kinds: type) -> Iterator[type]:
    """The dataclasses that are reached from these, each once, an outer one before its parts."""
    waiting, seen = list(kinds), set()
    while waiting:
        kind = waiting.pop(0)
        if kind in seen:
            continue
        seen.add(kind)
        yield kind
        hints = typing.get_type_hints(kind)
        waiting[:0] = [part for f in dataclasses.fields(kind) for part in _parts(hints[f.name])]


def _parts(kind: Any) -> list[type]:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return [kind]
    return [part for inner in typing.get_args(kind) for part in _parts(inner)]


def _type(kind: Any) -> str:
    """A type in the words of JSON."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(part) for part in inner)
    if origin is tuple and inner[-1] is not ...:
        return f"[{', '.join(_type(part) for part in inner)}]"
    if origin in (tuple, list, Sequence):
        return f"list of {_type(inner[0])}"
    if origin in (dict, Mapping):
        return f"object: name to {_type(inner[1])}"
    names = {str: "text", float: "number", int: "whole number", bool: "true or false", type(None): "null"}
    return names.get(kind, "any value")


PAGES = {"cli.md": cli_page, "configuration.md": config_page, "report-format.md": report_page}


def main() -> None:
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
        print(f"docs/{name}")


if __name__ == "__main__":
    main()
