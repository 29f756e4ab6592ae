"""Several projects in one command: what runs, what is told, and the page over all."""

from __future__ import annotations

import html.parser
import logging
import subprocess
import sys
import urllib.parse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import tl_flows
from tl_flows import cli, prefect_env, projects
from tl_flows.engine import StepResult, open_project
from tl_flows.flow_session import FlowSession
from tl_flows.stage_process import StageError

from tl_core.errors import UserError
from tl_core.report import FloorSummary, RunSummary
from tl_core.workspace import STEPS, write_json


def summary(value: float) -> RunSummary:
    return RunSummary(
        title="Text: tiny", modality="text", backbone="tiny", strategy="probe", metric="accuracy", value=value,
        low=value - 0.05, high=value + 0.05, confidence=0.9, n_test=1200,
        floors=(FloorSummary("majority", "commonest class", 0.25), FloorSummary("random_init", "random weights", 0.5)),
        state="above", headline="Clearly above its floors", sentence="Accuracy 0.8.", meaning="pretraining helps here",
    )  # fmt: skip


def leave_results(root: Path, value: float) -> None:
    """What the last step leaves in a project."""
    evaluated = root / "artifacts" / "evaluate"
    write_json(evaluated / "metrics.json", {"accuracy": value})
    write_json(evaluated / "report.json", {"summary": summary(value).as_json()})
    (root / ".tl").mkdir(exist_ok=True)
    (root / ".tl" / "report.html").write_text("page")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The projects whose flow was called; the flow is replaced by what it leaves behind."""
    called: list[Path] = []

    def call(self: FlowSession, folder: Path, config: object = None) -> Mapping[str, StepResult]:
        called.append(folder)
        leave_results(folder, 0.8)
        return {step: StepResult(step, False, {"seconds": 1.5}) for step in STEPS}

    monkeypatch.setattr(FlowSession, "call", call)
    monkeypatch.setattr(prefect_env, "find_server", lambda: prefect_env.Server(None, {}))
    monkeypatch.setattr("tl_flows.runs.render_timed", lambda workspace, target: target)
    return called


@pytest.fixture
def pair(sub_project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> list[Path]:
    """A repository's own project, which is the current folder, and one in a folder of it."""
    caplog.set_level(logging.INFO, "tl")
    root = sub_project.parents[1]
    monkeypatch.chdir(root)
    monkeypatch.setattr("tl_flows.engine.STEPS", ("version", "select"))
    return [root, sub_project]


def test_each_project_is_told_under_its_name(pair: list[Path], calls: list[Path], caplog: Any) -> None:
    done = tl_flows.run_projects([".", "demo/sub"])
    assert calls == pair
    assert [(p.name, p.error) for p in done] == [("project", None), ("demo/sub", None)]
    assert [p.run.seconds for p in done if p.run] == [7.5, 7.5]
    assert caplog.messages == [
        "\n== project", "meaning   pretraining helps here", "\n== demo/sub", "meaning   pretraining helps here"
    ]  # fmt: skip


@pytest.mark.usefixtures("calls")
def test_settings_are_set_in_each(pair: list[Path]) -> None:
    tl_flows.run_projects(pair, settings={"seed": 4})
    assert all((root / "params.yaml").read_text().startswith("seed: 4") for root in pair)


def test_what_is_up_to_date_needs_no_server(pair: list[Path], calls: list[Path]) -> None:
    subprocess.run([sys.executable, "-m", "dvc", "repro", "-q", "--all-pipelines"], cwd=pair[0], check=True)
    for root in pair:
        leave_results(root, 0.8)
    done = tl_flows.run_projects(pair)
    assert calls == []
    assert [p.run.seconds for p in done if p.run] == [0.0, 0.0]
    (pair[1] / "params.yaml").write_text("seed: 9\ndata: {path: ../../data/a}\n")
    tl_flows.run_projects(pair)
    assert calls == [pair[1]]


def test_a_project_that_fails_does_not_stop_the_others(
    pair: list[Path], calls: list[Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    succeed = FlowSession.call

    def call(self: FlowSession, folder: Path, config: Any = None) -> Mapping[str, StepResult]:
        if folder == pair[0]:
            raise fault
        return succeed(self, folder, config)

    monkeypatch.setattr(FlowSession, "call", call)
    faults: list[tuple[Exception, int]] = [(UserError("one class\nno label"), 2), (StageError("killed"), 1)]
    for fault, code in faults:
        assert cli.main(["run", ".", "demo/sub"]) == code
        out, err = capsys.readouterr()
        assert "report of demo/sub: " in out
        assert "failed" in out
        assert err.endswith("".join(f"tl: project: {line}\n" for line in str(fault).splitlines()))
        assert out.endswith(f"index: {pair[0] / 'artifacts' / 'index.html'}\n")
        assert "one class" in (pair[0] / "artifacts" / "index.html").read_text() or code == 1
    assert calls == [pair[1], pair[1]]


def test_data_that_git_left_behind_are_told_before_another_project_records_its_own(
    pair: list[Path], calls: list[Path], git: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, sub = pair
    other = root / "demo" / "other"
    other.mkdir()
    for name in ("dvc.yaml", "params.yaml"):
        (other / name).write_text((sub / name).read_text().replace("../../data/a", "../../data/3.txt"))
    git(root, "add", "-A")
    git(root, "commit", "-qm", "another project")

    def dvc(*arguments: str) -> None:
        subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=root, check=True, capture_output=True)

    def call(self: FlowSession, folder: Path, config: object = None) -> Mapping[str, StepResult]:
        open_project(folder, {}).record_data()
        return reached(self, folder, config)

    reached = FlowSession.call
    monkeypatch.setattr(FlowSession, "call", call)
    (root / "data" / "a" / "1.txt").write_text("changed\n")
    dvc("add", "-q", "data")
    git(root, "commit", "-qam", "new data")
    git(root, "checkout", "-q", "HEAD~1")
    dvc("checkout", "-q", "data.dvc")
    git(root, "checkout", "-q", "-")
    (root / "data" / "3.txt").write_text("news\n")
    done = tl_flows.run_projects([other, sub])
    assert calls == [other]
    assert done[0].error is None
    assert "an earlier version" in str(done[1].error)


def test_ctrl_c_ends_all(pair: list[Path], monkeypatch: pytest.MonkeyPatch, calls: list[Path]) -> None:
    def call(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(FlowSession, "call", call)
    assert cli.main(["run", ".", "demo/sub"]) == 130
    assert calls == []


def test_a_folder_that_is_no_project_is_refused_before_anything_runs(
    pair: list[Path], calls: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", ".", "data", "nowhere"]) == 2
    assert [line[:26] for line in capsys.readouterr().err.splitlines()] == [
        "tl: data is no tl project ",
        "tl: no such folder: nowher",
    ]
    assert calls == []


@pytest.mark.usefixtures("pair", "calls")
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["demo/sub", "--data", "data"], "tl: --data is for a run outside of any project; give either --data or PROJ"),
        ([".", "demo/sub", "--backbone", "b"], "tl: --modality and --backbone go with one project; --set changes"),
        ([".", "demo/sub", "--out", "o"], "tl: --out goes with --data"),
    ],
)
def test_options_that_do_not_fit(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", *arguments]) == 2
    assert capsys.readouterr().err.startswith(text)


@pytest.mark.usefixtures("calls")
def test_one_project_by_name_is_run_as_in_its_folder(pair: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "demo/sub", "--set", "seed=3"]) == 0
    out = capsys.readouterr().out
    assert "\nmeaning: " in out
    assert out.endswith(f"report:   {pair[1]}/.tl/report.html\nmodel:    {pair[1]}/artifacts/tune/model\n")
    assert (pair[1] / "params.yaml").read_text().startswith("seed: 3")
    assert not (pair[0] / "artifacts" / "index.html").exists()


@pytest.mark.usefixtures("calls")
def test_the_pages_links_lead_to_the_projects_files(pair: list[Path]) -> None:
    done = tl_flows.run_projects(pair)
    page = projects.write_index(done, pair[0] / "a folder é" / "index.html")
    links: list[str] = []

    class Links(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            links.extend(value or "" for name, value in attrs if tag == "a" and name == "href")

    Links().feed(page.read_text())
    reports = {(page.parent / urllib.parse.unquote(link)).resolve() for link in links if link.endswith("report.html")}
    assert reports == {root / ".tl" / "report.html" for root in pair}
    assert all(path.is_file() for path in reports)
    (pair[0] / "file").write_text("")
    with pytest.raises(UserError, match="can't write to the folder of the index page"):
        projects.write_index(done, pair[0] / "file" / "index.html")


def test_no_project_is_nothing_to_do() -> None:
    assert tl_flows.run_projects([]) == []


def test_the_page_and_the_table_need_no_torch(pair: list[Path]) -> None:
    leave_results(pair[0], 0.8)
    script = (
        "import sys; from pathlib import Path; from tl_flows import projects, runs, summary\n"
        "path = Path('artifacts/evaluate/report.json'); run = runs.Run({}, {}, path, path, path)\n"
        "done = [projects.ProjectRun('a', path, run, run.summary())]\n"
        "projects.write_index(done, Path('i.html')); summary.projects_table(done)\n"
        "heavy = {'torch', 'numpy', 'prefect', 'dvc'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
