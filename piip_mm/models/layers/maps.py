"""Tokens to maps and back, and what leaves a backbone."""

from __future__ import annotations

import torch
from torch import Tensor

from piip_mm.ops import can_autocast


def as_map(x_BNC: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, H * W, C) tokens of an (H, W) grid to a (B, C, H, W) map."""
    return x_BNC.transpose(1, 2).unflatten(2, grid)


def as_tokens(x_BCHW: Tensor) -> Tensor:
    """(B, C, H, W) map to (B, H * W, C) tokens."""
    return x_BCHW.flatten(2).transpose(1, 2)


def as_output(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """What a head gets: float32 under autocast, in the type of the model otherwise.

    Heads compute boxes from the maps, for which 16 bits are too coarse; but in a model
    whose weights have 16 bits they expect that type (``dtype``, if not that of ``x``).
    """
    kind = x.device.type
    if can_autocast(kind) and torch.is_autocast_enabled(kind):
        return x.float()
    return x if dtype is None else x.to(dtype)
