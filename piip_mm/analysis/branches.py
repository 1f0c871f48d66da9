"""Counting rules of the branch families.

A family is added by a function registered at :func:`count_branch`.
"""

from __future__ import annotations

from functools import singledispatch
from typing import NamedTuple

from piip_mm.models.branches import Branch, PIIPViT
from piip_mm.models.layers import Block, SelfAttention

from .conventions import Convention, Count
from .layers import conv_flops, linear_flops, norm_flops, num_params


class BranchCount(NamedTuple):
    """Counts of a branch.

    Attributes:
        body: The branch without the products of its attention.
        attention: Query-key and attention-value products.
        grid: (H, W) of the tokens after the last block.
    """

    body: Count
    attention: Count
    grid: tuple[int, int]


@singledispatch
def count_branch(
    branch: Branch, shape: tuple[int, int], convention: Convention
) -> BranchCount:
    """Count a branch.

    Args:
        branch: The branch.
        shape: (H, W) of its image in pixels.
        convention: What to count.

    Raises:
        ValueError: If there is no rule for the family.
    """
    supported = sorted(c.__name__ for c in count_branch.registry if c is not object)
    raise ValueError(
        f'cannot count a branch of type {type(branch).__name__!r}; supported: '
        f'{", ".join(supported)}'
    )


@count_branch.register
def _count_vit(
    branch: PIIPViT, shape: tuple[int, int], convention: Convention
) -> BranchCount:
    grid = shape[0] // branch.min_size, shape[1] // branch.min_size
    num_tokens = grid[0] * grid[1]
    flops = conv_flops(branch.patch_embed, num_tokens)
    attention = 0
    for block in branch.blocks:
        assert isinstance(block, Block)
        flops += _block_flops(block, grid, convention)
        attention += _attention_flops(block.attn, grid, convention)
    params = num_params(branch)
    if convention.classifier:
        params += num_tokens * branch.dims[0] - branch.pos_embed.numel()
    return BranchCount(Count(params, flops), Count(flops=attention), grid)


def _block_flops(block: Block, grid: tuple[int, int], convention: Convention) -> int:
    """A transformer block without the products of its attention."""
    num_tokens = grid[0] * grid[1]
    attn = block.attn
    pads_input = convention.padded_qkv and attn.window_pad == 'zero_input'
    num_projected = _window_tokens(attn, grid) if pads_input else num_tokens
    return (
        norm_flops(block.norm1, num_tokens)
        + linear_flops(attn.qkv, num_projected)
        + linear_flops(attn.proj, num_tokens)
        + norm_flops(block.norm2, num_tokens)
        + linear_flops(block.mlp.fc1, num_tokens)
        + linear_flops(block.mlp.fc2, num_tokens)
    )


def _attention_flops(
    attn: SelfAttention, grid: tuple[int, int], convention: Convention
) -> int:
    """Query-key and attention-value products."""
    num_queries = num_keys = grid[0] * grid[1]
    if attn.window_size is not None:
        num_keys = attn.window_size**2
        if convention.padded_attention:
            num_queries = _window_tokens(attn, grid)
    return 2 * num_queries * num_keys * attn.proj.in_features


def _window_tokens(attn: SelfAttention, grid: tuple[int, int]) -> int:
    """Tokens of the grid when it is padded to whole windows."""
    window = attn.window_size or 1
    height, width = (side + -side % window for side in grid)
    return height * width
