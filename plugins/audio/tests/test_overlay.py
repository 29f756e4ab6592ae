"""What an explained sound shows, and where a network's places lie in it."""

from __future__ import annotations

import base64
import io
import re
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tl_audio import overlay
from tl_audio.catalogue import resolve
from tl_audio.frontends import Span
from tl_audio.loader import AudioLoader, Clip

from tl_core import Heat, Saliency, Targets, linear_heads
from tl_core.explain import explain
from tl_core.extraction import embed

BAND = (50.0, 4000.0)


def saliency(*heats: tuple[np.ndarray, Span]) -> Saliency:
    return Saliency("<bird>", 0.8, tuple(Heat(values.astype(np.float32), span) for values, span in heats), "a test")


def pictures(fragment: str) -> list[np.ndarray]:
    data = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', fragment)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(d)))).astype(int) for d in data]


def test_the_spectrogram_is_coloured_where_it_was(write_sound, sound):
    values = np.zeros((8, 10))
    values[:2, 7:9] = 1.0  # high, late
    path = write_sound("a.wav", sound(2.0))
    found = AudioLoader().overlay(path, [saliency((values, Span(0.0, 2.0, BAND)))])
    (picture,) = pictures(found.html)
    assert picture.shape == (overlay.HEIGHT, overlay.WIDTH, 3)
    redness = picture[..., 0] - picture[..., 2]
    assert redness[:20, 230:280].mean() > 50
    assert redness[-40:, :150].mean() < 5
    seconds, hertz = re.fullmatch(r"mostly from (.*) s, (.*) Hz", found.texts[0]).groups()
    assert [float(t) for t in seconds.split(" to ")] == pytest.approx([1.4, 1.8], abs=0.2)
    assert int(hertz.split(" to ")[0].replace(",", "")) > 2000
    assert "<bird>" not in found.html
    assert 'src="data:audio/mpeg;base64,' in found.html
    assert len(found.html) < 100_000
    assert found == AudioLoader().overlay(path, [saliency((values, Span(0.0, 2.0, BAND)))])


def test_windows_are_laid_over_the_clip():
    one, two = np.ones((1, 4), np.float32), np.full((1, 4), 3, np.float32)
    heat = overlay.on_clip([Heat(one, Span(0.0, 2.0)), Heat(two, Span(1.0, 3.0))], 4.0)
    step = overlay.WIDTH // 4
    assert [float(heat[0, int((second + 0.5) * step)]) for second in range(3)] == [1.0, 2.0, 3.0]
    assert np.isnan(heat[:, 3 * step :]).all()
    filled = overlay.on_clip([Heat(np.array([[1, 2, 3, 4]], np.float32), Span(0.0, 4.0))], 1.0)
    assert filled.max() < 2.1  # what fills a short clip up is not shown
    assert (
        overlay.on_clip([Heat(one, Span(0.0, 9e5))], 1e-3).tolist()
        == overlay.on_clip([Heat(one, Span(0.0, 1.0))], 1.0).tolist()
    )  # in the memory of the picture, not of the span


def test_where_in_words():
    heat = np.ones((overlay.HEIGHT, overlay.WIDTH), np.float32)
    assert overlay.where(heat, 5.0, BAND) == "all over the sound"
    assert overlay.where(-heat, 5.0, BAND) == "nowhere: all of it speaks against"
    heat[:, 64:] = 0
    assert overlay.where(heat, 5.0, None).startswith("mostly from 0.00 to 0.5")


def test_a_long_loud_clip_stays_small(write_sound):
    noise = np.random.default_rng(0).uniform(-1, 1, 12 * 44_100).astype(np.float32)
    values = np.random.default_rng(1).random((8, 100))
    path = write_sound("noise.wav", noise, rate=44_100)
    one = saliency((values, Span(0.0, 12.0, (50.0, 8000.0))))
    found = AudioLoader().overlay(path, [one, one])
    assert len(found.html) < 100_000
    assert "the first 10 of 12.0 s" in found.html


@pytest.mark.parametrize("rate", [100, 6000, 9999, 16_000, 37_800, 192_000])
def test_sounds_of_any_rate_are_played(write_sound, sound, rate):
    path = write_sound("a.wav", sound(2.0, rate=rate) if rate > 1000 else np.zeros(200, np.float32), rate=rate)
    found = AudioLoader().overlay(path, [saliency((np.ones((4, 4)), Span(0.0, 2.0, (50.0, 8000.0))))])
    assert 'src="data:audio/mpeg;base64,' in found.html


@pytest.mark.parametrize("family", ["wav2vec2", "hubert", "wavlm", "whisper", "ast"])
@pytest.mark.parametrize("seconds", [0.3, 2.0])
def test_encoders_are_explained(encoder_folder, write_sound, sound, family, seconds):
    check(resolve(str(encoder_folder(family)))[0].build(), write_sound("a.wav", sound(seconds)), seconds)


@pytest.mark.parametrize("architecture", ["test_efficientnet", "test_resnet"])
@pytest.mark.parametrize("center", [False, True])
def test_spectrogram_networks_are_explained(spectrogram_folder, write_sound, sound, architecture, center):
    built = resolve(str(spectrogram_folder(architecture, center=center)))[0].build()
    check(built, write_sound("a.wav", sound(1.7)), 1.7)


def check(backbone, path, seconds):
    """As many places as windows, one after the other to the clip's end, and an explanation of each."""
    loader, targets = AudioLoader(), Targets("multiclass", ("a", "b"))
    clip = loader.decode(path)
    places, prepared = backbone.places(clip), backbone.prepare(clip)
    assert len(places) == len(prepared.windows)
    assert places[0].start == 0
    assert places[-1].stop >= seconds - 0.05
    assert all(a.start < b.start <= a.stop + 1e-6 for a, b in pairwise(places))
    embed(backbone, [prepared], torch.device("cpu"), "float32")  # in inference mode, as before it in evaluation
    head = next(h for h in linear_heads("audio") if h.task == "multiclass").build(backbone.feature_dim, targets)
    torch.nn.init.normal_(head.linear.weight, generator=torch.Generator().manual_seed(0))
    model = SimpleNamespace(loader=loader, backbone=backbone, head=head.eval(), targets=targets)
    found = explain(model, path, ["a"])
    assert found.error is None
    assert len(pictures(found.html)) == 1


def test_maps_lie_with_high_frequencies_on_top(spectrogram_folder, encoder_folder):
    built = resolve(str(spectrogram_folder()))[0].build()
    state = torch.arange(6.0).reshape(1, 1, 2, 3)  # [B, C, frames, mels]
    assert built.spatial({"x": state})[0, 0].tolist() == [[2, 5], [1, 4], [0, 3]]
    ast = resolve(str(encoder_folder("ast")))[0].build()
    window = ast.prepare(Clip(np.zeros(16_000, np.float32), 16_000)).windows[0]
    with torch.inference_mode():
        state = ast(ast.collate([window]), stop=1)
    config = {"mels": 32, "frames": 64, "patch": 16, "stride": 10}
    rows, columns = (((config[side] - config["patch"]) // config["stride"]) + 1 for side in ("mels", "frames"))
    assert ast.spatial(state).shape[2:] == (rows, columns)
    assert torch.equal(ast.spatial(state)[0, :, -1, 0], state["x"][0, 2])  # the lowest and first comes first
