"""What the counting rules of plain transformers have in common."""

from __future__ import annotations

from typing import Any

from piip_mm.models.branches.plain import PlainBranch
from piip_mm.models.layers import Block, SelfAttention

from ..conventions import Convention, Count
from ..layers import conv_flops, linear_flops, norm_flops, num_params
from .base import BranchCount


def count_plain(
    branch: PlainBranch,
    shape: tuple[int, int],
    convention: Convention,
    *,
    pads_first: bool,
) -> BranchCount:
    """Count patch embedding and blocks.

    Args:
        branch: The branch.
        shape: (H, W) of its image in pixels.
        convention: What to count.
        pads_first: Whether the published class of the branch has no form but the one that
            pads windows before it projects them, so that the padding is part of the
            published counts too.
    """
    grid = shape[0] // branch.min_size, shape[1] // branch.min_size
    num_patches = grid[0] * grid[1]
    flops = conv_flops(branch.patch_embed, num_patches)
    is_padded = convention.padded_qkv or (convention.classifier and pads_first)
    attention = 0
    for block in branch.blocks:
        assert isinstance(block, Block)
        attn = block.attn
        assert isinstance(attn, SelfAttention)
        is_padded_here = (
            is_padded and attn.window_size and attn.window_pad == 'zero_input'
        )
        flops += block_flops(
            block,
            num_patches + branch.num_prefix_tokens,
            window_tokens(attn, grid) if is_padded_here else None,
        )
        attention += attention_flops(attn, grid, branch.num_prefix_tokens, convention)
    return BranchCount(
        Count(num_params(branch), flops), Count(flops=attention), [grid] * branch.depth
    )


def block_flops(block: Block, num_tokens: int, num_projected: int | None = None) -> int:
    """A transformer block without the products of its attention.

    Args:
        block: The block.
        num_tokens: Number of tokens.
        num_projected: Number of tokens whose query, key and value are projected; None for
            all of them and no others.
    """
    attn: Any = block.attn
    num_projected = num_projected or num_tokens
    return (
        norm_flops(block.norm1, num_tokens)
        + linear_flops(attn.qkv, num_projected)
        + norm_flops(attn.q_norm, num_projected)
        + norm_flops(attn.k_norm, num_projected)
        + linear_flops(attn.proj, num_tokens)
        + norm_flops(block.norm2, num_tokens)
        + linear_flops(block.mlp.fc1, num_tokens)
        + linear_flops(block.mlp.fc2, num_tokens)
    )


def attention_flops(
    attn: SelfAttention,
    grid: tuple[int, int],
    num_prefix_tokens: int,
    convention: Convention,
) -> int:
    """Query-key and attention-value products; the published counts leave prefix tokens
    and the padding of windows out."""
    num_queries = num_keys = grid[0] * grid[1]
    if attn.window_size is not None:
        num_keys = attn.window_size**2
        if convention.padded_attention:
            num_queries = window_tokens(attn, grid)
    elif convention.padded_attention:
        num_queries = num_keys = num_queries + num_prefix_tokens
    return 2 * num_queries * num_keys * attn.proj.in_features


def window_tokens(attn: SelfAttention, grid: tuple[int, int]) -> int:
    """Tokens of the grid when it is padded to whole windows."""
    window = attn.window_size or 1
    height, width = (side + -side % window for side in grid)
    return height * width
