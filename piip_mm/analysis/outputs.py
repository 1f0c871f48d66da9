"""Counting rules of what follows the branches: merge, pyramid, classifier."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from piip_mm.models.pyramid import Pyramid

from .conventions import Convention, Count
from .layers import map_flops, num_params

# Of the head in the published counts.
_NUM_CLASSES = 1000


def count_merge(
    layers: nn.Sequential, dims: int, grid: tuple[int, int], convention: Convention
) -> Count:
    """What brings the map of one branch to the merged width, and its scalar.

    Args:
        layers: Of the merge.
        dims: Width of the branch.
        grid: (H, W) of the branch.
        convention: What to count.
    """
    count = Count(num_params(layers), map_flops(layers, dims, grid, convention))
    return count + Count(params=1)


def count_classifier_merge(
    dims: int, out_dims: int | None, grid: tuple[int, int]
) -> Count:
    """The same in the classifier of the published counts.

    The last branch has a GroupNorm; the others a GroupNorm, a linear layer to the last
    branch's width and another GroupNorm. Every one has a scalar.

    Args:
        dims: Width of the branch.
        out_dims: Width of the last branch; None for that branch itself.
        grid: (H, W) of the branch.
    """
    num_tokens = grid[0] * grid[1]
    count = Count(params=1) + _norm(dims, num_tokens)
    if out_dims is not None:
        count += _linear(dims, out_dims, num_tokens) + _norm(out_dims, num_tokens)
    return count


def count_classifier(dims: int, grid: tuple[int, int], *, rms: bool = False) -> Count:
    """Final norm and linear head in the published counts.

    Args:
        dims: Width of the map.
        grid: (H, W) of the map.
        rms: The norm is an RMSNorm, which has no bias and counts no FLOPs, instead of a
            LayerNorm.
    """
    norm = Count(params=dims) if rms else _norm(dims, grid[0] * grid[1])
    return norm + _linear(dims, _NUM_CLASSES, 1)


def count_pyramid(
    pyramid: Pyramid, grids: Sequence[tuple[int, int]], convention: Convention
) -> Count:
    """The output pyramid.

    Args:
        pyramid: The pyramid.
        grids: (H, W) of the map of each level, or of the one map for all levels.
        convention: What to count.
    """
    flops = 0
    if len(grids) == 1:
        grids = [*grids] * len(pyramid.levels)
    for level, dims, grid in zip(pyramid.levels, pyramid.dims, grids, strict=True):
        layers = level if isinstance(level, nn.Sequential) else [level]
        flops += map_flops(layers, dims, grid, convention)
    return Count(num_params(pyramid), flops)


def _norm(dims: int, num_tokens: int) -> Count:
    return Count(2 * dims, 2 * num_tokens * dims)


def _linear(in_dims: int, out_dims: int, num_tokens: int) -> Count:
    return Count((in_dims + 1) * out_dims, num_tokens * in_dims * out_dims)
