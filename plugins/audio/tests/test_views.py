"""Views of every family: the state after a layer, as the mean over the clip's frames, a picture's places or tokens."""

from __future__ import annotations

import pytest
import torch
from tl_audio.catalogue import resolve

from tl_core.testing import assert_engines_agree, assert_views
from tl_core.views import at_view

from .conftest import FAMILIES, windows_of


@pytest.mark.parametrize("family", FAMILIES)
def test_encoders(encoder_folder, sound, family):
    (spec,) = resolve(str(encoder_folder(family)))
    found = assert_views(spec, windows_of(spec.build(), sound))
    first = {"whisper": "stem", "ast": "embeddings"}.get(family, "features")
    # without a norm at the end the mean over the last layer's frames is the embedding itself
    last = ["layer_1"] if family.endswith("-stable") or family in ("whisper", "ast") else []
    assert found == [first, "layer_0", *last, "mean"]


def test_bundles(bundle, sound):
    (spec,) = resolve(bundle[0])
    assert assert_views(spec, windows_of(spec.build(), sound))[-1] == "mean"


@pytest.mark.parametrize("architecture", ["test_efficientnet", "mobilenetv3_small_050", "test_resnet"])
def test_spectrogram_networks(spectrogram_folder, sound, architecture):
    (spec,) = resolve(str(spectrogram_folder(architecture)))
    found = assert_views(spec, windows_of(spec.build(), sound))
    assert found[0] == "stem"
    assert len(found) > 3
    assert "mean" not in found


def test_frames_of_the_filling_and_tokens_without_a_place_stay_out(encoder_folder):
    (wav2vec,) = resolve(str(encoder_folder("wav2vec2")))
    state = {"x": torch.rand(2, 7, 32), "frames": torch.tensor([5, 7])}
    expected = torch.stack([state["x"][0, :5].mean(dim=0), state["x"][1].mean(dim=0)])
    torch.testing.assert_close(wav2vec.build().pooled(state), expected)
    (ast,) = resolve(str(encoder_folder("ast")))
    torch.testing.assert_close(ast.build().pooled({"x": state["x"]}), state["x"][:, 2:].mean(dim=1))


@pytest.mark.parametrize("view", ["layer_0", "mean"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_engines_agree(encoder_folder, sound, view, precision):
    (spec,) = resolve(str(encoder_folder("wav2vec2")))
    built = at_view(spec, view).build()
    assert "openvino" in ",".join(assert_engines_agree(built, windows_of(spec.build(), sound), precision))
