"""The run that a commit recorded against the one that was made anew."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from tl_core.config import load_config
from tl_core.errors import UserError
from tl_core.workspace import STEPS
from tl_flows.project import PARAMS
from tl_flows.reproduction import closeness
from tl_flows.reproduction.contents import changes
from tl_flows.reproduction.lock import LOCK, StepRecord, read_lock
from tl_flows.reproduction.verdict import Difference, Kind

EVALUATED = "artifacts/evaluate/"
METRICS, PREDICTIONS, REPORT = (EVALUATED + name for name in ("metrics.json", "predictions.parquet", "report.json"))
PAGES = (
    REPORT,
    *(EVALUATED + name for name in ("report.html", "model_card.md", "plots")),
)  # they show what others hold
EXAMPLES = 3  # differences told of one output


class Comparison:
    """Differences between a commit's run and its reproduction, in the order of the steps.

    project: of the reproduction; then: what dvc.lock recorded; code: inputs that are code; touched: what changed in the
    data since the recorded run saw them, in words. A context: what is fetched of the recorded run goes at its end.
    """

    def __init__(
        self, main: Path, commit: str, project: Path, then: Mapping[str, StepRecord], code: frozenset[str], touched: str
    ) -> None:
        self._main, self._commit, self._project = main, commit, project
        self._then, self._code, self._touched = then, code, touched
        self._now = read_lock((project / LOCK).read_text(encoding="utf-8"), LOCK)
        self._scratch = TemporaryDirectory(prefix="tl-reproduce-")
        self._fetched: dict[str, Path | None] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._scratch.cleanup()

    def differences(self) -> list[Difference]:
        """All of them, the environment's last."""
        return [*(one for step in STEPS for one in self._of_step(step)), *self._of_environment()]

    @cached_property
    def comparable(self) -> bool:
        """Whether inputs, manifest, backbone and weights are the same: only numbers may differ then."""
        told = [*(one for step in STEPS for one in self._of_inputs(step)), *self._of_outputs("version")]
        if any(one.kind != "code" for one in told):
            return False
        then, now = self._backbone(self._fetch), self._backbone(self._made)
        return None in (then, now) or then == now

    def closeness(self, tolerance: float) -> closeness.Closeness:
        """How far metrics and predictions are apart."""
        recorded = self._fetch(METRICS)
        texts = (recorded.read_text(encoding="utf-8") if recorded else "", self._made(METRICS).read_text("utf-8"))
        one, other = map(closeness.read_metrics, texts)
        return closeness.closeness((one, other), (self._fetch(PREDICTIONS), self._made(PREDICTIONS)), tolerance)

    def _of_step(self, step: str) -> Iterator[Difference]:
        yield from self._of_inputs(step)
        yield from self._of_outputs(step)

    def _of_inputs(self, step: str) -> Iterator[Difference]:
        """Inputs and parameters that the recorded run had otherwise than its own commit has them."""
        then, now = self._then[step], self._now[step]
        for path, one, other in _unequal(then.inputs, now.inputs):
            kind: Kind = "code" if path in self._code else "data"
            told = f"{other[:12]} ({self._touched})" if kind == "data" and self._is_data(path) else other[:12]
            yield Difference(step, kind, path, one[:12], told)
        for key, one, other in _unequal(then.params, now.params):
            yield Difference(step, "parameter", key, one, other)

    def _of_outputs(self, step: str) -> Iterator[Difference]:
        then, now = self._then[step].outputs, self._now[step].outputs
        for path in dict.fromkeys((*then, *now)):
            # git holds the metrics: they may be others than dvc.lock says
            if then.get(path) == now.get(path) and path != METRICS:
                continue
            kind: Kind = "page" if path in PAGES else "output"
            recorded = self._fetch(path)
            if recorded is None:
                if then.get(path) != now.get(path):
                    yield Difference(step, kind, path, then.get(path, "absent")[:12], now.get(path, "absent")[:12])
                continue
            found = changes(recorded, self._made(path))
            if path == REPORT:  # the environment is told by itself
                found = [one for one in found if not one[0].startswith("facts.provenance.")]
            for what, one, other in found[:EXAMPLES]:
                yield Difference(step, kind, f"{path}: {what}" if what else path, one, other)
            if len(found) > EXAMPLES:
                more = f"{len(found) - EXAMPLES:,} more"
                yield Difference(step, kind, path, f"{more} differences", "the folder of --keep has all")

    def _of_environment(self) -> Iterator[Difference]:
        recorded = self._fetch(REPORT)
        then = _provenance(recorded) if recorded is not None else None
        if then is None:
            yield Difference("", "environment", "of the recorded run", "not at hand", "not compared")
            return
        for name, one, other in _unequal(then, _provenance(self._made(REPORT)) or {}):
            yield Difference("", "environment", name, one, other)

    def _is_data(self, path: str) -> bool:
        data = (self._project / Path(load_config(self._project / PARAMS).data.path).expanduser()).resolve()
        return data.is_relative_to((self._project / path).resolve())

    def _backbone(self, place: Any) -> tuple[str, str] | None:
        """Name and weights of the backbone that a run used, None where its receipt is not at hand."""
        folder = place("artifacts/extract")
        try:
            facts = json.loads((folder / "receipt.json").read_text(encoding="utf-8"))["backbone"]
            return facts["name"], facts["weights"]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _made(self, path: str) -> Path:
        return self._project / path

    def _fetch(self, path: str) -> Path | None:
        """An output of the recorded run, None where neither git nor DVC's cache or remote has it."""
        if path not in self._fetched:
            self._fetched[path] = self._got(path)
        return self._fetched[path]

    def _got(self, path: str) -> Path | None:
        from tl_flows.versioning import folder_at, outputs_at

        root, recorded = Path(self._scratch.name), self._then_hash(path)
        if recorded is None:
            return None
        try:
            if recorded.endswith(".dir"):
                folder_at(self._main, self._commit, path, root / path)
            else:
                outputs_at(self._main, self._commit, [path], root)
        except UserError:
            return None
        return root / path

    def _then_hash(self, path: str) -> str | None:
        return next((record.outputs[path] for record in self._then.values() if path in record.outputs), None)


def _unequal(then: Mapping[str, str], now: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    for key in dict.fromkeys((*then, *now)):
        one, other = then.get(key, "absent"), now.get(key, "absent")
        if one != other:
            yield key, one, other


def _provenance(report: Path) -> dict[str, str] | None:
    try:
        value = json.loads(report.read_text(encoding="utf-8"))["facts"]["provenance"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return {str(name): str(text) for name, text in value.items()} if isinstance(value, dict) else None
