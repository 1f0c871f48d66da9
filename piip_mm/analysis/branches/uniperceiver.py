"""Counting rule of Uni-Perceiver."""

from __future__ import annotations

from piip_mm.models.branches.uniperceiver import PIIPUniPerceiver

from ..conventions import Convention, Count
from ..layers import norm_flops
from .base import BranchCount, count_branch
from .plain import count_plain


@count_branch.register
def _count_uniperceiver(
    branch: PIIPUniPerceiver, shape: tuple[int, int], convention: Convention
) -> BranchCount:
    counted = count_plain(branch, shape, convention, pads_first=True)
    num_patches = counted.grids[0][0] * counted.grids[0][1]
    embedding = Count(flops=norm_flops(branch.embed_norm, num_patches))
    if convention.classifier:
        stored = num_patches * branch.dims[0] - branch.spatial_pos_embed.numel()
        embedding += Count(params=stored)
    return counted._replace(body=counted.body + embedding)
