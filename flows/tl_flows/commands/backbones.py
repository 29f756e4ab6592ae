"""`tl backbones`: the catalogue, narrowed and sorted, and the revisions that are pinned."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from tl_core.errors import UserError, did_you_mean
from tl_core.licences import LicenceKind, licence_kind
from tl_flows.commands.options import DEFAULT_OUT
from tl_flows.commands.tables import print_table

if TYPE_CHECKING:
    from tl_core.registry import Registry
    from tl_core.types import BackboneSpec

_SCALES = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k"), (1, ""))
_KINDS = get_args(LicenceKind)
_MARKS = {"non-commercial": "!", "unknown": "?"}
_LEGEND = {
    "!": "! not for commercial use",
    "?": "? licence not stated, or with terms of its own: read it before you use the weights",
}


@dataclass(frozen=True)
class Entry:
    """A line of the catalogue: the spec at its pinned revision, and whether its weights are on this machine."""

    spec: BackboneSpec
    offline: bool

    @property
    def licence_kind(self) -> LicenceKind:
        return licence_kind(self.spec.licence)

    @property
    def facts(self) -> dict[str, Any]:
        """Everything that is known of it, JSON-able."""
        spec = self.spec
        return {
            "name": spec.name, "modality": spec.modality, "params": spec.params, "flops": spec.flops,
            "feature_dim": spec.feature_dim, "input": spec.input, "takes": dict(spec.takes),
            "pretrained_on": spec.pretrained_on, "licence": spec.licence, "licence_kind": self.licence_kind,
            "presets": list(spec.presets), "source": spec.source, "location": spec.location,
            "revision": spec.revision, "offline": self.offline,
        }  # fmt: skip


def _size(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    """`30M` as 30,000,000."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)\s*([kmgbt]?)", text.strip(), re.IGNORECASE)
    if found is None:
        raise click.BadParameter(
            f"{text!r} is no size; give a number, with k, M, G or T where it is large, such as 30M"
        )
    unit = found[2].lower().replace("b", "g")  # a billion
    return float(found[1]) * next(scale for scale, name in _SCALES if name.lower() == unit)


def _kinds(_: click.Context, __: click.Parameter, texts: Sequence[str]) -> tuple[str, ...]:
    """`permissive,copyleft` as a tuple, `any` as all kinds."""
    kinds = [kind.strip() for text in texts for kind in text.split(",")]
    wrong = [kind for kind in kinds if kind not in (*_KINDS, "any")]
    if wrong:
        raise click.BadParameter(
            f"no kind of licence is {', '.join(map(repr, wrong))}; there are {', '.join((*_KINDS, 'any'))}"
        )
    return _KINDS if "any" in kinds else tuple(kinds)


@click.command()
@click.argument("what", required=False, metavar="[MODALITY|NAME]")
@click.option("--search", metavar="TEXT", help="Only those whose name, data or source hold each of these words.")
@click.option("--max-params", callback=_size, metavar="N", help="At most so many parameters: 30M, 500k, 1.5G.")
@click.option("--max-flops", callback=_size, metavar="N", help="At most so many FLOPs for one sample: 5G.")
@click.option(
    "--licence",
    "licences",
    callback=_kinds,
    multiple=True,
    metavar="KINDS",
    help=f"Only {', '.join(_KINDS)}, or any; several with commas.",
)
@click.option(
    "--preset", type=click.Choice(["fast", "balanced", "best"]), help="Only those that compete in this preset."
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Only those in a preset for this device.")
@click.option("--offline", is_flag=True, help="Only those whose weights are on this machine.")
@click.option(
    "--sort",
    type=click.Choice(["name", "params", "throughput", "features", "licence"]),
    help="Smallest first; throughput: fewest FLOPs first.",
)
@click.option("--json", "as_json", is_flag=True, help="All facts as JSON.")
@click.option("--unpin", metavar="NAME", multiple=True, help="Forget pinned revision and weights, instead of listing.")
def backbones(
    what: str | None, licences: Sequence[str], sort: str | None, as_json: bool, unpin: Sequence[str],
    **given: Any,
) -> None:  # fmt: skip
    """List the catalogue of backbones, of one modality or of all, or tell all about one.

    Any other name of timm or of the hub and any folder with weights works as a backbone, too. FLOPs are 2 x
    multiply-adds of one sample: an image at its input size, a text of 128 tokens, 10 s of sound. What is not known of
    a backbone is left empty, and keeps it out where a limit is set. Those that are offline need no network: their
    weights came with a package or were downloaded before.

    What a run has used is pinned in backbones.lock, beside params.yaml or among the outputs of a run: the revision that
    was downloaded, which is used from then on, and the sha256 of the weights. Other weights are refused from then on,
    until --unpin.
    """
    from tl_core.registry import load_registry
    from tl_flows.project import find_project

    registry = load_registry()
    root = find_project(Path.cwd()) or Path(DEFAULT_OUT)
    if unpin:
        _unpin(unpin, registry, root)
        return
    listed = _chosen(_entries(registry, what, root), licences=licences, **given)
    if sort is not None:
        listed.sort(key=lambda entry: _ORDERS[sort](entry))
    if as_json:
        click.echo(json.dumps({"backbones": [entry.facts for entry in listed]}, indent=2, ensure_ascii=False))
    elif not listed:
        click.echo("none; `tl backbones` lists those that can be downloaded, and a folder with weights works too")
    elif what == listed[0].spec.name:
        _tell(listed[0])
    else:
        _print(listed)


def _entries(registry: Registry, what: str | None, root: Path) -> list[Entry]:
    """The catalogue, or the part of it that a modality or a name stands for."""
    from tl_core.pins import at_commit, read_pins
    from tl_core.weights import weights_here

    catalogue = registry.backbones()
    modalities = registry.modalities
    if what is not None and what not in modalities:
        names = [spec.name for spec in catalogue]
        if what not in names:
            hint = did_you_mean(what, modalities) or did_you_mean(what, names)
            raise UserError(
                f"no modality or backbone '{what}'{hint or ';'} there are {', '.join(modalities) or 'no modalities'}, "
                "and `tl backbones` lists the catalogue by name; --backbone takes any other name of timm or the hub, "
                "and folders, too"
            )
    pins = read_pins(root)
    specs = [at_commit(spec, pins.get(spec.location)) for spec in catalogue if what in (None, spec.modality, spec.name)]
    return [Entry(spec, weights_here(spec)) for spec in specs]


def _chosen(
    entries: Iterable[Entry],
    *,
    search: str | None,
    max_params: float | None,
    max_flops: float | None,
    licences: Sequence[str],
    preset: str | None,
    device: str | None,
    offline: bool,
) -> list[Entry]:
    """Those that meet every condition; what is not known meets none."""

    def meets(entry: Entry) -> bool:
        spec = entry.spec
        text = " ".join((spec.name, spec.location, spec.pretrained_on or "", spec.input or "")).casefold()
        presets = [place.split("/") for place in spec.presets]
        return (
            all(word in text for word in (search or "").casefold().split())
            and _at_most(spec.params, max_params)
            and _at_most(spec.flops, max_flops)
            and (not licences or entry.licence_kind in licences)
            and (entry.offline or not offline)
            and ((preset, device) == (None, None) or any(
                preset in (None, name) and device in (None, kind) for kind, name in presets
            ))
        )  # fmt: skip

    return [entry for entry in entries if meets(entry)]


def _at_most(value: int | None, limit: float | None) -> bool:
    return limit is None or (value is not None and value <= limit)


def _last(value: int | None) -> tuple[bool, int]:
    """A key that puts what is not known last."""
    return value is None, value or 0


_ORDERS: Mapping[str, Callable[[Entry], Any]] = {
    "name": lambda entry: entry.spec.name.casefold(),
    "params": lambda entry: _last(entry.spec.params),
    "throughput": lambda entry: _last(entry.spec.flops),
    "features": lambda entry: _last(entry.spec.feature_dim),
    "licence": lambda entry: (_KINDS.index(entry.licence_kind), (entry.spec.licence or "").casefold()),
}


def _print(entries: Sequence[Entry]) -> None:
    """A table for each modality: a line of numbers for each backbone, and one of words below it."""
    used = set()
    for modality in dict.fromkeys(entry.spec.modality for entry in entries):
        rows = [entry for entry in entries if entry.spec.modality == modality]
        click.echo(f"{modality}: {len(rows)}")
        print_table(
            ("backbone", "params", "FLOPs", "features", "licence", "offline"),
            [
                (
                    entry.spec.name,
                    _short(entry.spec.params),
                    _short(entry.spec.flops),
                    "" if entry.spec.feature_dim is None else str(entry.spec.feature_dim),
                    _licence(entry),
                    "yes" if entry.offline else "",
                )
                for entry in rows
            ],
            right=("params", "FLOPs", "features"),
            below=[_words(entry.spec) for entry in rows],
        )
        click.echo()
        used |= {_MARKS[entry.licence_kind] for entry in rows if entry.licence_kind in _MARKS}
    for mark in sorted(used):
        click.echo(_LEGEND[mark])


def _words(spec: BackboneSpec) -> str:
    parts = [
        spec.input,
        spec.pretrained_on,
        f"presets {', '.join(spec.presets)}" if spec.presets else None,
        f"revision {spec.revision[:12]}" if spec.revision else None,
    ]
    return "; ".join(part for part in parts if part)


def _licence(entry: Entry) -> str:
    return f"{entry.spec.licence or 'not stated'} {_MARKS.get(entry.licence_kind, '')}".rstrip()


def _short(value: int | None) -> str:
    """1,517,856 as `1.5M`."""
    if value is None:
        return ""
    scale, unit = next(pair for pair in _SCALES if value >= pair[0] or pair[0] == 1)
    return f"{float(f'{value / scale:.3g}'):g}{unit}"


def _tell(entry: Entry) -> None:
    """All facts about one backbone, a line each."""
    for key, value in entry.facts.items():
        click.echo(f"{key.replace('_', ' '):<15}{_shown(value)}")


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(one)}" for key, one in value.items()) or "-"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None else str(value)


def _unpin(names: Sequence[str], registry: Registry, root: Path) -> None:
    from tl_core.pins import LOCK, Pins, unpin

    catalogue = registry.backbones()
    places = {spec.name: spec.location for spec in catalogue if spec.source == "hub"}
    # a hub's repository, and what else a run may have asked for it as
    alike = {name: {name, place := places.get(name, name)} | {n for n, p in places.items() if p == place}
             for name in names}  # fmt: skip
    pins = Pins.at(root)
    there = {*pins.revisions, *pins.weights}
    missing = [name for name, known in alike.items() if not known & there]
    if missing:
        raise UserError(
            f"nothing of {', '.join(missing)} is pinned in {root / LOCK}; pinned are: "
            f"{', '.join(sorted(there)) or 'none'}"
        )
    out = unpin(set().union(*alike.values()), root)
    for place, commit in sorted(out.revisions.items()):
        click.echo(f"{place}: the next `tl select` takes the revision that the hub has then (it was {commit[:12]})")
    for name, digest in sorted(out.weights.items()):
        click.echo(f"{name}: the next `tl select` pins the weights that it finds (they were sha256 {digest[:12]})")
