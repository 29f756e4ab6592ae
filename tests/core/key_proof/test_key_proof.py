"""The key's proof: whatever decides a feature's values makes the store miss, and nothing else does.

Each case runs version, select and extract, changes one thing, and runs them again.
"""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from tl_core.engines import disagreement
from tl_core.errors import UserError
from tl_core.extraction import extract
from tl_core.manifest import Manifest
from tl_core.pins import LOCK
from tl_core.registry import Registry, load_registry
from tl_core.store import FeatureStore
from tl_core.workspace import Workspace

from .lab import CLASSES, PER_CLASS, Lab, Rows, image_lab, text_lab

ALL = len(CLASSES) * PER_CLASS
Patch = pytest.MonkeyPatch
Change = Callable[[Lab, Patch], None]


@pytest.fixture(scope="session")
def registry() -> Registry:
    plugins = [(name, pytest.importorskip(name)) for name in ("tl_image", "tl_text")]
    return load_registry(plugins)


@pytest.fixture(autouse=True)
def _backbones_are_remembered(monkeypatch: Patch) -> None:
    """What a run remembers of a backbone must not hide a change: also where the files were written just now."""
    monkeypatch.setattr("tl_core.steps.known.SETTLED_NS", -1)


@pytest.fixture(scope="session")
def text(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> tuple[Lab, Rows]:
    """A lab of texts and its first run."""
    lab = text_lab(tmp_path_factory.mktemp("texts") / "lab", registry)
    return lab, lab.run()


@pytest.fixture(scope="session")
def image(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> tuple[Lab, Rows]:
    """A lab of pictures and its first run."""
    lab = image_lab(tmp_path_factory.mktemp("images") / "lab", registry)
    return lab, lab.run()


# what must miss


def weights(lab: Lab, patch: Patch) -> None:
    tensors = load_file(lab.weights("model.safetensors"))
    tensors["encoder.layer.1.output.dense.bias"][0] += 1e-3
    save_file(tensors, lab.weights("model.safetensors"))
    with pytest.raises(UserError, match=r"the weights of .* have changed"):
        lab.run()
    (pins,) = lab.root.rglob(LOCK)
    pins.unlink()  # as `tl backbones --unpin` would


def pooling(lab: Lab, patch: Patch) -> None:
    lab.edit_json("1_Pooling/config.json", pooling_mode_mean_tokens=False, pooling_mode_cls_token=True)


def precision(lab: Lab, patch: Patch) -> None:
    lab.settings["extract.precision"] = "bfloat16"


def tokenizer_file(lab: Lab, patch: Patch) -> None:
    path = lab.weights("tokenizer.json")
    path.write_text(path.read_text().replace('"slow"', '"slower"'))


def sample_bytes(lab: Lab, patch: Patch) -> None:
    for path in lab.files():
        path.write_text(f"{path.read_text()} now")


def window_length(lab: Lab, patch: Patch) -> None:
    lab.edit_json("sentence_bert_config.json", max_seq_length=16)


def format_version(lab: Lab, patch: Patch) -> None:
    patch.setattr("tl_core.types.FORMAT_VERSION", 99)
    forget_backbones(lab)


def loader_version(lab: Lab, patch: Patch) -> None:
    patch.setattr("tl_text.loader.TextLoader.version", 99)
    forget_backbones(lab)


@pytest.mark.parametrize(
    ("change", "twin"),
    [
        (weights, 0),  # the random twin has none of these weights: its rows stay good
        (pooling, ALL),
        (precision, ALL),
        (tokenizer_file, ALL),
        (sample_bytes, ALL),
        (window_length, ALL),
        (format_version, ALL),
        (loader_version, ALL),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_decides_a_feature_has_all_computed_again(
    change: Change, twin: int, text: tuple[Lab, Rows], tmp_path: Path, monkeypatch: Patch
) -> None:
    lab, first = text[0].copied(tmp_path), text[1]
    assert lab.run().computed == {"backbone": 0, "random": 0}
    change(lab, monkeypatch)
    again = lab.run()
    assert again.computed == {"backbone": ALL, "random": twin}
    assert_same(lab.read(first.space, list(first.features)), first.features)  # the old rows are left alone


def test_one_number_of_the_preprocessing_has_all_computed_again(image: tuple[Lab, Rows], tmp_path: Path) -> None:
    lab, first = image[0].copied(tmp_path), image[1]
    assert lab.run().computed == {"backbone": 0, "random": 0}
    config = lab.weights("config.json")
    config.write_text(config.read_text().replace("[0.5, 0.5, 0.5]", "[0.5, 0.5, 0.501]", 1))
    assert lab.run().computed == {"backbone": ALL, "random": ALL}
    assert_same(lab.read(first.space, list(first.features)), first.features)


def test_another_cut_has_all_computed_again(text: tuple[Lab, Rows], tmp_path: Path) -> None:
    lab, first = text[0].copied(tmp_path), text[1]
    workspace = Workspace(lab.root, lab.root / "store", lab.root / "cache")
    manifest = Manifest.load(workspace.manifest, workspace.root)
    backbone = lab.registry.backbone(str(lab.root / "weights"), "text").build()
    loader, store = lab.registry.loader("text"), FeatureStore(workspace.store)
    counts = [
        extract(manifest, manifest.rows(), loader, backbone, store, precision="float32", engine="torch", cut=cut)
        for cut in (backbone.segment_names[1], backbone.segment_names[2], "end")
    ]
    assert [(done.computed, done.reused) for done in counts] == [(ALL, 0), (ALL, 0), (0, ALL)]
    assert_same(lab.read(first.space, list(first.features)), first.features)


# what must hit


def nothing(lab: Lab, patch: Patch) -> None:
    pass


def touch(lab: Lab, patch: Patch) -> None:
    for path in [*lab.files(), *(lab.root / "weights").iterdir()]:
        os.utime(path, (1, 1))


def copy(lab: Lab, patch: Patch) -> None:
    shutil.copytree(lab.root / "data", lab.root / "copy", copy_function=shutil.copyfile)
    lab.data = Path("copy")


def rename(lab: Lab, patch: Patch) -> None:
    for path in lab.files():
        path.rename(path.with_name(f"renamed-{path.name}"))


def moved_data_folder(lab: Lab, patch: Patch) -> None:
    (lab.root / "elsewhere").mkdir()
    (lab.root / "data").rename(lab.root / "elsewhere" / "data")
    lab.data = Path("elsewhere/data")


def moved_weights_folder(lab: Lab, patch: Patch) -> None:
    (lab.root / "weights").rename(lab.root / "the-same-weights")
    lab.settings["select.backbones"] = ["./the-same-weights"]


def other_worker_count(lab: Lab, patch: Patch) -> None:
    patch.setattr("tl_core.extraction.decoding.decoder_threads", lambda: 5)


def other_sample_order(lab: Lab, patch: Patch) -> None:
    listed = [(f"{path.parent.name}/{path.name}", path.parent.name) for path in lab.files()[::-1]]
    write_table(lab.root / "data" / "metadata.csv", ("file", "label"), listed)


def from_a_table_instead_of_files(lab: Lab, patch: Patch) -> None:
    listed = [(path.read_text(), path.parent.name) for path in lab.files()]
    write_table(lab.root / "table.csv", ("text", "label"), listed)
    lab.data = Path("table.csv")


def relabelled_rows(lab: Lab, patch: Patch) -> None:
    for path in lab.files()[:3]:
        path.rename(lab.root / "data" / "order" / f"was-{path.parent.name}-{path.name}")


def deleted_rows(lab: Lab, patch: Patch) -> None:
    for path in lab.files()[::6]:
        path.unlink()


def other_split(lab: Lab, patch: Patch) -> None:
    lab.settings.update({"data.test_fraction": 0.4, "data.val_fraction": 0.3})


def other_head_setting(lab: Lab, patch: Patch) -> None:
    lab.settings["select.folds"] = 3


def copied_store(lab: Lab, patch: Patch) -> None:
    shutil.move(lab.root / "store", lab.root / "far" / "away")
    lab.store = Path("far/away")


def other_machine(lab: Lab, patch: Patch) -> None:
    """A machine that has no store yet gets the file that another one exported."""
    store = FeatureStore(lab.root / "store")
    store.export(lab.root / "features.arrow", [(one.space, None) for one in store.info()])
    FeatureStore(lab.root / "imported").import_(lab.root / "features.arrow")
    lab.store = Path("imported")


HITS = (
    nothing, touch, copy, rename, moved_data_folder, moved_weights_folder, other_worker_count, other_sample_order,
    from_a_table_instead_of_files, relabelled_rows, deleted_rows, other_split, other_head_setting, copied_store,
    other_machine,
)  # fmt: skip


@pytest.mark.parametrize("change", HITS, ids=lambda change: change.__name__)
def test_what_decides_nothing_has_nothing_computed(
    change: Change, text: tuple[Lab, Rows], tmp_path: Path, monkeypatch: Patch
) -> None:
    lab, first = text[0].copied(tmp_path), text[1]
    change(lab, monkeypatch)
    again = lab.run()
    assert again.computed == {"backbone": 0, "random": 0}
    assert again.space == first.space
    assert len(again.features) == ALL - (len(range(0, ALL, 6)) if change is deleted_rows else 0)
    assert_same(again.features, first.features)
    assert_close(lab.run(store=Path("empty")).features, first)


def test_a_rerun_without_any_change_builds_no_network(
    text: tuple[Lab, Rows], tmp_path: Path, monkeypatch: Patch
) -> None:
    lab = text[0].copied(tmp_path)
    lab.run()
    monkeypatch.setattr("tl_core.types.BackboneSpec.build", lambda *_: pytest.fail("a network was built"))
    assert lab.run().computed == {"backbone": 0, "random": 0}


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_other_company_in_the_batch_has_only_itself_computed(kind: str, text: tuple[Lab, Rows], tmp_path: Path) -> None:
    lab = text[0].copied(tmp_path)
    lab.settings["extract.precision"] = kind
    first = lab.run()
    for i in range(5):
        (lab.root / "data" / "app" / f"new-{i}.txt").write_text("my app is slow " + "now " * i)
    again = lab.run()
    assert again.computed == {"backbone": 5, "random": 5}
    assert len(again.features) == ALL + 5
    assert_same(again.features, first.features)
    assert_close(lab.run(store=Path("empty")).features, first)


def forget_backbones(lab: Lab) -> None:
    """As a change of the source files would; a patched module leaves them as they are."""
    (lab.root / "cache" / "backbones.sqlite").unlink(missing_ok=True)


def write_table(path: Path, header: tuple[str, str], rows: list[tuple[str, str]]) -> None:
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])


def assert_same(rows: dict[str, np.ndarray], first: dict[str, np.ndarray]) -> None:
    """Rows that both hold are equal bit by bit."""
    shared = rows.keys() & first.keys()
    assert shared
    for digest in shared:
        assert rows[digest].tobytes() == first[digest].tobytes(), digest


def assert_close(recomputed: dict[str, np.ndarray], first: Rows) -> None:
    """Rows that both hold agree within the tolerance of their precision class."""
    faults = {
        digest: disagreement(first.features[digest], recomputed[digest], first.space.precision)
        for digest in recomputed.keys() & first.features.keys()
    }
    assert not any(faults.values()), faults
