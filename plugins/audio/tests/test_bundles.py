"""torchaudio's bundles: our table is theirs, and the chain is their forward."""

from __future__ import annotations

from urllib.error import URLError

import pytest
import torch
import torchaudio
from tl_audio.bundles import BUNDLES, Bundle
from tl_audio.catalogue import resolve
from tl_audio.loader import Clip

from tl_core import UserError


def test_chain_equals_the_library(bundle, sound):
    name, model = bundle
    (spec,) = resolve(name)
    backbone = spec.build()
    assert backbone.segment_names == ("features", "layer_0", "layer_1", "pool")
    window = backbone.prepare(Clip(sound(0.4), 16_000)).windows[0]
    state = backbone.collate([window, window])
    with torch.inference_mode():
        theirs = model(window["x"].unsqueeze(0))[0][0, : window["frames"]].mean(0)
        whole = backbone(state)["x"]
        torch.testing.assert_close(whole[0], theirs)
        for cut in range(1, 4):
            torch.testing.assert_close(backbone(backbone(state, stop=cut), start=cut)["x"], whole, rtol=0, atol=0)


def test_random_twin(bundle):
    (spec,) = resolve(bundle[0])
    one, same, real = spec.build(1), spec.build(1), spec.build()
    assert one.fingerprint == same.fingerprint != real.fingerprint
    assert real.identity.revision == f"torchaudio {torchaudio.__version__}"


def test_normalisation_is_torchaudios(monkeypatch, sound, tmp_path, tiny_bundle):
    from torchaudio.pipelines._wav2vec2.utils import _extend_model

    model = tiny_bundle("stable").eval()
    monkeypatch.setattr(torchaudio.models, "tiny", lambda: tiny_bundle("stable"), raising=False)
    monkeypatch.setitem(BUNDLES, "TINY", Bundle("tiny", normalise=True))
    torch.save(model.state_dict(), tmp_path / "tiny.pth")
    (spec,) = resolve(f"TINY@{tmp_path / 'tiny.pth'}")
    backbone = spec.build()
    samples = sound(10.0)  # a full window: nothing is filled up
    with torch.inference_mode():
        ours = backbone(backbone.collate(backbone.prepare(Clip(samples, 16_000)).windows))["x"][0]
        theirs = _extend_model(model, normalize_waveform=True)(torch.from_numpy(samples)[None])[0][0].mean(0)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sorted(BUNDLES))
def test_table_is_torchaudios(name):
    from torchaudio.pipelines._wav2vec2.utils import _get_model

    theirs = getattr(torchaudio.pipelines, name)
    assert theirs.sample_rate == 16_000
    assert theirs._normalize_waveform == BUNDLES[name].normalise
    small = {**theirs._params, "encoder_num_layers": 1}
    with torch.device("meta"):
        factory = getattr(torchaudio.models, BUNDLES[name].factory)
        expected = {k: v.shape for k, v in _get_model(theirs._model_type, small).state_dict().items()}
        ours = {k: v.shape for k, v in factory().state_dict().items()}
    assert {k: ours.get(k) for k in expected} == expected
    layers = {key.split(".")[3] for key in ours if key.startswith("encoder.transformer.layers.")}
    assert len(layers) == theirs._params["encoder_num_layers"]


def test_without_network_the_remedy_is_named(monkeypatch, tmp_path, tiny_bundle):
    def offline(**_):
        raise URLError("no route to host")

    monkeypatch.setattr(torchaudio.pipelines.WAV2VEC2_BASE, "get_model", offline)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torchaudio.models, "wav2vec2_base", lambda: tiny_bundle("base"))
    (spec,) = resolve("WAV2VEC2_BASE")
    with pytest.raises(UserError, match=r"can't download the torchaudio bundle WAV2VEC2_BASE.*WAV2VEC2_BASE@FILE"):
        spec.build()
    folder = tmp_path / "torchaudio-bundles" / "WAV2VEC2_BASE"
    folder.mkdir(parents=True)
    torch.save(
        tiny_bundle("base").state_dict(), folder / "wav2vec2_fairseq_base_ls960.pth"
    )  # as the download leaves it
    assert spec.build().feature_dim == 32


def test_missing_files():
    with pytest.raises(UserError, match="no such weights file: /nowhere"):
        resolve("HUBERT_BASE@/nowhere.pth")
