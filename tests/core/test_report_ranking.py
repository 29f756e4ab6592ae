"""What the report says of the backbones: the choice and how sure it is, the picture, the table, second opinions."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import rankings
from pydantic import TypeAdapter

from tl_core.errors import FormatError
from tl_core.report.cost_picture import HEIGHT, WIDTHS, CostPicture, Label, cost_picture, short_name
from tl_core.report.ranking import Ranking
from tl_core.report.ranking_section import ranking_section
from tl_core.report.templates import multiple, percent, quantity, render

CHOSEN = "mobilenetv3_large_100.ra_in1k"


def read(value: dict[str, Any]) -> Ranking:
    return TypeAdapter(Ranking).validate_python(value)


def many(count: int, ties: int = 5) -> Ranking:
    """Candidates with long names, crowded together."""
    names = [f"family{i % 3}_large_patch{i}_224.augreg_in21k_ft_in1k" for i in range(count)]
    candidates = [
        rankings.candidate(name, i + 1, 0.95 - 0.001 * (i % 9), tied=i < ties, flops=int(3e8 * 1.4 ** (i % 11)))
        for i, name in enumerate(names)
    ]
    return read(rankings.ranking(chosen=names[2], candidates=candidates))


def section(ranking: Ranking) -> str:
    """The section's text as a reader has it, without tags."""
    page = render("ranking.html", {"backbones": ranking_section(ranking)})

    class Words(HTMLParser):
        text = ""

        def handle_data(self, data: str) -> None:
            self.text += data

    words = Words()
    words.feed(page)
    return re.sub(r"\s+", " ", words.text)


def test_the_choice_comes_first_then_how_sure_it_is_the_picture_and_the_table() -> None:
    ranking = read(rankings.ranking())
    text = section(ranking)
    told = [
        "Which backbone, and how sure that is",
        f"{CHOSEN}: tied with vit_small_patch16_224.augreg_in21k_ft_in1k and convnext_nano.in12k_ft_in1k, and the "
        "cheapest of them.",
        "It is the best of the 8 with probability 20%; taking it is expected to cost 0.8 points of accuracy against "
        "whichever is the best.",
        "vit_small_patch16_224.augreg_in21k_ft_in1k leads by 0.7 points (−0.5 to 1.9), which these rows can't tell "
        "from nothing.",
        "FLOPs per sample (log scale)",
        "Ranked by a probe, cross-validated on training rows; 90% intervals. Regret and gap to the leader in points",
        "1 1 to 3", "tied", "0.951 0.933–0.969", "46%", "leads", "9.2 G 21x", "21.7 M", "Apache-2.0",
        "CC-BY-NC-4.0 non-commercial", "chosen", "<1%", "out early", "not stated check its terms",
        "Other scores, and whether they agree",
        "Dropped out", "its weights are not here, and the hub can't be reached", "too slow: about 48 min",
        "What to look out for",
        "vit_small_patch16_224.augreg_in21k_ft_in1k and convnext_nano.in12k_ft_in1k: the images are about 96 px wide, "
        "it takes 224. Prefer one with a smaller input.",
        "How the race went",
        "Why it ended: the next round would not fit into select.minutes. Judged on at most 800 of 3,470 training rows.",
        "200 rows: 10 entered, 2 left: resnet18 with random weights and vit_base_patch14_dinov2.lvd142m.",
        "400 rows: 6 entered, none left.",
    ]  # fmt: skip
    at = 0
    for part in told:
        assert part in text[at:], (part, text[at : at + 300])
        at = text.index(part, at)


def test_the_sentence_says_why_in_every_case() -> None:
    base = rankings.ranking()
    assert read(base | {"prefer": "size"}).because().endswith("and the smallest of them")
    leader = base["candidates"][0]["name"]
    assert read(base | {"prefer": "accuracy", "chosen": leader}).because() == (
        f"tied with convnext_nano.in12k_ft_in1k and {CHOSEN}, and first of them"
    )
    apart = [{**c, "tied": False} for c in base["candidates"]]
    clear = read(base | {"chosen": leader, "why": "first in the ranking", "candidates": apart})
    assert clear.because() == "first in the ranking"
    assert "None of the others is tied with it." in section(clear)
    strict = read(base | {"tolerance": 0.005, "chosen": "convnext_nano.in12k_ft_in1k"})
    assert strict.because() == f"tied with {leader}, and the cheapest of them"
    said = f"Tied with the leader too, but further behind than the tolerance of 0.5 points: {CHOSEN}."
    assert said in section(strict)
    assert many(9, ties=6).because() == "tied with 5 others, and the cheapest of them"


def test_differences_have_the_unit_of_the_metric() -> None:
    explained = read(rankings.ranking(task="regression", metric="r2"))
    assert "is expected to cost 0.008 of R² against whichever is the best" in section(explained)
    assert explained.certainty() == "P(best) 20%, expected regret 0.008 of R²"
    labelled = read(rankings.ranking(task="multilabel", metric="micro_f1"))
    assert "0.8 points of micro F1" in section(labelled)
    assert labelled.certainty() == "P(best) 20%, expected regret 0.8 points"


def test_a_single_candidate_ran_no_race() -> None:
    text = section(read(rankings.alone()))
    assert text.strip() == (
        "The backbone minilm-l6: the only candidate. Accuracy of a probe on it, cross-validated on training rows: "
        "0.912 0.894–0.930. With no other to compare it to there was no race. Licence: Apache-2.0."
    )
    gone = [rankings.dropped("e5-small", "no network")]
    left = read(rankings.alone(why="the only one left", candidates=rankings.alone()["candidates"] + gone))
    text = section(left)
    assert "minilm-l6: the only one left. Accuracy" in text
    assert "Dropped out" in text
    assert "no race" not in text
    assert "e5-small no network" in text


def test_the_other_scores_are_second_opinions() -> None:
    found = {o.title: o for o in ranking_section(read(rankings.ranking())).opinions}
    assert list(found) == ["consensus", "LogME", "H-score", "kNN"]
    # six were judged on all rows; the two that left early had fewer, and are not comparable
    assert {o.compared for o in found.values()} == {6}
    assert found["LogME"].first is not None
    assert found["LogME"].first.name == "convnext_nano.in12k_ft_in1k"
    # of 15 pairs the first two and the last two stand the other way round
    assert found["LogME"].tau == pytest.approx((13 - 2) / 15)
    text = section(read(rankings.ranking()))
    assert (
        "LogME against the probe's order of 6: Kendall's tau 0.73; it puts convnext_nano.in12k_ft_in1k first, which "
        "the probe has at rank 2, tied." in text
    )
    assert "0.810 0.770 to 0.850" in text
    agreed = rankings.ranking(chosen="vit_small_patch16_224.augreg_in21k_ft_in1k")
    for candidate in agreed["candidates"]:
        candidate["scores"] = {} if candidate["probe"] is None else {"logme": {"value": candidate["probe"]}}
    assert "LogME orders the 6 as the probe does; it puts the chosen one first." in section(read(agreed))


def boxes(picture: CostPicture, kind: str, width: float) -> list[tuple[float, float, float, float]]:
    """Where the labels of a class of pages lie in a plot of this width."""
    found = []
    for point in picture.points:
        for own, label in point.labels:
            if own == kind:
                x, size = point.x / 100 * width + label.dx, len(label.text) * 7.0
                left = x if label.anchor == "start" else x - size
                found.append((left, point.y + label.dy - 11, left + size, point.y + label.dy + 3))
    return found


@pytest.mark.parametrize("ranking", [read(rankings.ranking()), many(12), many(40)], ids=["fixture", "12", "40"])
@pytest.mark.parametrize("kind", WIDTHS)
def test_labels_never_overlap_at_any_width_of_their_class(ranking: Ranking, kind: str) -> None:
    picture = cost_picture(ranking)
    assert picture is not None
    for width in (WIDTHS[kind], WIDTHS[kind] * 1.2, WIDTHS[kind] * 1.6):
        placed = boxes(picture, kind, width)
        assert placed
        for i, a in enumerate(placed):
            assert a[0] >= 0
            assert a[2] <= width
            for b in placed[:i]:
                assert not (a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]), (kind, width)


def test_points_lie_where_cost_and_metric_put_them() -> None:
    picture = cost_picture(read(rankings.ranking()))
    assert picture is not None
    points = {p.candidate.name: p for p in picture.points}
    chosen, leader = points[CHOSEN], points["vit_small_patch16_224.augreg_in21k_ft_in1k"]
    assert picture.points[-1] is chosen  # drawn last, over the others
    assert chosen.x < leader.x
    assert chosen.y > leader.y
    assert chosen.high < chosen.y < chosen.low
    assert {name: p.standing for name, p in points.items() if p.standing != "behind"} == {
        CHOSEN: "chosen",
        "vit_small_patch16_224.augreg_in21k_ft_in1k": "tied",
        "convnext_nano.in12k_ft_in1k": "tied",
        "vit_base_patch14_dinov2.lvd142m": "eliminated",
        "resnet18 with random weights": "eliminated",
    }
    # a decoy far below does not press the others together: it is marked at the edge, with its number
    decoy = points["resnet18 with random weights"]
    assert (decoy.below, decoy.y) == (True, HEIGHT)
    assert dict(decoy.labels)["on-wide"].text == "resnet18 with random weights 0.412"
    assert dict(chosen.labels)["on-narrow"] == Label("3", "start", 10.0, 4.0)
    assert [text for _, text in picture.x_ticks] == ["1 G", "10 G", "100 G"]


def test_what_has_no_place_in_the_picture_is_named() -> None:
    value = rankings.ranking()
    value["candidates"][4]["flops"] = None
    assert "Not shown, since their cost isn't known: resnet18.a1_in1k." in section(read(value))
    for candidate in value["candidates"]:
        candidate["flops"] = None
    nothing = read(value)
    assert cost_picture(nothing) is None
    assert "FLOPs per sample (log scale)" not in section(nothing)


def test_identical_candidates_have_a_picture_with_a_scale() -> None:
    twins = [rankings.candidate(f"twin {i}", i + 1, 1.0, half=0.0, gap=0.0, tied=True) for i in range(12)]
    ranking = read(rankings.ranking(chosen="twin 3", candidates=twins))
    picture = cost_picture(ranking)
    assert picture is not None
    assert {p.x for p in picture.points} == {50.0}
    assert picture.x_ticks == [(50.0, "1 G")]
    assert len(picture.y_ticks) > 2
    assert "tied with 11 others" in section(ranking)


def test_the_picture_speaks_to_those_who_cannot_see_it() -> None:
    words = ranking_section(read(rankings.ranking())).picture_words
    assert words == (
        "Accuracy over FLOPs per sample of 8 backbones. Chosen: mobilenetv3_large_100.ra_in1k. Best accuracy: "
        "vit_small_patch16_224.augreg_in21k_ft_in1k. Cheapest: mobilenetv3_large_100.ra_in1k#blocks.5. Dearest: "
        "vit_base_patch14_dinov2.lvd142m. The table below says the same in numbers."
    )


def test_numbers_are_explained_at_the_widths_that_have_any() -> None:
    pair = [rankings.candidate("small", 1, 0.95, flops=10**8), rankings.candidate("large", 2, 0.8, flops=10**10)]
    few = ranking_section(read(rankings.ranking(chosen="small", candidates=pair)))
    crowd = ranking_section(many(40))
    assert few.picture is not None
    assert crowd.picture is not None
    assert few.picture.numbered == ["on-narrow"]
    assert crowd.picture.numbered == ["on-wide", "on-middle", "on-narrow"]
    for shown, times in ((few, 1), (crowd, 3)):
        page = render("ranking.html", {"backbones": shown})
        assert page.count("Numbers are ranks in the table.") == times


def test_many_candidates_unfold() -> None:
    page = render("ranking.html", {"backbones": ranking_section(many(40))})
    assert "<summary>The other 25</summary>" in page
    assert page.count('role="rowheader"') == 40


def test_a_ranking_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ranking.json"
    assert Ranking.load(rankings.write(rankings.ranking(), path)) == read(rankings.ranking())
    for content, message in (
        ({"format": 3}, "has format 3, this tl reads format 2; update tl"),
        ({"format": 1}, "has format 1, of an older tl; run `tl select` again"),
        ({"format": 2}, "unreadable ranking .*: ValidationError; run `tl select` again"),
    ):
        with pytest.raises(FormatError, match=message):
            Ranking.load(rankings.write(content, path))


def test_numbers_read_well() -> None:
    assert [percent(p) for p in (0, 0.004, 0.2, 0.995, 1)] == ["0%", "<1%", "20%", ">99%", "100%"]
    assert [quantity(q) for q in (950, 43_400, 999_900, 4.094e9, 3.03e11)] == [
        "950",
        "43.4 k",
        "1 M",
        "4.09 G",
        "303 G",
    ]
    assert [multiple(m) for m in (0.034, 0.9, 1, 9.96, 698.2)] == ["0.034x", "0.9x", "1.0x", "10x", "698x"]
    assert short_name("vit_small_patch16_224.augreg_in21k#blocks.9", 24) == "vit_small_patc…#blocks.9"
    assert short_name("vit_small_patch16_224.augreg_in21k", 12) == "vit_small_p…"


def test_the_guide_reads_it_and_names_every_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guide = (Path(__file__).resolve().parents[2] / "docs" / "selection.md").read_text(encoding="utf-8")
    (tmp_path / "tl-run").mkdir()
    rankings.write(rankings.ranking(), tmp_path / "tl-run" / "ranking.json")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", guide, flags=re.S)
    said: list[tuple[Any, ...]] = []
    exec(code, {"print": lambda *words: said.append(words)})
    assert said[0][0] == CHOSEN
    assert [words[0] for words in said[1:4]] == [c["name"] for c in rankings.ranking()["candidates"][:3]]
    assert said[4] == ("swin_tiny_patch4_window7_224.ms_in1k", "its weights are not here, and the hub can't be reached")
    keys = {*rankings.ranking(), *rankings.ranking()["candidates"][0]} - {"candidates", "name"}
    plain = {key for key in keys if not key.endswith(("_low", "_high"))}
    unnamed = {key for key in plain if f"`{key}`" not in guide}
    assert unnamed <= {"rows", "tied"}  # told of in words
