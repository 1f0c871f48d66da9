"""Counts against those of the published code: to the last parameter and FLOP.

``data/flops_reference.json`` holds its counts of the published detectors by part,
[parameters, FLOPs], under our names: branch 0 is the one with the highest resolution, and
the scalars of the merge belong to its branches. Where the published code counts something
else than it computes, or has parameters that nothing reads, a correction names it.
"""

from functools import lru_cache
from itertools import pairwise

import golden
import pytest
import zoo

from piip_mm.analysis import Count, count_backbone, total

ROWS = zoo.read_json(golden.DATA / 'flops_reference.json')


@lru_cache
def columns(name):
    return count_backbone(zoo.built(name).eval().backbone)


def backbone_of(name):
    return zoo.built(name).backbone


def reference(name, convention):
    """Counts of a config's row, corrected."""
    row = ROWS[zoo.PUBLISHED[name]]
    key = f'{convention}, as coded' if zoo.is_as_released(name) else convention
    parts = {part: Count(*numbers) for part, numbers in row[key].items()}
    for correct in (
        without_unread_level,
        without_unread_norms,
        with_fused_mlp,
        with_beit_projections,
        with_true_grids,
        with_built_width,
    ):
        correct(parts, name, convention)
    return parts


def add(parts, part, params=0, flops=0):
    parts[part] += Count(params, flops)


def without_unread_level(parts, name, convention):
    # Three-branch DINO models hold the x4 level and take three maps.
    if '_dino_' in name and len(backbone_of(name).branches) == 3:
        width = backbone_of(name).branches[-1].dims[-1]
        conv = 4 * width * width + width
        add(parts, 'pyramid', -(2 * conv + 2 * width))


def without_unread_norms(parts, name, convention):
    # The published ConvNeXt ends in a LayerNorm.
    for part, branch in branches_of(name):
        if type(branch).__name__ == 'PIIPConvNeXt':
            add(parts, part, -2 * branch.dims[-1])


def with_fused_mlp(parts, name, convention):
    # A DeiT branch's fused MLP has no layers that the published hooks see.
    if convention == 'as published' and 'lh6b' in name:
        branch = backbone_of(name).branches[0]
        tokens = (branch.img_size // 16) ** 2
        add(parts, 'branch 0', 0, branch.depth * 8 * tokens * branch.dims[0] ** 2)


def with_beit_projections(parts, name, convention):
    # Query, key and value of BEiT are no layers, but a function; its output projection
    # runs on the padding too.
    for part, branch in branches_of(name):
        if type(branch).__name__ == 'PIIPBEiT':
            padding = padded_tokens(branch) - (branch.img_size // 16) ** 2
            tokens = 3 * padded_tokens(branch) - padding
            add(parts, part, 0, branch.depth * tokens * branch.dims[0] ** 2)


def with_true_grids(parts, name, convention):
    # Of two and four branches the sampling core is counted on 14 x 14 grids.
    if convention == 'as released' and len(branches_of(name)) in (2, 4):
        backbone = backbone_of(name)
        widths = [branch.dims[-1] for branch in backbone.branches]
        if zoo.is_as_released(name):
            assert widths[0] == 384
        assert parts['sampling core'].flops == sampling_core(widths, [14 * 14] * 4)
        tokens = [(branch.img_size // 16) ** 2 for branch in backbone.branches]
        parts['sampling core'] = Count(flops=sampling_core(widths, tokens))


def with_built_width(parts, name, convention):
    # DeiT-S where DeiT-Ti was configured: the self-attention is counted as configured.
    if zoo.is_as_released(name):
        flops = parts['self-attention 0'].flops
        parts['self-attention 0'] = Count(flops=flops * 384 // 192)


def branches_of(name):
    """Name of the part and branch."""
    backbone = backbone_of(name)
    if not hasattr(backbone, 'branches'):
        return [('branch', backbone.branch)]
    return [(f'branch {i}', branch) for i, branch in enumerate(backbone.branches)]


def padded_tokens(branch):
    (window,) = {block.attn.window_size for block in branch.blocks}
    side = branch.img_size // 16
    return (side + -side % window) ** 2


def sampling_core(widths, num_tokens):
    """Both ways between neighbours after each of 12 groups, 4 points, 5 FLOPs each."""
    pairs = pairwise(zip(widths, num_tokens, strict=False))
    return sum(12 * 5 * 4 * dims * n for pair in pairs for dims, n in pair)


def assert_equal_parts(counted, expected):
    """Part by part; of a regular pyramid the merges have their parameters in sum."""
    counted, expected = dict(counted), dict(expected)
    early = expected.pop('intermediate merges', None)
    if early is not None:
        for parts in (counted, expected):
            merges = [part for part in parts if part.startswith('merge')]
            parts['merges'] = Count(sum(parts[part].params for part in merges))
            parts |= {part: Count(flops=parts[part].flops) for part in merges}
        expected['merges'] += early
    assert counted == expected


def rows_with(key):
    return [
        name
        for name, row in zoo.PUBLISHED.items()
        if key in ROWS[row] and not zoo.is_as_released(name)
    ]


def test_reference_is_complete():
    assert set(ROWS) == set(zoo.PUBLISHED.values())
    assert len(ROWS) == 33
    assert sum('published' in row for row in ROWS.values()) == 24
    assert sum('as published' in row for row in ROWS.values()) == 20


@pytest.mark.parametrize('name', rows_with('as published'))
def test_as_published(name):
    assert_equal_parts(
        dict(columns(name)['as published']), reference(name, 'as published')
    )


@pytest.mark.parametrize('name', zoo.PUBLISHED)
def test_every_parameter_is_counted(name):
    params = sum(p.numel() for p in backbone_of(name).parameters())
    assert params == total(columns(name)['as released']).params


@pytest.mark.parametrize('name', zoo.PUBLISHED)
def test_as_released(name):
    assert_equal_parts(columns(name)['as released'], reference(name, 'as released'))


@pytest.mark.parametrize('name', rows_with('published'))
def test_table_of_the_paper(name):
    *params, flops = ROWS[zoo.PUBLISHED[name]]['published']
    counted = total(columns(name)['as published'])
    if params:
        assert f'{counted.params / 1e6:.0f}M' == params[0]
    assert f'{zoo.ROUNDING.get(name, round)(counted.flops / 1e9)}G' == flops


def test_parts_agree_with_the_published_sums():
    complete = {
        key.rpartition('/')[2]: entry for key, entry in golden.read('flops').items()
    }
    for name, row in ROWS.items():
        published = complete[name]['published_convention(classification/get_flops.py)']
        released = complete[name]['get_flops_det_script_convention']
        variants = {
            'as published': published,
            'as released': released.get('branch4_intended')
            or released.get('regular_mlp')
            or released['as_coded'],
            'as released, as coded': released['as_coded'],
        }
        assert ('as published' in row) == ('flops_total' in published)
        for key in variants.keys() & row.keys():
            counts = [Count(*numbers) for numbers in row[key].values()]
            counted = sum(counts, Count())
            assert counted.params == variants[key]['params_total']
            assert counted.flops == variants[key]['flops_total']


@pytest.mark.parametrize(
    ('name', 'gflops'),
    [
        ('interactions-0', 176),
        ('direction-alternating', 210),
        ('direction-all-pairs', 283),
    ],
)
def test_ablations_of_the_paper(name, gflops):
    counts = columns(f'det/ablations/piip_tsb_maskrcnn_1x_{name}.py')
    assert round(total(counts['as published']).flops / 1e9) == gflops
