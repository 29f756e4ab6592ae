"""The results as Markdown: one page, and the score tables of the model cards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tl_core.errors import UserError

START, END = "<!-- scores -->", "<!-- /scores -->"

TITLES = {"image": "Images", "audio": "Sounds", "text": "Texts"}
METHODS = {
    "probe": "linear probe, layers frozen",
    "finetune": "fine-tuning, all layers",
    "scratch": "the same network from scratch",
}
VERDICTS = ("wins", "leads", "can't tell", "loses")
LEGEND = (
    "Accuracy with 90% intervals. *wins*: the two intervals do not overlap; *leads*: they do, but the interval of the "
    "paired difference lies above 0; *can't tell*: it holds 0; *loses*: it lies below 0."
)


def page(results: Mapping[str, Any]) -> str:
    """All results as a Markdown page."""
    lines = [
        "# Starter backbones against random weights and against training from scratch",
        "",
        f"Made by `python -m benchmarks.starters`. {LEGEND}",
        "",
    ]
    for modality in TITLES:
        if modality in results:
            part = results[modality]
            facts = ", ".join(f"{key} {value}" for key, value in part["machine"].items())
            lines += [
                f"## {TITLES[modality]}: {part['backbone']}",
                "",
                *body(part),
                f"![the probe's accuracies](starters_{modality}.svg)",
                "",
                f"`{part['command']}`; {facts}; weights `{part['weights'][:16]}`. CPU seconds are those of one "
                "training, measured beside other work: the order of magnitude.",
                "",
            ]
    return "\n".join(lines)


def card(part: Mapping[str, Any]) -> str:
    """What a model card says of its scores, between its markers."""
    machine = part["machine"]
    lines = [
        *body(part),
        f"{LEGEND} Measured on {machine['date']} with torch {machine['torch']} by `python -m benchmarks.starters`; "
        "settings, machine and versions are in benchmarks/results/starters.md.",
    ]
    return "\n".join(lines)


def insert(text: str, block: str, where: str) -> str:
    """A card's text with the block between its markers. Raises UserError, naming `where`, on a card without them."""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise UserError(f"{where} has no {START} and {END}: put both on lines of their own, where the tables should be")
    return f"{before}{START}\n{block}\n{END}{after}"


def body(part: Mapping[str, Any]) -> list[str]:
    """The sentence, the tables and their footnotes, as lines."""
    lines = [f"**{summary(part)}**", "", *probe_table(part), ""]
    if part["few_labels"] is not None:
        lines += [*few_labels_table(part["few_labels"]), ""]
    if part["absent"]:
        lines += [f"Not measured, because it was not there: {', '.join(part['absent'])}.", ""]
    return lines


def summary(part: Mapping[str, Any]) -> str:
    """What the tables say, in one line."""
    rows = part["probe"]
    found = {verdict: [row["data"] for row in rows if row["verdict"] == verdict] for verdict in VERDICTS}
    said = [f"{verdict} on {len(names)} ({', '.join(names)})" for verdict, names in found.items() if names]
    text = f"Probe against its own random initialisation, {len(rows)} {'set' if len(rows) == 1 else 'sets'}: "
    text += "; ".join(said) + "."
    if part["few_labels"] is not None:
        few = part["few_labels"]
        verdicts = {method["name"]: method["verdict"] for method in few["methods"] if "verdict" in method}
        text += (
            f" With {few['per_class']} labels per class, against training from scratch: fine-tuning "
            f"{verdicts['finetune']}, the probe {verdicts['probe']}."
        )
    return text


def probe_table(part: Mapping[str, Any]) -> list[str]:
    """One row a data set, as lines."""
    rows, real = part["probe"], list(dict.fromkeys(name for row in part["probe"] for name in row["real"]))
    head = ["data", "classes", "test rows", "resampled", f"random weights, {part['seeds']} seeds", part["backbone"]]
    return _table(
        [*head, "difference", "verdict", *real],
        [
            [
                row["data"],
                str(row["classes"]),
                str(row["test_rows"]) + (f" in {row['folds']} folds" if row["folds"] > 1 else ""),
                row["unit"],
                interval(row["theirs"]),
                f"**{interval(row['ours'])}**",
                interval(row["difference"], sign="+"),
                row["verdict"],
                *(interval(row["real"][name]) if name in row["real"] else "" for name in real),
            ]
            for row in rows
        ],
    )


def few_labels_table(few: Mapping[str, Any]) -> list[str]:
    """One row a method, and what both sides were given, as lines."""
    budget = few["budget"]
    rows = []
    for method in few["methods"]:
        compared = "difference" in method
        rows.append(
            [
                METHODS[method["name"]],
                interval(method["ours"]),
                interval(method["difference"], sign="+") if compared else "",
                method["verdict"] if compared else "",
                *(
                    [
                        f"{method['rate']:g}",
                        str(method["steps"]),
                        f"{method['last_loss']:.2f}",
                        f"{method['cpu_seconds']:.0f}",
                    ]
                    if "rate" in method
                    else [""] * 4
                ),
            ]
        )
    title = f"{few['data']}, {few['per_class']} labels per class"
    head = [title, "accuracy", "minus scratch", "verdict", "learning rate", "steps", "last training loss", "CPU s"]
    rates = ", ".join(f"{rate:g}" for rate in budget["rates"])
    tuned = "the first draw" if budget["tuning_draws"] == 1 else f"the first {budget['tuning_draws']} draws"
    norms = " Scratch starts with batch-norm statistics measured on the training items." if few["batch_norms"] else ""
    return [
        *_table(head, rows),
        "",
        f"{budget['draws']} draws of {few['train_rows']} training items, each with a seed of its own; "
        f"{few['test_rows']} test rows; resampled: draws and {few['unit']}. Fine-tuning and scratch alike: "
        f"{budget['epochs']} epochs in batches of {budget['batch_size']}, the same augmentation, warm-up and cosine, "
        f"no early end, the best epoch kept; the best of the rates {rates}, by {few['val_rows']} validation items in "
        f"{tuned}.{norms}",
    ]


def interval(numbers: Sequence[float], sign: str = "") -> str:
    """A number and its interval to 3 digits."""
    value, low, high = (f"{number:{sign}.3f}" for number in numbers)
    return f"{value} ({low} to {high})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
