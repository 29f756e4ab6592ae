"""Rows of a small text table for the tests of retrains."""

from __future__ import annotations

import random
from pathlib import Path

TOPICS = {
    "parcel": ("my parcel {n} has not arrived", "where is box {n}", "the courier lost {n}", "no tracking of {n}"),
    "refund": ("please refund order {n}", "i want my money back for {n}", "when is {n} paid back", "{n} charged twice"),
    "login": ("can't log in as {n}", "password of {n} is refused", "account {n} is locked", "reset the key of {n}"),
}


def lines(count: int, *, seed: int, wrong: bool = False) -> list[str]:
    """Table rows, as many of each topic; wrong: each with the label of the next topic."""
    draw = random.Random(seed)
    names = list(TOPICS)
    found = []
    for i in range(count):
        topic = names[i % len(names)]
        said = draw.choice(TOPICS[topic]).format(n=draw.randrange(1000, 9999))
        label = names[(names.index(topic) + 1) % len(names)] if wrong else topic
        found.append(f"{said} {draw.choice(['', 'please', 'today', 'thanks', 'soon'])},{label}")
    return found


def write_rows(table: Path, rows: list[str]) -> None:
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
