"""What is measured as a whole process: `python -m benchmarks.features.subjects NAME arguments...`, answers as JSON.

Nothing is imported before the subject is known, so that a process pays for its own libraries only.
"""

from __future__ import annotations

import csv
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def imports(path: str) -> dict[str, Any]:
    """Nothing but importing what another subject had imported when it ended: the start-up that it is measured above."""
    names = json.loads(Path(path).read_text(encoding="utf-8"))
    for name in names:
        try:
            importlib.import_module(name)
        except Exception:  # some modules only import from within their package's own order
            continue
    return {"imported": len(names)}


def transfer(table: str, work: str, strengths: str, engine: str = "auto") -> dict[str, Any]:
    """tl on a table of texts, as its steps do it: version, the features that the store lacks, the probe."""
    import torch

    from benchmarks.features.plugins import registry_here
    from tl_core.config import validate
    from tl_core.extraction import END, features, fill
    from tl_core.manifest import scan
    from tl_core.steps.backbone import Lazy
    from tl_core.store import FeatureStore, Space
    from tl_core.training import fit_probe

    config = validate({"tune": {"strengths": [float(value) for value in strengths.split(",")]}})
    registry, folder = registry_here(), Path(work)
    manifest = scan(Path(table), config, registry.loaders(), base=folder, cache=folder / "cache", progress=False)
    loader, store = registry.loader("text"), FeatureStore(folder / "store")
    backbone = Lazy(registry.backbone("all-minilm-l6-v2", "text"))
    facts = backbone.facts("all-minilm-l6-v2", folder / "cache")
    done = fill(manifest, manifest.rows(), loader, facts["fingerprint"], backbone, store, engine=engine)
    space = Space(facts["fingerprint"], END, done.precision)
    x, y = {}, {}
    for split in ("train", "val", "test"):
        rows = manifest.rows(split)
        x[split] = torch.from_numpy(features(manifest, rows, loader, backbone, space, store))
        y[split] = torch.from_numpy(manifest.target_array(rows))
    spec = registry.head("text", manifest.targets.task, "linear")
    fit = fit_probe(
        x["train"], y["train"], x["val"], y["val"], spec.build(facts["feature_dim"], manifest.targets), spec,
        manifest.targets, config.tune.strengths, config.tune.refit,
    )  # fmt: skip
    with torch.no_grad():
        right = fit.head.decode(fit.head(x["test"])).argmax(dim=1) == y["test"]
    return {
        "computed": done.computed,
        "reused": done.reused,
        "engine": done.engine,
        "precision": done.precision,
        "accuracy": float(right.float().mean()),
        "test_rows": len(right),
    }


def encode(table: str, folder: str, strength: str) -> dict[str, Any]:
    """sentence-transformers and scikit-learn on the same table, split by chance as scikit-learn does."""
    from sentence_transformers import SentenceTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split

    with Path(table).open(encoding="utf-8", newline="") as stream:
        texts, labels = zip(*((row["text"], row["label"]) for row in csv.DictReader(stream)))
    model = SentenceTransformer(folder, device="cpu", local_files_only=True)
    x = model.encode(list(texts), show_progress_bar=False)
    x_train, x_test, y_train, y_test = train_test_split(x, labels, test_size=0.2, random_state=0, stratify=labels)
    head = LogisticRegression(C=float(strength), max_iter=1000).fit(x_train, y_train)
    return {"computed": len(texts), "accuracy": float(head.score(x_test, y_test)), "test_rows": len(y_test)}


def steps(data: str, backbone: str, out: str) -> dict[str, Any]:
    """tl's steps up to extract in one folder: seconds of each, computed and reused samples."""
    import time

    from benchmarks.features.plugins import registry_here
    from tl_core.config import validate
    from tl_core.steps import extract, select, version
    from tl_core.workspace import Workspace

    root = Path(out)
    config = validate({"data": {"path": data}, "select": {"backbones": [backbone], "sample": 60}})
    workspace, registry = Workspace(root, root / "store", root / "cache"), registry_here()
    answer: dict[str, Any] = {}
    for name, step in (("version", version), ("select", select), ("extract", extract)):
        if name == "select" and workspace.ranking.is_file():
            continue
        clock = time.perf_counter()
        results = step(config, registry, workspace)
        answer[name] = round(time.perf_counter() - clock, 3)
        if name == "extract":
            answer |= {key: results[key] for key in ("computed", "reused", "engine", "precision")}
    return answer


def fill(manifest: str, kind: str, backbone: str, store: str, count: str) -> dict[str, Any]:
    """Extraction of the first `count` rows of a manifest; the process's memory is what matters."""
    from benchmarks.features.material import load
    from benchmarks.features.plugins import registry_here
    from tl_core.extraction import extract
    from tl_core.store import FeatureStore

    table, rows = load(Path(manifest))
    if kind == "vectors":
        from benchmarks.features.vectors import VectorLoader, vector_backbone

        done = extract(
            table, rows[: int(count)], VectorLoader(), vector_backbone(), FeatureStore(Path(store)), engine="torch"
        )
    else:
        registry = registry_here()
        network = registry.backbone(backbone, "text").build()
        done = extract(table, rows[: int(count)], registry.loader("text"), network, FeatureStore(Path(store)))
    # the process's own, which the parent's view of it (ru_maxrss) mixes with the parent's peak before exec
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak = int(status["VmHWM"].split()[0]) * 1024
    return {
        "computed": done.computed,
        "engine": done.engine,
        "seconds": round(done.seconds, 2),
        "peak_bytes": peak,
    }


SUBJECTS: dict[str, Callable[..., dict[str, Any]]] = {
    "imports": imports,
    "transfer": transfer,
    "encode": encode,
    "steps": steps,
    "fill": fill,
}


def main() -> None:
    name, *arguments = sys.argv[1:]
    names_to = None
    if name == "--modules":
        names_to, name, *arguments = arguments
    answer = SUBJECTS[name](*arguments)
    if names_to is not None:
        names = [module for module in list(sys.modules) if not module.startswith(("__", "benchmarks"))]
        Path(names_to).write_text(json.dumps(names), encoding="utf-8")
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
