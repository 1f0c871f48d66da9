"""Directions of interactions as data."""

import pytest

from piip_mm.models.directions import DIRECTIONS, groups_read, plan_interactions


def plan(direction, branches=3, stages=2, outputs=(0, 1, 2)):
    return plan_interactions(direction, branches, stages, outputs)


def test_neighbours_start_at_the_high_resolution_end():
    step_01, step_12 = ((1, 0), (0, 1)), ((2, 1), (1, 2))
    assert plan('neighbours') == [(step_01, step_12)] * 2
    assert plan('neighbours', 2, 1, (0, 1)) == [(step_01,)]
    assert plan('neighbours', 4, 1, (0, 1, 2, 3)) == [
        (step_01, step_12, ((3, 2), (2, 3)))
    ]


@pytest.mark.parametrize(
    'direction, expected',
    [
        ('alternating', [{(0, 1), (1, 0)}, {(1, 2), (2, 1)}]),
        ('cycle', [{(0, 1), (1, 2), (2, 0)}] * 2),
        ('reverse_cycle', [{(2, 1), (1, 0), (0, 2)}] * 2),
        ('all_pairs', [{(0, 1), (1, 0), (1, 2), (2, 1), (0, 2), (2, 0)}] * 2),
    ],
)
def test_presets(direction, expected):
    stages = plan(direction)
    assert [{edge for step in stage for edge in step} for stage in stages] == expected


def test_edges_that_nothing_reads_are_left_out():
    stages = plan('neighbours', outputs=(2,))
    assert stages[0] == plan('neighbours')[0]
    assert stages[1] == (((0, 1),), ((1, 2),))


def test_groups_of_blocks_that_are_read():
    """With 'alternating', the last stage does not involve branch 0."""
    stages = plan('alternating', stages=4, outputs=(2,))
    assert groups_read(stages, 3, (2,)) == [3, 4, 4]
    assert groups_read(plan('neighbours'), 3, (0, 1, 2)) == [2, 2, 2]
    assert groups_read([], 2, (0, 1)) == [1, 1]


def test_a_branch_that_nothing_reads():
    with pytest.raises(ValueError, match='nothing reads branch 1: add it to merge'):
        plan('neighbours', stages=0, outputs=(0, 2))


def test_patterns_repeat():
    down, up = [[(0, 1)]], [[(1, 0)]]
    stages = plan([down, up], 2, 3, (0, 1))
    assert stages == [(((0, 1),),), (((1, 0),),), (((0, 1),),)]


@pytest.mark.parametrize(
    'direction, message',
    [
        (
            'down',
            f"unknown direction 'down'; choose one of {', '.join(map(repr, DIRECTIONS))}",
        ),
        ([], 'at least one pattern'),
        ([[[(0, 3)]]], r'edge \(0, 3\) does not join two of the branches 0 to 2'),
        ([[[(1, 1)]]], r'edge \(1, 1\) does not join'),
        ([[[(0, 1)], [(0, 1)]]], 'an edge occurs twice in one stage'),
        ([[[(0, 1), (2, 1)]]], 'two edges of the step .* end in one branch'),
    ],
)
def test_errors(direction, message):
    with pytest.raises(ValueError, match=message):
        plan(direction)
