"""The process that mirrors a registry: `python -m tl_mlflow.registering EXPERIMENT`, the model on standard input.

It adds what is missing and mends what differs, so that the same call again changes nothing. It prints the error, if
there is one, as a line of JSON.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from tl_mlflow import child
from tl_mlflow.model import TAG, Model, ModelVersion
from tl_mlflow.record import REPORT_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion as Mirrored
    from mlflow.entities.model_registry import RegisteredModel

PAGE = 200  # versions in an answer


class TakenError(Exception):
    """MLflow's registered model of this name is another one."""


def main() -> int:
    """Mirror the model; 0 where MLflow has all of it."""
    model, experiment = Model.parse(sys.stdin.read()), sys.argv[1]
    return child.run(lambda: _mirror(model, experiment))


def _mirror(model: Model, experiment: str) -> None:
    from mlflow import MlflowClient

    child.limit(child.contact_seconds(os.environ))
    client = MlflowClient()
    registered = _registered(client, model)
    there = _there(client, model)
    missing = [version for version in model.versions if _key(version.tags) not in there]
    for version in missing:
        child.limit(child.SENDING_SECONDS)  # of a first mirror of many versions each has its time
        run = _run(client, version, experiment)
        client.create_model_version(
            model.name, version.source, run, tags=dict(version.tags), description=version.about, await_creation_for=0
        )
    child.limit(child.SENDING_SECONDS)
    if missing:
        there = _there(client, model)
    numbers = {}
    for version in model.versions:
        # whoever mirrored at the same moment sees the same numbers, and keeps the same one
        first, *doubles = there[_key(version.tags)]
        _drop(client, doubles)
        _mend(client, first, version)
        numbers[version.name] = str(first.version)
    _point(client, model, registered.aliases, numbers)


def _registered(client: MlflowClient, model: Model) -> RegisteredModel:
    """The registered model, made where there is none. Raises TakenError where it is not this model's mirror."""
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_registered_model(model.name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        child.limit(child.SENDING_SECONDS)  # it has answered
        try:
            return client.create_registered_model(model.name, tags=dict(model.tags), description=model.about)
        except MlflowException as made:
            if made.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_registered_model(model.name)  # by a process that mirrors at the same moment
    child.limit(child.SENDING_SECONDS)
    _refuse_others(client, model, found.tags)
    for name, value in model.tags.items():
        if found.tags.get(name) != value:
            client.set_registered_model_tag(model.name, name, value)
    return found


def _refuse_others(client: MlflowClient, model: Model, tags: Mapping[str, str]) -> None:
    """Raise TakenError where the tags are another project's, or there are none and somebody keeps versions there."""
    ours = f"{TAG}model" in tags
    # a shallow clone does not know how its history began
    if ours and all(tags.get(name, value) == value for name, value in model.tags.items()):
        return
    if not ours and not client.search_model_versions(_filter(model), max_results=1):
        return
    whose = f"the mirror of another project ({tags[f'{TAG}model']})" if ours else "not made by tl"
    raise TakenError(f"its model '{model.name}' is {whose}; set registry.name in params.yaml to another name")


def _there(client: MlflowClient, model: Model) -> dict[tuple[str, str], list[Mirrored]]:
    """tl's versions that MLflow has, by name and commit; of one that it has twice the first one first."""
    found: dict[tuple[str, str], list[Mirrored]] = {}
    for version in sorted(_versions(client, model), key=lambda version: int(version.version)):
        found.setdefault(_key(version.tags), []).append(version)
    return found


def _versions(client: MlflowClient, model: Model) -> Iterator[Mirrored]:
    token = None
    while True:
        page = client.search_model_versions(_filter(model), max_results=PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _filter(model: Model) -> str:
    return f"name = '{model.name}'"


def _key(tags: Mapping[str, str]) -> tuple[str, str]:
    """What no two versions of a repository have in common; of two clones both may have a v3."""
    return tags.get(f"{TAG}version", ""), tags.get(f"{TAG}commit", "")


def _run(client: MlflowClient, version: ModelVersion, experiment_name: str) -> str | None:
    """The run that was evaluated as this version, where MLflow has it: that with the same report, byte by byte."""
    experiment = client.get_experiment_by_name(experiment_name) if version.report else None
    if experiment is None:
        return None
    which = f"tags.{REPORT_TAG} = '{version.report}'"
    runs = client.search_runs([experiment.experiment_id], which, max_results=1, order_by=["attributes.start_time DESC"])
    return runs[0].info.run_id if runs else None


def _drop(client: MlflowClient, doubles: Sequence[Mirrored]) -> None:
    from mlflow.exceptions import MlflowException

    for double in doubles:
        try:
            client.delete_model_version(double.name, double.version)
        except MlflowException as error:  # another process may have been faster
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise


def _mend(client: MlflowClient, there: Mirrored, version: ModelVersion) -> None:
    for name, value in version.tags.items():
        if there.tags.get(name) != value:
            client.set_model_version_tag(there.name, there.version, name, value)
    if (there.description or "") != version.about:
        client.update_model_version(there.name, there.version, version.about)


def _point(client: MlflowClient, model: Model, now: Mapping[str, str], numbers: Mapping[str, str]) -> None:
    """Let tl's aliases name the same versions as in git; others are the user's.

    now: alias -> MLflow's number; numbers: the same by tl's name of the version.
    """
    for alias, name in model.aliases.items():
        if name is None:
            if alias in now:
                client.delete_registered_model_alias(model.name, alias)
        elif str(now.get(alias)) != numbers[name]:
            client.set_registered_model_alias(model.name, alias, numbers[name])


if __name__ == "__main__":
    sys.exit(main())
