"""How a retrain ended, for people, scripts and watchers."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tl_core.workspace import write_json

FORMAT_VERSION = 1
REFUSED = 3  # exit code; 0: promoted or nothing new, 1: failed, 2: refused what it was given

State = Literal["promoted", "refused", "nothing new", "failed"]


@dataclass(frozen=True)
class Outcome:
    """The end of a retrain.

    version: of the challenger in the registry, where there was one; champion: that which serves now; data: what changed
    since the last retrain, in words; decision: the gate's, as JSON; folder: where its report and decision lie;
    made_good: what became first, in this run, of the model of a retrain that was killed or failed.
    """

    state: State
    reason: str
    version: str | None = None
    champion: str | None = None
    data: str = ""
    quarantined: int = 0
    decision: dict[str, Any] | None = None
    folder: str | None = None
    seconds: float = 0.0
    made_good: str = ""

    @property
    def exit_code(self) -> int:
        """Of the command. Failures have the code of their fault instead."""
        return {"promoted": 0, "nothing new": 0, "refused": REFUSED, "failed": 1}[self.state]

    def as_json(self) -> dict[str, Any]:
        return {"format": FORMAT_VERSION, **dataclasses.asdict(self)}

    def keep(self, path: Path) -> None:
        write_json(path, self.as_json())

    @classmethod
    def load(cls, path: Path) -> Outcome:
        facts = json.loads(path.read_text(encoding="utf-8"))
        facts.pop("format")
        return cls(**facts)


def as_markdown(outcome: Outcome) -> str:
    """The outcome with every rule's verdict, for a run's page or a message."""
    lines = [f"# {outcome.state.capitalize()}", "", outcome.reason, ""]
    lines += [f"Before that: {outcome.made_good}", ""] if outcome.made_good else []
    facts = {
        "version": outcome.version,
        "serves now": outcome.champion,
        "data": outcome.data,
        "quarantined": str(outcome.quarantined) if outcome.quarantined else "",
        "report": outcome.folder,
    }
    lines += [f"- {key}: {value}" for key, value in facts.items() if value]
    if outcome.decision:
        lines += ["", "| rule | verdict | why |", "|---|---|---|"]
        for rule in outcome.decision["rules"]:
            text = str(rule["text"]).replace("|", "\\|").replace("\n", " ")
            lines.append(f"| {rule['name']} | {rule['state']} | {text} |")
        lines += ["", *(f"- {warning}" for warning in outcome.decision["warnings"])]
    return "\n".join(lines).rstrip() + "\n"
