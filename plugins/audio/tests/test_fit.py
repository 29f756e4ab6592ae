"""What is heard in sound files, and what is said of backbones that they don't suit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from tl_audio import fit
from tl_audio.loader import AudioLoader

from tl_core import BackboneSpec, DecodeError, Facts

LOADER = AudioLoader()
PLAIN: Facts = {"rate": 16000, "channels": 1, "seconds": 4.0, "reach": 3000.0, "lost_in_mono": 0.0}


def never(spec: BackboneSpec, seed: int | None) -> Any:
    raise AssertionError("built before anything may be computed")


def net(name: str = "net", **takes: Any) -> BackboneSpec:
    return BackboneSpec(name, "audio", "hub", name, builder=never, params=1, takes=takes)


def said(spec: BackboneSpec, facts: list[Facts], *others: BackboneSpec) -> list[tuple[str, str]]:
    return [(w.text, w.remedy) for w in fit.misfits(spec, facts, lambda: others)]


def tone(hertz: float, rate: int, seconds: float = 1.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


def saved(path: Path, samples: np.ndarray, rate: int) -> Path:
    soundfile.write(path, samples, rate)
    return path


# what is heard


@pytest.mark.parametrize(("rate", "suffix"), [(8000, "wav"), (16000, "flac"), (44100, "ogg"), (44100, "mp3")])
def test_rate_length_and_reach(tmp_path: Path, rate: int, suffix: str) -> None:
    path = saved(tmp_path / f"a.{suffix}", tone(1000, rate, 2.0), rate)
    facts = LOADER.measure(path)
    assert (facts["rate"], facts["channels"]) == (rate, 1)
    assert facts["seconds"] == pytest.approx(LOADER.decode(path).seconds, abs=0.001)
    assert facts["seconds"] == pytest.approx(2.0, abs=0.1)
    assert facts["reach"] == pytest.approx(1000, abs=40)
    assert facts["lost_in_mono"] == 0


def test_only_the_first_seconds_are_listened_to(tmp_path: Path) -> None:
    samples = np.concatenate([tone(500, 8000, 6.0), tone(3000, 8000, 6.0)])
    facts = LOADER.measure(saved(tmp_path / "a.wav", samples, 8000))
    assert facts["seconds"] == 12.0
    assert facts["reach"] == pytest.approx(500, abs=20)


def test_a_constant_is_no_sound_and_a_single_sample_is_heard(tmp_path: Path) -> None:
    assert LOADER.measure(saved(tmp_path / "silent.wav", np.zeros(4000), 8000)) == {
        "rate": 8000,
        "channels": 1,
        "seconds": 0.5,
    }
    assert "reach" not in LOADER.measure(saved(tmp_path / "constant.wav", np.full(8192, 0.5), 8000))
    assert LOADER.measure(saved(tmp_path / "one.wav", np.full(1, 0.5), 8000))["lost_in_mono"] == 0


@pytest.mark.parametrize(
    ("right", "lost"), [(1.0, 0.0), (0.0, 0.5), (-1.0, 1.0)], ids=["the same", "one silent", "cancelling"]
)
def test_what_the_mix_to_mono_loses(tmp_path: Path, right: float, lost: float) -> None:
    left = tone(400, 8000)
    facts = LOADER.measure(saved(tmp_path / "a.wav", np.stack([left, right * left], axis=1), 8000))
    assert facts["channels"] == 2
    assert facts["lost_in_mono"] == pytest.approx(lost, abs=0.01)


def test_an_mp3_without_a_stated_length_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.mp3", tone(400, 16000, 3.0), 16000)
    monkeypatch.setattr("tl_audio.containers.promises_frames", lambda path: False)
    assert LOADER.measure(path)["seconds"] == pytest.approx(LOADER.decode(path).seconds, abs=0.001)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_text("no sound")
    with pytest.raises(DecodeError, match="not an audio file"):
        LOADER.measure(path)
    with pytest.raises(DecodeError, match="unreadable"):
        LOADER.measure(tmp_path / "missing.wav")


# what is said


def test_ordinary_clips_give_no_warning() -> None:
    spec = net(rate=16000, seconds=10.0, sounds="general", filled=True)
    assert said(spec, [PLAIN, {**PLAIN, "rate": 44100, "channels": 2, "lost_in_mono": 0.1, "seconds": 12.0}]) == []
    assert said(net(), [{**PLAIN, "rate": 8000, "seconds": 900.0}]) == []


def test_a_low_rate() -> None:
    facts: list[Facts] = [{**PLAIN, "rate": 8000}] * 8 + [PLAIN] * 2
    text = (
        "80% of the clips have at most 8,000 samples a second, the pretraining had 16,000: the upper 50% of the band "
        "is empty"
    )
    remedy = "use recordings at a higher rate where there are any; otherwise trust this ranking, no published one"
    assert said(net(rate=16000), facts) == [(text, remedy)]
    assert said(net(rate=8000), facts) == []
    assert said(net(rate=16000), [{**PLAIN, "rate": 12000}] * 10) == []
    assert said(net(rate=16000), [{**PLAIN, "rate": 8000}] + [PLAIN] * 19) == []


def test_sound_above_what_is_heard_matters_for_general_sounds_alone() -> None:
    facts: list[Facts] = [{**PLAIN, "rate": 44100, "reach": 12000.0}] * 3 + [{**PLAIN, "rate": 44100}] * 7
    text = "in 30% of the clips over 1% of the energy lies above 8,000 Hz, which isn't heard at 16,000 Hz"
    general = net(rate=16000, sounds="general")
    remedy = "where that tells the classes apart, choose wide (48,000 Hz)"
    assert said(general, facts, general, net("wide", rate=48000, sounds="general")) == [(text, remedy)]
    remedy = "where that tells the classes apart, play the clips slower"
    assert said(general, facts, net("speech", rate=48000, sounds="speech")) == [(text, remedy)]
    assert said(net(rate=16000, sounds="speech"), facts) == []
    assert said(net(rate=16000), facts) == []


def test_channels_that_cancel_out() -> None:
    facts: list[Facts] = [{**PLAIN, "channels": 2, "lost_in_mono": 0.5}] * 2 + [PLAIN] * 8
    assert said(net(), facts) == [
        (
            "20% of the clips lose over 25% of their energy where channels are mixed down to mono",
            "save the channel that counts as a file of its own",
        )
    ]


def test_long_clips() -> None:
    facts: list[Facts] = [{**PLAIN, "seconds": 95.0}] * 2 + [PLAIN] * 8
    assert said(net(seconds=10.0), facts) == [
        (
            "20% of the clips last some 95 s: each costs 10 windows of 10 s, whose mean may bury what decides the "
            "label",
            "cut them to the part that the label is about",
        )
    ]
    assert said(net(seconds=None), facts) == []
    assert said(net(seconds=10.0), [{**PLAIN, "seconds": 29.0}] * 10) == []
    assert said(net(seconds=0.96), [{**PLAIN, "seconds": 29.0}] * 10) == []


def test_short_clips_where_the_window_is_filled() -> None:
    facts: list[Facts] = [{**PLAIN, "seconds": 0.5}] * 10
    [(text, _)] = said(net(seconds=30.0, filled=True), facts)
    assert text == (
        "nearly all clips are shorter than 7.5 s, and filled up with silence to 30 s: that costs as much as full "
        "windows"
    )
    assert said(net(seconds=30.0), facts) == []
    assert said(net(seconds=30.0, filled=True), facts[:8] + [{**PLAIN, "seconds": 9.0}] * 2) == []


def test_silence_and_facts_that_are_not_known_say_nothing() -> None:
    silent: Facts = {"rate": 16000, "channels": 2, "seconds": 1.0}
    assert said(net(rate=16000, seconds=10.0, sounds="general"), [silent] * 10) == []


def test_the_loader_asks_its_catalogue(tmp_path: Path) -> None:
    facts = [LOADER.measure(saved(tmp_path / "a.wav", tone(1000, 8000), 8000))]
    [warning] = LOADER.misfits(net(rate=16000), facts)
    assert warning.about == "sample rate"
