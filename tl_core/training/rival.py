"""What the same network reaches without its pretraining: trained from random weights, as fine-tuning would train it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tl_core.errors import UserError
from tl_core.training.job import Fitted, fit
from tl_core.training.schedule import epochs_of
from tl_core.training.trial_plan import Design, Part, price_of

if TYPE_CHECKING:
    from tl_core.training.job import Job

RATE = 1e-3  # AdamW's usual one for weights that start at random: five times that of pretrained ones


@dataclass(frozen=True)
class Rival:
    """A network that was trained from random weights, or the reason why there is none.

    epochs, gflops: how long it was trained, and the work that was planned for it.
    """

    fitted: Fitted | None
    reason: str | None
    epochs: int
    gflops: float


def from_scratch(job: Job, minutes: float, speed: float) -> Rival:
    """The job's network trained from random weights with the recipe of fine-tuning: all of it, for as many updates.

    Not done where that takes longer than `minutes` at `speed` FLOP/s, by the work that is counted beforehand.
    Batch-norm follows the data, as it has nothing else.
    """
    tune = job.config.tune
    recipe = {
        "strategy": "scratch", "train_from": "all", "update": "all", "l2_sp": 0.0, "wise": 1.0, "layer_decay": 1.0,
        "curve": False, "find_lr": False, "lr": RATE, "head_lr": RATE,
    }  # fmt: skip
    if tune.strategy == "contrastive":
        recipe |= {"mix": "none"}
    try:
        mine = job.tuned(**recipe)
        epochs = epochs_of(mine.config.tune, len(job.train))
        price = price_of(mine, job.spec.build(), mine.config.tune)
        if price is None:
            return Rival(None, "its work can't be counted on this backbone", epochs, 0.0)
        work = price.of(Design((Part(job.train, job.val, job.val),), 1), mine.config.tune, speed)
        if work > minutes * 60 * speed:
            taken = work / speed / 60
            return Rival(
                None, f"it would take about {taken:.1f} min; evaluate.scratch_minutes is {minutes:g}", epochs, 0.0
            )
        return Rival(fit(mine), None, epochs, round(work / 1e9, 1))
    except UserError as error:  # most of all that it diverges
        return Rival(None, str(error), 0, 0.0)
