"""How much slower torch's threads get beside other work, and what their spinning has to do with it.

    python -m benchmarks.busy_machine [--rounds 5]

A transformer layer runs on all cores, alone and beside processes that keep one core each busy, with the settings that
torch comes with and with GOMP_SPINCOUNT as the tl command sets it: threads that wait for each other then sleep after
some microseconds instead of milliseconds. Each run is a process of its own; the runs of a round are interleaved, ratios
are those of the medians. Linux only, where torch computes with GNU's OpenMP. Results:
benchmarks/results/busy_machine.{json,md}. About two minutes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tl_flows.cli import SPINS

from benchmarks.end_to_end import RESULTS, machine
from tl_core.workspace import write_json, write_text

PATH = RESULTS / "busy_machine.json"
NEIGHBOURS = (0, 1, 2)
LAYER = """
import time, torch
torch.manual_seed(0)
layer = torch.nn.TransformerEncoderLayer(384, 6, 1536, batch_first=True).eval()
x = torch.randn(8, 64, 384)
with torch.inference_mode():
    for _ in range(3):
        layer(x)
    began = time.perf_counter()
    for _ in range(60):
        layer(x)
print(time.perf_counter() - began)
"""


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that do nothing but take a core's time."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for one in others:
            one.kill()
            one.wait()


def seconds(spins: str | None) -> float:
    """Of 60 passes of the layer in a new process; spins: None for torch's own settings."""
    given = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_"))}
    environment = given if spins is None else {**given, "GOMP_SPINCOUNT": spins}
    told = subprocess.run([sys.executable, "-c", LAYER], env=environment, capture_output=True, text=True, check=True)
    return float(told.stdout)


def page(found: dict[str, dict[str, list[float]]], facts: str) -> str:
    """The medians as a table."""
    lines = [
        "# torch beside other work",
        "",
        f"{facts}. Medians of `python -m benchmarks.busy_machine`: seconds of 60 passes of a transformer layer.",
        "",
        f"| busy processes beside it | torch's own settings | GOMP_SPINCOUNT={SPINS}, as tl sets it | ratio |",
        "|---|---|---|---|",
    ]
    for count, runs in found.items():
        own, short = statistics.median(runs["own"]), statistics.median(runs["short"])
        lines.append(f"| {count} | {own:.2f} | {short:.2f} | {own / short:.1f} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = {str(count): {"own": [], "short": []} for count in NEIGHBOURS}
    for _ in range(arguments.rounds):
        for count in NEIGHBOURS:
            with busy(count):
                found[str(count)]["own"].append(round(seconds(None), 3))
                found[str(count)]["short"].append(round(seconds(SPINS), 3))
    told = machine()
    write_json(PATH, {"machine": told, "seconds": found})
    text = page(found, ", ".join(f"{key} {value}" for key, value in told.items()))
    write_text(PATH.with_suffix(".md"), text)
    print(text)


if __name__ == "__main__":
    main()
