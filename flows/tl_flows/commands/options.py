"""Options that several commands share, and what they mean together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_OUT = "tl-run"


@dataclass(frozen=True)
class RunOptions:
    """What the user gave to `tl run` or `tl <step>`."""

    data: Path | None
    modality: str | None
    backbones: tuple[str, ...]
    settings: tuple[str, ...]
    out: Path | None

    @property
    def folder(self) -> Path:
        """The output folder of a run outside of any project."""
        return self.out or Path(DEFAULT_OUT)


def run_options(command: F) -> F:
    """Add --data, --modality, --backbone, --set and --out."""
    for option in reversed(
        [
            click.option("--data", type=click.Path(path_type=Path), help="Folder or table of samples."),
            click.option("--modality", help="image, text, audio or a plugin's; guessed where not given."),
            click.option(
                "--backbone", "backbones", multiple=True, metavar="NAME",
                help="Name, hub id or folder with weights; one pins it, several compete.",
            ),
            click.option(
                "--set", "settings", multiple=True, metavar="KEY=VALUE",
                help="A config value, tune.lr=1e-3; a wrong key is answered with those that there are.",
            ),
            click.option("--out", type=click.Path(path_type=Path), help=f"Output folder with --data [{DEFAULT_OUT}]."),
        ]
    ):  # fmt: skip
        command = option(command)
    return command
