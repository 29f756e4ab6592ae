"""The one validated configuration behind params.yaml, the command line and Python."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from tl_core.errors import UserError, did_you_mean


class Section(BaseModel):
    """A part of the config: unknown keys are refused, values never change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(Section):
    """What the data are and how they are split."""

    path: str = Field("data", description="folder or table (CSV, TSV, JSONL, Parquet) with the samples")
    label: str | None = Field(None, description="label column of a table; guessed from its name where null")
    file: str | None = Field(None, description="column with file paths; guessed where null")
    text: str | None = Field(None, description="column with texts; guessed where null")
    split: str | None = Field(None, description="column with train/val/test; guessed where null")
    group: str | None = Field(None, description="column whose values must not cross splits (speaker, patient)")
    attributes: tuple[str, ...] = Field((), description="further columns by which results are compared (age, device)")
    task: Literal["auto", "multiclass", "multilabel", "regression"] = "auto"
    separator: str = Field("|", min_length=1, description="between the labels of a multi-label cell")
    test_fraction: float = Field(0.2, gt=0, lt=1, description="where the data bring no test split")
    val_fraction: float = Field(0.15, gt=0, lt=1, description="of what is not test, where there is no val split")
    holdout: str | None = Field(
        None, description="file of a frozen test set, relative to the project: its samples stay in the test split"
    )
    max_bad: float = Field(0.01, ge=0, le=1, description="share of bad samples past which the run stops")


class SelectConfig(Section):
    """Which backbones compete, on how much, and what decides between those that tie."""

    backbones: tuple[str, ...] = Field((), description="names, hub ids or folders; one pins it; none: the preset's")
    preset: Literal["fast", "balanced", "best"] = Field(
        "balanced", description="which backbones compete where none is named"
    )
    minutes: float = Field(
        # a plan in FLOPs at this machine's speed, so that a rerun goes as far; the clock only stops what runs away
        5.0,
        gt=0,
        allow_inf_nan=False,
        description="what the ranking may take, downloads aside",
    )
    sample: int = Field(1000, ge=20, description="training samples that candidates are ranked on at most, stratified")
    folds: int = Field(5, ge=2, le=20, description="cross-validation folds of the ranking probe")
    prefer: Literal["cost", "accuracy", "size"] = Field(
        "cost", description="what decides among backbones that tie: FLOPs per sample, the metric, or parameters"
    )
    tolerance: float = Field(
        0.01, ge=0, le=1, description="share of the metric that a preferred backbone may be behind the leader"
    )
    cuts: bool = Field(True, description="probe: let inner layers of the finalists compete as well")


class ExtractConfig(Section):
    """How features are computed."""

    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto takes a GPU where there is one")
    engine: Literal["auto", "torch", "compile", "openvino"] = Field(
        "auto", description="auto: openvino on a CPU where it is installed and pays back, compile on a GPU likewise"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: what the store holds most rows of, else bfloat16 where the device has it natively"
    )


class SearchConfig(Section):
    """A search over settings before the final fit."""

    trials: int = Field(0, ge=0, description="settings that are tried before the final fit; 0: none")
    storage: str | None = Field(
        None, description="Optuna storage URL; null: a SQLite file in .tl/, which the step deletes at its end"
    )


class TuneConfig(Section):
    """How the model is trained."""

    strategy: Literal["auto", "probe", "finetune", "lp_ft", "gradual", "contrastive", "scratch"] = Field(
        "auto",
        description="auto: probe, and lp_ft or finetune where a trial says that it pays; lp_ft: the probe's weights "
        "start the head; gradual: from the top; contrastive: samples of one class together, then the probe; scratch: "
        "random weights",
    )
    minutes: float = Field(
        # a plan in FLOPs, as the ranking's
        3.0,
        ge=0,
        allow_inf_nan=False,
        description="auto: what its trials may take",
    )
    head: str = Field("linear", description="the plugin's head, by name")
    balance: bool = Field(
        False, description="classes count alike: the probe weighs rows, fine-tuning draws them evenly"
    )
    calibrate: bool = Field(True, description="divide logits by a temperature found on validation")
    strengths: tuple[float, ...] = Field(
        # total L2 penalties, strongest first: chosen on validation, worth more points than any other knob
        (1000.0, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01),
        min_length=1,
        description="L2 strengths that the probe's path visits",
    )
    refit: bool = Field(True, description="probe: fit once more on train + val at the chosen strength")
    curve: bool = Field(True, description="learning curve of the probe, and whether more data would help")
    start: str | None = Field(
        # off: whether it pays depends on the data, and a model without ancestors is the easier one to reproduce
        None,
        description="fine-tuning goes on from this model: champion, which `tl retrain` looks up, or the md5 of a "
        "registered one; null: the pretrained weights",
    )
    train_from: int | Literal["auto", "all"] = Field(
        "auto",
        description="fine-tuning: the last k segments with weights, or all; auto: all but a word table",
    )
    update: Literal["all", "biases", "norms", "lora", "dora", "ia3"] = Field(
        "all", description="what of the trained segments is updated: all, biases or norms alone, or an adapter"
    )
    rank: int = Field(8, ge=1, description="lora, dora: rank of the update; it is scaled by 2")
    epochs: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto", description="passes over the training rows; auto: 10, with few rows as many as make 200 updates"
    )
    lr: float = Field(2e-4, gt=0, description="peak learning rate of the backbone")
    head_lr: float | None = Field(
        None,
        gt=0,
        description="peak learning rate of the head; null: lr where it starts from the probe, else 5 times lr",
    )
    find_lr: bool = Field(False, description="a range test sets lr, and head_lr in proportion")
    batch_norm: Literal["keep", "update"] = Field(
        # a few small batches estimate them too badly: what they cost is more than what is learnt
        "keep",
        description="statistics of trained batch-norms: the pretraining's, or updated; scratch updates them",
    )
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="factor of the learning rate from one segment to the one below"
    )
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="of the learning rate after warm-up"
    )
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps that the learning rate rises")
    weight_decay: float = Field(0.01, ge=0, description="of matrices; biases and norms have none")
    l2_sp: float = Field(0.0, ge=0, description="strength of the pull towards the pretrained weights")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target that is spread over all classes")
    mix: Literal["none", "mixup", "cutmix"] = Field("none", description="samples of fixed shape are mixed in training")
    mix_alpha: float = Field(0.2, gt=0, description="of the beta distribution of the mixing share")
    ema: float = Field(0.0, ge=0, lt=1, description="decay of the weights' moving average, which is the model; 0: none")
    wise: float = Field(
        1.0, ge=0, le=1, description="share of the tuned weights in the model, the rest is where they started (WiSE-FT)"
    )
    clip: float = Field(1.0, gt=0, description="norm that gradients are clipped to")
    batch_size: int = Field(16, ge=1, description="rows of an update, over all processes")
    memory_batch: int | Literal["auto"] = Field(
        "auto", description="rows that go through the network at once; auto: all, halved where memory runs out"
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="of training's forward; auto: bfloat16 where the device has it natively"
    )
    deterministic: bool = Field(True, description="the same bytes again; false may be faster on a GPU")
    patience: int = Field(
        10, ge=1, description="epochs in a row that are clearly worse on validation than the best before training stops"
    )
    augment: bool = Field(True, description="fine-tuning: use the plugin's augmentation on training samples")
    cache: Literal["auto", "always", "never"] = Field(
        "auto", description="train from stored states before the first trained segment; auto: where it pays back"
    )
    views: int = Field(
        0, ge=0, description="stored augmented variants of each sample; with augment and 0, states are not stored"
    )
    save_minutes: float = Field(2.0, ge=0, description="how often the state of training is saved, for a resume")
    search: SearchConfig = SearchConfig()

    @field_validator("start")
    @classmethod
    def _names_a_model(cls, value: str | None) -> str | None:
        if value is None or re.fullmatch(r"champion|[0-9a-f]{32}", value):
            return value
        raise PydanticCustomError(
            "start", "allowed: null, champion, or the md5 of a registered model, which `tl registry show v3` tells"
        )

    @property
    def head_rate(self) -> float:
        """Peak learning rate of the head: one that starts from the probe knows its way already."""
        if self.head_lr is not None:
            return self.head_lr
        return self.lr * (1 if self.strategy == "lp_ft" else 5)

    @property
    def may_probe(self) -> bool:
        """Whether a linear model on the frozen embedding may be what comes out."""
        return self.strategy in ("auto", "probe")


class EvaluateConfig(Section):
    """How the result is measured."""

    confidence: float = Field(0.9, gt=0.5, lt=1, description="coverage of every interval")
    bootstrap: int = Field(1000, ge=100, description="resamples of the test rows")
    diagnostics: bool = Field(
        True, description="look for leakage, label errors, shift, unfair groups, miscalibration, ...; false: none of it"
    )
    baseline: bool = Field(True, description="compare with a probe on plain features that need no network")
    scratch_minutes: float = Field(
        2.0,
        ge=0,
        allow_inf_nan=False,
        description="what training from random weights may take, to compare a fine-tuned network with; 0: not done",
    )
    robustness: int = Field(64, ge=0, description="test rows that are corrupted to see what that costs; 0: none")
    explain: int = Field(6, ge=0, le=50, description="worst errors shown with what the model looked at; 0: none")


class GateConfig(Section):
    """When a newly trained model may take the place of the one that serves."""

    confidence: float = Field(
        0.95, gt=0.5, lt=1, description="a model that is no better is promoted in at most 1 - confidence of cases"
    )
    min_gain: float = Field(0.0, ge=0, lt=1, description="what the watched metric must rise by, surely")
    class_drop: float = Field(0.1, ge=0, le=1, description="fall of a class's F1 that is let pass")
    group_drop: float = Field(
        0.1, ge=0, le=1, description="fall of the watched metric that is let pass for a value of a group or attribute"
    )
    newest_drop: float = Field(0.0, ge=0, le=1, description="the same on samples that the serving model's data lacked")
    forgetting: float = Field(
        0.02, ge=0, le=1, description="the same on a replaced test set's rows, and on classes that were known before"
    )
    calibration_rise: float = Field(0.03, ge=0, le=1, description="rise of the calibration error that is let pass")
    max_latency_ms: float | None = Field(None, gt=0, description="of one sample, from its file to the answer")
    max_megabytes: float | None = Field(None, gt=0, description="of the model with all the weights that it needs")
    strict: bool = Field(
        False, description="what must not fall must be shown not to; false: it must not be shown to have fallen"
    )
    renew_share: float = Field(
        0.5, gt=0, description="new test rows, as a share of the frozen ones, past which the test set is frozen anew"
    )
    max_uses: int = Field(
        # each decision lets a little of the test set into the choice of models
        20,
        ge=1,
        description="decisions on one test set past which a warning says that it wears out",
    )


class RegistryConfig(Section):
    """What becomes of versions of the model."""

    name: str | None = Field(
        None, description="of the model where the registry is mirrored (MLflow); null: the project folder's name"
    )
    push: bool = Field(
        # off: it needs a remote of DVC and one of git, and rights to write there at night
        False,
        description="a retrain sends its version to others: model and data to DVC's remote, then tags to git's",
    )

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, value: str | None) -> str | None:
        if value is None or (len(value) <= 200 and re.fullmatch(r"\w([\w .+-]*[\w+-])?", value)):
            return value
        raise PydanticCustomError(
            "name",
            "allowed: null, or up to 200 letters, digits and any of . _ + - and blanks, the first a letter or digit",
        )


class StoreConfig(Section):
    """Where features live."""

    path: str | None = Field(None, description="feature store; null: .tl/ of the project, else the user's cache")


class RunConfig(Section):
    """Everything that a run may use; nothing reads the environment behind its back."""

    seed: int = Field(0, ge=0, lt=2**32)
    modality: str | None = Field(None, description="image, text, audio or a plugin's; guessed from the data where null")
    data: DataConfig = DataConfig()
    select: SelectConfig = SelectConfig()
    extract: ExtractConfig = ExtractConfig()
    tune: TuneConfig = TuneConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    gate: GateConfig = GateConfig()
    registry: RegistryConfig = RegistryConfig()
    store: StoreConfig = StoreConfig()


def load_config(path: Path | None = None, overrides: Iterable[str] = ()) -> RunConfig:
    """The config of a YAML file (defaults where None), with `key.sub=value` overrides applied.

    Raises UserError with every fault at once.
    """
    values: Any = {}
    if path is not None:
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, yaml.YAMLError) as error:
            raise UserError(f"unreadable config {path}: {str(error).splitlines()[0]}") from error
        if not isinstance(values, dict):
            raise UserError(f"unreadable config {path}: expected keys and values at the top level")
    for key, value in parse_overrides(overrides).items():
        apply_override(values, key, value)
    return validate(values)


def parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """`["tune.lr=1e-3"]` as `{"tune.lr": 0.001}`; values are YAML. Raises UserError on a malformed one."""
    parsed: dict[str, Any] = {}
    for item in overrides:
        key, sign, text = item.partition("=")
        if not sign or not key.strip():
            raise UserError(f"can't read the setting {item!r}; expected key=value, such as tune.strategy=finetune")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UserError(f"can't read the value in {item!r}: {str(error).splitlines()[0]}") from error
        parsed[key.strip()] = _number(value)
    return parsed


def apply_override(values: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key in nested dictionaries (or YAML maps), making sections as needed."""
    *sections, last = key.split(".")
    for section in sections:
        inner = values.get(section)
        if not isinstance(inner, dict):
            inner = values[section] = {}
        values = inner
    values[last] = value


def validate(values: Mapping[str, Any]) -> RunConfig:
    """Values as a RunConfig. Raises UserError that lists every unknown key and every bad value."""
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        faults = [_fault(dict(item)) for item in error.errors()]
        raise UserError("\n".join(dict.fromkeys(faults))) from error


def _fault(error: dict[str, Any]) -> str:
    path = [str(p) for p in error["loc"]]
    key = ".".join(path)
    if error["type"] == "extra_forbidden":
        allowed = _keys(path[:-1])
        where = f" in {'.'.join(path[:-1])}" if path[1:] else ""
        return (
            f"unknown config key '{key}'{did_you_mean(path[-1], allowed) or ';'} allowed{where}: {', '.join(allowed)}"
        )
    return f"config key '{key}' can't be {error['input']!r}: {error['msg'][0].lower()}{error['msg'][1:]}"


def _keys(path: list[str]) -> list[str]:
    section: type[BaseModel] = RunConfig
    for name in path:
        field = section.model_fields.get(name)
        if field is None or not isinstance(field.annotation, type) or not issubclass(field.annotation, BaseModel):
            return []
        section = field.annotation
    return list(section.model_fields)


def describe(section: type[BaseModel] = RunConfig, prefix: str = "") -> list[tuple[str, str, str, str]]:
    """Every key as (dotted name, type, default, meaning), for `tl init` and the docs."""
    rows: list[tuple[str, str, str, str]] = []
    for name, field in section.model_fields.items():
        kind: Any = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            rows += describe(kind, f"{prefix}{name}.")
            continue
        rows.append((prefix + name, _type_name(kind), str(field.default), field.description or ""))
    return rows


def _type_name(kind: Any) -> str:
    if typing.get_origin(kind) is Annotated:
        return _type_name(typing.get_args(kind)[0])
    if typing.get_origin(kind) is Literal:
        return " | ".join(str(a) for a in typing.get_args(kind))
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return " | ".join(_type_name(a) for a in typing.get_args(kind)).replace("NoneType", "null")
    if typing.get_origin(kind) is tuple:
        return f"list of {_type_name(typing.get_args(kind)[0])}"
    return str(getattr(kind, "__name__", kind))


def _number(value: Any) -> Any:
    """YAML 1.1 reads 1e-3 as a string; a user means the number."""
    if isinstance(value, str):
        try:
            return float(value) if any(c in value for c in "eE") and value[:1] in "0123456789.-+" else value
        except ValueError:
            return value
    return value
