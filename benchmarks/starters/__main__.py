"""The starter backbones measured: a linear probe against their own random initialisations on samples and real sets,
and, with ten labels per class, transfer against training the same network from scratch.

    python -m benchmarks.starters [--only image|audio|text ...] [--data FOLDER] [--cache FOLDER]
    python -m benchmarks.starters --write-cards

FOLDER (default: $TL_SHARED_DATA or ../shared/data) holds datasets/ and weights/; what is not there is left out, and the
results say so. Features and finished trainings are remembered in the cache, so that a killed run goes on where it was.
Results: benchmarks/results/starters.{json,md}; --write-cards copies them into the plugins' model cards.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.end_to_end import RESULTS, machine
from benchmarks.starters.data import ROOT
from benchmarks.starters.measuring import STARTERS, Setup, measure
from benchmarks.starters.picture import picture
from benchmarks.starters.tables import card, insert, page
from tl_core.errors import UserError
from tl_core.registry import load_registry
from tl_core.weights import read_json
from tl_core.workspace import write_json, write_text

CARDS = {
    "image": ROOT / "plugins" / "image" / "tl_image" / "starter" / "README.md",
    "audio": ROOT / "plugins" / "audio" / "tl_audio" / "starter" / "README.md",
}
LIBRARIES = {"image": ("timm", "pillow"), "audio": ("timm", "torchaudio"), "text": ("transformers", "tokenizers")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("TL_SHARED_DATA", str(ROOT.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(data))
    parser.add_argument("--cache", type=Path, default=ROOT / ".tl" / "benchmarks" / "starters")
    parser.add_argument("--only", nargs="+", choices=list(STARTERS), default=list(STARTERS))
    parser.add_argument("--backbone", help="with one --only: another backbone than the starter; shown, not kept")
    parser.add_argument("--quick", action="store_true", help="samples only, few seeds and epochs; shown, not kept")
    parser.add_argument("--write-cards", action="store_true", help="write the cards from the results; measure nothing")
    arguments = parser.parse_args()
    if arguments.backbone and len(arguments.only) > 1:
        parser.error("--backbone needs one --only")
    try:
        if arguments.write_cards:
            write_cards(RESULTS / "starters.json", CARDS)
        else:
            run(arguments)
    except UserError as error:
        sys.exit(f"benchmarks.starters: {error}")


def run(arguments: argparse.Namespace) -> None:
    """Measure the modalities asked for, and keep each as soon as it is done."""
    registry, path = load_registry(), RESULTS / "starters.json"
    seeds = 2 if arguments.quick else 5
    setup = Setup(arguments.data.resolve(), arguments.cache.resolve(), seeds, arguments.quick)
    kept = not (arguments.quick or arguments.backbone)
    shown: dict[str, Any] = {}
    for modality in arguments.only:
        found = measure(modality, arguments.backbone or STARTERS[modality], registry, setup)
        shown[modality] = found | {
            "command": shlex.join(["python", "-m", "benchmarks.starters", *sys.argv[1:]]),
            "machine": machine() | {library: version(library) for library in LIBRARIES[modality]},
        }
        if kept:
            results = (read_json(path) if path.is_file() else {}) | shown  # another run may have added to it
            write_json(path, results)
            write_text(path.with_suffix(".md"), page(results))
            write_text(path.with_name(f"starters_{modality}.svg"), picture(shown[modality]))
    print(page(shown))


def write_cards(results: Path, cards: dict[str, Path]) -> None:
    """Put each modality's tables into its model card, and all of them into the page beside the results.

    Raises UserError, before any is written, where one can't be, and where the weights beside a card are no longer those
    that were measured.
    """
    measured = read_json(results)
    faults = [
        f"no results for {modality} in {results}; measure them first" for modality in cards if modality not in measured
    ]
    faults += [f"no model card {path}" for path in cards.values() if not path.is_file()]
    faults += [
        f"the results for {modality} are of other weights than {path.parent} holds; measure it again"
        for modality, path in cards.items()
        if modality in measured and _expected(path.parent) not in (None, measured[modality]["weights"])
    ]
    if faults:
        raise UserError("; ".join(faults))
    texts = {
        path: insert(path.read_text(encoding="utf-8"), card(measured[modality]), str(path))
        for modality, path in cards.items()
    }
    write_text(results.with_suffix(".md"), page(measured))
    for path, text in texts.items():
        write_text(path, text)


def _expected(starter: Path) -> str | None:
    """The digest of a starter's weights, as its config.json says."""
    config = starter / "config.json"
    digest: str | None = read_json(config)["provenance"]["safetensors_sha256"] if config.is_file() else None
    return digest


if __name__ == "__main__":
    main()
