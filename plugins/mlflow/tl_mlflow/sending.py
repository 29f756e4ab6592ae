"""The process that sends a record: `python -m tl_mlflow.sending EXPERIMENT`, the record on standard input.

It prints lines of JSON: the ids once the run exists, what is still missing meanwhile, and the error if there is one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from tl_mlflow import child
from tl_mlflow.record import Record

if TYPE_CHECKING:
    from mlflow import MlflowClient

T = TypeVar("T")

BATCH = 100  # parameters or tags in a request, as MLflow allows


def main() -> int:
    """Send the record; 0 where MLflow has all of it."""
    record, experiment = Record.parse(sys.stdin.read()), sys.argv[1]
    return child.run(lambda: _send(record, experiment))


def _send(record: Record, experiment_name: str) -> None:
    import mlflow
    from mlflow.entities import Metric, Param, RunTag

    child.limit(child.contact_seconds(os.environ))
    experiment = mlflow.set_experiment(experiment_name)
    client = mlflow.MlflowClient()
    note = {"mlflow.note.content": record.about, "mlflow.source.name": "tl", "mlflow.source.type": "LOCAL"}
    run = client.create_run(experiment.experiment_id, start_time=record.started, tags=note, run_name=record.name)
    child.say(experiment=experiment.experiment_id, run=run.info.run_id, missing="values and files")
    child.limit(child.SENDING_SECONDS)
    for params in _batches([Param(name, value) for name, value in record.params.items()]):
        client.log_batch(run.info.run_id, params=params)
    for tags in _batches([RunTag(name, value) for name, value in record.tags.items()]):
        client.log_batch(run.info.run_id, tags=tags)
    for metrics in _batches([Metric(p.name, p.value, record.started, p.step) for p in record.points]):
        client.log_batch(run.info.run_id, metrics=metrics)
    # before the files, which take longest: a kill meanwhile leaves no run that seems to go on for ever
    client.set_terminated(run.info.run_id)
    child.say(missing="files")
    _upload(client, run.info.run_id, record.files)


def _upload(client: MlflowClient, run_id: str, files: Sequence[str]) -> None:
    for path in files:
        client.log_artifact(run_id, path)


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))


if __name__ == "__main__":
    sys.exit(main())
