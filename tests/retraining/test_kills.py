"""SIGKILL to the retrain, to Prefect's server and to a step at random instants: the next one ends as if undisturbed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks.retraining.kills import ALL, Left, copy, disturbed, finish, left, made


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Left, float]:
    """A project that was never run, what its first retrain leaves, and the seconds that it takes."""
    folder = tmp_path_factory.mktemp("kills")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder / "home"))
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        project = made(folder / "first" / "shop", rows=120)
        calm = copy(project, folder / "calm")
        seconds = finish(calm)
    return project, left(calm), seconds


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("kind", "seed"), [("worker", 0), ("server", 1), ("step", 2), ("machine", 3)])
def test_a_kill_at_a_random_instant_changes_nothing(
    undisturbed: tuple[Path, Left, float], kind: str, seed: int
) -> None:
    project, calm, seconds = undisturbed
    draw = random.Random(seed)
    for half in range(3):  # on a machine whose speed changes there may be nothing left to kill: then earlier
        share = draw.uniform(0.2, 0.7) / 2**half
        folder = project.parents[1] / f"{kind}-{half}"
        done = disturbed(copy(project, folder), calm, seconds, kind, share, draw)
        assert done.faults == ()
        if done.kind == kind:
            break
    assert done.kind == kind
    assert done.runs == (2 if kind in ALL else 1)
