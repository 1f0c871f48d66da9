"""Sampling core in plain PyTorch, on any device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..tensors import at_least_float32, filled


def sample(
    value: Tensor, value_grid: tuple[int, int], locations: Tensor, weights: Tensor
) -> Tensor:
    """See :func:`piip_mm.ops.deformable_attention`; the result is not cast back."""
    value, locations, weights = at_least_float32(value, locations, weights)
    needs_gradient = torch.is_grad_enabled() and any(
        x.requires_grad for x in (value, locations, weights)
    )
    if value.device.type == 'cpu' and not needs_gradient:
        # Twice as fast, but its backward pass is slower than that of grid_sample.
        return _sum_of_rows(value, value_grid, locations, weights)
    return sample_maps(value, value_grid, locations, weights)


def sample_maps(
    value: Tensor, value_grid: tuple[int, int], locations: Tensor, weights: Tensor
) -> Tensor:
    """Every head samples its map with ``grid_sample``; tensors of one type."""
    batch, _, heads, dims = value.shape
    queries, points = locations.shape[1], locations.shape[3]
    maps = value.permute(0, 2, 3, 1).reshape(batch * heads, dims, *value_grid)
    # Coordinates of grid_sample run from -1 to 1, locations from 0 to 1.
    points_xy = (2 * locations - 1).transpose(1, 2).reshape(-1, queries, points, 2)
    sampled = F.grid_sample(
        maps, points_xy, mode='bilinear', padding_mode='zeros', align_corners=False
    )
    weights = weights.transpose(1, 2).reshape(batch * heads, 1, queries, points)
    out = (sampled * weights).sum(-1)
    return out.view(batch, heads * dims, queries).transpose(1, 2)


def _sum_of_rows(
    value: Tensor, value_grid: tuple[int, int], locations: Tensor, weights: Tensor
) -> Tensor:
    """Every query and head sums rows of D values: four for each sample."""
    batch, tokens, heads, dims = value.shape
    queries = locations.shape[1]
    height, width = value_grid
    size = filled((width, height), locations)
    last = size - 1
    position = locations * size - 0.5
    low = position.floor()
    share = position - low
    # What the neighbours below and above get in either direction: nothing if outside.
    shares = (
        (1 - share) * ((low >= 0) & (low <= last)),
        share * ((low >= -1) & (low < last)),
    )
    # Unlike clamp, these make an index of NaN, too; the sum is still NaN.
    zero = torch.zeros_like(last)
    indexes = [x.fmin(last).fmax(zero).int() for x in (low, low + 1)]
    heads_of_images = torch.arange(batch, dtype=torch.int32)[:, None] * (tokens * heads)
    heads_of_images = heads_of_images + torch.arange(heads, dtype=torch.int32)
    first_row = heads_of_images[:, None, :, None]
    rows = [first_row + index[..., 1] * (width * heads) for index in indexes]
    columns = [index[..., 0] * heads for index in indexes]
    weighted = [share[..., 1] * weights for share in shares]
    corners = [(y, x) for y in (0, 1) for x in (0, 1)]
    factors = torch.stack([weighted[y] * shares[x][..., 0] for y, x in corners], -1)
    chosen = torch.stack([rows[y] + columns[x] for y, x in corners], -1)
    num_sums = batch * queries * heads
    sums = F.embedding_bag(
        chosen.view(num_sums, -1),
        value.reshape(-1, dims),
        mode='sum',
        per_sample_weights=factors.view(num_sums, -1),
    )
    return sums.view(batch, queries, heads * dims)
