"""The last block of a vision transformer whose embedding is one token: the others need not be computed."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LastBlock(nn.Module):
    """timm's transformer block, before a pool that takes the first token.

    alone: whether to compute that token only, [B, 1, D] instead of [B, T, D]. The others then serve its attention, and
    no more, and hardly any of the block's work is left. The token is the same but for rounding.
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
    """Whether the attention is products and one softmax: no adapter on the projection, no norm of keys, no dropout."""
    plain = type(attention.qkv) is nn.Linear and type(attention.k_norm) is nn.Identity
    return plain and attention.gate is None and not attention.attn_drop.p


def _attended(attention: Any, x: Tensor) -> Tensor:
    """What timm's Attention gives for the first token of x [B, T, D]: [B, 1, D].

    Keys and values of the others are not made: q . (K x) = (q K) . x, and a sum of V x is V of the sum, so that one
    query a head goes to the tokens' space, attends there, and what it gathers comes back. The bias of the keys moves
    all scores alike, and falls out of the softmax; that of the values is added once, as the softmax sums to 1.
    """
    heads, width = attention.num_heads, attention.attn_dim
    weight, bias = attention.qkv.weight, attention.qkv.bias
    into_q, into_k, into_v = weight.reshape(3, width, -1)  # [H d, D] each
    q = F.linear(x[:, 0], into_q, None if bias is None else bias[:width]).reshape(len(x), heads, -1)  # [B, H, d]
    asked = torch.einsum("bhd,hde->bhe", attention.q_norm(q), into_k.reshape(heads, -1, x.shape[2]))  # [B, H, D]
    tokens = x[:, None]  # [B, 1, T, D]: to the attention, heads are queries of one head, in the tokens' space
    found = F.scaled_dot_product_attention(asked[:, None], tokens, tokens, scale=attention.scale)[:, 0]  # [B, H, D]
    out = torch.einsum("bhe,hde->bhd", found, into_v.reshape(heads, -1, x.shape[2])).flatten(1)
    if bias is not None:
        out = out + bias[2 * width :]
    out = attention.norm(out[:, None])
    return attention.proj_drop(attention.proj(out))  # type: ignore[no-any-return]
