"""Plain features: numbers through the store, terms fitted to training rows, and none where a modality has none."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pytest
import torch

from tl_core.config import validate
from tl_core.errors import UserError
from tl_core.evaluation.baseline import PlainFeatures, plain_features
from tl_core.heads import linear_heads
from tl_core.manifest import Manifest, scan
from tl_core.registry import Registry
from tl_core.store import FeatureStore
from tl_core.training import fit_probe
from tl_core.types import Loader, Plain, Source


class Words(Loader):
    """Inline texts, described by their words."""

    modality = "words"
    extensions = frozenset({".words"})
    inline = True

    def decode(self, source: Source) -> str:
        return str(source)

    def render(self, source: Source) -> str:
        return ""

    def plain(self, decoded: Any) -> Plain | None:
        return Counter(decoded.split())


class Counted:
    """A loader that counts whom it describes."""

    def __init__(self, loader: Loader) -> None:
        self.loader, self.described = loader, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def plain(self, decoded: Any) -> Plain | None:
        self.described += 1
        return self.loader.plain(decoded)


@pytest.fixture
def series(waves: Path, timeseries: Registry) -> Manifest:
    return scan(waves, validate({}), timeseries.loaders(), progress=False)


@pytest.fixture
def texts(tmp_path: Path) -> Manifest:
    lines = [f"{'good' if i % 2 else 'bad'} word{i % 7} word{i % 5},{'yes' if i % 2 else 'no'}" for i in range(60)]
    (tmp_path / "texts.csv").write_text("\n".join(["text,label", *lines]))
    return scan(tmp_path / "texts.csv", validate({"modality": "words"}), [Words()], progress=False)


def test_numbers_are_those_of_the_loader(series: Manifest, timeseries: Registry, tmp_path: Path) -> None:
    loader, store = timeseries.loader("timeseries"), FeatureStore(tmp_path / "store")
    parts = [series.rows(split) for split in ("train", "val", "test")]
    found = plain_features(series, loader, store, *parts)
    assert found is not None
    for rows, features in zip(parts, found, strict=True):
        expected = [loader.plain(loader.decode(sample.source)) for sample in series.samples(rows)]
        assert features.dtype == np.float32
        assert np.array_equal(features, np.stack(cast(Any, expected)))


def test_a_rerun_computes_nothing_and_new_rows_only_themselves(
    series: Manifest, timeseries: Registry, tmp_path: Path
) -> None:
    loader, store = Counted(timeseries.loader("timeseries")), FeatureStore(tmp_path / "store")
    train, val, test = (series.rows(split) for split in ("train", "val", "test"))
    first = plain_features(series, cast(Loader, loader), store, train, val)
    assert loader.described == len(train) + len(val) + 1  # one tells the form
    loader.described = 0
    again = plain_features(series, cast(Loader, loader), store, train, val)
    assert loader.described == 1
    assert first is not None
    assert again is not None
    assert [a.tobytes() for a in first] == [b.tobytes() for b in again]
    loader.described = 0
    plain_features(series, cast(Loader, loader), store, train, test)
    assert loader.described <= len(test) + 4  # a few stored rows are computed again, to see that they still agree


def test_the_key_follows_all_that_decides_the_numbers(timeseries: Registry) -> None:
    loader = timeseries.loader("timeseries")

    def key(**changes: Any) -> str:
        changed = type("Changed", (type(loader),), changes)
        return PlainFeatures(changed(), 49).fingerprint

    keys = [
        key(), key(version=2), key(plain_version=2), key(modality="others"),
        key(libraries=lambda self: {"numpy": "0.1"}),
    ]  # fmt: skip
    assert len(set(keys)) == 5
    assert key() == key(augment_version=2, measure_version=2)


def test_a_probe_learns_from_them(series: Manifest, timeseries: Registry, tmp_path: Path) -> None:
    loader, store = timeseries.loader("timeseries"), FeatureStore(tmp_path / "store")
    parts = [series.rows(split) for split in ("train", "val", "test")]
    found = plain_features(series, loader, store, *parts)
    assert found is not None
    x, x_val, x_test = map(torch.from_numpy, found)
    y, y_val = (torch.from_numpy(series.target_array(rows)) for rows in parts[:2])
    spec = next(head for head in linear_heads("timeseries") if head.task == "multiclass")
    head = spec.build(x.shape[1], series.targets)
    fit = fit_probe(x, y, x_val, y_val, head, spec, series.targets, (100, 10, 1), True)
    with torch.inference_mode():
        said = fit.head(x_test).argmax(dim=1).numpy()
    assert (said == series.target_array(parts[2])).mean() > 0.8  # three classes


def test_terms_are_fitted_to_the_training_rows_alone(texts: Manifest, tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "store")
    train, val, test = (texts.rows(split) for split in ("train", "val", "test"))
    found = plain_features(texts, Words(), store, train, val, test)
    other = plain_features(texts, Words(), store, train, test)
    assert found is not None
    assert other is not None
    assert np.array_equal(found[0], other[0])
    assert np.array_equal(found[2], other[1])
    assert {part.shape[1] for part in found} == {found[0].shape[1]}
    assert not store.info()  # terms are counted anew
    good = texts.target_array(test) == texts.targets.classes.index("yes")
    centres = [found[0][texts.target_array(train) == c].mean(axis=0) for c in (0, 1)]
    near = [np.linalg.norm(found[2] - centre, axis=1) for centre in centres]
    assert np.array_equal(near[1] < near[0], good)


def test_none_where_a_modality_has_none(texts: Manifest, tmp_path: Path) -> None:
    class Silent(Words):
        def plain(self, decoded: Any) -> Plain | None:
            return None

    class Wordless(Words):
        def plain(self, decoded: Any) -> Plain | None:
            return {}

    store = FeatureStore(tmp_path / "store")
    assert plain_features(texts, Silent(), store, texts.rows("train")) is None
    assert plain_features(texts, Wordless(), store, texts.rows("train"), texts.rows("test")) is None


def test_terms_of_one_sample_and_numbers_of_another_are_refused(texts: Manifest, tmp_path: Path) -> None:
    class Moody(Words):
        said: ClassVar[list[Plain]] = [{"a": 1.0}, {"a": 1.0}, np.zeros(3, np.float32)]

        def plain(self, decoded: Any) -> Plain | None:
            return self.said.pop(0)

    with pytest.raises(ValueError, match=r"plain\(\) gives terms of one sample and ndarray of texts.csv:"):
        plain_features(texts, Moody(), FeatureStore(tmp_path / "store"), texts.rows("train"))


def test_a_sample_that_has_changed_is_named(series: Manifest, timeseries: Registry, tmp_path: Path) -> None:
    victim = series.sample(int(series.rows("train")[3]))
    np.save(Path(victim.source), np.zeros(50))
    with pytest.raises(UserError, match=f"{victim.id} has changed"):
        plain_features(series, timeseries.loader("timeseries"), FeatureStore(tmp_path / "s"), series.rows("train"))
