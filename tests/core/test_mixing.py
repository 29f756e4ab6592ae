"""mixup and cutmix: what comes out, what of whom, and where neither fits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pytest
import torch
from chains import Chain, Rows, Steps, built, maps, tokens
from torch import Tensor, nn

from tl_core.config import TuneConfig
from tl_core.errors import UserError
from tl_core.training.mixing import Mixer, mixer_of
from tl_core.types import State


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def tune(mix: str, **values: Any) -> TuneConfig:
    return TuneConfig.model_validate({"mix": mix, **values})


def levels(count: int, *shape: int) -> Tensor:
    """Row i holds i everywhere."""
    return torch.arange(count, dtype=torch.float32).reshape(-1, *(1,) * len(shape)).expand(count, *shape).contiguous()


def test_mixup_blends_by_the_share() -> None:
    x = levels(8, 3, 4, 4)
    state, mixed = Mixer("mixup", 0.5).mix({"x": x}, rng())
    assert sorted(mixed.order.tolist()) == list(range(8))
    assert 0 < mixed.share < 1
    torch.testing.assert_close(state["x"], mixed.share * x + (1 - mixed.share) * x[mixed.order])
    assert torch.equal(x, levels(8, 3, 4, 4))


def test_pixels_stay_pixels() -> None:
    x = (levels(8, 3, 4, 4) * 30).to(torch.uint8)
    state, mixed = Mixer("mixup", 1.0).mix({"x": x}, rng(3))
    assert state["x"].dtype == torch.uint8
    expected = mixed.share * x.float() + (1 - mixed.share) * x[mixed.order].float()
    assert (state["x"].float() - expected).abs().max() <= 0.5


@pytest.mark.parametrize("places", [(2, 3), (1, 2)])
def test_cutmix_shares_by_area(places: tuple[int, int]) -> None:
    seen = set()
    for seed in range(20):
        x = levels(6, 5, 8, 9) if places == (2, 3) else levels(6, 8, 9, 5)
        state, mixed = Mixer("cutmix", 1.0, places).mix({"x": x}, rng(seed))
        for i, row in enumerate(state["x"]):
            own = float((row == i).float().mean()) if mixed.order[i] != i else mixed.share
            assert own == pytest.approx(mixed.share)
            assert set(row.unique().tolist()) <= {float(i), float(mixed.order[i])}
            channels = row.movedim(-1, 0) if places == (1, 2) else row
            assert (channels == channels[0]).all()  # the same rectangle in all channels
        seen.add(round(mixed.share, 6))
    assert len(seen) > 10


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_a_batch_follows_its_generator(kind: Literal["mixup", "cutmix"]) -> None:
    mixer = Mixer(kind, 0.4)
    (a, one), (b, two), (c, _) = (mixer.mix({"x": levels(8, 3, 4, 4)}, rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(a["x"], b["x"])
    assert (one.share, one.order.tolist()) == (two.share, two.order.tolist())
    assert not torch.equal(a["x"], c["x"])


def test_windows_are_mixed_with_those_of_the_partner_sample() -> None:
    owner = torch.tensor([0, 0, 0, 1, 2, 2])  # three, one and two windows
    x = levels(6, 1, 2, 2)
    for seed in range(6):
        state, mixed = Mixer("mixup", 1.0).mix({"x": x}, rng(seed), owner)
        assert len(mixed.order) == 3
        windows = {0: [0, 1, 2], 1: [3], 2: [4, 5]}
        for sample, own in windows.items():
            theirs = windows[int(mixed.order[sample])]
            for number, window in enumerate(own):
                expected = mixed.share * window + (1 - mixed.share) * theirs[number % len(theirs)]
                assert float(state["x"][window].mean()) == pytest.approx(expected, abs=1e-5)


def test_the_share_follows_alpha() -> None:
    shares = {
        alpha: [Mixer("mixup", alpha).mix({"x": levels(2, 1, 1, 1)}, rng(i))[1].share for i in range(300)]
        for alpha in (0.1, 10.0)
    }
    assert np.std(shares[0.1]) > 0.4
    assert np.std(shares[10.0]) < 0.15


class Texts(Rows):
    def example(self) -> State:
        return {"x": torch.arange(5)}


class Clips(Rows):
    ragged = True

    def bucket(self, window: State) -> int:
        return len(window["x"])


class Padded(Rows):
    def example(self) -> State:
        return {"x": torch.zeros(5, 8), "frames": torch.tensor(3)}


class Silent(Chain):
    """A plugin's backbone without an example."""

    def example(self) -> None:
        return None


def like(kind: type[Chain], source: Chain) -> Chain:
    return built(kind(list(source.segments.items()), source.feature_dim, source.identity))


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Texts, "windows of int64 are neither pixels nor a signal"),
        (Clips, "the windows of this backbone differ in length"),
        (Padded, "the windows of this backbone hold more than a signal (frames)"),
    ],
)
def test_what_can_not_be_mixed_is_refused(mix: str, kind: type[Chain], why: str) -> None:
    with pytest.raises(UserError) as caught:
        mixer_of(tune(mix), like(kind, tokens()), 0)
    assert str(caught.value) == f"config key 'tune.mix' can't be '{mix}': {why}; set it to none"


@pytest.mark.parametrize(("start", "where"), [(0, "of this backbone"), (1, "before high"), (2, "before end")])
def test_cutmix_needs_maps(start: int, where: str) -> None:
    assert mixer_of(tune("mixup"), tokens(), start) is not None
    with pytest.raises(UserError) as caught:
        mixer_of(tune("cutmix"), tokens(), start)
    assert str(caught.value) == (
        f"config key 'tune.mix' can't be 'cutmix': the states {where} are no 2-D maps; set it to mixup or none"
    )


class Last(Chain):
    """Channels stand last between its segments."""

    def pooled(self, state: State) -> Tensor:
        return state["x"].mean(dim=(1, 2))


class Turn(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


@pytest.mark.parametrize("last", [False, True])
def test_cutmix_at_a_cut_finds_the_places_of_the_map(last: bool) -> None:
    segments: Sequence[tuple[str, nn.Module]] = [
        ("stem", Steps(nn.Conv2d(3, 7, 1), *([Turn()] if last else []))),
        ("flat", Steps(nn.Flatten())),
    ]
    backbone = built((Last if last else Chain)(segments, 448, maps().identity))
    mixer = mixer_of(tune("cutmix"), backbone, 1)
    assert mixer is not None
    x = levels(4, 8, 8, 7) if last else levels(4, 7, 8, 8)
    seen = 0
    for seed in range(10):
        rows, mixed = mixer.mix({"x": x}, rng(seed))
        channels = rows["x"] if last else rows["x"].movedim(1, 3)
        assert (channels == channels[..., :1]).all()
        seen += mixed.share < 1 and bool((rows["x"] != x).any())
    assert seen > 3


def test_without_an_example_the_batch_itself_is_judged() -> None:
    backbone = like(Silent, maps())
    mixer = mixer_of(tune("cutmix"), backbone, 0)
    assert mixer is not None
    with pytest.raises(UserError, match="states of 3 dimensions are no 2-D maps; set it to mixup or none"):
        mixer.mix({"x": torch.zeros(4, 5, 8)}, rng())
    with pytest.raises(UserError, match="windows of int64 are neither pixels nor a signal"):
        mixer.mix({"x": torch.zeros(4, 5, 8, 8, dtype=torch.int64)}, rng())


class Widths(Silent):
    """Nor does it say that its windows are alike."""

    def bucket(self, window: State) -> int:
        return len(window["x"])


def test_without_an_example_windows_in_buckets_are_refused() -> None:
    with pytest.raises(UserError, match="the windows of this backbone differ in length"):
        mixer_of(tune("mixup"), like(Widths, maps()), 0)


def test_no_mixer_where_none_is_asked_for() -> None:
    assert mixer_of(tune("none"), like(Texts, tokens()), 0) is None
