"""Counting rule of the models of timm, measured on the meta device."""

from __future__ import annotations

import copy

import torch
from torch.utils.flop_counter import FlopCounterMode

from piip_mm.models.branches.timm import PIIPTimm

from ..conventions import Convention, Count
from ..layers import num_params
from .base import BranchCount, count_branch

# Products of two activations.
_ATTENTION_OPS = ('bmm', 'scaled_dot_product')


@count_branch.register
def _count_timm(
    branch: PIIPTimm, shape: tuple[int, int], convention: Convention
) -> BranchCount:
    """Matrix products and convolutions of a run, by PyTorch's FLOP counter.

    There is one number for all conventions, as no published model has such a branch. It
    has neither norms nor biases, which the rules of the other families count: together
    well below one percent. On the meta device PyTorch takes attention apart into its two
    products, so that they are seen; windows are counted with their padding.
    """
    meta = copy.deepcopy(branch).to('meta').eval()
    grids = []
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        tokens, grid = meta.embed(torch.empty(1, 3, *shape, device='meta'))
        for index in range(branch.depth):
            tokens, grid = meta.run(tokens, grid, index, index + 1)
            grids.append(grid)
    # PyTorch counts a multiply-add as two.
    total = counter.get_total_flops() // 2
    attention = sum(
        flops // 2
        for op, flops in counter.get_flop_counts()['Global'].items()
        if any(name in str(op) for name in _ATTENTION_OPS)
    )
    return BranchCount(
        Count(num_params(branch), total - attention), Count(flops=attention), grids
    )
