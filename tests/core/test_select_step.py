"""The step `select`: a race over real files, candidates that fail in every way, and the same ranking every time."""

from __future__ import annotations

import csv
import errno
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from conftest import write_waves
from tl_core import hookimpl
from tl_core.config import RunConfig, validate
from tl_core.errors import SampleChanged, UserError
from tl_core.registry import Registry, load_registry
from tl_core.selection import speed
from tl_core.selection.race import ALONE, CERTAIN, LAST_LEFT, NO_ROOM, ROWS_USED
from tl_core.steps import entrants, select, version
from tl_core.steps.select_step import candidates
from tl_core.store import StoreFull
from tl_core.types import Backbone, BackboneSpec, Identity, Prepared, State
from tl_core.workspace import Workspace

FIELDS = {
    "name", "status", "reason", "rank", "rank_low", "rank_high", "rows", "probe", "probe_low", "probe_high", "p_best",
    "regret", "gap", "gap_low", "gap_high", "tied", "scores", "flops", "params", "feature_dim", "licence",
    "licence_kind", "source", "fingerprint", "revision", "base", "cut", "warnings",
}  # fmt: skip


class Project(nn.Module):
    """Features that see the first `width` of 128 values, with the frequencies hidden in noise where it is small."""

    def __init__(self, width: int, fault: Callable[[], None]) -> None:
        super().__init__()
        self.width, self.fault = width, fault
        self.linear = nn.Linear(128, 64)
        with torch.no_grad():
            waves = torch.arange(64).unsqueeze(1) * torch.linspace(0, torch.pi, 128)
            self.linear.weight.copy_(torch.cos(waves) / 10)
            self.linear.bias.zero_()

    def forward(self, state: State) -> State:
        self.fault()
        x = state["x"].clone()
        x[:, self.width :] = 0
        return {"x": self.linear(x).abs()}


class Pool(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, state: State) -> State:
        return {"x": state["x"] * self.scale}


class Spectrum(Backbone):
    """Amplitudes of 64 cosines; `faults` are called where each of them belongs."""

    faults: dict[str, Callable[[], None]]

    def prepare(self, decoded: Any) -> Prepared:
        self.faults.get("prepare", fine)()
        series = torch.as_tensor(decoded).view(1, 1, -1)
        return Prepared(({"x": nn.functional.interpolate(series, 128, mode="linear").flatten()},))

    def collate(self, windows: Sequence[State]) -> State:
        return {"x": torch.stack([w["x"] for w in windows])}


def fine() -> None:
    pass


def spec(name: str, width: int = 128, scale: float = 1.0, **faults: Callable[[], None]) -> BackboneSpec:
    def build(spec: BackboneSpec, random_seed: int | None) -> Backbone:
        faults.get("build", fine)()
        identity = Identity(name, {"width": width}, "spectrum")
        backbone = Spectrum(
            [("project", Project(width, faults.get("forward", fine))), ("pool", Pool(scale))], 64, identity
        )
        backbone.faults = faults
        return backbone

    return BackboneSpec(name, "timeseries", "package", "tests", build, licence="MIT",
                        presets=("cpu/fast", "cuda/fast"))  # fmt: skip


def raising(error: BaseException, after: int = 0) -> Callable[[], None]:
    """Raises at the call after so many."""
    left = [after]

    def fault() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise error

    return fault


@pytest.fixture
def registry_of(timeseries: Registry) -> Callable[..., Registry]:
    """The tests' plugin with more backbones."""

    def registry(*specs: BackboneSpec) -> Registry:
        plugin = timeseries.manager.get_plugin("tl_timeseries")
        made = load_registry([("tl_timeseries", plugin)])
        made.manager.register(SimpleNamespace(tl_backbones=hookimpl(lambda: list(specs))), name="more")
        return made

    return registry


@pytest.fixture(autouse=True)
def known_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "measured", lambda *_: 2.0**33)


@pytest.fixture(scope="session")
def many_waves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """480 series, 326 of them for training: two rounds."""
    return write_waves(tmp_path_factory.mktemp("many") / "waves", per_class=160)


def settings(data: Path, /, *names: str, **sections: Any) -> RunConfig:
    chosen = {"backbones": list(names), "cuts": False, **sections.pop("select", {})}
    return validate({"data": {"path": str(data), **sections.pop("data", {})}, "select": chosen, **sections})


def workspace(tmp_path: Path, name: str = "out") -> Workspace:
    return Workspace(root=tmp_path / name, store=tmp_path / name / "store", cache=tmp_path / "cache")


def ranked(config: RunConfig, registry: Registry, ws: Workspace) -> dict[str, Any]:
    version(config, registry, ws)
    select(config, registry, ws)
    return json.loads(ws.ranking.read_text())  # type: ignore[no-any-return]


def by_name(ranking: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {c["name"]: c for c in ranking["candidates"]}


def test_the_ranking_has_what_its_readers_want(
    registry_of: Callable[..., Registry], many_waves: Path, tmp_path: Path
) -> None:
    config = settings(many_waves, "gaussian-derivatives", "whole", "blind", select={"tolerance": 0.0})
    ranking = ranked(config, registry_of(spec("whole"), spec("blind", 2)), workspace(tmp_path))
    assert ranking["format"] == 2
    assert (ranking["task"], ranking["metric"], ranking["confidence"]) == ("multiclass", "accuracy", 0.9)
    assert (ranking["training_rows"], ranking["rounds"][0]["rows"], ranking["rounds"][0]["entered"]) == (324, 162, 3)
    assert ranking["rounds"][0]["eliminated"] == ["blind"]
    found = by_name(ranking)
    assert all(set(c) == FIELDS for c in found.values())
    assert [c["rank"] for c in ranking["candidates"]] == [1, 2, 3]
    blind = found["blind"]
    assert (blind["status"], blind["rows"], blind["tied"]) == ("eliminated", 162, False)
    assert blind["reason"] == "all but certainly not the best after 162 samples"
    for c in found.values():
        assert c["probe_low"] <= c["probe"] <= c["probe_high"]
        assert {"logme", "h_score", "knn"} <= set(c["scores"])
        assert ("consensus" in c["scores"]) == (c["rows"] == 324)  # those on other rows can't be compared
        assert c["licence_kind"] == "permissive"
    assert found["whole"]["flops"] == 2 * 128 * 64
    assert found["whole"]["params"] == 128 * 64 + 64
    assert sum(c["p_best"] for c in found.values()) == pytest.approx(1)


def test_the_same_bytes_again_and_after_the_order_of_names_changed(
    registry_of: Callable[..., Registry], many_waves: Path, tmp_path: Path
) -> None:
    registry = registry_of(spec("whole"), spec("half", 64), spec("blind", 2))
    names = ["gaussian-derivatives", "whole", "half", "blind"]
    first, ws = workspace(tmp_path, "first"), workspace(tmp_path, "second")
    ranked(settings(many_waves, *names), registry, first)
    ranked(settings(many_waves, *names[::-1]), registry, ws)
    assert first.ranking.read_bytes() == ws.ranking.read_bytes()
    done = select(settings(many_waves, *names), registry, ws)
    assert first.ranking.read_bytes() == ws.ranking.read_bytes()
    assert (done["computed"], done["reused"]) == (
        0,
        sum(c["rows"] for c in json.loads(ws.ranking.read_text())["candidates"]),
    )


@pytest.mark.parametrize("after", [5, 15, 20])
def test_a_kill_in_the_middle_loses_nothing(
    after: int, registry_of: Callable[..., Registry], many_waves: Path, tmp_path: Path
) -> None:
    names = ["gaussian-derivatives", "whole", "half", "blind"]
    others = [spec("whole"), spec("blind", 2)]
    config = settings(many_waves, *names)
    whole, killed = workspace(tmp_path, "whole"), workspace(tmp_path, "killed")
    ranked(config, registry_of(*others, spec("half", 64)), whole)
    with pytest.raises(KeyboardInterrupt):
        ranked(config, registry_of(*others, spec("half", 64, forward=raising(KeyboardInterrupt(), after))), killed)
    assert not killed.ranking.exists()
    done = select(config, registry_of(*others, spec("half", 64)), killed)
    assert killed.ranking.read_bytes() == whole.ranking.read_bytes()
    assert done["reused"] > 0


MEMORY = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes.")
OUT_OF_MEMORY = "out of memory; free some, or choose a smaller backbone"


@pytest.mark.parametrize(
    ("where", "error", "reason"),
    [
        ("build", UserError("no weights at X; fetch them\nmore"), "no weights at X; fetch them"),
        ("build", MemoryError(), OUT_OF_MEMORY),
        ("build", MEMORY, OUT_OF_MEMORY),
        ("build", ImportError("No module named 'x'"), "ImportError: No module named 'x'"),
        ("build", FileNotFoundError(2, "No such file", "w.bin"), "FileNotFoundError: [Errno 2] No such file: 'w.bin'"),
        ("forward", MEMORY, "one sample at a time through spectrum does not fit into the memory; free some, or choose "
                            "a smaller backbone"),
        ("forward", ValueError("odd <X at 0x7f3a12345678>"), "ValueError: odd <X at 0x...>"),
        ("forward", AssertionError(), "AssertionError"),
        ("prepare", KeyError("tokens"), "KeyError: 'tokens'"),
    ],
)  # fmt: skip
def test_a_candidate_that_fails_drops_out(
    where: str, error: Exception, reason: str, registry_of: Callable[..., Registry], waves: Path, tmp_path: Path
) -> None:
    registry = registry_of(spec("bad", **{where: raising(error)}), spec("whole"))
    ws = workspace(tmp_path)
    ranking = ranked(settings(waves, "bad", "whole", "gaussian-derivatives"), registry, ws)
    bad = by_name(ranking)["bad"]
    assert (bad["status"], bad["reason"], bad["rank"], bad["probe"]) == ("dropped", reason, None, None)
    assert ranking["candidates"][-1]["name"] == "bad"
    before = ws.ranking.read_bytes()
    select(settings(waves, "bad", "whole", "gaussian-derivatives"), registry, ws)
    assert ws.ranking.read_bytes() == before
    with pytest.raises((type(error), UserError)):  # alone, its failure is the run's
        select(settings(waves, "bad"), registry, ws)


def test_the_same_network_competes_once(registry_of: Callable[..., Registry], waves: Path, tmp_path: Path) -> None:
    one = spec("one")
    registry, ws = registry_of(one, replace(one, name="two")), workspace(tmp_path)
    ranking = ranked(settings(waves, "two", "one", "gaussian-derivatives"), registry, ws)
    reason = "the same as one: equal weights, network and preprocessing"
    assert (by_name(ranking)["two"]["status"], by_name(ranking)["two"]["reason"]) == ("dropped", reason)
    assert by_name(ranking)["one"]["status"] == "ranked"
    before = ws.ranking.read_bytes()
    select(settings(waves, "one", "two", "gaussian-derivatives"), registry, ws)
    assert ws.ranking.read_bytes() == before


def test_features_that_are_not_finite_drop_a_candidate_also_in_a_later_round(
    registry_of: Callable[..., Registry], many_waves: Path, tmp_path: Path
) -> None:
    late = raising(ValueError("broke"), after=35)  # 162 rows are 21 batches of 8
    registry = registry_of(spec("huge", scale=1e39), spec("half", 64), spec("later", 100, forward=late))
    config = settings(many_waves, "huge", "half", "later", "gaussian-derivatives", select={"tolerance": 0.0})
    ranking = ranked(config, registry, workspace(tmp_path))
    found = by_name(ranking)
    assert "are not finite" in found["huge"]["reason"]
    assert found["later"]["reason"] == "ValueError: broke"
    assert len(ranking["rounds"]) == 2


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(3), StoreFull(Path("x")), SampleChanged("s has changed"),
              OSError(errno.ENOSPC, "No space left on device")],
)  # fmt: skip
def test_what_would_hit_everyone_stops_the_run(
    error: BaseException, registry_of: Callable[..., Registry], waves: Path, tmp_path: Path
) -> None:
    registry = registry_of(spec("bad", prepare=raising(error)), spec("whole"))
    with pytest.raises(type(error)):
        ranked(settings(waves, "bad", "whole"), registry, workspace(tmp_path))
    assert not workspace(tmp_path).ranking.exists()


def test_a_changed_sample_stops_the_run(registry_of: Callable[..., Registry], waves: Path, tmp_path: Path) -> None:
    registry, ws = registry_of(spec("whole")), workspace(tmp_path)
    config = settings(waves, "whole", "gaussian-derivatives")
    version(config, registry, ws)
    for file in waves.rglob("*.npy"):
        np.save(file, np.arange(50.0))
    with pytest.raises(SampleChanged, match=r"has changed since it was checked \(other bytes\); run again"):
        select(config, registry, ws)


def test_the_only_one_left_is_chosen(registry_of: Callable[..., Registry], waves: Path, tmp_path: Path) -> None:
    registry = registry_of(spec("bad", build=raising(UserError("no weights"))), spec("whole"))
    ranking = ranked(settings(waves, "bad", "whole"), registry, workspace(tmp_path))
    assert (ranking["chosen"], ranking["why"], ranking["stopped"]) == ("whole", "the only one left", LAST_LEFT)
    alone = ranked(settings(waves, "whole"), registry, workspace(tmp_path, "alone"))
    assert (alone["chosen"], alone["why"], alone["stopped"]) == ("whole", "the only candidate", ALONE)


def test_nobody_left_says_what_is_here(registry_of: Callable[..., Registry], waves: Path, tmp_path: Path) -> None:
    gone = BackboneSpec("gone", "timeseries", "folder", "/nowhere", raising(UserError("no weights")))  # type: ignore[arg-type]
    registry = registry_of(gone, spec("bad", build=raising(UserError("no weights either"))))
    with pytest.raises(UserError) as caught:
        ranked(settings(waves, "gone", "bad"), registry, workspace(tmp_path))
    text = str(caught.value)
    assert text.startswith("no backbone could be used:\n  bad: no weights either\n  gone: ")
    assert "for a trial without network: --backbone gaussian-derivatives" in text


def test_every_name_that_is_no_backbone_is_told(
    registry_of: Callable[..., Registry], waves: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"(?s)no timeseries backbone 'wole'; did you mean whole.*folder: .*none"):
        ranked(settings(waves, "wole", "whole", "./none"), registry_of(spec("whole")), workspace(tmp_path))


def test_too_slow_for_the_minutes(registry_of: Callable[..., Registry], waves: Path, tmp_path: Path) -> None:
    registry, config = registry_of(spec("whole")), {"select": {"minutes": 0.03}}
    ranking = ranked(settings(waves, "whole", "gaussian-derivatives", **config), registry, workspace(tmp_path))
    found = by_name(ranking)
    assert found["gaussian-derivatives"]["status"] == "dropped"
    assert found["gaussian-derivatives"]["reason"].startswith("too slow: about 2 s for 60 samples on this machine")
    alone = ranked(settings(waves, "gaussian-derivatives", **config), registry, workspace(tmp_path, "alone"))
    assert alone["chosen"] == "gaussian-derivatives"


def test_a_round_that_does_not_fit(registry_of: Callable[..., Registry], many_waves: Path, tmp_path: Path) -> None:
    registry = registry_of(spec("whole"), spec("most", 120))
    chosen = {"tolerance": 0.0, "minutes": 4.5 / 60}  # two candidates at 2 s of opening
    ranking = ranked(settings(many_waves, "whole", "most", select=chosen), registry, workspace(tmp_path))
    assert (ranking["stopped"], ranking["sample_rows"]) == (NO_ROOM, 162)
    longer = {"tolerance": 0.0, "minutes": 9 / 60}
    ranking = ranked(settings(many_waves, "whole", "most", select=longer), registry, workspace(tmp_path, "longer"))
    assert (ranking["stopped"], ranking["sample_rows"]) in ((ROWS_USED, 324), (CERTAIN, 324))


def test_the_clock_is_told(
    registry_of: Callable[..., Registry], waves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["tl_core.steps.select_step"], "GUARD", -1e9)
    registry = registry_of(spec("whole"))
    ranking = ranked(settings(waves, "whole", "gaussian-derivatives"), registry, workspace(tmp_path))
    assert ranking["stopped"].startswith("the clock: ")


def test_only_one_backbone_is_in_memory(registry_of: Callable[..., Registry], many_waves: Path, tmp_path: Path) -> None:
    alive: list[Any] = []
    most = []

    def watched(name: str, width: int) -> BackboneSpec:
        import weakref

        plain = spec(name, width)

        def build(one: BackboneSpec, random_seed: int | None) -> Backbone:
            backbone = plain.builder(one, random_seed)
            alive.append(weakref.ref(backbone))
            most.append(sum(ref() is not None for ref in alive))
            return backbone

        return BackboneSpec(name, "timeseries", "package", "tests", build)

    registry = registry_of(watched("a", 128), watched("b", 120), watched("c", 110))
    ranked(settings(many_waves, "a", "b", "c", select={"tolerance": 0.0}), registry, workspace(tmp_path))
    assert len(most) > 3
    assert max(most) == 1


def test_the_preset_chooses_who_competes(registry_of: Callable[..., Registry], tmp_path: Path) -> None:
    registry = registry_of(spec("quick"))

    def names(preset: str, device: str = "cpu") -> list[str]:
        config = validate({"select": {"preset": preset}})
        return candidates(config, registry, "timeseries", tmp_path, device)

    assert names("balanced") == ["gaussian-derivatives"]
    assert sorted(names("fast")) == ["gaussian-derivatives", "quick"]
    assert sorted(names("fast", "cuda")) == ["gaussian-derivatives", "quick"]


def write_table(
    folder: Path, source: Path, header: Sequence[str], rows: Callable[[Path, int], Sequence[object]]
) -> Path:
    shutil.copytree(source, folder)
    with (folder / "metadata.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", *header])
        for i, file in enumerate(sorted(source.rglob("*.npy"))):
            writer.writerow([file.relative_to(source).as_posix(), *rows(file, i)])
    return folder


@pytest.mark.parametrize(
    ("header", "row", "task", "metric"),
    [
        (["label"], lambda f, i: [{"slow": 0, "noise": 1, "fast": 2}[f.parent.name] + i % 7 / 100], "regression", "r2"),
        (["labels"], lambda f, i: ["|".join(w for w in "as" if w in f.parent.name)], "multilabel", "micro_f1"),
        (["label"], lambda f, i: [f"class {i // 3}" if i < 9 else f.parent.name], "multiclass", "accuracy"),
        (["label"], lambda f, i: [f"class {i // 3}"], "multiclass", "accuracy"),
        (["label", "group"], lambda f, i: [f.parent.name, f"person {i % 6}"], "multiclass", "accuracy"),
    ],
    ids=["regression", "multilabel", "small classes", "more classes than rows", "groups"],
)
def test_every_task_is_ranked(
    header: list[str], row: Any, task: str, metric: str, registry_of: Callable[..., Registry], waves: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    data = write_table(tmp_path / "data", waves, header, row)
    group = {"group": "group"} if "group" in header else {}
    registry = registry_of(spec("whole"), spec("blind", 2))
    config = settings(
        data, "whole", "blind", "gaussian-derivatives", data={"task": task, **group}, select={"sample": 20}
    )
    ws = workspace(tmp_path)
    ranking = ranked(config, registry, ws)
    assert (ranking["task"], ranking["metric"], ranking["sample_rows"]) == (task, metric, 20)
    assert all(c["status"] != "dropped" for c in ranking["candidates"])
    before = ws.ranking.read_bytes()
    select(config, registry, ws)
    assert ws.ranking.read_bytes() == before


def test_reasons_are_one_line_and_bounded() -> None:
    assert entrants.reason(ValueError("x" * 1000)) == f"ValueError: {'x' * 288}"
    assert entrants.reason(UserError("")) == "UserError"
    assert entrants.reason(torch.OutOfMemoryError("CUDA out of memory. 1.2 GiB is free")) == OUT_OF_MEMORY


def test_flops_are_the_mean_over_rows_of_several_windows(tmp_path: Path) -> None:
    """Texts and sounds: each window counts at the width that it is computed at."""
    from fake_bytes import DIM, BytesLoader, FakeBackbone, write_files

    manifest = write_files(tmp_path / "files", 12)
    backbone = FakeBackbone()
    config = validate({})
    ws = workspace(tmp_path)
    made = entrants.Entrants(
        config, manifest, BytesLoader(), ws, np.arange(12),  # type: ignore[arg-type]
        [("fake", BackboneSpec("fake", "bytes", "package", "x", lambda *_: backbone))], torch.device("cpu"),
    )  # fmt: skip
    tokens = [
        sum(backbone.bucket(window) for window in backbone.prepare((manifest.root / name).read_bytes()).windows)
        for name in manifest.names[: entrants.COUNTED_ROWS]
    ]
    assert made.weigh("fake") == pytest.approx(2 * DIM * DIM * np.mean(tokens))
