"""From every cut, row by row and batched anew: the same embedding as in one go."""

from __future__ import annotations

import pytest
import torch
from tl_audio.catalogue import catalogue, resolve
from tl_audio.loader import Clip

from .conftest import FAMILIES


def build(name):
    (spec,) = resolve(str(name))
    return spec.build()


def whole_and_rows(backbone, stop, windows):
    """Embeddings [N, D] of windows in one go, and their rows at a cut, each computed twice over in its own bucket."""
    whole, rows = [], []
    for window in windows:
        batch = backbone.collate([window, window])
        whole.append(backbone(dict(batch))["x"][0])
        rows += backbone.boundary_rows(backbone(dict(batch), stop=stop), [window])  # the batch holds another
    return torch.stack(whole), rows


def check_every_cut(backbone, windows):
    assert backbone.ragged
    with torch.inference_mode():
        for stop in range(1, len(backbone.segments)):
            whole, rows = whole_and_rows(backbone, stop, windows)
            buckets: dict[int, list[int]] = {}
            for i, row in enumerate(rows):
                assert row.keys() == windows[i].keys()
                buckets.setdefault(backbone.boundary_bucket(row), []).append(i)
            assert len(buckets) == len({tuple(row["x"].shape) for row in rows})
            for members in buckets.values():
                state = backbone.collate_boundary([rows[i] for i in members])
                found = backbone(state, start=stop)["x"]
                torch.testing.assert_close(found, whole[members], rtol=1e-5, atol=1e-5)


def windows_of(backbone, sound):
    """Windows of four clips, of several widths where the encoder knows several, one clip of two windows or more."""
    rate = backbone.front_end.rate
    clips = [Clip(sound(seconds, rate, seed=i), rate) for i, seconds in enumerate((0.31, 0.32, 0.7, 10.5))]
    return [window for clip in clips for window in backbone.prepare(clip).windows[:2]]


@pytest.mark.parametrize("family", FAMILIES)
def test_encoders_go_on_from_their_rows(encoder_folder, sound, family):
    backbone = build(encoder_folder(family))
    windows = windows_of(backbone, sound)
    assert len({backbone.bucket(window) for window in windows}) == (1 if family in ("whisper", "ast") else 3)
    check_every_cut(backbone, windows)


@pytest.mark.parametrize("architecture", ["test_efficientnet", "mobilenetv3_small_050", "test_resnet"])
def test_spectrogram_networks_go_on_from_their_rows(spectrogram_folder, sound, architecture):
    backbone = build(spectrogram_folder(architecture))
    check_every_cut(backbone, windows_of(backbone, sound))


def test_bundles_go_on_from_their_rows(bundle, sound):
    backbone = build(bundle[0])
    check_every_cut(backbone, windows_of(backbone, sound))


def test_frames_ride_along_as_a_number(encoder_folder, sound):
    backbone = build(encoder_folder("wav2vec2"))
    windows = windows_of(backbone, sound)[:3]
    with torch.inference_mode():
        _, rows = whole_and_rows(backbone, 1, windows)
    assert [(row["frames"].shape, row["frames"].dtype) for row in rows] == [((), torch.int64)] * 3
    assert [int(row["frames"]) for row in rows] == [int(window["frames"]) for window in windows]
    lengths = [len(row["x"]) for row in rows]
    assert all(length > int(row["frames"]) for length, row in zip(lengths, rows, strict=True))  # the filling is kept
    assert [backbone.boundary_bucket(row) for row in rows] == lengths
    assert lengths[0] == lengths[1] != lengths[2]


def test_a_batch_is_small(encoder_folder, spectrogram_folder):
    waveform, mel = build(encoder_folder("wavlm")), build(spectrogram_folder())
    assert [waveform.batch_size(int(16_000 * seconds)) for seconds in (0.25, 0.5, 1.0, 2.5, 10.0)] == [8, 4, 2, 1, 1]
    assert mel.batch_size(0) == 8
    assert [build(encoder_folder(family)).batch_size(0) for family in ("whisper", "ast")] == [1, 1]
    starter = next(spec for spec in catalogue() if spec.name == "starter-audio")
    assert starter.build(random_seed=0).batch_size(0) == 8
