"""Which branch feeds which: the directions of the interactions, as data.

A *pattern* is what one interaction stage does: a sequence of steps, each a tuple of
edges ``(source, target)`` between branches (0 is the one with the highest resolution).
The edges of a step read the tokens as they were before the step; steps run in order.
Patterns repeat over the stages.

The PIIP papers (v2, Table 10) show five directions, as drawings only. 'neighbours' is
the published default; the other presets are inferred from the FLOPs printed next to the
drawings (for TSB 1120/896/448: 210, 230, 230, 243 and 283 G).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import combinations, pairwise
from typing import TypeAlias

from piip_mm.checks import check_choice, check_ints

Edge: TypeAlias = tuple[int, int]
Step: TypeAlias = tuple[Edge, ...]
Pattern: TypeAlias = tuple[Step, ...]


def _both_ways(pair: tuple[int, int]) -> Step:
    first, second = pair
    return ((second, first), (first, second))


def _neighbours(num_branches: int) -> list[Pattern]:
    """Both ways between neighbours, from the high-resolution end, in every stage."""
    return [tuple(map(_both_ways, pairwise(range(num_branches))))]


def _alternating(num_branches: int) -> list[Pattern]:
    """Both ways between neighbours, one pair of neighbours per stage."""
    return [(_both_ways(pair),) for pair in pairwise(range(num_branches))]


def _cycle(num_branches: int) -> list[Pattern]:
    """From each branch to the next lower resolution, then from the last to the first."""
    edges = [*pairwise(range(num_branches)), (num_branches - 1, 0)]
    return [tuple((edge,) for edge in edges)]


def _reverse_cycle(num_branches: int) -> list[Pattern]:
    """From each branch to the next higher resolution, then from the first to the last."""
    edges = [*pairwise(reversed(range(num_branches))), (0, num_branches - 1)]
    return [tuple((edge,) for edge in edges)]


def _all_pairs(num_branches: int) -> list[Pattern]:
    """Both ways between all pairs, near pairs before distant ones."""
    pairs = combinations(range(num_branches), 2)
    return [tuple(map(_both_ways, sorted(pairs, key=lambda p: (p[1] - p[0], p[0]))))]


#: Presets by name.
DIRECTIONS: dict[str, Callable[[int], list[Pattern]]] = {
    'neighbours': _neighbours,
    'alternating': _alternating,
    'cycle': _cycle,
    'reverse_cycle': _reverse_cycle,
    'all_pairs': _all_pairs,
}


def plan_interactions(
    direction: str | Sequence[Sequence[Sequence[Sequence[int]]]],
    num_branches: int,
    num_stages: int,
    outputs: Collection[int],
    prefix_outputs: Collection[int] = (),
) -> list[Pattern]:
    """Plan the edges of every stage, leaving out those whose result nothing reads.

    Args:
        direction: Name of a preset, or patterns to repeat over the stages: a list of
            patterns, each a list of steps, each a list of (source, target).
        num_branches: Number of branches.
        num_stages: Number of interaction stages.
        outputs: Branches whose tokens are read after the last stage, and possibly after
            earlier ones.
        prefix_outputs: Branches whose prefix tokens are read after the last stage; only
            the branch's own blocks read and change these.

    Returns:
        One pattern per stage. An edge whose target is read by no later step, stage or
        output is left out.

    Raises:
        ValueError: If the name is unknown, an edge names a branch that does not exist or
            joins a branch to itself, a stage has an edge twice, a step has two edges into
            one branch, or nothing reads a branch.
    """
    if isinstance(direction, str):
        check_choice('direction', direction, DIRECTIONS)
        patterns = DIRECTIONS[direction](num_branches)
    else:
        try:
            patterns = [
                tuple(tuple(_edge(*edge) for edge in step) for step in pattern)
                for pattern in direction
            ]
        except (TypeError, ValueError) as error:
            raise ValueError(
                f'direction {direction!r}: expected one of '
                f'{", ".join(map(repr, DIRECTIONS))}, or a list of patterns, each a list '
                'of steps, each a list of (source, target)'
            ) from error
        if not patterns:
            raise ValueError('direction: expected at least one pattern, got none')
    for pattern in patterns:
        _check_pattern(pattern, num_branches)

    stages: list[Pattern] = []
    read = set(outputs)
    for stage in reversed(range(num_stages)):
        kept: list[Step] = []
        for step in reversed(patterns[stage % len(patterns)]):
            live = tuple(edge for edge in step if edge[1] in read)
            read |= {source for source, _ in live}
            if live:
                kept.append(live)
        stages.append(tuple(reversed(kept)))
        # Prefix tokens read the patch tokens of their branch in the blocks before this
        # stage.
        read |= set(prefix_outputs)
    unread = sorted(set(range(num_branches)) - read - set(prefix_outputs))
    if unread:
        raise ValueError(
            f'nothing reads branch {unread[0]}: add it to merge_branches, let it feed '
            'another branch (direction), or remove it'
        )
    return stages[::-1]


def groups_read(
    stages: Sequence[Pattern], num_branches: int, outputs: Collection[int]
) -> list[int]:
    """Number of groups of blocks of each branch whose result is read.

    Args:
        stages: Patterns from :func:`plan_interactions`.
        num_branches: Number of branches.
        outputs: Branches of which any tokens are read after the last stage.
    """
    counts = [0] * num_branches
    for stage, pattern in enumerate(stages):
        for step in pattern:
            for edge in step:
                # An edge also reads the tokens of its target, which it adds to.
                for branch in edge:
                    counts[branch] = stage + 1
    for branch in outputs:
        counts[branch] = max(len(stages), 1)
    return counts


def _edge(source: object, target: object) -> tuple[int, int]:
    # Neither True nor '1' is the number of a branch.
    check_ints('edge', (source, target), minimum=0)
    return int(source), int(target)  # type: ignore[call-overload]


def _check_pattern(pattern: Pattern, num_branches: int) -> None:
    edges = [edge for step in pattern for edge in step]
    for source, target in edges:
        if source == target or not {source, target} <= set(range(num_branches)):
            raise ValueError(
                f'direction: edge ({source}, {target}) does not join two of the '
                f'branches 0 to {num_branches - 1}'
            )
    if len(set(edges)) < len(edges):
        raise ValueError(f'direction: an edge occurs twice in one stage: {edges}')
    for step in pattern:
        targets = [target for _, target in step]
        if len(set(targets)) < len(targets):
            raise ValueError(
                f'direction: two edges of the step {step} end in one branch; '
                'put them into separate steps'
            )
