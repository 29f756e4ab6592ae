"""`tl backbones`: what is listed, in which order, and what is said of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tl_flows import cli

from tl_core import BackboneSpec, hookimpl
from tl_core.pins import LOCK, read_pins
from tl_core.registry import Registry, load_registry

OLD = "0123456789ab" + "c" * 28


def spec(name: str, **facts: Any) -> BackboneSpec:
    return BackboneSpec(
        **{"name": name, "modality": "timeseries", "source": "hub", "location": f"hub/{name}", "builder": refuse}
        | {"offline": lambda _: name == "tiny"}
        | facts
    )


def refuse(*_: Any) -> Any:
    raise AssertionError("listing builds nothing")


CATALOGUE = [
    spec(
        "large", params=300_000_000, flops=1_013_607_653_376, feature_dim=1024, licence="cc-by-nc-4.0",
        pretrained_on="ten years of heartbeats", presets=("cuda/best",),
    ),
    spec("Odd", licence="weird-license", pretrained_on="nobody knows"),
    spec(
        "tiny", params=1_517_856, flops=999_950, feature_dim=64, licence="MIT", pretrained_on="A thousand heartbeats",
        input="64 steps", takes={"steps": 64, "kinds": ["ecg", "eeg"]}, presets=("cpu/fast", "cpu/balanced"),
    ),
    spec("base", params=30_000_000, flops=5_000_000_000, feature_dim=256, licence="GPLv3", presets=("cpu/best",)),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _catalogue(timeseries: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plugin: Any = dict(timeseries.manager.list_name_plugin())["tl_timeseries"]
    module = ModuleType("listed")
    module.tl_backbones = hookimpl(lambda: CATALOGUE)  # type: ignore[attr-defined]
    module.tl_loaders = plugin.tl_loaders  # type: ignore[attr-defined]
    registry = load_registry([("listed", module)])
    monkeypatch.setattr("tl_core.registry.load_registry", lambda: registry)
    monkeypatch.chdir(tmp_path)


def names(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert cli.main(["backbones", "--json", *arguments]) == 0
    return [entry["name"] for entry in json.loads(capsys.readouterr().out)["backbones"]]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), ["large", "Odd", "tiny", "base"]),
        (("timeseries",), ["large", "Odd", "tiny", "base"]),
        (("base",), ["base"]),
        (("--max-params", "30M"), ["tiny", "base"]),
        (("--max-params", "29.9m"), ["tiny"]),
        (("--max-params", "1517856"), ["tiny"]),
        (("--max-params", "0.3G", "--max-flops", "5G"), ["tiny", "base"]),
        (("--max-params", "0.3B", "--max-flops", "5G"), ["tiny", "base"]),
        (("--max-flops", "1000k"), ["tiny"]),
        (("--licence", "permissive"), ["tiny"]),
        (("--licence", "permissive,copyleft"), ["tiny", "base"]),
        (("--licence", "unknown", "--licence", "non-commercial"), ["large", "Odd"]),
        (("--licence", "any"), ["large", "Odd", "tiny", "base"]),
        (("--preset", "best"), ["large", "base"]),
        (("--preset", "best", "--device", "cpu"), ["base"]),
        (("--device", "cpu"), ["tiny", "base"]),
        (("--offline",), ["tiny"]),
        (("--search", "HEARTBEATS"), ["large", "tiny"]),
        (("--search", "hub thousand"), ["tiny"]),
        (("--sort", "name"), ["base", "large", "Odd", "tiny"]),
        (("--sort", "params"), ["tiny", "base", "large", "Odd"]),
        (("--sort", "throughput"), ["tiny", "base", "large", "Odd"]),
        (("--sort", "features"), ["tiny", "base", "large", "Odd"]),
        (("--sort", "licence"), ["tiny", "base", "large", "Odd"]),
    ],
)
def test_what_is_listed(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], expected: list[str]) -> None:
    assert names(capsys, *arguments) == expected


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["backbones"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "timeseries: 4",
        "backbone  params  FLOPs  features  licence          offline",
        "large       300M  1.01T      1024  cc-by-nc-4.0 !",
        "    ten years of heartbeats; presets cuda/best",
        "Odd                                weird-license ?",
        "    nobody knows",
        "tiny       1.52M  1000k        64  MIT              yes",
        "    64 steps; A thousand heartbeats; presets cpu/fast, cpu/balanced",
        "base         30M     5G       256  GPLv3",
        "    presets cpu/best",
        "",
        "! not for commercial use",
        "? licence not stated, or with terms of its own: read it before you use the weights",
    ]


def test_no_legend_without_a_mark(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["backbones", "--licence", "permissive"]) == 0
    assert "!" not in capsys.readouterr().out


def test_all_about_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["backbones", "tiny"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "name           tiny",
        "modality       timeseries",
        "params         1,517,856",
        "flops          999,950",
        "feature dim    64",
        "input          64 steps",
        "takes          steps 64, kinds ecg, eeg",
        "pretrained on  A thousand heartbeats",
        "licence        MIT",
        "licence kind   permissive",
        "presets        cpu/fast, cpu/balanced",
        "source         hub",
        "location       hub/tiny",
        "revision       -",
        "offline        yes",
    ]


def test_nothing_left(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["backbones", "--max-params", "1k"]) == 0
    assert capsys.readouterr().out.startswith("none; `tl backbones` lists those that can be downloaded")


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("--max-params", "30 million"), "'30 million' is no size; give a number, with k, M, G or T"),
        (("--max-flops", "-5G"), "'-5G' is no size"),
        (("--licence", "free,permissive,gratis"), "no kind of licence is 'free', 'gratis'; there are permissive, "),
        (("--sort", "speed"), "'speed' is not one of"),
        (("timeserie",), "no modality or backbone 'timeserie'; did you mean timeseries? there are timeseries, and"),
        (("tinny",), "no modality or backbone 'tinny'; did you mean tiny?"),
    ],
)
def test_faults(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], fault: str) -> None:
    assert cli.main(["backbones", *arguments]) == 2
    assert fault in " ".join(capsys.readouterr().err.split())


def test_pins_are_shown_and_taken_out(capsys: pytest.CaptureFixture[str]) -> None:
    outputs = Path("tl-run")
    outputs.mkdir()
    (outputs / LOCK).write_text(json.dumps({"hub/tiny": OLD, "some/other": OLD}))
    assert cli.main(["backbones", "tiny", "--offline"]) == 0
    assert f"revision       {OLD}\n" in capsys.readouterr().out
    assert cli.main(["backbones"]) == 0
    assert "presets cpu/fast, cpu/balanced; revision 0123456789ab\n" in capsys.readouterr().out
    assert cli.main(["backbones", "--unpin", "tiny"]) == 0
    assert capsys.readouterr().out == (
        "hub/tiny: the next `tl select` takes the revision that the hub has then (it was 0123456789ab)\n"
    )
    assert read_pins(outputs) == {"some/other": OLD}
    assert cli.main(["backbones", "--unpin", "some/other", "--unpin", "tiny", "--unpin", "x"]) == 2
    fault = capsys.readouterr().err
    assert fault == f"tl: nothing of tiny, x is pinned in {outputs / LOCK}; pinned are: some/other\n"
    assert read_pins(outputs) == {"some/other": OLD}


def test_the_real_catalogue_fits_into_120_columns() -> None:
    code = "from tl_flows.cli import main; raise SystemExit(main(['backbones']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) > 100
    assert max(map(len, done.stdout.splitlines())) <= 120
