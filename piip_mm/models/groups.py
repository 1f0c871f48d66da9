"""Checks and defaults for grouping the blocks and merging the branches of a network."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from piip_mm.checks import check_ints, check_sequence


def check_resolutions(sizes: Sequence[int]) -> None:
    """Raise ``ValueError`` if an ``img_size`` is larger than the one before it."""
    for index, (high, low) in enumerate(pairwise(sizes)):
        if low > high:
            raise ValueError(
                f'img_size increases from {high} (branch {index}) to {low} (branch '
                f'{index + 1}); list the branches from high to low resolution'
            )


def check_channels(channels: Sequence[int]) -> None:
    """Raise ``ValueError`` unless the images of all branches have as many channels."""
    if len(set(channels)) > 1:
        raise ValueError(
            f'the branches expect images of {list(channels)} channels, but all see the '
            'same image; give them the same in_channels (PIIPTimm: in_chans in '
            'model_kwargs)'
        )


def resolve_merge_branches(
    merge_branches: Sequence[int] | None, num_branches: int
) -> list[int]:
    """Sorted indices of the branches that enter the merge, by default all."""
    if merge_branches is None:
        return list(range(num_branches))
    check_ints('merge_branches', merge_branches, minimum=0)
    merged = set(merge_branches)
    if not merged or len(merged) < len(merge_branches) or merged - {*range(num_branches)}:
        raise ValueError(
            f'merge_branches {merge_branches}: expected different branches from 0 to '
            f'{num_branches - 1}'
        )
    return sorted(merged)


def resolve_merge_stages(
    out_interactions: Sequence[int] | None, num_levels: int, last: int
) -> tuple[int, ...]:
    """Stages after which maps are merged, always including the last one."""
    if out_interactions is None:
        return (last,)
    check_ints('out_interactions', out_interactions, minimum=0)
    if len(out_interactions) != num_levels - 1:
        raise ValueError(
            f'out_interactions {tuple(out_interactions)} for {num_levels} out_strides; '
            'name one interaction for each level but the last'
        )
    stages = tuple(stage for stage in range(last) if stage in out_interactions)
    if stages != tuple(out_interactions):
        raise ValueError(
            f'out_interactions {tuple(out_interactions)}: expected increasing numbers '
            f'from 0 to {last - 1}, the interactions before the last'
        )
    return (*stages, last)


def resolve_group_ends(
    depths: Sequence[int],
    num_interactions: int,
    interaction_ends: Sequence[Sequence[int]] | None,
) -> list[tuple[int, ...]]:
    """Last block of each group, per branch; one group if there are no interactions."""
    if interaction_ends is None:
        groups = max(num_interactions, 1)
        for index, depth in enumerate(depths):
            if depth % groups:
                raise ValueError(
                    f'the {depth} blocks of branch {index} cannot be split evenly into '
                    f'num_interactions={num_interactions} groups; choose a divisor, or '
                    'give interaction_ends'
                )
        return [tuple(range(d // groups - 1, d, d // groups)) for d in depths]
    if num_interactions == 0:
        raise ValueError('interaction_ends are given, but num_interactions=0; remove one')
    check_sequence('interaction_ends', interaction_ends)
    for index, branch_ends in enumerate(interaction_ends):
        check_ints(f'interaction_ends[{index}]', branch_ends, minimum=0)
    ends = [tuple(branch_ends) for branch_ends in interaction_ends]
    counts = [len(branch_ends) for branch_ends in ends]
    if len(ends) != len(depths) or set(counts) != {num_interactions}:
        raise ValueError(
            f'interaction_ends has groups {counts} for {len(depths)} branches and '
            f'num_interactions={num_interactions}; give every branch as many groups as '
            'there are interactions'
        )
    for index, (branch_ends, depth) in enumerate(zip(ends, depths, strict=True)):
        blocks = tuple(block for block in range(depth) if block in branch_ends)
        if branch_ends != blocks or blocks[-1:] != (depth - 1,):
            raise ValueError(
                f'interaction_ends {branch_ends} of branch {index}: expected increasing '
                f'block numbers that end with its last block, {depth - 1}'
            )
    return ends
