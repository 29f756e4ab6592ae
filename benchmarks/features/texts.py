"""Texts: tl on each engine against sentence-transformers in two precisions and against padding to the maximum."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.features.contest import Contender, Contest, Entry, Work
from benchmarks.features.material import load, manifest_of, texts
from benchmarks.features.models import minilm_folder
from benchmarks.features.ours import ENGINES, REFERENCE, Job, contenders, ratios
from benchmarks.features.setting import Setup

CASES = ("minilm",)
ENCODE, ENCODE_HALF, PADDED = "sentence-transformers float32", "sentence-transformers bfloat16", "padded to 256"
MAX_LENGTH = 256
BATCH = 32

# texts in one timed work: the main contenders take all, the slow ones a part of the same spread
COUNTS = {
    "cpu": {"all": 2000, "part": 500, "padded": 192},
    "cuda": {"all": 20_000, "part": 20_000, "padded": 4000},
}


def measure(case: str, setup: Setup) -> dict[str, Any]:
    """Rates in texts and in tokens, ratios, and how close the features are."""
    quick = {"all": 64, "part": 48, "padded": 16}
    counts = quick if setup.quick else COUNTS[setup.device]
    warm = 4 if setup.quick else 16
    table = texts(setup, counts["all"] + 2 * warm)
    manifest, folder = manifest_of(table, setup), minilm_folder(setup)
    job = Job(
        manifest, "text", setup.text_encoder, setup.device, setup.cache / "contest" / "texts",
        distinct=counts["all"], decode=counts["all"], warm=warm,
    )  # fmt: skip

    def rows(engine: str, precision: str) -> tuple[int, int]:
        count = counts["all" if (engine, precision) == ENGINES[setup.device][0] else "part"]
        return count, 0 if (engine, setup.device) == ("torch", "cpu") else count

    ours = contenders(job, rows)
    given = {"manifest": manifest, "folder": folder, "device": setup.device, "skip": 2 * warm}
    rivals = [
        Contender(ENCODE, enter_encode, {**given, "count": counts["all"], "precision": "float32"}),
        Contender(ENCODE_HALF, enter_encode, {**given, "count": counts["all"], "precision": "bfloat16"}),
        Contender(PADDED, enter_padded, {**given, "count": counts["padded"]}),
    ]
    with Contest([*ours, *rivals]) as contest:
        works = contest.rounds(setup.rounds)
        # the float32 that features are compared with is torch's, tl's reference
        best, reference = ours[0].name, REFERENCE
        close = {
            f"{best} to {reference}": closeness(contest, best, reference),
            f"{reference} to {ENCODE}": closeness(contest, reference, ENCODE),
            f"{ENCODE_HALF} to {ENCODE}": closeness(contest, ENCODE_HALF, ENCODE),
        }
        company = contest.once(best, "company")
    return {
        "unit": "texts",
        "sample": lengths(manifest, folder, 2 * warm, counts["all"]),
        "works": works,
        "facts": contest.facts,
        "absent": contest.absent,
        "ratios": ratios(works, ours, [ENCODE, ENCODE_HALF, PADDED]),
        "cosine": {pair: found for pair, found in close.items() if found},
        "company": company,
    }


def closeness(contest: Contest, one: str, other: str) -> dict[str, float] | None:
    """Cosines between two contenders' features of the same samples; None where one of them is out."""
    found = [contest.once(name, "features") for name in (one, other)]
    if None in found:
        return None
    a, b = (np.load(answer["path"]).astype(np.float64) for answer in found if answer is not None)
    return cosines(a, b)


def cosines(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """Minimum and mean cosine of the rows that both have; [N, D] and [M, D], compared up to the shorter."""
    n = min(len(a), len(b))
    a, b = a[:n], b[:n]
    found = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return {"samples": n, "min": round(float(found.min()), 6), "mean": round(float(found.mean()), 6)}


def lengths(manifest: Path, folder: Path, skip: int, count: int) -> dict[str, Any]:
    """Tokens of the texts that are timed, as the encoder sees them."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_LENGTH)
    found = [len(encoding.ids) for encoding in tokenizer.encode_batch(_texts(manifest, skip, count))]
    quantiles = np.quantile(found, (0.1, 0.5, 0.9)).round().astype(int).tolist()
    return {"mean_tokens": round(float(np.mean(found)), 2), "tokens_10_50_90": quantiles, "most_tokens": max(found)}


def enter_encode(manifest: Path, folder: Path, device: str, skip: int, count: int, precision: str) -> Entry:
    """SentenceTransformer.encode as its documentation shows it, its own batch size and sorting."""
    import sentence_transformers
    import torch

    settings: dict[str, Any] = {} if precision == "float32" else {"model_kwargs": {"dtype": torch.bfloat16}}
    model = sentence_transformers.SentenceTransformer(str(folder), device=device, local_files_only=True, **settings)
    model.max_seq_length = MAX_LENGTH
    given = _texts(manifest, skip, count)
    model.encode(given[:BATCH], show_progress_bar=False)
    path = manifest.parent / f"sentence-transformers-{precision}.npy"
    last = np.zeros((0, 0))

    def whole() -> Work:
        def work() -> dict[str, Any]:
            nonlocal last
            last = model.encode(given, batch_size=BATCH, show_progress_bar=False, convert_to_numpy=True)
            return {"items": len(last)}

        return work

    def features() -> Work:
        def work() -> dict[str, Any]:
            np.save(path, last.astype(np.float32))
            return {"path": str(path)}

        return work

    name = f"sentence-transformers {sentence_transformers.__version__}, {precision}"
    return Entry({"whole": whole, "features": features}, {"engine": name})


def enter_padded(manifest: Path, folder: Path, device: str, skip: int, count: int) -> Entry:
    """Tokenizer and encoder of transformers, every text padded to the maximum, eager float32."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True).eval().to(device)
    given = _texts(manifest, skip, count)

    def encoded(part: list[str]) -> torch.Tensor:
        batch = tokenizer(
            part, padding="max_length", truncation=True, max_length=MAX_LENGTH, return_tensors="pt"
        ).to(device)  # fmt: skip
        tokens = model(**batch).last_hidden_state  # [B, T, D]
        mask = batch["attention_mask"].unsqueeze(2)
        pooled = (tokens * mask).sum(dim=1) / mask.sum(dim=1)
        return torch.nn.functional.normalize(pooled).cpu()

    def whole() -> Work:
        def work() -> dict[str, Any]:
            with torch.inference_mode():
                found = [encoded(given[i : i + BATCH]) for i in range(0, len(given), BATCH)]
            return {"items": sum(map(len, found))}

        return work

    with torch.inference_mode():
        encoded(given[:2])
    return Entry({"whole": whole}, {"engine": "transformers eager, float32"})


def _texts(manifest: Path, skip: int, count: int) -> list[str]:
    """The texts in the order that tl takes them, without those that engines are warmed up on."""
    table, rows = load(manifest)
    return [str(sample.source) for sample in table.samples(rows[skip : skip + count])]
