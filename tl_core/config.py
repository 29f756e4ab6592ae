"""The one validated configuration behind params.yaml, the command line and Python."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

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
    task: Literal["auto", "multiclass", "multilabel", "regression"] = "auto"
    separator: str = Field("|", min_length=1, description="between the labels of a multi-label cell")
    test_fraction: float = Field(0.2, gt=0, lt=1, description="where the data bring no test split")
    val_fraction: float = Field(0.15, gt=0, lt=1, description="of what is not test, where there is no val split")
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


class TuneConfig(Section):
    """How the model is trained."""

    strategy: Literal["probe", "finetune"] = "probe"
    head: str = "linear"
    strengths: tuple[float, ...] = Field(
        # total L2 penalties, strongest first: chosen on validation, worth more points than any other knob
        (1000.0, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01),
        min_length=1,
        description="L2 strengths that the probe's path visits",
    )
    refit: bool = Field(True, description="probe: fit once more on train + val at the chosen strength")
    train_from: int | Literal["all"] = Field(1, description="finetune: the last k segments that hold weights, or all")
    epochs: int = Field(10, ge=1)
    lr: float = Field(1e-4, gt=0, description="peak learning rate of the backbone")
    head_lr: float = Field(1e-3, gt=0, description="peak learning rate of the head")
    weight_decay: float = Field(0.01, ge=0)
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps that the learning rate rises")
    batch_size: int = Field(32, ge=1)
    patience: int = Field(3, ge=1, description="epochs without a better validation metric before stopping")
    augment: bool = Field(True, description="finetune: use the loader's augmentation on training samples")


class EvaluateConfig(Section):
    """How the result is measured."""

    confidence: float = Field(0.9, gt=0.5, lt=1, description="coverage of every interval")
    bootstrap: int = Field(1000, ge=100, description="resamples of the test rows")


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
