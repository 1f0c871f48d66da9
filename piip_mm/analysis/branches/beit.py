"""Counting rule of BEiT."""

from __future__ import annotations

from piip_mm.models.branches.beit import PIIPBEiT

from ..conventions import Convention
from .base import BranchCount, count_branch
from .plain import count_plain


@count_branch.register
def _count_beit(
    branch: PIIPBEiT, shape: tuple[int, int], convention: Convention
) -> BranchCount:
    # The tables have no FLOPs: looking up and adding are not counted anywhere.
    return count_plain(branch, shape, convention, pads_first=True)
