"""SpecAugment: what is hidden, how much of it, and what never is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tl_audio.catalogue import resolve
from tl_audio.loader import Clip
from tl_audio.spec_augment import FRAMES, MASKS, MELS, spec_augment


def rng(seed=0):
    return np.random.default_rng(seed)


def noise(windows=4, frames=64, mels=32, seed=0):
    return torch.randn(windows, frames, mels, generator=torch.Generator().manual_seed(seed))


def test_bands_and_stretches_become_the_windows_mean():
    x = noise(200)
    kept = x.clone()
    out = spec_augment(x, rng(), time=1, mel=2)
    assert torch.equal(x, kept)
    assert out.shape == x.shape
    bands, stretches = [], []
    for before, after in zip(x, out, strict=True):
        hidden = before != after
        assert torch.allclose(after[hidden], before.mean(), atol=1e-5)
        full_frames, full_mels = hidden.all(dim=1), hidden.all(dim=0)
        assert torch.equal(hidden, full_frames[:, None] | full_mels[None, :])
        for mask in (full_frames, full_mels):
            at = mask.nonzero().flatten()
            assert (at.diff() > 1).sum() < MASKS  # in two pieces at most
        bands.append(int(full_mels.sum()))
        stretches.append(int(full_frames.sum()))
    assert max(bands) == MASKS * MELS * 32
    assert max(stretches) == MASKS * FRAMES * 64
    assert min(bands) == min(stretches) == 0


def test_a_variant_follows_its_generator():
    x = noise()
    a, b, c = (spec_augment(x, rng(seed), time=1, mel=2) for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert any(not torch.equal(a[0] == x[0], a[i] == x[i]) for i in range(1, 4))  # each window its own


def test_a_window_does_not_depend_on_its_company():
    x = noise()
    other = torch.cat([x[:2], 7 + noise(2, seed=5)])
    assert torch.equal(spec_augment(x, rng(3), time=1, mel=2)[:2], spec_augment(other, rng(3), time=1, mel=2)[:2])


@pytest.mark.parametrize("seed", range(10))
def test_filling_is_neither_masked_nor_counted(seed):
    x = noise(8)
    x[:, 20:] = -3.0
    x[0] = -3.0  # no sound at all
    out = spec_augment(x, rng(seed), time=1, mel=2)
    assert torch.equal(out[:, 20:], x[:, 20:])
    assert torch.equal(out[0], x[0])
    for before, after in zip(x[1:, :20], out[1:, :20], strict=True):
        hidden = before != after
        assert torch.allclose(after[hidden], before.mean(), atol=1e-5)
        assert hidden.all(dim=1).sum() <= MASKS * FRAMES * 20


def test_dimensions_may_lie_as_they_like():
    x = noise()
    plain = spec_augment(x, rng(), time=1, mel=2)
    assert torch.equal(spec_augment(x.mT, rng(), time=2, mel=1).mT, plain)
    assert torch.equal(spec_augment(x.unsqueeze(1), rng(), time=2, mel=3).squeeze(1), plain)


def built(folder):
    (spec,) = resolve(str(folder))
    return spec.build()


def masked(backbone, seconds, rate):
    """(before, after, frames of the front end in all) of a clip."""
    samples = np.sin(np.arange(round(seconds * rate)) / 3).astype(np.float32) + 0.1 * rng().standard_normal(
        round(seconds * rate)
    ).astype(np.float32)
    state = backbone.collate(backbone.prepare(Clip(samples, rate)).windows)
    kept = {key: value.clone() for key, value in state.items()}
    after = backbone.perturb(state, rng(4))
    assert all(torch.equal(state[key], kept[key]) for key in kept)
    assert after.keys() == kept.keys()
    assert all(torch.equal(after[key], kept[key]) for key in kept if key != "x")
    assert after["x"].dtype == kept["x"].dtype
    return kept["x"], after["x"]


def test_spectrogram_patches_are_masked(spectrogram_folder):
    backbone = built(spectrogram_folder())
    before, after = masked(backbone, 1.0, 8000)
    assert before.shape == (4, 1, 48, 32)
    assert not torch.equal(before, after)
    with torch.inference_mode():
        assert torch.isfinite(backbone({"x": after})["x"]).all()
    before, after = masked(backbone, 0.2, 8000)  # the rest of the one patch is silence
    silent = (before == before[..., -1:, -1:]).all(dim=-1)
    assert silent.sum() > 20
    assert torch.equal(before[silent], after[silent])


@pytest.mark.parametrize(("family", "seconds"), [("ast", 0.4), ("whisper", 0.5)])
def test_encoders_of_spectrograms_are_masked_within_the_sound(encoder_folder, family, seconds):
    before, after = masked(built(encoder_folder(family)), seconds, 16_000)
    before, after = (x.mT if family == "whisper" else x for x in (before, after))  # [1, frames, mels]
    changed = (before != after).any(dim=2)[0].nonzero().flatten()
    silent = (before == before[:, -1:, -1:]).all(dim=2)[0]
    assert silent.any()
    assert len(changed)
    assert not silent[changed].any()


def test_waveforms_stay_as_they_are(encoder_folder):
    before, after = masked(built(encoder_folder("wav2vec2")), 0.5, 16_000)
    assert torch.equal(before, after)
