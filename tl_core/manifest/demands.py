"""What data must bring for a run to make sense."""

from __future__ import annotations

from collections.abc import Container, Sequence

import numpy as np

from tl_core.errors import UserError
from tl_core.manifest.table import Manifest, list_bad
from tl_core.types import SPLITS

LISTED_CLASSES = 10
TRAINING_ROWS = 4  # what a cross-validated probe needs


def require_trainable(manifest: Manifest, given: Container[int], carving: str | None) -> None:
    """Raises UserError with every fault that no run could cope with.

    given: positions in SPLITS of the splits that the data bring; carving: why no further one could be made.
    """
    bad = manifest.quarantined()
    if not len(manifest.rows()):
        raise UserError(f"no usable sample among {len(manifest)}; repair them or choose other data:\n{list_bad(bad)}")
    faults = _class_faults(manifest)
    faults += [carving] if carving else _split_faults(manifest, given, blamed=bool(faults))
    faults = faults or _training_faults(manifest)
    if faults and bad:
        faults.append(f"{len(bad)} of {len(manifest)} samples are unusable:\n{list_bad(bad)}")
    if faults:
        raise UserError("\n".join(faults))


def _class_faults(manifest: Manifest) -> list[str]:
    if manifest.targets.task == "regression":
        values = np.unique(manifest.target_array(manifest.rows()))
        if len(values) < 2:
            return [f"all labels are {values[0]:g}; regression needs labels that differ"]
        return []
    counts = manifest.counts()
    totals = {name: sum(counts[split][name] for split in SPLITS) for name in manifest.targets.classes}
    present = [name for name, total in totals.items() if total]
    if manifest.targets.task == "multilabel":
        # rare tags are no fault: they come with every large set, and the other tags can be learned without them
        return [] if present else ["no sample has a label; multi-label data need at least one class"]
    if len(present) < 2:
        found = f"the only class with usable samples is '{present[0]}'" if present else "no class has usable samples"
        return [f"{found}; at least two classes are needed"]
    faults = {
        "no usable sample": [name for name, total in totals.items() if total == 0],
        "a single usable sample": [name for name, total in totals.items() if total == 1],
        "no usable sample in train": [n for n, total in totals.items() if total > 1 and not counts["train"][n]],
    }
    return [
        f"classes with {what}: {_names(names)}; add samples of them, or leave these classes out"
        for what, names in faults.items()
        if names
    ]


def _split_faults(manifest: Manifest, given: Container[int], blamed: bool) -> list[str]:
    """Splits without a usable sample; `blamed`: the classes explain why none could be carved."""
    faults = []
    for position, split in enumerate(SPLITS):
        if len(manifest.rows(split)):
            continue
        if position in given:
            faults.append(f"no usable sample in the {split} split of the data; repair it or leave the split out")
        elif split == "train":
            faults.append("the data bring no train split; add one, or leave the splits out")
        elif not blamed:
            faults.append(f"too few distinct samples to take a {split} split out of train: some class needs at least 3")
    return faults


def _training_faults(manifest: Manifest) -> list[str]:
    """What is wrong with the training rows alone."""
    rows = manifest.rows("train")
    if len(rows) < TRAINING_ROWS:
        return [f"{len(rows)} usable samples are left for training, at least {TRAINING_ROWS} are needed; add samples"]
    targets = manifest.target_array(rows)
    if not np.any(targets != targets[:1]):
        return ["all training samples have the same label; add training samples with another one"]
    return []


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED_CLASSES} more" if len(names) > LISTED_CLASSES else ""
    return ", ".join(f"'{name}'" for name in names[:LISTED_CLASSES]) + more
