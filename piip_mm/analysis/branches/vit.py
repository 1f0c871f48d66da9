"""Counting rule of plain vision transformers."""

from __future__ import annotations

from piip_mm.models.branches import PIIPViT

from ..conventions import Convention, Count
from .base import BranchCount, count_branch
from .plain import count_plain


@count_branch.register
def _count_vit(
    branch: PIIPViT, shape: tuple[int, int], convention: Convention
) -> BranchCount:
    # The class of the published DeiT has a second form, and the counts are of that.
    pads_first = branch.arch.cls_pos_row
    counted = count_plain(branch, shape, convention, pads_first=pads_first)
    if not convention.classifier:
        return counted
    height, width = counted.grids[0]
    num_rows = height * width + branch.arch.cls_pos_row
    stored = num_rows * branch.dims[0] - branch.pos_embed.numel()
    return counted._replace(body=counted.body + Count(params=stored))
