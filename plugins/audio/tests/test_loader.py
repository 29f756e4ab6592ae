"""Every format is read the same, and every fault has its reason."""

from __future__ import annotations

import ctypes
import struct
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile
from tl_audio.loader import AudioLoader, Clip

from tl_core import DecodeError

LOADER = AudioLoader()


def tone(seconds=1.0, rate=16_000):
    return (0.4 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "options", "tolerance"),
    [
        ("a.wav", {"subtype": "PCM_U8"}, 0.02),
        ("a.wav", {"subtype": "PCM_16"}, 1e-4),
        ("a.wav", {"subtype": "PCM_24"}, 1e-6),
        ("a.wav", {"subtype": "PCM_32"}, 1e-6),
        ("a.wav", {"subtype": "FLOAT"}, 0.0),
        ("a.wav", {"subtype": "DOUBLE"}, 0.0),
        ("a.wav", {"subtype": "ULAW"}, 0.02),
        ("a.flac", {"subtype": "PCM_24"}, 1e-6),
        ("a.aif", {"subtype": "PCM_16"}, 1e-4),
        ("a.ogg", {}, 0.05),
    ],
)
def test_sample_formats(write_sound, name, options, tolerance):
    clip = LOADER.decode(write_sound(name, tone(), **options))
    assert (clip.rate, len(clip.samples), clip.samples.dtype) == (16_000, 16_000, np.float32)
    assert np.abs(clip.samples - tone()).max() <= tolerance


@pytest.mark.parametrize(("name", "rate"), [("a.mp3", 22_050), ("a.opus", 48_000)])
def test_lossy_formats_keep_length_and_rate(write_sound, name, rate):
    path = write_sound(name, tone(rate=rate), rate=rate)
    assert LOADER.check(path) is None
    clip = LOADER.decode(path)
    assert (clip.rate, len(clip.samples)) == (rate, rate)


@pytest.mark.parametrize("channels", [1, 2, 3, 8])
def test_channels_are_averaged_bit_for_bit_as_numpy_does(write_sound, channels):
    samples = np.random.default_rng(0).uniform(-1, 1, (1000, channels)).astype(np.float32)
    clip = LOADER.decode(write_sound("many.wav", samples, subtype="FLOAT"))
    np.testing.assert_array_equal(clip.samples, samples.mean(axis=1, dtype=np.float32))


def test_channels_are_averaged_and_the_rate_is_the_files_own(write_sound):
    left = tone(rate=44_100)
    channels = np.stack([left, np.zeros_like(left), left / 2], axis=1)
    clip = LOADER.decode(write_sound("three.wav", channels, rate=44_100, subtype="FLOAT"))
    assert clip.rate == 44_100
    assert clip.seconds == 1.0
    np.testing.assert_allclose(clip.samples, left / 2, atol=1e-6)


def test_content_decides_not_the_suffix(write_sound):
    path = write_sound("a.flac")
    assert LOADER.check(path.rename(path.with_suffix(".wav"))) is None


def test_silence_is_a_sound(write_sound):
    assert LOADER.check(write_sound("silence.wav", np.zeros(100, np.float32))) is None


@pytest.mark.parametrize("name", ["a.wav", "a.aif", "a.flac", "a.ogg", "a.opus", "a.mp3"])
@pytest.mark.parametrize("share", [0.97, 0.5, 0.1])
def test_truncated_files_are_refused(write_sound, capfd, name, share):
    path = write_sound(name, tone(3.0))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert LOADER.check(path).startswith("truncated")
    capfd.readouterr()  # the MP3 decoder complains on its own


def test_damaged_flac_is_refused(write_sound):
    path = write_sound("a.flac", tone(3.0))
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4000] = bytes(4000)
    path.write_bytes(data)
    assert "damaged" in LOADER.check(path)


def test_streamed_wav_without_a_length_is_read(write_sound):
    path = write_sound("a.wav", tone(), subtype="PCM_16")
    data = path.read_bytes()
    at = data.index(b"data") + 4
    path.write_bytes(data[:at] + struct.pack("<I", 0xFFFFFFFF) + data[at + 4 :])
    assert LOADER.check(path) is None
    assert len(LOADER.decode(path).samples) == 16_000


def test_mp3_whose_length_is_only_estimated_is_read(tmp_path):
    path = tmp_path / "a.mp3"
    loud = 0.3 * np.random.default_rng(0).standard_normal(16_000 * 3)
    with soundfile.SoundFile(path, "w", 16_000, 1, format="MP3", bitrate_mode="VARIABLE") as stream:
        stream.write(np.concatenate([np.zeros(16_000 * 5), loud]))
    data = path.read_bytes()
    second = data.index(b"\xff\xf3", data.index(b"Xing"))
    path.write_bytes(data[second:])  # without its first frame, which holds the count
    assert LOADER.check(path) is None


def test_reasons(tmp_path, write_sound):
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "text.mp3").write_text("no music " * 300)
    odd = tone()
    odd[7] = np.nan
    reasons = {
        tmp_path / "nowhere.wav": "unreadable: No such file or directory",
        tmp_path / "folder.wav": "unreadable: Is a directory",
        write_sound("none.wav", np.zeros(0, np.float32)): "no samples",
        write_sound("nan.wav", odd, subtype="FLOAT"): "non-finite samples: NaN or infinity",
        write_sound("huge.wav", np.full(9, 1e300), subtype="DOUBLE"): "non-finite samples: NaN or infinity",
        write_sound("long.wav", np.zeros(100 * 3700, np.float32), rate=100): "62 minutes long (allowed: 60); cut it",
        write_sound("slow.wav", np.zeros(50, np.float32), rate=50): "rate of 50 Hz (allowed: 100 to 1000000)",
    }
    for path, reason in reasons.items():
        assert LOADER.check(path).startswith(reason), path
        with pytest.raises(DecodeError):
            LOADER.decode(path)
    assert LOADER.check(tmp_path / "text.mp3") == "not an audio file: the decoder finds no sound in it"


def test_the_mp3_decoder_prints_nothing(tmp_path, capfd):
    (tmp_path / "text.mp3").write_text("no music " * 300)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(LOADER.check, [tmp_path / "text.mp3"] * 20))
    assert capfd.readouterr().err == ""
    libc = ctypes.CDLL(None)
    libc.perror(b"C's own stream")  # is there again
    assert capfd.readouterr().err.startswith("C's own stream: ")


def test_augmentation_keeps_form_and_follows_its_generator():
    clip = Clip(tone(), 16_000)
    one, same, other = (LOADER.augment(clip, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (one.rate, one.samples.dtype, one.samples.shape) == (16_000, np.float32, clip.samples.shape)
    np.testing.assert_array_equal(one.samples, same.samples)
    assert not np.array_equal(one.samples, other.samples)
    ratio = one.samples.std() / clip.samples.std()
    assert 0.49 < ratio < 2.05
    silence = LOADER.augment(Clip(np.zeros(50, np.float32), 8000), np.random.default_rng(0))
    np.testing.assert_array_equal(silence.samples, 0)


def test_rendering(write_sound):
    path = write_sound("long.wav", tone(12.0, 48_000), rate=48_000)
    page = LOADER.render(path)
    assert page == LOADER.render(path)
    assert 'src="data:audio/wav;base64,' in page
    assert 'role="img" aria-label="Waveform, first 10 of 12.0 s, 48 kHz, peak 0.40"' in page
    assert len(page) < 16_000 * 2 * 10 * 4 / 3 + 5000
    assert "8 kHz" in LOADER.render(write_sound("one.wav", np.zeros(1, np.float32), rate=8000))
