"""What a run says while it works: the loggers that are shown, columns, marks of stages, and bars."""

from __future__ import annotations

import logging

import pytest
from tl_flows.prefect_env import LOGGER, STAGE_LOGGER
from tl_flows.stage_process import OWNER
from tl_flows.terminal import log_to_terminal

ENGINE = "tl_core.extraction.computing"


def test_tl_and_the_engine_are_shown_and_nobody_else(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(OWNER, raising=False)
    log_to_terminal()
    logging.getLogger(LOGGER).info("select    minilm")
    logging.getLogger(STAGE_LOGGER).info("Running stage 'extract':")
    logging.getLogger(ENGINE).info("%s: %s", "extract minilm", "openvino 2026.4.1, bfloat16")
    logging.getLogger(ENGINE).debug("batch 1")
    logging.getLogger("tl_core.store").info("opened")
    assert capsys.readouterr().err.splitlines() == ["select    minilm", "extract   minilm: openvino 2026.4.1, bfloat16"]


def test_a_stage_marks_what_its_run_is_to_show(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(OWNER, "1")
    log_to_terminal()
    logging.getLogger(ENGINE).warning("extract minilm: torch, because OpenVINO lacks an operator")
    assert capsys.readouterr().err == "tl> extract   minilm: torch, because OpenVINO lacks an operator\n"


def test_a_line_stands_above_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from tqdm import tqdm

    monkeypatch.delenv(OWNER, raising=False)
    log_to_terminal()
    with tqdm(total=3, desc="extract", file=sys.stderr, disable=False):
        logging.getLogger(ENGINE).info("extract minilm: torch")
    written = capsys.readouterr().err
    assert "\rextract   minilm: torch\n\rextract" in written


def test_a_long_line_is_folded_between_words_for_a_terminal_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.delenv(OWNER, raising=False)
    monkeypatch.setenv("COLUMNS", "60")
    log_to_terminal()
    said = "warning squeezenet: the licence is none that tl knows; read the terms where the weights come from"
    logging.getLogger("tl_core.steps.select_step").warning(said)
    assert len(capsys.readouterr().err.splitlines()) == 1
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    logging.getLogger("tl_core.steps.select_step").warning(said)
    folded = capsys.readouterr().err.splitlines()
    assert len(folded) == 2
    assert max(map(len, folded)) < 60
    assert folded[0].startswith("warning   squeezenet: ")
    assert folded[1].startswith(" " * 10)
    assert [*" ".join(folded).split()] == said.split()
