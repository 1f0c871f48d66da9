"""Attention of one branch's tokens (queries) to those of another (features).

Shapes: B batch, Q queries of width C, N feature tokens of width F, M heads, P points.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from piip_mm.checks import check_divisible, check_int, check_number
from piip_mm.ops import check_backend, deformable_attention, filled, no_autocast


class DeformableCrossAttention(nn.Module):
    """Deformable attention on one level (Deformable DETR, arXiv 2010.04159, eq. 2-3).

    A query reads P bilinear samples per head around its own centre, at offsets counted
    in tokens of the feature grid.

    Precision: offsets, locations and the softmax are computed in float32 even under
    autocast or in a 16-bit model, since a bfloat16 location on a grid of 100 tokens is
    off by up to a quarter of a token; the sampling follows
    :func:`piip_mm.ops.deformable_attention`. The value and output projections are
    ordinary linear layers and follow autocast; the published training ran them in
    float32 too, at a multiple of their cost.

    Args:
        dims: Width C of the queries.
        feat_dims: Width F of the features.
        num_heads: Number of heads M; must divide the value width.
        num_points: Sampling points P per head.
        value_ratio: Width of the values over ``dims``, truncated to an integer.
        backend: See :func:`piip_mm.ops.deformable_attention`.

    Raises:
        ValueError: If the heads do not divide the value width or the backend is unknown.
        RuntimeError: If the backend cannot run with the installed mmcv.
    """

    def __init__(
        self,
        dims: int,
        feat_dims: int,
        *,
        num_heads: int = 16,
        num_points: int = 4,
        value_ratio: float = 0.5,
        backend: str = 'auto',
    ) -> None:
        super().__init__()
        check_int('num_points', num_points)
        check_number('value_ratio', value_ratio, above=0)
        value_dims = int(dims * value_ratio)
        check_divisible(
            f'value width (value_ratio; int({dims} * {value_ratio})),',
            value_dims,
            'num_heads',
            num_heads,
        )
        check_backend(backend)
        self.num_heads = num_heads
        self.num_points = num_points
        self.backend = backend
        self.sampling_offsets = nn.Linear(dims, num_heads * num_points * 2)
        self.attention_weights = nn.Linear(dims, num_heads * num_points)
        self.value_proj = nn.Linear(feat_dims, value_dims)
        self.output_proj = nn.Linear(value_dims, dims)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Point p of head m starts p + 1 tokens away in the m-th of M directions."""
        angles = torch.arange(self.num_heads, dtype=torch.float32)
        angles = angles * (2 * math.pi / self.num_heads)
        directions = torch.stack([angles.cos(), angles.sin()], -1)
        directions = directions / directions.abs().max(-1, keepdim=True).values
        steps = torch.arange(1, self.num_points + 1, dtype=torch.float32)
        offsets = directions[:, None] * steps[None, :, None]
        nn.init.zeros_(self.sampling_offsets.weight)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.flatten())
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        query_BQC: Tensor,
        feat_BNF: Tensor,
        query_grid: tuple[int, int],
        feat_grid: tuple[int, int],
    ) -> Tensor:
        """Attend.

        Args:
            query_BQC: (B, Q, C) tokens of ``query_grid``.
            feat_BNF: (B, N, F) tokens of ``feat_grid``.
            query_grid: (H, W) of the queries.
            feat_grid: (H, W) of the features.

        Returns:
            (B, Q, C).
        """
        per_point = (self.num_heads, self.num_points)
        with no_autocast(query_BQC.device):
            offsets, logits = self._offsets_and_logits(query_BQC)
            offsets = offsets.unflatten(-1, (*per_point, 2))
            weights = logits.unflatten(-1, per_point).softmax(-1)
            centres = token_centres(query_grid, offsets)[:, None, None]
            locations = centres + offsets / filled(feat_grid[::-1], offsets)
        value = self.value_proj(feat_BNF).unflatten(-1, (self.num_heads, -1))
        out = deformable_attention(value, feat_grid, locations, weights, self.backend)
        return self.output_proj(out)

    def _offsets_and_logits(self, query_BQC: Tensor) -> tuple[Tensor, Tensor]:
        """Both layers in one product, in float32, or float64 for a float64 model."""
        layers = (self.sampling_offsets, self.attention_weights)
        weight = torch.cat([layer.weight for layer in layers])
        bias = torch.cat([layer.bias for layer in layers])
        dtype = torch.promote_types(weight.dtype, torch.float32)
        out = F.linear(query_BQC.to(dtype), weight.to(dtype), bias.to(dtype))
        return out.split([layer.out_features for layer in layers], -1)


class CrossAttention(nn.Module):
    """Multi-head attention of every query to every feature token.

    Args:
        dims: Width C of the queries; also that of keys and values.
        feat_dims: Width F of the features.
        num_heads: Number of heads; must divide ``dims``.

    Raises:
        ValueError: If the heads do not divide the width.
    """

    def __init__(self, dims: int, feat_dims: int, *, num_heads: int = 16) -> None:
        super().__init__()
        check_divisible('width', dims, 'num_heads', num_heads)
        self.num_heads = num_heads
        self.q = nn.Linear(dims, dims, bias=False)
        self.k = nn.Linear(feat_dims, dims, bias=False)
        self.v = nn.Linear(feat_dims, dims, bias=False)
        self.proj = nn.Linear(dims, dims)

    def forward(
        self,
        query_BQC: Tensor,
        feat_BNF: Tensor,
        query_grid: tuple[int, int],
        feat_grid: tuple[int, int],
    ) -> Tensor:
        """As :meth:`DeformableCrossAttention.forward`; the grids are ignored."""
        q, k, v = (
            layer(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for layer, x in (
                (self.q, query_BQC),
                (self.k, feat_BNF),
                (self.v, feat_BNF),
            )
        )
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).flatten(2))


#: Attention of the interactions by name.
CROSS_ATTENTIONS: dict[str, Any] = {
    'deform': DeformableCrossAttention,
    'regular': CrossAttention,
}


def token_centres(grid: tuple[int, int], like: Tensor) -> Tensor:
    """(H * W, 2) centres of the tokens of a grid as (x, y) between 0 and 1, of the type
    and on the device of ``like``."""
    height, width = grid
    y = (torch.arange(height, device=like.device, dtype=like.dtype) + 0.5) / height
    x = (torch.arange(width, device=like.device, dtype=like.dtype) + 0.5) / width
    return torch.stack(torch.meshgrid(x, y, indexing='xy'), -1).flatten(0, 1)
