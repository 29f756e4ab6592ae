"""The last block of a vision transformer whose embedding is one token: the others need not be computed."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


class LastBlock(nn.Module):
    """timm's transformer block, before a pool that takes the first token.

    alone: whether to compute that token only, [B, 1, D] instead of [B, T, D]. The others are then keys and values of
    the attention, and no more: an eighth of the block's work is left. The token is the same but for rounding.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block: Any = block
        self.alone = False

    def forward(self, x: Tensor) -> Tensor:
        """x: tokens [B, T, D]."""
        block = self.block
        if not self.alone or not _splits(block.attn):
            return block(x)  # type: ignore[no-any-return]
        first = x[:, :1]
        first = first + block.drop_path1(block.ls1(_attended(block.attn, block.norm1(x))))
        return first + block.drop_path2(block.ls2(block.mlp(block.norm2(first))))  # type: ignore[no-any-return]


def is_plain(block: nn.Module) -> bool:
    """Whether the block is timm's own, which LastBlock knows; exact, since a subclass may compute something else."""
    from timm.layers.attention import Attention
    from timm.models.vision_transformer import Block

    return type(block) is Block and type(block.attn) is Attention


def _splits(attention: Any) -> bool:
    """Whether queries can be computed apart from keys and values: an adapter sits on all of them together."""
    return type(attention.qkv) is nn.Linear and attention.gate is None


def _attended(attention: Any, x: Tensor) -> Tensor:
    """What timm's Attention gives for the first token of x [B, T, D]: [B, 1, D]."""
    heads, width = attention.num_heads, attention.attn_dim
    weight, bias = attention.qkv.weight, attention.qkv.bias

    def split(rows: Tensor, part: slice) -> Tensor:
        made: Tensor = F.linear(rows, weight[part], None if bias is None else bias[part])
        return made.reshape(*made.shape[:2], -1, heads, attention.head_dim)  # [B, T, parts, H, d]

    q = split(x[:, :1], slice(width))[:, :, 0].transpose(1, 2)  # [B, H, 1, d]
    k, v = split(x, slice(width, None)).permute(2, 0, 3, 1, 4)  # [B, H, T, d]
    dropout = attention.attn_drop.p if attention.training else 0.0
    out = F.scaled_dot_product_attention(attention.q_norm(q), attention.k_norm(k), v, dropout_p=dropout)
    out = attention.norm(out.transpose(1, 2).flatten(2))
    return attention.proj_drop(attention.proj(out))  # type: ignore[no-any-return]
