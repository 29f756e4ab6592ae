"""Fixtures that several test files use."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # one thread for each of the workers, set before torch is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

from tl_core.registry import Registry, load_registry

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.pop("MLFLOW_TRACKING_URI", None)  # what tests run is no news for a server of the user's
ROOT = Path(__file__).resolve().parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets and weights (`TL_SHARED_DATA`, or `../shared/data`)."""
    folder = Path(os.environ.get("TL_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "datasets").is_dir():
        pytest.skip(f"no real data at {folder}; set TL_SHARED_DATA")
    return folder


@pytest.fixture(scope="session")
def timeseries() -> Registry:
    """A registry with just the small time-series plugin of the tests: real, quick, and free of heavy libraries."""
    sys.path.insert(0, str(ROOT / "tests" / "plugin_timeseries"))
    try:
        module = importlib.import_module("tl_timeseries")
    finally:
        sys.path.pop(0)
    return load_registry([("tl_timeseries", module)])


@pytest.fixture(autouse=True)
def _own_log() -> None:
    """tl's loggers as in a new process: the command and Prefect's server take over or silence them."""
    for name, logger in logging.root.manager.loggerDict.items():
        if isinstance(logger, logging.Logger) and (name.startswith("tl_") or name.partition(".")[0] == "tl"):
            logger.handlers = []
            logger.propagate, logger.disabled = True, False
            logger.setLevel(logging.NOTSET)


@pytest.fixture
def waves(tmp_path: Path) -> Path:
    """A folder of series in three classes that are told apart by their frequency, with a little doubt."""
    return write_waves(tmp_path / "waves")


def write_waves(folder: Path, per_class: int = 30, seed: int = 0) -> Path:
    """Class folders slow/, fast/ and noise/ of .npy series."""
    rng = np.random.default_rng(seed)
    for name, cycles in {"slow": 2, "fast": 11, "noise": 0}.items():
        (folder / name).mkdir(parents=True)
        for i in range(per_class):
            wave = np.sin(np.linspace(0, 2 * np.pi * cycles, 100) + rng.uniform(0, 6)) if cycles else 0.0
            np.save(folder / name / f"{i:03d}.npy", wave + rng.normal(0, 0.5, 100))
    return folder
