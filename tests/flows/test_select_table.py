"""The ranking on the terminal: a table that fits 100 columns, and the words below it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import rankings
from click.testing import CliRunner
from pydantic import TypeAdapter
from tl_flows import ranking_table
from tl_flows.cli import tl

import tl_core.registry
import tl_core.steps
from tl_core.report import Ranking

CHOSEN = "mobilenetv3_large_100.ra_in1k"


def read(value: dict[str, Any]) -> Ranking:
    return TypeAdapter(Ranking).validate_python(value)


def drawn(ranking: Ranking, width: int = 100) -> list[str]:
    from rich.console import Console

    stream = io.StringIO()
    Console(width=width, file=stream, color_system=None).print(ranking_table.ranking_table(ranking))
    return [line.rstrip() for line in stream.getvalue().splitlines() if line.strip()]


def test_the_table_has_two_lines_a_candidate_and_fits_100_columns() -> None:
    lines = drawn(read(rankings.ranking()))
    assert max(map(len, lines)) <= 100
    assert lines[0].split() == ["rank", "backbone", "accuracy", "regret", "FLOPs"]
    assert " ".join(lines[1].split()) == "range licence, standing 90% interval P(best) points relative params"
    at = next(i for i, line in enumerate(lines) if CHOSEN in line)
    assert lines[at].split() == ["3", CHOSEN, "0.944", "20%", "0.8", "434", "M", "4.2", "M"]
    assert " ".join(lines[at + 1].split()) == "1 to 4 Apache-2.0, chosen 0.926 to 0.962 1.0x"
    text = " ".join(" ".join(lines).split())
    assert "CC-BY-NC-4.0 (non-commercial), tied 0.930 to 0.966" in text
    assert "licence not stated (check its" in text
    assert "Apache-2.0, out after 200 rows" in text
    assert "swin" not in text  # what dropped out has no numbers, and stands below


def test_a_narrow_terminal_folds_names_and_loses_nothing() -> None:
    lines = drawn(read(rankings.ranking()), width=80)
    assert max(map(len, lines)) <= 80
    assert "vit_base_patch14_dinov2.lvd142m" in "".join(line[9:].split(" ")[0] for line in lines)


def test_names_are_no_markup_and_many_candidates_are_counted() -> None:
    candidates = [rankings.candidate(f"[red]net{i}[/red]", i + 1, 0.9) for i in range(25)]
    ranking = read(rankings.ranking(chosen="[red]net0[/red]", candidates=candidates, why="first in the ranking"))
    lines = drawn(ranking)
    assert sum("[red]net" in line for line in lines) == 20
    assert ranking_table.ranking_lines(ranking)[0] == "5 more are in ranking.json"


def test_the_words_below_say_who_is_tied_who_dropped_out_and_what_was_chosen() -> None:
    assert ranking_table.ranking_lines(read(rankings.ranking(why="the cheapest of 3 that tie"))) == [
        "tied with the leader, vit_small_patch16_224.augreg_in21k_ft_in1k: convnext_nano.in12k_ft_in1k, "
        "mobilenetv3_large_100.ra_in1k",
        "dropped out: swin_tiny_patch4_window7_224.ms_in1k: its weights are not here, and the hub can't be reached",
        "dropped out: vit_large_patch14_clip_336.openai: too slow: about 48 min for 200 samples on this machine; "
        "select.minutes is 5: raise it, or name this backbone alone",
        "why it ended: the next round would not fit into select.minutes",
        f"select: {CHOSEN}, the cheapest of 3 that tie; P(best) 20%, expected regret 0.8 points",
    ]
    assert ranking_table.ranking_lines(read(rankings.alone())) == [
        "select: minilm-l6, the only candidate; accuracy 0.912 (0.894 to 0.930)"
    ]


def test_differences_of_r2_are_no_points() -> None:
    ranking = read(rankings.ranking(task="regression", metric="r2", why="the cheapest of 3 that tie"))
    lines = drawn(ranking)
    assert "R²" in lines[0]
    assert lines[1].split()[-4:] == ["P(best)", "R²", "relative", "params"]
    assert "0.008" in next(line for line in lines if CHOSEN in line)
    assert ranking_table.ranking_lines(ranking)[-1].endswith("; P(best) 20%, expected regret 0.008 of R²")


@pytest.mark.parametrize("value", [rankings.ranking(), rankings.alone()], ids=["race", "alone"])
def test_tl_select_prints_it(value: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def select(config: Any, registry: Any, workspace: Any) -> dict[str, Any]:
        workspace.step("select").mkdir(parents=True)
        rankings.write(value, workspace.ranking)
        return {"chosen": value["chosen"], "why": value["why"], "seconds": 3.14, "notes": ["a note"]}

    class Silent:
        def finished(self, step: str, outputs: dict[str, Any], workspace: Any) -> list[str]:
            return []

    monkeypatch.setattr(tl_core.steps, "select", select)
    monkeypatch.setattr(tl_core.registry, "load_registry", Silent)
    (tmp_path / "data").mkdir()
    done = CliRunner().invoke(tl, ["select", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    *_, said, note = done.output.splitlines()
    assert said.startswith(f"select: {value['chosen']}, ")
    assert said.endswith("  [3.1 s]")
    assert note == "  - a note"
    assert ("range" in done.output) == (len(value["candidates"]) > 1)
