"""Results as Markdown, a block for each part of docs/performance.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import store_formats
from benchmarks.features.images import LOOP
from benchmarks.features.sounds import PADDED as PADDED_BATCHES
from benchmarks.features.sounds import SINGLE
from benchmarks.features.texts import ENCODE, ENCODE_HALF, PADDED

Found = Mapping[str, Any]

RUNS = {
    "first": "first run, nothing kept",
    "first_converted": "first run, converted model kept",
    "other_setting": "another head setting",
    "more_texts": "1% more texts",
}


def images(cases: Mapping[str, Found]) -> list[str]:
    """One row a contender, network by network."""
    rows = []
    for name, found in cases.items():
        for contender in ordered(found):
            rows.append([name, *_rates(found, contender, LOOP), *_first_use(found, contender)])
    head = ["network", "contender", "images/s", "over the loop", "forward alone, images/s", "of forward alone",
            "conversion s", "loading s"]  # fmt: skip
    lines = [*table(head, rows), "", *_decoding(cases)]
    return [*lines, *_absent(cases)]


def texts(cases: Mapping[str, Found]) -> list[str]:
    """One row a contender; the ratios to each rival and the cosines below."""
    lines: list[str] = []
    for found in cases.values():
        mean = found["sample"]["mean_tokens"]
        rows = [
            [contender, *_rates(found, contender, ENCODE)[1:], number(found["works"][contender]["per_second"] * mean)]
            for contender in ordered(found)
        ]
        head = ["contender", "texts/s", f"over {ENCODE}", "forward alone, texts/s", "of forward alone", "tokens/s"]
        lengths = found["sample"]
        low, middle, high = lengths["tokens_10_50_90"]
        lines += [
            f"Texts have {mean:g} tokens on average (10% below {low}, half below {middle}, 90% below {high}, at most "
            f"{lengths['most_tokens']}).",
            "",
            *table(head, rows),
            "",
            _over(found, (ENCODE, ENCODE_HALF, PADDED)),
            "",
            *_cosines(found),
            "",
            *_company(found),
        ]
    return [*lines, *_absent(cases)]


def sounds(cases: Mapping[str, Found]) -> list[str]:
    """One row a contender; seconds of sound beside clips."""
    lines: list[str] = []
    for found in cases.values():
        mean = found["sample"]["mean_seconds"]
        rows = [
            [contender, *_rates(found, contender, SINGLE)[1:], number(found["works"][contender]["per_second"] * mean)]
            for contender in ordered(found)
        ]
        head = ["contender", "clips/s", f"over {SINGLE}", "forward alone, clips/s", "of forward alone", "s of sound/s"]
        lines += [
            *table(head, rows),
            "",
            _over(found, (PADDED_BATCHES, SINGLE)),
            "",
            *_cosines(found),
            "",
            *_company(found),
        ]
    return [*lines, *_absent(cases)]


def reruns(cases: Mapping[str, Found]) -> list[str]:
    """CPU seconds above start-up of both sides and their ratio."""
    lines: list[str] = []
    for found in cases.values():
        ours, theirs = found["cpu_seconds_above_start"]["tl"], found["cpu_seconds_above_start"]["rival"]
        rows = []
        for run, title in RUNS.items():
            other = theirs["first" if run == "first_converted" else run]
            last = found["runs"]["tl"][run][-1]
            rows.append(
                [title, f"{last['computed']:,}", f"{ours[run]:.1f}", f"{other:.1f}", f"{found['ratios'][run]:.1f}x",
                 f"{last['start_cpu_seconds']:.1f}"]
            )  # fmt: skip
        head = ["run", "computed by tl", "tl, CPU s", "sentence-transformers + scikit-learn, CPU s", "ratio",
                "start-up of tl, CPU s"]  # fmt: skip
        lines += [f"{found['texts']:,} texts, then {found['more_texts']} more.", "", *table(head, rows)]
    return lines


def no_change(cases: Mapping[str, Found]) -> list[str]:
    """Seconds of both steps in a rerun, and of the process around them."""
    rows = [
        [name, f"{found['samples']:,}", f"{found['seconds']:.2f}", f"{found['process_seconds']:.1f}",
         str(found["computed_again"]), f"{found['first']['version_and_extract']:.1f}"]
        for name, found in cases.items()
    ]  # fmt: skip
    head = ["data", "samples", "version + extract, s", "whole process, s", "computed again", "first run, s"]
    return table(head, rows)


def memory(cases: Mapping[str, Found]) -> list[str]:
    """Peaks at both sizes."""
    rows = []
    for name, found in cases.items():
        small, large = found["runs"]
        rows.append(
            [name, *(f"{run['samples']:,}: {_mib(run['peak_bytes'])}" for run in (small, large)),
             f"{100 * found['growth']:+.1f}%", *(_mib(run["peak_private_bytes"]) for run in (small, large)),
             f"{100 * found['private_growth']:+.1f}%"]
        )  # fmt: skip
    head = ["samples", "peak, few", "peak, many", "growth", "private, few", "private, many", "growth "]
    return table(head, rows)


def kills(cases: Mapping[str, Found]) -> list[str]:
    """What was killed and what was left."""
    lines = []
    for found in cases.values():
        undisturbed = found["undisturbed_seconds"]
        lines.append(
            f"{found['kills']} runs over {found['rows']:,} texts were killed (seed {found['seed']}), half within "
            f"{found['median_killed_after']:.2f} s; an undisturbed run takes {undisturbed['converted']:.1f} s, with "
            f"conversion {undisturbed['from_nothing']:.1f} s. {found['kills_with_some_rows_stored']} left part of the "
            f"rows stored. Faults that `verify` found: {len(found['verify_faults'])}. Stores that got through in the "
            f"end: {found['stores']}, with bytes equal to an undisturbed run's: {found['stores_byte_equal']}."
        )
    return lines


def two_processes(cases: Mapping[str, Found]) -> list[str]:
    """Rows computed in total and twice."""
    rows = [
        [name, f"{found['rows']:,}", f"{found['computed']:,}", str(found["computed_twice"]),
         f"{found['alone']['seconds']:.1f}", f"{found['both']['seconds']:.1f}", str(len(found["verify_faults"])),
         "yes" if found["rows_equal"] else "no"]
        for name, found in cases.items()
    ]  # fmt: skip
    head = ["data", "distinct rows", "computed by both", "computed twice", "one alone, s", "both at once, s",
            "faults", "bytes equal to one alone"]  # fmt: skip
    return table(head, rows)


def probe_accuracy(cases: Mapping[str, Found]) -> list[str]:
    """One row a set and backbone, then the means."""
    rows = [
        [row["data"], row["backbone"], f"{row['test_rows']:,}", f"{100 * row['float32']:.2f}",
         f"{100 * row['bfloat16']:.2f}", f"{row['points']:+.2f}", f"{row['won']} / {row['lost']}"]
        for found in cases.values()
        for row in found["rows"]
    ]  # fmt: skip
    head = ["data", "backbone", "test rows", "float32", "bfloat16", "difference, points", "rows won / lost"]
    points = all_points(cases)
    if not points:
        return ["No real sets were there."]
    mean = sum(points) / len(points)
    sd = (sum((p - mean) ** 2 for p in points) / max(1, len(points) - 1)) ** 0.5
    return [
        *table(head, rows),
        "",
        f"Mean over {len(points)} pairs of set and backbone: {mean:+.2f} points, standard deviation {sd:.2f}, standard "
        f"error of the mean {sd / len(points) ** 0.5:.2f}.",
    ]


def all_points(cases: Mapping[str, Found]) -> list[float]:
    """bfloat16 minus float32 in points, of every set and backbone."""
    return [row["points"] for found in cases.values() for row in found["rows"]]


def gpu(cases: Mapping[str, Found]) -> list[str]:
    """The tables of the GPU, or why there are none."""
    missing = [found["missing"] for found in cases.values() if "missing" in found]
    if missing:
        return [f"Not measured: {missing[0]}."]
    by_unit: dict[str, dict[str, Found]] = {}
    for name, found in cases.items():
        by_unit.setdefault(found["unit"], {})[name] = found
    lines: list[str] = []
    for unit, render in (("images", images), ("texts", texts), ("clips", sounds)):
        lines += [*render(by_unit[unit]), ""] if unit in by_unit else []
    return lines


def stores(found: dict[str, Any]) -> list[str]:
    """The table of `benchmarks.store_formats`, without its title."""
    _, _, *lines = store_formats.table(found).strip().splitlines()
    return lines


def machine(results: Mapping[str, Mapping[str, Found]]) -> list[str]:
    """Each machine that some part was measured on, with the parts."""
    seen: dict[str, list[str]] = {}
    for part, cases in results.items():
        for found in cases.values():
            facts = ", ".join(f"{key} {value}" for key, value in found["machine"].items())
            parts = seen.setdefault(facts, [])
            if part not in parts:
                parts.append(part)
    return [f"- {', '.join(parts)}: {facts}." for facts, parts in seen.items()]


def ordered(found: Found) -> list[str]:
    """The contenders that were measured, the fastest first."""
    names = [name for name in found["works"] if "/" not in name]
    return sorted(names, key=lambda name: -found["works"][name]["per_second"])


def leading(found: Found) -> str | None:
    """tl's fastest engine; None where none was measured."""
    ours = [name for name in ordered(found) if name in found["ratios"]]
    return ours[0] if ours else None


def number(value: float) -> str:
    """Three digits that say something, thousands apart."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _rates(found: Found, contender: str, rival: str) -> list[str]:
    """Name, rate, ratio to the rival, rate of the forward alone and the share of it."""
    works, ratios = found["works"], found["ratios"].get(contender, {})
    forward = works.get(f"{contender}/forward")
    over = "1" if contender == rival else f"{ratios['over'][rival]:.1f}x" if rival in ratios.get("over", {}) else ""
    if not over and rival in works:
        over = f"{works[contender]['per_second'] / works[rival]['per_second']:.1f}x"
    return [
        contender,
        f"**{number(works[contender]['per_second'])}**" if contender in found["ratios"] else
        number(works[contender]["per_second"]),
        over,
        number(forward["per_second"]) if forward else "",
        f"{100 * ratios['of_forward']:.0f}%" if "of_forward" in ratios else "",
    ]  # fmt: skip


def _first_use(found: Found, contender: str) -> list[str]:
    facts = found["facts"].get(contender, {})
    if "conversion_seconds" not in facts:
        return ["", ""]
    return [f"{facts['conversion_seconds']:.1f}", f"{facts['load_seconds']:.1f}"]


def _decoding(cases: Mapping[str, Found]) -> list[str]:
    """Decoding alone: two threads of tl's loader, one thread of Pillow and timm's transform."""
    said = []
    for name, found in cases.items():
        works = found["works"]
        ours = next((works[f"{c}/decode"] for c in ordered(found) if c != LOOP and f"{c}/decode" in works), None)
        theirs = works.get(f"{LOOP}/decode")
        if ours and theirs:
            said.append(f"{name} {number(ours['per_second'])} images/s (Pillow {number(theirs['per_second'])})")
    if not said:
        return []
    return [f"Decoding, resizing and cropping alone, tl on its threads, Pillow with timm's transform on one: "
            f"{'; '.join(said)}."]  # fmt: skip


def _over(found: Found, rivals: Sequence[str]) -> str:
    name = leading(found)
    over = found["ratios"][name]["over"] if name else {}
    said = [f"{over[rival]:.2f}x {rival}" for rival in rivals if rival in over]
    return f"{name}, by the median of the ratios within rounds: {', '.join(said)}." if said else ""


def _cosines(found: Found) -> list[str]:
    pairs = [[pair, str(c["samples"]), f"{c['min']:.6f}", f"{c['mean']:.6f}"] for pair, c in found["cosine"].items()]
    return table(["cosine of features", "samples", "minimum", "mean"], pairs) if pairs else []


def _company(found: Found) -> list[str]:
    company = found.get("company")
    if not company:
        return []
    return [
        f"Computed alone in a store of their own, {company['equal']} of {company['samples']} samples have the very "
        "bits that they have in the company of the others."
    ]


def _absent(cases: Mapping[str, Found]) -> list[str]:
    found = {f"{name}, {who}: {why}" for name, case in cases.items() for who, why in case["absent"].items()}
    return ["", "Not measured: " + "; ".join(sorted(found)) + "."] if found else []


def _mib(value: int) -> str:
    return f"{value / 2**20:,.0f} MiB"
