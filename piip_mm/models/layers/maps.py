"""Tokens to maps and back."""

from __future__ import annotations

from torch import Tensor


def as_map(x_BNC: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, H * W, C) tokens of an (H, W) grid to a (B, C, H, W) map."""
    return x_BNC.transpose(1, 2).unflatten(2, grid)


def as_tokens(x_BCHW: Tensor) -> Tensor:
    """(B, C, H, W) map to (B, H * W, C) tokens."""
    return x_BCHW.flatten(2).transpose(1, 2)
