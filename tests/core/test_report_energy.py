"""The estimate of energy: plain arithmetic, called an estimate, and shown only where CPU seconds are known."""

from __future__ import annotations

import dataclasses

import pytest
from reports import text_demo

from tl_core.report import render_report
from tl_core.report.energy import energy


def test_cpu_time_is_told_with_the_energy_that_it_stands_for() -> None:
    text = energy({"extract": 5400.0, "tune": 1800.0}, watts=(4, 15))
    assert text.startswith(
        "2.0 hours of CPU time, 75% of it in extract. Estimate, nothing was measured: 8 Wh to 30 Wh,"
    )
    assert "if a busy core takes 4 to 15 W" in text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (36.0, "0.6 minutes of CPU time. Estimate, nothing was measured: 0.01 Wh to 0.1 Wh"),
        (360_000.0, "100.0 hours of CPU time. Estimate, nothing was measured: 100 Wh to 1 kWh"),
        (0.0, "0.0 minutes of CPU time. Estimate, nothing was measured: 0 Wh to 0 Wh"),
    ],
)
def test_amounts_are_short_at_any_size(seconds: float, words: str) -> None:
    assert energy({"tune": seconds}, watts=(1, 10)).startswith(words)


def test_the_page_tells_cpu_seconds_only_of_steps_that_have_told_them() -> None:
    facts = dataclasses.replace(text_demo(), run={"select": 3.0, "tune": 5.0}, cpu={"tune": 7.5})
    page = render_report(facts)
    assert "CPU seconds" in page
    assert '<th scope="row">select</th><td class="n">3.0</td><td class="n">–</td>' in page
    assert '<th scope="row">tune</th><td class="n">5.0</td><td class="n">7.5</td>' in page
    assert "Estimate, nothing was measured" in page
    assert "CPU" not in render_report(dataclasses.replace(facts, cpu=None))
