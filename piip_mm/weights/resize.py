"""Resizing tensors of pretrained files to other grids."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_rows(rows: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Bicubic interpolation of (1, H * W, C) position rows to another grid, in float32.

    If the grid stays the same, the rows themselves are returned.
    """
    if old == new:
        return rows
    maps = rows.float().transpose(1, 2).unflatten(2, old)
    maps = F.interpolate(maps, new, mode='bicubic', align_corners=False)
    return maps.flatten(2).transpose(1, 2)


def resize_kernel(kernel: Tensor, size: tuple[int, int]) -> Tensor:
    """Bicubic interpolation of a (C, 3, k, k) patch kernel to another patch size.

    Raises:
        ValueError: If the kernel has another shape.
    """
    if tuple(kernel.shape[2:]) == size:
        return kernel
    if kernel.ndim != 4 or kernel.shape[2] != kernel.shape[3] or not kernel.numel():
        raise ValueError(
            f'patch kernel of shape {tuple(kernel.shape)}: expected (C, 3, k, k)'
        )
    return F.interpolate(kernel.float(), size, mode='bicubic', align_corners=False)


def position_grid(pos_embed: Tensor) -> tuple[int, int]:
    """Rows per side of the square grid of a (1, rows, C) position embedding, and the
    number of rows before it, for class and distillation tokens.

    Raises:
        ValueError: If the rows do not form a square.
    """
    if pos_embed.ndim != 3 or len(pos_embed) != 1 or not pos_embed.numel():
        raise ValueError(
            f'position embedding of shape {tuple(pos_embed.shape)}: expected (1, rows, C)'
        )
    num_rows = pos_embed.shape[1]
    side = math.isqrt(num_rows)
    if side**2 != num_rows:
        side = math.isqrt(num_rows - 1)
    num_prefix = num_rows - side**2
    if num_prefix > 2:
        raise ValueError(
            f'position embedding of {num_rows} rows: expected a square of '
            'rows, after at most one for a class and one for a distillation token; '
            'only square grids are supported'
        )
    return side, num_prefix


def resize_positions(
    pos_embed: Tensor, grid: tuple[int, int], *, cls_row: bool = False
) -> Tensor:
    """Bicubic interpolation of a (1, rows, C) position embedding to an (H, W) grid.

    Args:
        pos_embed: A square of rows, possibly preceded by rows for class and distillation
            tokens.
        grid: (H, W) of the result.
        cls_row: Whether the result starts with the row of the class token: the first row
            of the file, or zeros if the file has none. Otherwise rows before the square
            are dropped.

    Raises:
        ValueError: If the rows do not form a square.
    """
    side, num_prefix = position_grid(pos_embed)
    if num_prefix == cls_row and grid == (side, side):
        return pos_embed
    rows = resize_rows(pos_embed[:, num_prefix:], (side, side), grid)
    if not cls_row:
        return rows
    prefix = pos_embed[:, :1] if num_prefix else torch.zeros_like(pos_embed[:, :1])
    return torch.cat([prefix, rows], 1)
