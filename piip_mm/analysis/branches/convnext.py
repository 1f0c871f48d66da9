"""Counting rules of ConvNeXt."""

from __future__ import annotations

from timm.models.convnext import ConvNeXtBlock
from torch import nn

from piip_mm.models.branches.convnext import PIIPConvNeXt

from ..conventions import Convention, Count
from ..layers import conv_flops, linear_flops, norm_flops, num_params
from .base import BranchCount, count_branch


@count_branch.register
def _count_convnext(
    branch: PIIPConvNeXt, shape: tuple[int, int], convention: Convention
) -> BranchCount:
    def strided(conv: nn.Module, size: tuple[int, int]) -> tuple[tuple[int, int], int]:
        """(H, W) after a convolution without overlap or padding, and its FLOPs."""
        assert isinstance(conv, nn.Conv2d)
        grid = size[0] // conv.stride[0], size[1] // conv.stride[1]
        return grid, conv_flops(conv, grid[0] * grid[1])

    def norm(layer: nn.Module, grid: tuple[int, int]) -> int:
        return convention.map_layer_norm * norm_flops(layer, grid[0] * grid[1])

    grid, flops = strided(branch.stem[0], shape)
    flops += norm(branch.stem[1], grid)
    grids = []
    for block in branch.blocks:
        if isinstance(block, ConvNeXtBlock):
            num_tokens = grid[0] * grid[1]
            flops += (
                conv_flops(block.conv_dw, num_tokens)
                + norm(block.norm, grid)
                + linear_flops(block.mlp.fc1, num_tokens)
                + linear_flops(block.mlp.fc2, num_tokens)
            )
        else:
            assert isinstance(block, nn.Sequential)
            flops += norm(block[0], grid)
            grid, flops_conv = strided(block[1], grid)
            flops += flops_conv
        grids.append(grid)
    return BranchCount(Count(num_params(branch), flops), Count(), grids)
