"""Encoders as chains of segments, through the block lists of the transformers library itself."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tl_core import State

BLOCKS = {  # model type -> the encoder's list of blocks
    "bert": "encoder.layer",
    "camembert": "encoder.layer",
    "distilbert": "transformer.layer",
    "electra": "encoder.layer",
    "mpnet": "encoder.layer",
    "roberta": "encoder.layer",
    "xlm-roberta": "encoder.layer",
}
MASKED = -30000.0  # exp of it is 0 beside any score, and every float type holds it, unlike float32's minimum


def chain(model: Any) -> list[tuple[str, nn.Module]]:
    """`embeddings`, `layer.0`, ... of a BERT-like model; `network` for any other architecture."""
    blocks = BLOCKS.get(model.config.model_type)
    if blocks is None or getattr(model.config, "is_decoder", False):
        return [("network", Network(model))]
    segments: list[tuple[str, nn.Module]] = [("embeddings", Embeddings(model))]
    relative = getattr(model.encoder, "relative_attention_bias", None) if model.config.model_type == "mpnet" else None
    for index, block in enumerate(model.get_submodule(blocks)):
        layer = Layer(block) if relative is None else RelativeLayer(block, relative, model.encoder)
        segments.append((f"layer_{index}", layer))
    return segments


class Embeddings(nn.Module):
    """Token ids `x` int64 [B, T] to vectors [B, T, D]."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.embeddings = model.embeddings
        self.project = getattr(model, "embeddings_project", None)  # small ELECTRA: embeddings narrower than the layers

    def forward(self, state: State) -> State:
        types = {"token_type_ids": state["types"]} if "types" in state else {}
        x = self.embeddings(input_ids=state["x"], **types)
        return {"x": x if self.project is None else self.project(x), "mask": state["mask"]}


class Layer(nn.Module):
    """One block: `x` [B, T, D] to [B, T, D]."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, state: State) -> State:
        # Always given, also where nothing is masked: with None the attention could take another kernel,
        # and a row's bits would depend on its company.
        mask = additive(state["mask"], state["x"].dtype)
        return {**state, "x": _tensor(self.block(state["x"], attention_mask=mask))}


class RelativeLayer(nn.Module):
    """An MPNet block with a relative position bias of its own.

    MPNet shares one table of biases between its blocks; each block here holds a copy, so that training a late
    block never changes an early one, whose output may be cached.
    """

    def __init__(self, block: nn.Module, bias: nn.Embedding, encoder: Any) -> None:
        super().__init__()
        self.block = block
        self.bias = copy.deepcopy(bias)
        self.bucket = encoder.relative_position_bucket

    def forward(self, state: State) -> State:
        position = torch.arange(state["x"].shape[1], device=state["x"].device)
        buckets = self.bucket(position[None, :] - position[:, None])
        bias = self.bias(buckets).permute(2, 0, 1)[None]  # [T, T, H] -> [1, H, T, T]
        mask = additive(state["mask"], state["x"].dtype)
        return {**state, "x": _tensor(self.block(state["x"], attention_mask=mask, position_bias=bias))}


class Network(nn.Module):
    """A whole encoder as one segment: `x` int64 [B, T] to [B, T, D]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, state: State) -> State:
        types = {"token_type_ids": state["types"]} if "types" in state else {}
        x = _tensor(self.model(input_ids=state["x"], attention_mask=state["mask"], **types))
        return {"x": x, "mask": state["mask"]}


class Pool(nn.Module):
    """Vectors [B, T, D] to one embedding [B, feature_dim]: pooling modes, concatenated, then dense and normalise.

    Runs in float32 also under autocast. skip: leading tokens (a prompt) that are not pooled.
    """

    def __init__(self, modes: Sequence[str], skip: int, after: Sequence[nn.Module]) -> None:
        super().__init__()
        self.modes = tuple(modes)
        self.skip = skip
        self.after = nn.Sequential(*after)

    def forward(self, state: State) -> State:
        x, mask = state["x"], state["mask"]
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            position = torch.arange(x.shape[1], device=x.device)
            last = mask.sum(dim=1) - 1
            seen = (mask * (position >= self.skip)).to(x.dtype).unsqueeze(-1)  # [B, T, 1]
            pooled = [_pool(mode, x, seen, position, last) for mode in self.modes]
            return {"x": self.after(torch.cat(pooled, dim=-1))}


class Normalize(nn.Module):
    """Rows to length 1."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(x, dim=-1)


class Dense(nn.Module):
    """A sentence-transformers dense layer: linear, then an activation."""

    def __init__(self, inputs: int, outputs: int, bias: bool, activation: nn.Module) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=bias)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.linear(x))  # type: ignore[no-any-return]


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Mask int64 [B, T] as what attention scores [B, H, T, T] are shifted by: [B, 1, 1, T]."""
    return (1 - mask[:, None, None, :]).to(dtype) * MASKED


def _pool(mode: str, x: Tensor, seen: Tensor, position: Tensor, last: Tensor) -> Tensor:
    if mode == "max":
        return x.masked_fill(seen == 0, float("-inf")).amax(dim=1)
    if mode in ("cls", "lasttoken"):
        index = seen.squeeze(-1).argmax(dim=1) if mode == "cls" else last
        return x.gather(1, index[:, None, None].expand(-1, 1, x.shape[-1])).squeeze(1)
    if mode == "weightedmean":
        seen = seen * (position + 1)[None, :, None]
    total = seen.sum(dim=1).clamp(min=1e-9)
    return (x * seen).sum(dim=1) / (total.sqrt() if mode == "mean_sqrt_len_tokens" else total)


def _tensor(output: Any) -> Tensor:
    """The hidden states: older releases of transformers return tuples from their blocks."""
    return output if isinstance(output, Tensor) else output[0]
