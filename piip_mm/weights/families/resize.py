"""Fitting tensors of pretrained files to other grids."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from piip_mm.models.branches.plain import PlainBranch, resize_rows


def resize_kernel(kernel: Tensor, branch: PlainBranch) -> Tensor:
    """(C, 3, k, k) patch kernel to the branch's patch size, bicubically."""
    size: Sequence[int] = branch.patch_embed.weight.shape[2:]
    if tuple(kernel.shape[2:]) == tuple(size):
        return kernel
    return F.interpolate(kernel.float(), tuple(size), mode='bicubic', align_corners=False)


def resize_positions(
    pos_embed: Tensor, grid: tuple[int, int], *, cls_row: bool = False
) -> Tensor:
    """(1, rows, C) position embedding to an (H, W) grid, bicubically.

    Args:
        pos_embed: A square of rows, perhaps after others for class tokens.
        grid: (H, W) to fit.
        cls_row: Keep the first row before the square, the class token's, or put one of
            zeros there, instead of leaving out what stands there.

    Raises:
        ValueError: If the rows are no square.
    """
    if pos_embed.ndim != 3:
        raise ValueError(
            f'position embedding of shape {tuple(pos_embed.shape)}: expected (1, rows, C)'
        )
    side = math.isqrt(pos_embed.shape[1])
    if side**2 != pos_embed.shape[1]:
        side = math.isqrt(pos_embed.shape[1] - 1)
    num_prefix = pos_embed.shape[1] - side**2
    if num_prefix > 2:
        raise ValueError(
            f'position embedding of {pos_embed.shape[1]} rows: expected a square of '
            'them, after one each for a class and a distillation token at most; grids '
            'other than squares are not known'
        )
    if num_prefix == cls_row and grid == (side, side):
        return pos_embed
    rows = resize_rows(pos_embed[:, num_prefix:], (side, side), grid)
    if not cls_row:
        return rows
    prefix = pos_embed[:, :1]
    if not num_prefix:
        prefix = torch.zeros_like(pos_embed[:, :1])
    return torch.cat([prefix, rows], 1)
