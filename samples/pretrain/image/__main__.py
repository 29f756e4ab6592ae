"""`python -m samples.pretrain.image` pretrains the image starter: draw images, train, export.

Stopped at any moment, the same command goes on; `--export-only` writes the weights of the last checkpoint.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields, replace
from pathlib import Path

import torch

from samples.pretrain.export import export
from samples.pretrain.image.pretraining import pretrain
from samples.pretrain.image.settings import Settings
from tl_core.errors import UserError

_ROOT = Path(__file__).resolve().parents[3]


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m samples.pretrain.image", description=__doc__)
    parser.add_argument("--work", type=Path, default=_ROOT / ".tl/pretrain/image", help="images and checkpoint")
    parser.add_argument("--starter", type=Path, help="folder of config.json and weights (default: the plugin's)")
    parser.add_argument("--record", type=Path, help="JSON of settings and curve (default: beside this module)")
    parser.add_argument("--export-only", action="store_true", help="write the last checkpoint's weights and end")
    for field in fields(Settings):
        kind = float if isinstance(field.default, float) else int
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default)
    arguments = vars(parser.parse_args())
    settings = replace(Settings(), **{field.name: arguments[field.name] for field in fields(Settings)})
    if settings != Settings() and None in (arguments["starter"], arguments["record"]):
        parser.error("other settings than the starter's make another network: give its --starter and --record as well")
    starter = arguments["starter"] or _ROOT / "plugins/image/tl_image/starter"
    record = arguments["record"] or _ROOT / "samples/pretrain/image.json"
    torch.set_num_threads(1)  # sums over several threads differ in their last bits from count to count
    checkpoint = arguments["work"] / "checkpoint.safetensors"
    try:
        if not arguments["export_only"]:
            pretrain(settings, arguments["work"], starter)
        digest = export(checkpoint, starter, record, settings.facts())
    except UserError as error:
        sys.exit(f"samples.pretrain.image: {error}")
    print(f"{starter / 'model.safetensors'}: sha256 {digest}")


main()
