"""A project that travels as a bundle: the same predictions without network, and nothing that was tampered with."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from messages import lines, write_rows
from tl_flows import cli
from tl_flows.bundles import bundle_at
from tl_flows.engine import open_project
from tl_flows.model_registry import ModelRegistry
from tl_flows.offline import make, restore
from tl_flows.offline.contents import Contents
from tl_flows.params import edit_params
from tl_flows.scaffold import init_project
from tl_flows.steps import run_project_step
from tl_flows.version_facts import facts_at
from tl_flows.versioning import stale_stages, tracked
from versions import git

from tl_core.bundle import ModelBundle
from tl_core.config import load_config
from tl_core.errors import UserError
from tl_core.registry import load_registry
from tl_core.workspace import STEPS

COMMIT = "a" * 40
REPO = "some-one/tiny-bert"
TEXTS = ["where is my parcel", "i want my money back", "my password is refused"]
SETTINGS = {
    "select.backbones": [REPO], "tune.strategy": "probe", "tune.curve": False, "evaluate.diagnostics": False,
    "evaluate.explain": 0, "evaluate.bootstrap": 100, "modality": "text",
}  # fmt: skip


@dataclass(frozen=True)
class Origin:
    """A project with a champion on the machine that has a network. hub: its cache of the hub."""

    root: Path
    hub: Path
    folder: Path
    tar: Path


def write_model(folder: Path) -> None:
    """A tiny BERT with random weights, with a tokenizer of whole words."""
    import torch
    import transformers
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    folder.mkdir(parents=True)
    words = sorted({word for line in lines(300, seed=9) for word in line.partition(",")[0].split() if word.isalpha()})
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    config = transformers.BertConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=48,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.BertModel(config)
    save_file({k: v.contiguous().clone() for k, v in model.state_dict().items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 48, **special}))


def write_hub(hub: Path) -> None:
    """The model as the hub's own cache keeps it: blobs, a snapshot of links, and the name `main`."""
    base = hub / f"models--{REPO.replace('/', '--')}"
    write_model(base / "blobs")
    snapshot = base / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for path in (base / "blobs").iterdir():
        (snapshot / path.name).symlink_to(Path("..", "..", "blobs", path.name))
    (base / "refs").mkdir()
    (base / "refs" / "main").write_text(COMMIT)


def run_steps(root: Path) -> None:
    """All steps of a project in this process."""
    engine = open_project(root, {})
    for step in STEPS:
        run_project_step(step, load_config(root / "params.yaml"), load_registry(), engine.workspace)


def commit_run(root: Path) -> None:
    """What `tl run` and a commit leave, without five processes."""
    run_steps(root)
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "commit", "--quiet", "--force"], cwd=root, check=True)
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "a run")


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Origin]:
    """The project, and its bundles as a folder and a tar."""
    home = tmp_path_factory.mktemp("origin")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        patch.setenv("DVC_NO_ANALYTICS", "1")
        for who in ("AUTHOR", "COMMITTER"):
            patch.setenv(f"GIT_{who}_NAME", "tests")
            patch.setenv(f"GIT_{who}_EMAIL", "tests@example.org")
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home / "hub"))
        write_hub(home / "hub")
        root = home / "repository" / "shop"
        write_rows(root / "data" / "messages.csv", lines(60, seed=0))
        git(root.parent, "init", "--quiet", "--initial-branch=main")
        list(init_project(root, root / "data", git=True))
        edit_params(root / "params.yaml", SETTINGS)
        commit_run(root)
        registry = ModelRegistry.open(root)
        registry.register("HEAD", facts_at(root, "HEAD"))
        registry.promote("v1", expected_champion=None, why="the first")
        made = make(root, home / "out", features=True)
        assert made.notes == ()
        make(root, home / "out.tar")
        yield Origin(root, home / "hub", home / "out", home / "out.tar")


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, origin: Origin) -> Iterator[Path]:
    """An empty folder of a machine without network, whose hub's cache is empty; the first machine is gone."""

    def refuse(*_: Any) -> None:
        raise OSError("no network here")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    away = origin.root.parents[1] / "away"
    origin.root.parent.rename(away)
    yield tmp_path / "shop"
    away.rename(origin.root.parent)


def predictions(root: Path) -> list[Any]:
    champion = ModelRegistry.open(root).state().champion
    assert champion is not None
    return ModelBundle.load(bundle_at(root, champion.commit), load_registry()).predict(TEXTS)


@pytest.fixture(scope="module")
def expected(origin: Origin) -> list[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(origin.hub))
        return predictions(origin.root)


@pytest.mark.parametrize("form", ["folder", "tar"])
def test_a_project_runs_predicts_and_retrains_without_network(
    form: str, origin: Origin, expected: list[Any], elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle: Path = getattr(origin, form)
    assert cli.main(["restore-offline", str(bundle), str(elsewhere)]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    root = elsewhere / "shop"
    assert told.out.startswith(f"{root}: at commit {git(root, 'rev-parse', 'HEAD')[:12]}, champion v1\nweights of the ")
    assert predictions(root) == expected
    assert git(root, "status", "--porcelain") == ""
    assert stale_stages(root, STEPS) == {}
    data = tracked(root, root / "data")
    assert data is not None
    assert data.state == "recorded"
    store = root / ".tl" / "store"
    assert store.exists() == (form == "folder")
    metrics = (root / "artifacts" / "evaluate" / "metrics.json").read_bytes()
    shutil.rmtree(root / "artifacts")
    run_steps(root)
    assert (root / "artifacts" / "evaluate" / "metrics.json").read_bytes() == metrics
    if form == "folder":
        select = json.loads((root / ".tl" / "run" / "select.json").read_text())
        assert select["computed"] == 0  # the features came along


def test_what_lies_in_it(origin: Origin) -> None:
    contents = Contents.read((origin.folder / "MANIFEST.json").read_bytes(), origin.folder)
    assert (contents.name, contents.project, contents.champion, contents.versions) == ("shop", "shop", "v1", ("v1",))
    hub = f"hub/models--some-one--tiny-bert/snapshots/{COMMIT}"
    assert {f"{hub}/model.safetensors", f"{hub}/tokenizer.json", f"{hub}/config.json"} <= set(contents.files)
    found = {path.relative_to(origin.folder).as_posix() for path in origin.folder.rglob("*") if path.is_file()}
    assert found == {*contents.files, "MANIFEST.json"}
    assert not any(path.is_symlink() for path in origin.folder.rglob("*"))
    page = (origin.folder / "README.md").read_text()
    for text in ("tl restore-offline BUNDLE shop", "cd shop/shop", "tl predict champion FILE", "tl-text=="):
        assert text in page
    assert sorted(p.name for p in origin.folder.parent.iterdir() if p.name.startswith(".")) == []


def changed(origin: Origin, tmp_path: Path) -> Path:
    """A copy of the bundle that a test may damage."""
    return Path(shutil.copytree(origin.folder, tmp_path / "copy"))


def resealed(bundle: Path, name: str, data: bytes) -> None:
    """Add a file to a bundle with a manifest that fits, as somebody with bad intentions would."""
    facts = json.loads((bundle / "MANIFEST.json").read_text())
    facts.pop("digest")
    facts["files"][name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    facts["digest"] = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    (bundle / "MANIFEST.json").write_text(json.dumps(facts))


def test_every_damaged_file_is_named_and_nothing_is_used(origin: Origin, tmp_path: Path, elsewhere: Path) -> None:
    bundle = changed(origin, tmp_path)
    weights = next(bundle.glob("hub/*/snapshots/*/model.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    (bundle / "repository.bundle").write_bytes(b"short")
    (bundle / "features.arrow").unlink()
    with pytest.raises(UserError) as caught:
        restore(bundle, elsewhere)
    head, *faults = str(caught.value).splitlines()
    assert head == f"{bundle} is damaged; copy it again"
    assert len(faults) == 3
    for text in ("features.arrow is missing", "model.safetensors has sha256", "repository.bundle has 5 bytes instead"):
        assert any(text in fault for fault in faults)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy"]


def test_a_manifest_that_was_changed_is_refused(origin: Origin, tmp_path: Path) -> None:
    bundle = changed(origin, tmp_path)
    text = (bundle / "MANIFEST.json").read_text()
    (bundle / "MANIFEST.json").write_text(text.replace('"champion": "v1"', '"champion": "v2"'))
    with pytest.raises(UserError, match=r"MANIFEST.json of .* is damaged \(it was changed\); copy the bundle again"):
        restore(bundle, tmp_path / "shop")
    (bundle / "MANIFEST.json").write_text(text.replace('"format": 1', '"format": 2'))
    with pytest.raises(UserError, match="has format 2, this tl reads up to 1; update tl"):
        restore(bundle, tmp_path / "shop")
    (bundle / "MANIFEST.json").unlink()
    with pytest.raises(UserError, match=r"is no bundle: it has no MANIFEST.json"):
        restore(bundle, tmp_path / "shop")


@pytest.mark.parametrize(
    "name",
    [
        "../escaped",
        "/etc/escaped",
        "hub/../../escaped",
        "tree/.git/hooks/post-checkout",
        "tree/.dvc/config",
        "hub/token",
        "other/x",
    ],
)
def test_paths_that_lead_elsewhere_are_refused(name: str, origin: Origin, tmp_path: Path) -> None:
    bundle = changed(origin, tmp_path)
    resealed(bundle, name, b"x")
    with pytest.raises(UserError, match=r"is refused: it holds .* which would lie outside of the project or where"):
        restore(bundle, tmp_path / "shop")
    assert not (tmp_path / "shop").exists()


def test_a_link_out_of_the_bundle_is_refused(origin: Origin, tmp_path: Path) -> None:
    bundle = changed(origin, tmp_path)
    (tmp_path / "secret").write_bytes(b"x")
    (bundle / "weights").mkdir()
    (bundle / "weights" / "x").symlink_to(tmp_path / "secret")
    resealed(bundle, "weights/x", b"x")
    with pytest.raises(UserError, match="weights/x leads out of the bundle"):
        restore(bundle, tmp_path / "shop")


def test_a_link_in_the_repository_is_not_written_through(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "repository" / "shop"
    shutil.copytree(origin.root.parent, root.parent, symlinks=True)
    (root / ".dvc" / "cache").rename(tmp_path / "mine")
    (root / ".dvc" / "cache").symlink_to(tmp_path / "mine")
    git(root, "add", "--force", ".dvc/cache")
    git(root, "commit", "-qm", "a trap")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(origin.hub))
    make(root, tmp_path / "out", models="none")
    shutil.rmtree(tmp_path / "mine")
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match=r"its repository holds a link by which dvc/files/md5/.* would lie in .*/mine"):
        restore(tmp_path / "out", tmp_path / "shop")
    assert list((tmp_path / "mine").iterdir()) == []


@pytest.mark.parametrize("kind", ["escape", "link", "more", "cut", "none"])
def test_a_tar_holds_what_its_manifest_says(kind: str, origin: Origin, tmp_path: Path) -> None:
    bundle = tmp_path / "copy.tar"
    if kind == "cut":
        bundle.write_bytes(origin.tar.read_bytes()[:50_000])
    elif kind == "none":
        bundle.write_bytes(b"no tar at all" * 100)
    else:
        shutil.copyfile(origin.tar, bundle)
        with tarfile.open(bundle, "a") as tar:
            info = tarfile.TarInfo({"escape": "../escaped", "link": "link", "more": "more"}[kind])
            if kind == "link":
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(info, io.BytesIO())
    with pytest.raises(UserError, match=r"is refused: it holds what its|can't be unpacked|has no MANIFEST.json"):
        restore(bundle, tmp_path / "shop")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.tar"]


def test_no_room_is_told_with_figures_before_anything_is_written(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=12_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(origin.hub))
    with pytest.raises(UserError, match=r"needs about [1-9.]+ MB, and the disk of .* has 0.0 MB free; free some space"):
        make(origin.root, tmp_path / "out")
    with pytest.raises(UserError, match=r"the project needs about 0.[1-9] MB, and the disk of"):
        restore(origin.folder, tmp_path / "shop")
    assert list(tmp_path.iterdir()) == []


def test_a_kill_half_way_leaves_nothing_that_looks_whole(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(origin.hub))
    child = os.fork()
    if child == 0:
        monkeypatch.setattr("tl_flows.offline.making._contents", lambda *_: os._exit(9))
        make(origin.root, tmp_path / "out")
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert [path.name for path in tmp_path.iterdir()] == [".out.part"]
    make(origin.root, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with pytest.raises(UserError, match="out is there already; name another place, or delete it first"):
        make(origin.root, tmp_path / "out")


def test_all_that_is_missing_is_named_at_once(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "nothing"))
    root = tmp_path / "repository" / "shop"
    shutil.copytree(origin.root.parent, root.parent, symlinks=True)
    shutil.rmtree(root / ".tl")
    edit_params(root / "params.yaml", {"select.backbones": [REPO, "nets/none/at/all"]})
    shutil.rmtree(root / ".dvc" / "cache")
    monkeypatch.chdir(root)
    assert cli.main(["bundle-offline", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    for text in (
        "tl: the data: data is not complete in DVC's cache, nor in its remote; bundle on the machine that has it",
        "tl: v1: ", "tl: some-one/tiny-bert: can't download some-one/tiny-bert", "no text backbone 'nets/none/at/all'",
    ):  # fmt: skip
        assert text in told
    assert not (tmp_path / "out").exists()


def test_a_damaged_object_of_dvc_does_not_travel(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(origin.hub))
    root = tmp_path / "repository" / "shop"
    shutil.copytree(origin.root.parent, root.parent, symlinks=True)
    md5 = hashlib.md5((root / "data" / "messages.csv").read_bytes()).hexdigest()
    path = root / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]
    path.chmod(0o644)
    path.write_bytes(b"changed")
    with pytest.raises(UserError, match=rf"DVC's cache is damaged: .* instead of {md5} \(data\)"):
        make(root, tmp_path / "out", models="none")
    assert not (tmp_path / "out").exists()


def test_local_weights_travel_from_inside_and_outside_of_the_repository(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(origin.hub))
    root = tmp_path / "repository" / "shop"
    shutil.copytree(origin.root.parent, root.parent, symlinks=True)
    write_model(tmp_path / "nets" / "far")
    write_model(root / ".tl" / "near")
    edit_params(root / "params.yaml", {"select.backbones": [str(tmp_path / "nets" / "far"), ".tl/near"]})
    git(root, "commit", "-qam", "local weights")
    (root / "tl-code.json").write_text("{}")
    made = make(root, tmp_path / "out", models="none")
    assert made.notes == ("changes that are not committed stay here: shop/tl-code.json",)
    shutil.rmtree(tmp_path / "nets")
    assert cli.main(["restore-offline", str(tmp_path / "out"), str(tmp_path / "new")]) == 0
    far = tmp_path / "new" / ".tl" / "weights" / "0-far"
    assert f"tl: weights from outside of the repository: {tmp_path / 'nets' / 'far'} lies in {far};" in (
        capsys.readouterr().err
    )
    assert load_config(tmp_path / "new" / "shop" / "params.yaml").select.backbones == (str(far), ".tl/near")
    for folder in (far, tmp_path / "new" / "shop" / ".tl" / "near"):
        assert (folder / "model.safetensors").read_bytes() == (root / ".tl" / "near" / "model.safetensors").read_bytes()
    assert ModelRegistry.open(tmp_path / "new" / "shop").state().champion is not None
