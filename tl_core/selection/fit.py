"""What doesn't suit what between the data and the backbones, told before anything is computed."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tl_core.config import RunConfig
from tl_core.digests import QUERY_ROWS, Cache, file_digest
from tl_core.licences import licence_kind
from tl_core.manifest import Manifest
from tl_core.types import BackboneSpec, Facts, FitWarning, Loader, Sample

LOOKED_AT = 200  # samples: a share of a tenth is then known to within 4 points; sounds take a second or two
FEW_ROWS = 5  # of a class: with fewer, one row more or less right moves its own accuracy by over 20 points
LEAST_SAMPLED = 2  # rows of a class in the ranking's sample: one to learn from, one to check
DOMINANT = 0.8  # share of the largest class: accuracy then tells models apart in its last fifth only
NAMED = 3  # classes or backbones that a line names; the others are counted


@dataclass(frozen=True)
class Warnings:
    """Those that hold whichever backbone is taken, and those of each backbone by its name, where it has any."""

    data: list[FitWarning]
    backbones: dict[str, list[FitWarning]]


def warnings_for(
    specs: Iterable[BackboneSpec], manifest: Manifest, loader: Loader, config: RunConfig, cache: Path | None
) -> Warnings:
    """What the user should know of these backbones on these data; builds, downloads and computes nothing.

    cache: where the look at the samples is remembered, None for nowhere.
    """
    facts = look(manifest, loader, cache)
    found = {}
    for spec in specs:
        mine = [*_misfits(spec, loader, facts), *_licence(spec)]
        if mine:
            found[spec.name] = mine
    return Warnings(_classes(manifest, config), found)


def lines(warnings: Warnings) -> list[str]:
    """A line per distinct warning with its remedy: those of the data, then those of backbones, with their names."""
    names: dict[FitWarning, list[str]] = {}
    for name, of_backbone in warnings.backbones.items():
        for warning in of_backbone:
            names.setdefault(warning, []).append(name)
    return [f"data: {_said(warning)}" for warning in warnings.data] + [
        f"{_listed(mine)}: {_said(warning)}" for warning, mine in names.items()
    ]


def look(manifest: Manifest, loader: Loader, cache: Path | None) -> list[Facts]:
    """What the loader measures on some training samples, by digest; which ones is decided by the digests alone.

    Samples that can't be measured, or whose file has changed since it was scanned, are left out. What was measured is
    remembered in `cache/looks.sqlite`.
    """
    rows = manifest.rows("train")
    first = {digest: row for row, digest in zip(rows[::-1].tolist(), reversed(manifest.digests(rows)))}
    chosen = heapq.nsmallest(LOOKED_AT, first)  # digests are as good as random
    with closing(_Looks(loader, cache)) as remembered:
        known = remembered.of(chosen)
        missing = [first[digest] for digest in chosen if digest not in known]
        fresh = dict(_measured(manifest.samples(np.array(missing, np.int64)), loader))
        remembered.keep(fresh)
    known |= fresh
    return [known[digest] for digest in chosen if digest in known]


def _measured(samples: Iterable[Sample], loader: Loader) -> Iterator[tuple[str, Facts]]:
    for sample in samples:
        try:
            facts = loader.measure(sample.source)
            json.dumps(facts, allow_nan=False)
            if facts and (not isinstance(sample.source, Path) or file_digest(sample.source) == sample.digest):
                yield sample.digest, facts
        except Exception:  # advice is no reason to stop: what is unusable was reported when the data were scanned
            continue


class _Looks:
    """What a loader measured, remembered by modality, the versions of its decode() and measure(), and digest."""

    def __init__(self, loader: Loader, cache: Path | None) -> None:
        self._key = (loader.modality, f"{loader.version}.{loader.measure_version}")
        self._cache = Cache(
            cache / "looks.sqlite" if cache else None,
            "modality TEXT, version TEXT, digest TEXT, facts TEXT, PRIMARY KEY (modality, version, digest)",
        )

    def of(self, digests: Sequence[str]) -> dict[str, Facts]:
        """What is known of these samples, at most QUERY_ROWS of them."""
        assert len(digests) <= QUERY_ROWS
        marks = ",".join("?" * len(digests))
        query = f"SELECT digest, facts FROM entries WHERE modality = ? AND version = ? AND digest IN ({marks})"
        rows = self._cache.select(query, (*self._key, *digests))
        return {str(digest): json.loads(str(facts)) for digest, facts in rows}

    def keep(self, found: Mapping[str, Facts]) -> None:
        """Remember what was measured."""
        rows = [(*self._key, digest, json.dumps(dict(facts), sort_keys=True)) for digest, facts in found.items()]
        self._cache.insert("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)", rows)

    def close(self) -> None:
        self._cache.close()


def _misfits(spec: BackboneSpec, loader: Loader, facts: Sequence[Facts]) -> list[FitWarning]:
    if not facts:
        return []
    try:
        return loader.misfits(spec, facts)
    except Exception as error:  # advice is no reason to stop
        text = f"how it suits the data can't be told: {type(error).__name__}: {error}".splitlines()[0]
        return [FitWarning("plugin", text, f"report this to the author of the {loader.modality} plugin")]


def _licence(spec: BackboneSpec) -> list[FitWarning]:
    choose = f"choose one that `tl backbones {spec.modality} --licence permissive` lists"
    match licence_kind(spec.licence):
        case "non-commercial":
            said = f"the licence ({spec.licence}) allows no commercial use"
            remedy = f"for any such use {choose}"
        case "copyleft":
            said = f"the licence ({spec.licence}) wants what is made from the weights shared under the same terms"
            remedy = f"where you can't share your model so, {choose}"
        case "unknown":
            said = f"the licence ({spec.licence}) is none that tl knows" if spec.licence else "no licence is stated"
            remedy = f"read the terms where the weights come from, or {choose}"
        case _:
            return []
    return [FitWarning("licence", said, remedy)]


def _classes(manifest: Manifest, config: RunConfig) -> list[FitWarning]:
    """Whether there are enough rows of each class to rank by; nothing for regression."""
    targets, rows = manifest.targets, manifest.rows("train")
    if targets.task == "regression" or not len(rows):
        return []
    counts = manifest.counts()["train"]
    found = []
    few = sorted((count, name) for name, count in counts.items() if count < FEW_ROWS)
    if few:
        kind = "classes" if targets.task == "multiclass" else "labels"
        found.append(
            FitWarning(
                "classes",
                f"{len(few)} of {len(counts)} {kind} have fewer than {FEW_ROWS} training rows "
                f"({_listed([f'{name}: {count}' for count, name in few])}): how well they are told apart can't be "
                "judged",
                f"add samples of them, merge them with others or leave them out; {FEW_ROWS} rows each are the least",
            )
        )
    present = sum(count > 0 for count in counts.values())
    if len(rows) > config.select.sample < LEAST_SAMPLED * present:
        wanted = min(len(rows), LEAST_SAMPLED * present)
        found.append(
            FitWarning(
                "classes",
                f"the ranking's sample of {config.select.sample:,} rows (select.sample) can't hold {LEAST_SAMPLED} of "
                f"each of {present:,} classes",
                f"raise it: --set select.sample={wanted}",
            )
        )
    largest = max(counts, key=lambda name: (counts[name], name))
    share = counts[largest] / len(rows)
    if targets.task == "multiclass" and len(counts) > 1 and share >= DOMINANT:
        found.append(
            FitWarning(
                "classes",
                f"{share:.1%} of the training rows are {largest!r}: always answering that gives an accuracy of "
                f"{share:.3f}",
                "judge by macro_f1, which the report shows too, and against that floor; or add samples of the others",
            )
        )
    return found


def _said(warning: FitWarning) -> str:
    return f"{warning.text}; {warning.remedy}"


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - NAMED
    return ", ".join(names) if rest <= 1 else f"{', '.join(names[:NAMED])} and {rest} more"
