"""MLflow's registered model follows tl's registry, and is never doubled or taken from somebody else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from registries import EVENT, FACTS, registry
from tl_mlflow import child, registering
from tl_mlflow.model import Model, model_of

Mirror = Callable[..., None]


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database without anything in it, which takes MLflow seconds to make."""
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    MlflowClient(f"sqlite:///{path}").search_registered_models()
    return path


@pytest.fixture
def client(empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """A client of a database of the test's own, to which the process that mirrors sends as well."""
    uri = f"sqlite:///{shutil.copy(empty, tmp_path / 'mlflow.db')}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr(child, "limit", lambda seconds: None)  # it would end the tests' process
    return MlflowClient(uri)


@pytest.fixture
def mirror(client: MlflowClient) -> Mirror:
    def mirrored(*arguments: Any, **more: Any) -> None:
        registering._mirror(Model.parse(model_of(registry(*arguments, **more)).dump()), "tl")

    return mirrored


def held(client: MlflowClient, name: str = "birds") -> dict[str, str]:
    """tl's version -> MLflow's number of all that MLflow has."""
    found = client.search_model_versions(f"name = '{name}'", max_results=100)
    assert len({version.tags["tl.version"] for version in found}) == len(found)
    return {version.tags["tl.version"]: str(version.version) for version in found}


def aliases(client: MlflowClient) -> dict[str, str]:
    return {alias: str(number) for alias, number in client.get_registered_model("birds").aliases.items()}


def test_what_a_version_says_of_itself(client: MlflowClient, mirror: Mirror) -> None:
    mirror(2, champion=1)
    assert held(client) == {"v1": "1", "v2": "2"}
    assert aliases(client) == {"champion": "1", "challenger": "2"}
    first = client.get_model_version_by_alias("birds", "champion")
    assert first.tags == {
        "tl.version": "v1", "tl.tag": "model@v1.0.0", "tl.commit": f"{1:040x}", "tl.by": "me",
        "tl.registered": "2026-03-01T10:00:00+00:00", "tl.bundle": "b1", "tl.data_version": "d1",
        "tl.code_revision": "c0de", "tl.config_digest": "cf9", "tl.decision": "Refused: new (metric failed).",
        "tl.why": "retrain of today", "tl.metric": "accuracy", "tl.value": "0.9", "tl.low": "0.85", "tl.high": "0.95",
        "tl.n_test": "200",
    }  # fmt: skip
    repository = "https%3A%2F%2Fgit.example.org%2Fbirds"
    assert first.source == f"dvc:///artifacts/tune/model?repo={repository}&rev=model%40v1.0.0"
    assert first.description == "v1: accuracy 0.900\n\n2026-03-01 10:00 UTC, promote: champion, by me: good"
    model = client.get_registered_model("birds")
    assert model.tags == {"tl.model": "model", "tl.history": "a1"}
    assert model.description.endswith("Repository: https://git.example.org/birds")


def test_aliases_follow_and_the_same_again_changes_nothing(client: MlflowClient, mirror: Mirror) -> None:
    mirror(2, champion=1)
    client.set_registered_model_alias("birds", "shadow", "1")
    mirror(2, champion=2)
    assert aliases(client) == {"champion": "2", "shadow": "1"}  # no challenger any more; the user's stays
    before = os.environ["MLFLOW_TRACKING_URI"].removeprefix("sqlite:///")
    bytes_before = Path(before).read_bytes()
    mirror(2, champion=2)
    assert Path(before).read_bytes() == bytes_before
    mirror(3, champion=1)
    assert (held(client), aliases(client)["champion"]) == ({"v1": "1", "v2": "2", "v3": "3"}, "1")


def test_what_was_lost_or_changed_there_comes_back(client: MlflowClient, mirror: Mirror) -> None:
    mirror(3, champion=1)
    client.delete_model_version("birds", "1")
    client.set_model_version_tag("birds", "2", "tl.value", "1.0")
    client.set_model_version_tag("birds", "2", "mine", "kept")
    client.update_model_version("birds", "3", "nonsense")
    mirror(3, champion=1)
    assert held(client) == {"v1": "4", "v2": "2", "v3": "3"}
    assert aliases(client) == {"champion": "4", "challenger": "3"}
    tags = client.get_model_version("birds", "2").tags
    assert (tags["tl.value"], tags["mine"]) == ("0.9", "kept")
    assert client.get_model_version("birds", "3").description == "v3: accuracy 0.900"


def test_of_a_version_that_two_processes_made_the_first_one_stays(
    client: MlflowClient, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = registering._there
    looks: list[int] = []

    def overtaken(*arguments: Any) -> Any:
        """Whoever else mirrors comes in right after the first look."""
        found = look(*arguments)
        looks.append(1)
        if len(looks) == 1:
            mirror(2, champion=2)
        return found

    monkeypatch.setattr(registering, "_there", overtaken)
    mirror(2, champion=2)
    assert held(client) == {"v1": "1", "v2": "2"}
    assert aliases(client) == {"champion": "2"}


def test_other_clones_versions_are_left_alone(client: MlflowClient, mirror: Mirror) -> None:
    theirs = registry(2)
    theirs["versions"][1]["commit"] = "f" * 40  # a v2 of their own, which they have not pushed
    registering._mirror(model_of(theirs), "tl")
    mirror(2, champion=2)
    found = client.search_model_versions("name = 'birds'")
    assert sorted((v.tags["tl.version"], str(v.version)) for v in found) == [("v1", "1"), ("v2", "2"), ("v2", "3")]
    assert aliases(client) == {"champion": "3"}


def test_many_versions_come_in_several_answers(
    client: MlflowClient, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registering, "PAGE", 2)
    mirror(5)
    mirror(6)
    assert held(client) == {f"v{n}": str(n) for n in range(1, 7)}


def test_a_model_of_somebody_else_is_never_written_to(client: MlflowClient, mirror: Mirror) -> None:
    mirror(1)
    for other in ({"model": "demo/birds:model"}, {"history_id": "another"}):
        with pytest.raises(
            registering.TakenError, match=r"'birds' is the mirror of another project \(model\); set reg"
        ):
            mirror(2, **other)
    mirror(2, history_id="")  # a shallow clone
    assert client.get_registered_model("birds").tags["tl.history"] == "a1"
    client.create_registered_model("mine")
    mirror(1, name="mine")  # it was made for it: nothing is in it
    client.create_registered_model("by hand")
    client.create_model_version("by hand", "s3://x/y", await_creation_for=0)
    with pytest.raises(
        registering.TakenError, match=r"its model 'by hand' is not made by tl; set registry\.name in par"
    ):
        mirror(1, name="by hand")
    assert len(client.search_model_versions("name = 'by hand'")) == 1


def test_a_version_is_linked_to_the_run_that_it_came_out_of(client: MlflowClient, mirror: Mirror) -> None:
    experiment = client.create_experiment("tl")
    runs = {
        (report, start): client.create_run(experiment, start, {"report_md5": report}).info.run_id
        for report, start in (("r1", 1), ("r1", 2), ("r3", 3))
    }
    mirror(2)
    linked = {v.tags["tl.version"]: v.run_id for v in client.search_model_versions("name = 'birds'")}
    assert linked == {"v1": runs["r1", 2], "v2": None}


def test_what_mlflow_has_no_room_for_is_cut(client: MlflowClient, mirror: Mirror) -> None:
    told = registry(1, champion=1)
    told["versions"][0]["facts"] = FACTS | {"decision": "x" * 6000}
    told["versions"][0]["history"] = [EVENT | {"why": f"reason {n:04d}"} for n in range(200)]
    registering._mirror(model_of(told), "tl")
    version = client.get_model_version("birds", "1")
    assert (len(version.tags["tl.decision"]), version.tags["tl.decision"][-5:]) == (5000, "x ...")
    assert len(version.description) == 5000
    assert "reason 0199" in version.description
    assert "reason 0000" not in version.description


@pytest.mark.parametrize(("folder", "name"), [("birds", "birds"), ("it's a:b/c", "it-s a-b-c"), ("...", "model")])
def test_any_folders_name_becomes_one_that_mlflow_takes(folder: str, name: str) -> None:
    assert model_of(registry(name=folder)).name == name


def test_a_version_of_gto_alone_has_no_facts(client: MlflowClient, mirror: Mirror) -> None:
    told = registry(1)
    told["versions"][0]["facts"] = None
    registering._mirror(model_of(told), "tl")
    assert set(client.get_model_version("birds", "1").tags) == {
        "tl.version", "tl.tag", "tl.commit", "tl.registered", "tl.by"
    }  # fmt: skip
