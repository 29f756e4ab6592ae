"""Write the sound sample set: animal calls as 29 recordists would catch them, in eight classes.

    python samples/make_audio.py [--seed 0] [--out data/audio]

Needs numpy and soundfile; one seed always gives the same bytes. samples/README.md tells how the set is built.
"""

from __future__ import annotations

import argparse
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from calls import KINDS, RATE, Rng, Sound, call
from places import NOISES, echoed, filtered, level
from table import Row, require_free, with_bad_rows, write

SECONDS = 1.0
LEVEL = 0.8  # libsndfile for 40 kbit/s; MP3 because it comes out as the same bytes each time (Ogg has a random number)
TRAIN_RECORDISTS = 20
EACH = 3  # clips of every kind by every recordist
RECORDISTS = (
    "ada", "boris", "carla", "dmitri", "edda", "fabio", "greta", "hugo", "irma", "jasper", "kaja", "leon", "maud",
    "noor", "oskar", "petra", "rafael", "selma", "timo", "una", "viktor", "wilma", "yara", "zoltan", "alma", "bruno",
    "clio", "david", "elin",
)  # fmt: skip


@dataclass(frozen=True)
class Recordist:
    """Somebody with a microphone, places where they stand, and habits: how close they go, how loud they record."""

    name: str
    split: str
    noises: tuple[str, ...]
    quiet: float  # dB between the call and the noise, on average
    echo: float  # seconds until the place's echo has died away
    wet: float  # loudness of the echo
    low_cut: float  # Hz, of the microphone
    high_cut: float
    tilt: float  # dB per octave
    bumps: tuple[tuple[float, float], ...]  # (Hz, dB) of its resonances
    drive: float  # how far it is overdriven
    loud: float  # dB below full scale


def make_recordists(seed: int) -> list[Recordist]:
    """The recordists, in an order of their own in each set."""
    rng = np.random.default_rng([seed, 0])
    people = []
    for index, name in enumerate(rng.permutation(RECORDISTS)):
        people.append(
            Recordist(
                name=str(name),
                split="train" if index < TRAIN_RECORDISTS else "test",
                noises=tuple(str(kind) for kind in rng.choice(list(NOISES), 3, replace=False)),
                quiet=rng.uniform(4.0, 15.0),
                echo=rng.uniform(0.05, 0.6),
                wet=rng.uniform(0.0, 0.8),
                low_cut=rng.uniform(40, 350),
                high_cut=rng.uniform(3200, 7600),
                tilt=rng.uniform(-4.0, 4.0),
                bumps=_bumps(rng, 3),
                drive=rng.uniform(0.2, 2.5),
                loud=rng.uniform(3.0, 24.0),
            )
        )
    return people


def recording(kind: str, who: Recordist, rng: Rng) -> Sound:
    """One clip of a kind by a recordist, float64 [SECONDS * RATE] within -1..1."""
    count = round(SECONDS * RATE)
    animal = call(kind, rng)[: round(0.97 * count)]
    clip = np.zeros(count)
    start = int(rng.integers(0, count - len(animal) + 1))
    clip[start : start + len(animal)] = animal
    clip = echoed(clip, who.echo * rng.uniform(0.7, 1.3), who.wet * rng.uniform(0.5, 1.2), rng)
    noise = NOISES[who.noises[int(rng.integers(len(who.noises)))]](count, rng)
    distance = who.quiet + rng.normal(0, 4)
    loudest = level(np.sort(np.abs(clip))[-count // 4 :])  # of the call itself, not of the pauses
    clip += noise * loudest / level(noise) * 10 ** (-distance / 20)
    tilt, bumps = rng.normal(0, 2.5), _bumps(rng, 3)  # of the air, the ground and the leaves between
    clip = filtered(clip, lambda hertz: _response(hertz, who, tilt, bumps))
    clip /= np.abs(clip).max() + 1e-9
    clip = np.tanh(clip * who.drive) / np.tanh(who.drive)
    return np.asarray(clip * 10 ** (-(who.loud + rng.uniform(0, 6)) / 20))


def _bumps(rng: Rng, count: int) -> tuple[tuple[float, float], ...]:
    """Resonances and gaps of what a sound passes: (Hz, dB)."""
    return tuple((float(np.exp(rng.uniform(np.log(150), np.log(6000)))), float(rng.normal(0, 7))) for _ in range(count))


def _response(hertz: Sound, who: Recordist, tilt: float, bumps: tuple[tuple[float, float], ...]) -> Sound:
    """Gain of the way and the microphone at frequencies in Hz."""
    decibels = (who.tilt + tilt) * np.log2(np.maximum(hertz, 50) / 1000)
    for centre, gain in (*who.bumps, *bumps):
        decibels = decibels + gain * np.exp(-((np.log2(np.maximum(hertz, 50) / centre) / 0.4) ** 2))
    edges = 1 / np.sqrt(1 + (who.low_cut / np.maximum(hertz, 1)) ** 6) / np.sqrt(1 + (hertz / who.high_cut) ** 10)
    return np.asarray(edges * 10 ** (decibels / 20))


def make_rows(seed: int, few: int | None = None) -> list[Row]:
    """All rows in file order: EACH clips of every kind by every recordist, and six bad ones.

    few: so many recordists of each split; None: all.
    """
    everyone = make_recordists(seed)
    people = [*everyone[:TRAIN_RECORDISTS][:few], *everyone[TRAIN_RECORDISTS:][:few]]
    rows = [_row(seed, recordist, kind, index) for recordist in people for kind in KINDS for index in range(EACH)]
    return with_bad_rows(rows, _row(seed, people[0], "owl", EACH), np.random.default_rng([seed, 2]))


def _row(seed: int, recordist: Recordist, kind: str, index: int) -> Row:
    rng = np.random.default_rng([seed, 1, RECORDISTS.index(recordist.name), list(KINDS).index(kind), index])
    file = f"{recordist.split}/{kind}/{recordist.name}_{index}.mp3"
    return Row(file, kind, recordist.split, recordist.name, _mp3(recording(kind, recordist, rng)))


def _mp3(clip: Sound) -> bytes:
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, clip.astype(np.float32), RATE, format="MP3", bitrate_mode="CONSTANT", compression_level=LEVEL)
    return file.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the sample set of synthetic animal calls.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("data/audio"))
    parser.add_argument("--few", type=int, help="only so many recordists of each split, for a quick look")
    arguments = parser.parse_args()
    require_free(arguments.out)
    write(make_rows(arguments.seed, arguments.few), arguments.out, group="recordist")
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
