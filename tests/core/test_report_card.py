"""The model card: metadata that the hub reads, the same numbers as the page, no text that breaks out."""

from __future__ import annotations

import dataclasses
from typing import Any

import yaml
from reports import full_demo, hostile_demo, multilabel_demo, regression_demo, text_demo

from tl_core.report import model_card


def parts(card: str) -> tuple[dict[str, Any], str]:
    """The metadata and the text."""
    _, head, text = card.split("---\n", 2)
    return yaml.safe_load(head), text


def test_the_metadata_hold_the_result_with_its_intervals() -> None:
    facts = text_demo()
    metadata, _ = parts(model_card(facts))
    assert metadata["license"] == "apache-2.0"
    assert metadata["library_name"] == "tl"
    assert metadata["pipeline_tag"] == "text-classification"
    (model,) = metadata["model-index"]
    (result,) = model["results"]
    found = {metric["name"].split(" (")[0]: metric for metric in result["metrics"]}
    accuracy = facts.evaluation.summary["accuracy"]
    assert found["accuracy"]["value"] == accuracy.value
    assert found["accuracy"]["name"] == f"accuracy (90% interval {accuracy.low:.3f} to {accuracy.high:.3f})"
    assert found["macro F1"]["type"] == "f1"
    assert result["dataset"]["name"].endswith(facts.data.version)


def test_the_text_says_what_it_is_for_how_good_it_is_and_where_it_ends() -> None:
    _, text = parts(model_card(full_demo()))
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings == [
        "# Support messages", "## Intended use", "## Data", "## Result", "## What was looked for", "## Limits",
        "## Backbone",
    ]  # fmt: skip
    for part in (
        "- Rows of the train split: 434", "| floor: random weights, accuracy | ", "**Transfer: helps.**",
        "- Label errors, act on it: 41 of 2,400 labels look wrong.", "book a table, cancel order",
        "- `tl predict` says of each sample how unlike", "- Not looked at: scratch",
    ):  # fmt: skip
        assert part in text
    assert "were not looked at" in model_card(text_demo())


def test_every_task_has_a_card() -> None:
    for facts, words in ((multilabel_demo(), "any labels of an image sample"), (regression_demo(), "a number from")):
        metadata, text = parts(model_card(facts))
        assert words in text
        assert len(metadata["metrics"]) >= 1
    assert "pipeline_tag" not in metadata


def test_licences_that_the_hub_does_not_know_and_hub_backbones() -> None:
    base = text_demo()

    def of(licence: str | None, source: str = "package x") -> dict[str, Any]:
        backbone = dataclasses.replace(base.backbone, licence=licence, source=source)
        return parts(model_card(dataclasses.replace(base, backbone=backbone)))[0]

    assert of("Some terms")["license"] == "other"
    assert of("Some terms")["license_name"] == "Some terms"
    assert of(None)["license"] == "unknown"
    assert of("MIT", "hub timm/resnet18.a1_in1k")["base_model"] == "timm/resnet18.a1_in1k"
    assert "base_model" not in of("MIT")


def test_hostile_text_stays_in_its_line() -> None:
    evil = '"><script>alert(1)</script>\u202e\udcff\x00\n---\n# head | cell `code` [a](b)'
    card = model_card(hostile_demo(evil))
    card.encode("utf-8")
    metadata, text = parts(card)
    assert metadata["license"] == "other"
    assert "<script" not in text
    assert not [line for line in text.splitlines() if line.startswith("# head")]
    assert "[a](b)" not in text.replace("\\", "") or "\\[a\\]" in text
