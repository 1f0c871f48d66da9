"""What a counting rule of a branch family is.

A family is added by a function registered at :func:`count_branch`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch
from typing import NamedTuple

from piip_mm.models.branches import Branch

from ..conventions import Convention, Count


class BranchCount(NamedTuple):
    """Counts of a branch.

    Attributes:
        body: The branch without the products of its attention.
        attention: Query-key and attention-value products.
        grids: (H, W) of the tokens after each block.
    """

    body: Count
    attention: Count
    grids: Sequence[tuple[int, int]]


@singledispatch
def count_branch(
    branch: Branch, shape: tuple[int, int], convention: Convention
) -> BranchCount:
    """Count a branch.

    Args:
        branch: The branch.
        shape: (H, W) of its image in pixels.
        convention: What to count.

    Raises:
        ValueError: If there is no rule for the family.
    """
    supported = sorted(c.__name__ for c in count_branch.registry if c is not object)
    raise ValueError(
        f'cannot count a branch of type {type(branch).__name__!r}; supported: '
        f'{", ".join(supported)}'
    )
