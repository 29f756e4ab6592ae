"""Which names mean what, and that the catalogue's facts are facts."""

from __future__ import annotations

import csv
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tl_audio
from tl_audio import frontends
from tl_audio.bundles import BUNDLES
from tl_audio.catalogue import catalogue, resolve
from tl_audio.encoders import FAMILIES

from tl_core import PRESETS, UserError
from tl_core.licences import licence_kind

HERE = Path(tl_audio.__file__).parent
ARCHITECTURES = json.loads((HERE / "architectures.json").read_text(encoding="utf-8"))
with (HERE / "backbones.csv").open(encoding="utf-8", newline="") as table:
    ROWS = list(csv.DictReader(table))


def test_importing_takes_milliseconds_of_our_own():
    code = (
        "import sys, tl_core, pluggy; before = set(sys.modules); import tl_audio; print(len(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 10


def test_names(encoder_folder, tmp_path):
    folder = encoder_folder("wav2vec2")
    (by_folder,) = resolve(str(folder))
    assert (by_folder.source, by_folder.location) == ("folder", str(folder))
    (by_file,) = resolve(str(folder / "model.safetensors"))
    assert by_file.build().fingerprint == by_folder.build().fingerprint
    (hub,) = resolve("facebook/wav2vec2-base")
    assert (hub.source, hub.name, hub.licence) == ("hub", "facebook/wav2vec2-base", "Apache-2.0")
    assert resolve("someone/some-model")[0].params is None
    assert resolve("HUBERT_LARGE")[0].options == {"bundle": "HUBERT_LARGE"}
    other = tmp_path / "other"
    other.mkdir()
    assert resolve(str(other)) == []
    for config in ({"model_type": "bert"}, {"framework": "timm", "architecture": "resnet18"}, {}):
        (other / "config.json").write_text(json.dumps(config))
        assert resolve(str(other)) == []
    for name in ("resnet18", "NO_SUCH_BUNDLE", "vit@file.pth", "./nowhere/at/all"):
        assert resolve(name) == []


def test_hub_without_network_names_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="can't download nobody/no-such-model from the hub: HF_HUB_OFFLINE is set"):
        resolve("nobody/no-such-model")[0].build()


def test_hub_folders_are_read_like_local_ones(encoder_folder, monkeypatch):
    folder = encoder_folder("wav2vec2")
    asked = []

    def hub_folder(repo, revision=None, *, allow=()):
        asked.append(tuple(allow))
        return folder, "c0ffee"

    monkeypatch.setattr("tl_audio.encoders.hub_folder", hub_folder)
    backbone = resolve("someone/tiny")[0].build()
    assert backbone.identity.revision == "c0ffee"
    assert backbone.fingerprint == resolve(str(folder))[0].build().fingerprint
    resolve("someone/tiny")[0].build(0)
    assert asked == [("*.json", "model*.safetensors"), ("*.json",)]


def test_every_fact_has_a_source_and_what_is_unknown_is_none():
    specs = {spec.name: spec for spec in catalogue()}
    assert len(specs) == len(ROWS) >= 20
    assert all(row["source"] for row in ROWS)
    assert all(facts["source"] for facts in ARCHITECTURES.values())
    assert {row["architecture"] for row in ROWS} == set(ARCHITECTURES)
    for spec in specs.values():
        assert spec.revision is None, spec.name  # pinned at download, never invented
        assert all((spec.params, spec.flops, spec.feature_dim, spec.pretrained_on)), spec.name
        assert set(spec.takes) - {"filled"} == {"rate", "seconds", "sounds"}, spec.name
        assert spec.takes["sounds"] in ("speech", "general", "music"), spec.name
        assert spec.input == f"{spec.takes['rate'] // 1000} kHz, windows of {spec.takes['seconds']:g} s"
    filled = {spec.name.partition("-")[0] for spec in specs.values() if spec.takes.get("filled")}
    assert filled == {"ast", "whisper"}
    assert specs["wavlm-base-plus"].licence is None
    assert licence_kind(specs["mms-300m"].licence) == "non-commercial"


def test_licences_of_bundles_are_those_that_torchaudio_states():
    import torchaudio

    for spec in catalogue():
        if spec.name in BUNDLES:
            stated = " ".join(getattr(torchaudio.pipelines, spec.name).__doc__.split())
            assert f"under {spec.licence} License" in stated, spec.name


def test_presets_are_small_and_permissive_and_hear_speech_and_other_sounds():
    for preset in PRESETS:
        specs = [spec for spec in catalogue() if preset in spec.presets]
        assert 2 <= len(specs) <= 5, preset
        assert {licence_kind(spec.licence) for spec in specs} == {"permissive"}, preset
        assert {spec.takes["sounds"] for spec in specs} == {"speech", "general"}, preset
    assert [spec.name for spec in catalogue() if "cpu/balanced" in spec.presets] == ["ast-audioset", "WAVLM_BASE_PLUS"]


QUICK = ("ast-10-short", "wav2vec2-base", "distilhubert", "wavlm-base", "data2vec-base", "whisper-tiny",
         "wav2vec2_base", "starter")  # fmt: skip


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ARCHITECTURES]
)
def test_numbers_are_those_of_the_configuration(name):
    spec = importlib.util.spec_from_file_location("count_audio", Path(__file__).parents[1] / "counting.py")
    counting = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(counting)
    facts = ARCHITECTURES[name]
    assert counting.counted(facts["config"]) == {key: facts[key] for key in ("params", "flops", "feature_dim")}


def test_known_counts():
    published = {"data2vec-base": 93_164_288, "data2vec-large": 313_276_416}  # mteb's, exact
    assert {name: ARCHITECTURES[name]["params"] for name in published} == published
    for row in ROWS:  # a bundle's network is the hub's, but for a vector that only pretraining uses
        twin = {"WAV2VEC2_BASE": "wav2vec2-base", "HUBERT_BASE": "hubert-base", "WAVLM_BASE_PLUS": "wavlm-base"}
        if row["name"] in twin:
            theirs, ours = ARCHITECTURES[twin[row["name"]]], ARCHITECTURES[row["architecture"]]
            assert theirs["flops"] == ours["flops"]
            assert theirs["params"] - ours["params"] == theirs["feature_dim"]


def test_every_family_is_one_that_the_plugin_builds():
    kinds = {facts["config"]["model_type"] for facts in ARCHITECTURES.values() if "model_type" in facts["config"]}
    assert kinds == set(FAMILIES)  # test_encoders.py builds, loads and runs a small one of each
    assert {row["name"] for row in ROWS if not row["location"]} - {"starter-audio"} <= set(BUNDLES)


def test_a_front_end_of_other_sizes_fits_its_network(encoder_folder):
    folder = encoder_folder("hubert")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"feat_proj_layer_norm": False}))  # as DistilHuBERT
    (spec,) = resolve(str(folder))
    assert spec.build(0).feature_dim == 32


def test_a_folder_tells_what_it_takes(encoder_folder, spectrogram_folder, monkeypatch):
    stated = {}
    for family in ("wav2vec2", "whisper", "ast"):
        (spec,) = resolve(str(encoder_folder(family)))
        stated[family] = (spec.takes, spec.input)
        window = max(len(part) for part in _lengths(spec.build(0)))
        assert window == spec.takes["seconds"] * spec.takes["rate"], family
    assert stated == {
        "wav2vec2": ({"rate": 16_000, "seconds": 10.0}, "16 kHz, windows of 10 s"),
        "whisper": ({"rate": 16_000, "seconds": 1.0, "filled": True}, "16 kHz, windows of 1 s"),
        "ast": ({"rate": 16_000, "seconds": 0.64, "filled": True}, "16 kHz, windows of 0.64 s"),
    }
    (patches,) = resolve(str(spectrogram_folder()))
    assert patches.takes == {"rate": 8000, "seconds": 0.48}
    folder = encoder_folder("hubert")
    assert resolve("someone/some-model")[0].takes == {}
    monkeypatch.setattr("tl_audio.catalogue.folder_here", lambda spec: folder)
    assert resolve("someone/some-model")[0].takes == {"rate": 16_000, "seconds": 10.0}
    (folder / "preprocessor_config.json").unlink()
    assert resolve(str(folder))[0].takes == {}  # build() tells what is missing


def _lengths(backbone):
    """The stretches that a minute of sound is cut into."""
    cut = []
    original = frontends.cut

    def spy(samples, width, hop=None):
        cut.extend(original(samples, width, hop))
        return original(samples, width, hop)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frontends, "cut", spy)
        backbone.front_end.windows(np.zeros(60 * backbone.front_end.rate, np.float32))
    return cut
