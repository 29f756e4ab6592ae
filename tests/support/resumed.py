"""Fits that are killed at random steps and go on, in processes of their own: `resumed.py FOLDER CASES`.

CASES: JSON, settings by name. Prints JSON by name: the digest of an undisturbed fit, that of the one that was killed,
and which signals ended it on the way.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import peft  # noqa: F401  # what each process would import for itself
import torch
import torch._dynamo
from jobs import job_of, start_of, write_maps

from tl_core.training import Fitted, Job, fit, state
from tl_core.training.loop import Training
from tl_core.training.search import search

KILLS = 6  # after so many it is let through


def digest(fitted: Fitted) -> str:
    """Of everything that a fit leaves: weights, facts and predictions."""
    found = hashlib.sha256(json.dumps(fitted.facts, sort_keys=True).encode())
    assert fitted.backbone is not None
    for module in (fitted.backbone, fitted.head):
        for name, tensor in sorted(module.state_dict().items()):
            found.update(name.encode() + tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    found.update(fitted.said.tobytes() + fitted.said_seen.tobytes())
    return found.hexdigest()


def searched(job: Job) -> Fitted:
    """A fit, after the search for its settings where there is one; its facts hold what both have found."""
    if not job.config.tune.search.trials:
        return fit(job)
    found = search(job)
    fitted = fit(job.tuned(**found.settings))
    fitted.facts["search"] = found.facts
    return fitted


def kill(at: int, number: int, saving: bool) -> None:
    """Have this process killed after that many steps; saving: while it writes its state, which is not in place yet."""
    step, sync = Training.step, os.fsync
    done = 0

    def counted(training: Training, *arguments: Any) -> float:
        nonlocal done
        loss = step(training, *arguments)
        done += 1
        if done == at and not saving:
            os.kill(os.getpid(), number)
        return loss

    def cut_short(handle: int) -> None:
        if done >= at:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(handle)

    Training.step = counted  # type: ignore[method-assign]
    if saving:
        state.os.fsync = cut_short  # type: ignore[attr-defined]


def run(job: Job, result: Path, at: int | None = None, number: int = signal.SIGKILL, saving: bool = False) -> int:
    """A fit in a process of its own; the signal that ended it, 0 for none.

    It writes its digest, and how many trials of a search were pruned, to a file.
    """
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # so that the status tells of it, as of the others
        if at is not None:
            kill(at, number, saving)
        try:
            fitted = searched(job)
            facts = fitted.facts.get("search") or {}
            result.write_text(json.dumps({"digest": digest(fitted), "pruned": facts.get("pruned")}))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        assert os.WEXITSTATUS(status) == 0
        return 0
    return os.WTERMSIG(status)


def main(root: Path, cases: dict[str, dict[str, Any]]) -> None:
    torch.set_num_threads(1)
    plain, hard = write_maps(root / "data"), write_maps(root / "hard", apart=0.15)
    told = {}
    for seed, (name, settings) in enumerate(cases.items()):
        folder = root / name
        manifest = hard if "search" in settings else plain  # where every trial is right, none can be hopeless
        goes_on = settings.pop("goes_on", False)
        job = job_of(manifest, folder, batch_size=4, patience=9, **settings)
        if goes_on:
            first = job.replace(state=folder / "first")
            job = job.replace(start=start_of(fit(first), first))
        run(job.replace(state=folder / "undisturbed"), folder / "whole")
        rng, killed = random.Random(seed), []
        while not killed or killed[-1]:
            number = rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
            saving = number == signal.SIGKILL and rng.random() < 0.3
            at = rng.randint(2, 12) if len(killed) < KILLS else None
            killed.append(run(job, folder / "result", at, number, saving))
        whole, result = ((folder / part).read_text() for part in ("whole", "result"))
        told[name] = {"whole": whole, "result": result, "by": killed[:-1]}
    print(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
