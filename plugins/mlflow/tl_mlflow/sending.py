"""The process that sends a record: `python -m tl_mlflow.sending EXPERIMENT`, the record on standard input.

It prints lines of JSON: the ids once the run exists, what is still missing meanwhile, and the error if there is one.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from tl_mlflow.record import Record

if TYPE_CHECKING:
    from mlflow import MlflowClient

T = TypeVar("T")

DATABASE_SECONDS = 60  # a database may have to be made first
SENDING_SECONDS = 60  # all values and files; a report has 5 MB at most
BATCH = 100  # parameters or tags in a request, as MLflow allows


def main() -> int:
    """Send the record; 0 where MLflow has all of it. A process past its time is ended by SIGALRM."""
    record, experiment = Record.parse(sys.stdin.read()), sys.argv[1]
    try:
        _send(record, experiment)
    except Exception as error:  # whatever it is, one line tells the user more than mlflow's traceback
        _say(error=_cause(error))
        return 1
    return 0


def _send(record: Record, experiment_name: str) -> None:
    import mlflow
    from mlflow.entities import Metric, Param, RunTag

    _limit(contact_seconds(os.environ))
    experiment = mlflow.set_experiment(experiment_name)
    client = mlflow.MlflowClient()
    note = {"mlflow.note.content": record.about, "mlflow.source.name": "tl", "mlflow.source.type": "LOCAL"}
    run = client.create_run(experiment.experiment_id, start_time=record.started, tags=note, run_name=record.name)
    _say(experiment=experiment.experiment_id, run=run.info.run_id, missing="values and files")
    _limit(SENDING_SECONDS)
    for params in _batches([Param(name, value) for name, value in record.params.items()]):
        client.log_batch(run.info.run_id, params=params)
    for tags in _batches([RunTag(name, value) for name, value in record.tags.items()]):
        client.log_batch(run.info.run_id, tags=tags)
    for metrics in _batches([Metric(p.name, p.value, record.started, p.step) for p in record.points]):
        client.log_batch(run.info.run_id, metrics=metrics)
    # before the files, which take longest: a kill meanwhile leaves no run that seems to go on for ever
    client.set_terminated(run.info.run_id)
    _say(missing="files")
    _upload(client, run.info.run_id, record.files)


def _upload(client: MlflowClient, run_id: str, files: Sequence[str]) -> None:
    for path in files:
        client.log_artifact(run_id, path)


def contact_seconds(environment: Mapping[str, str]) -> int:
    """What the first answer may take: that of a server what one request may, a database more."""
    if not environment["MLFLOW_TRACKING_URI"].startswith(("http", "databricks")):
        return DATABASE_SECONDS
    tries = int(environment["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]) + 1
    return tries * (int(environment["MLFLOW_HTTP_REQUEST_TIMEOUT"]) + 1)


def _limit(seconds: int) -> None:
    signal.alarm(seconds)  # not caught: it ends the process even where it waits inside the system


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))


def _say(**facts: str) -> None:
    print(json.dumps(facts), flush=True)


def _cause(error: BaseException) -> str:
    """The system's own words where they are behind an error, else the error's first line."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.__context__ is None:
            return cause.strerror or str(cause)
        cause = cause.__cause__ or cause.__context__
    return (str(error).splitlines() or [type(error).__name__])[0]


if __name__ == "__main__":
    sys.exit(main())
