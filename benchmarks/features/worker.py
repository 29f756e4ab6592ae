"""One case in a process of its own, its numbers as JSON: `python -m benchmarks.features.worker PART CASE OUT`."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

from benchmarks.features.parts import measured
from benchmarks.features.setting import Setup, machine
from tl_core.errors import UserError
from tl_core.workspace import write_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part")
    parser.add_argument("case")
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--text-encoder", required=True)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    setup = Setup(arguments.data, arguments.cache, text_encoder=arguments.text_encoder, quick=arguments.quick)
    try:
        found = measured(arguments.part, arguments.case, setup)
    except UserError as error:
        sys.exit(f"{arguments.part}:{arguments.case}: {error}")
    device = "cuda" if arguments.part == "gpu" else "cpu"
    write_json(arguments.out, found | {"machine": machine(device), "quick": arguments.quick})


if __name__ == "__main__":
    main()
