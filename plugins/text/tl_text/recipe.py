"""What a model folder says about itself: architecture, weights, and how tokens become one vector."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_core import UserError, find_weights, read_json

TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model", "vocab.json")
DEFAULT_MAX_LENGTH = 512  # where neither the tokenizer nor the positions set a bound
_UNBOUNDED = 1_000_000  # tokenizers without a bound say 1e30
_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "data2vec-text", "longformer")
_NOT_ARCHITECTURE = ("_name_or_path", "architectures", "auto_map", "dtype", "provenance", "torch_dtype",
                     "transformers_version")  # fmt: skip
POOLING_MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
_OLD_POOLING_KEYS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


@dataclass(frozen=True)
class Recipe:
    """How to build an encoder and pool its output, read from the folder's own files.

    folder: holds config.json and the tokenizer; config: config.json; pooling: modes, concatenated;
    include_prompt: whether the prompt's tokens are pooled too; after: what follows the pooling, `normalize` or
    the folder of a dense layer.
    """

    folder: Path
    config: Mapping[str, Any]
    max_length: int
    pooling: tuple[str, ...] = ("mean",)
    include_prompt: bool = True
    after: tuple[Path | str, ...] = ()
    lowercase: bool = False
    prompt: str = ""

    def weights(self, file: Path | None = None) -> list[Path]:
        """The encoder's weights: the given file, else those of the folder."""
        return [file] if file else find_weights(self.folder)

    @property
    def dense(self) -> list[Path]:
        """Folders of the dense layers after the pooling."""
        return [step for step in self.after if isinstance(step, Path)]

    @property
    def architecture(self) -> str:
        """Model type and a digest of what config.json says about the network."""
        kept = {k: v for k, v in self.config.items() if k not in _NOT_ARCHITECTURE}
        return f"{self.config['model_type']}-{_digest(kept)}"

    def facts(self) -> dict[str, Any]:
        """The part of a backbone's identity that the folder decides, apart from weights and tokenizer."""
        return {
            "max_length": self.max_length,
            "pooling": "+".join(self.pooling),
            "include_prompt": self.include_prompt,
            "after": [s if isinstance(s, str) else _digest(read_json(s / "config.json")) for s in self.after],
            "lowercase": self.lowercase,
            "prompt": self.prompt,
        }


def is_text_model(folder: Path) -> bool:
    """Whether the folder holds a text encoder that transformers knows: config.json of a text model, a tokenizer."""
    if (folder / "modules.json").is_file():
        modules = _modules(folder)
        if not modules or modules[0][0] != "Transformer":
            return False
        folder = modules[0][1]
    if not (folder / "config.json").is_file() or (folder / "preprocessor_config.json").is_file():
        return False
    model_type = read_json(folder / "config.json").get("model_type")
    if not model_type or not any((folder / name).is_file() for name in TOKENIZER_FILES):
        return False
    from transformers.models.auto import modeling_auto as auto

    return any(
        model_type in table
        for table in (
            auto.MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES,
            auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
            auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        )
    )


def read_recipe(folder: Path, options: Mapping[str, Any]) -> Recipe:
    """The recipe of a sentence-transformers folder, or of a plain transformers one (mean over the mask).

    options: `layers` keeps the first n layers, `prompt` goes before every text. Raises UserError, naming all
    faults, where the folder asks for something that tl does not do.
    """
    modules = _modules(folder) if (folder / "modules.json").is_file() else [("Transformer", folder)]
    home = modules[0][1]
    config = read_json(home / "config.json")
    if "layers" in options:
        config = {**config, _layer_key(config): _checked_layers(folder, config, options["layers"])}
    sentence = _sentence_config(home)
    pooling, include_prompt, after = _after_encoder(folder, modules)
    return Recipe(
        folder=home,
        config=config,
        max_length=_max_length(home, config, sentence),
        pooling=pooling,
        include_prompt=include_prompt,
        after=after,
        lowercase=bool(sentence.get("do_lower_case", False)),
        prompt=str(options.get("prompt", _default_prompt(folder))),
    )


def _modules(folder: Path) -> list[tuple[str, Path]]:
    """(kind, folder) of each module of a sentence-transformers folder, in order."""
    path = folder / "modules.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        found = [(str(e["type"]).rpartition(".")[2], folder / str(e["path"])) for e in entries]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"unreadable {path}: expected a list of modules with type and path") from error
    outside = [str(p) for _, p in found if not p.resolve().is_relative_to(folder.resolve())]
    if outside:
        raise UserError(f"{path} names folders outside the model: {', '.join(outside)}")
    return found


def _after_encoder(
    folder: Path, modules: list[tuple[str, Path]]
) -> tuple[tuple[str, ...], bool, tuple[Path | str, ...]]:
    """Pooling modes, whether the prompt is pooled, and the steps after the pooling."""
    kinds = [kind for kind, _ in modules]
    if kinds == ["Transformer"]:
        return ("mean",), True, ()
    known = kinds[:2] == ["Transformer", "Pooling"] and set(kinds[2:]) <= {"Dense", "Normalize", "Dropout"}
    if not known:
        raise UserError(
            f"can't use the sentence-transformers folder {folder}: its modules are {', '.join(kinds)}; "
            "allowed: Transformer, Pooling, then any of Dense, Normalize, Dropout"
        )
    pooling = read_json(modules[1][1] / "config.json")
    modes = pooling.get("pooling_mode")
    if modes is None:
        modes = [mode for mode, key in _OLD_POOLING_KEYS.items() if pooling.get(key)] or ["mean"]
    modes = (modes,) if isinstance(modes, str) else tuple(modes)
    unknown = [str(mode) for mode in modes if mode not in POOLING_MODES]
    if unknown:
        raise UserError(f"unknown pooling {', '.join(unknown)} in {modules[1][1]}; allowed: {', '.join(POOLING_MODES)}")
    steps: list[Path | str] = []
    for kind, path in modules[2:]:
        if kind != "Dropout":  # does nothing outside training
            steps.append(path if kind == "Dense" else "normalize")
    return modes, bool(pooling.get("include_prompt", True)), tuple(steps)


def _sentence_config(folder: Path) -> dict[str, Any]:
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"):
        path = folder / f"sentence_{name}_config.json"
        if path.is_file():
            return read_json(path)
    return {}


def _default_prompt(folder: Path) -> str:
    path = folder / "config_sentence_transformers.json"
    facts = read_json(path) if path.is_file() else {}
    name = facts.get("default_prompt_name")
    return str((facts.get("prompts") or {}).get(name, "")) if name else ""


def _max_length(folder: Path, config: Mapping[str, Any], sentence: Mapping[str, Any]) -> int:
    """Tokens that the encoder sees: the folder's own bound, never past its table of positions."""
    path = folder / "tokenizer_config.json"
    tokenizer = read_json(path) if path.is_file() else {}
    hint = config.get("input")
    declared = (
        sentence.get("max_seq_length"),
        tokenizer.get("model_max_length"),
        hint.get("max_length") if isinstance(hint, dict) else None,
    )
    bound = next((int(n) for n in declared if n and n < _UNBOUNDED), None)
    positions = config.get("max_position_embeddings") or config.get("n_positions") or 0
    if config.get("model_type") in _OFFSET_POSITIONS:
        pad = config.get("pad_token_id")
        positions -= (1 if pad is None else int(pad)) + 1  # their positions count from pad_token_id + 1
    limits = [n for n in (bound, positions) if n and n > 0]
    return min(limits, default=DEFAULT_MAX_LENGTH)


def _layer_key(config: Mapping[str, Any]) -> str:
    return next((key for key in ("num_hidden_layers", "n_layers", "num_layers") if key in config), "num_hidden_layers")


def _checked_layers(folder: Path, config: Mapping[str, Any], layers: Any) -> int:
    have = config.get(_layer_key(config))
    if not isinstance(layers, int) or not isinstance(have, int) or not 1 <= layers <= have:
        raise UserError(f"layers can't be {layers!r} for {folder}: allowed are 1 to {have}")
    return layers


def _digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
