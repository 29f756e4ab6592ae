"""Writes the reference pages from the code: `python -m docs.reference` (tests fail where they are out of date)."""

from __future__ import annotations

from pathlib import Path

import click

from tl_core.config import describe

DOCS = Path(__file__).resolve().parent


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


PAGES = {"cli.md": cli_page, "configuration.md": config_page}


def main() -> None:
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
        print(f"docs/{name}")


if __name__ == "__main__":
    main()
