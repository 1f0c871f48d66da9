"""Counts against those of the published code: to the last parameter and FLOP.

``data/flops_reference.json`` holds its counts of the DeiT models by part, [parameters,
FLOPs], under our names: branch 0 is the one with the highest resolution, and the
scalars of the merge belong to its branches. Where the published code counts something
else than it computes, a test names it.
"""

import json
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import pytest
import zoo

from piip_mm.analysis import Count, build_on_meta, count_backbone, total
from piip_mm.models.branches import VIT_ARCHS

ROWS = json.loads(
    (Path(__file__).parent / 'data/flops_reference.json').read_text(encoding='utf-8')
)
PUBLISHED = [name for name, row in ROWS.items() if 'published' in row]
FOUR = [name for name, row in ROWS.items() if len(row['branches']) == 4]


def config(name, *, arch=None, **kwargs):
    """Backbone of a row; ``arch`` replaces that of its first branch."""
    branches = [dict(type='PIIPViT', **branch) for branch in ROWS[name]['branches']]
    if len(branches) == 1:
        return dict(type='ViTPyramid', branch=branches[0], **kwargs)
    if arch is not None:
        branches[0]['arch'] = arch
    return dict(type='PIIP', branches=branches, num_interactions=12, **kwargs)


@lru_cache
def columns(name, **kwargs):
    return count_backbone(build_on_meta(config(name, **kwargs)))


def reference(name, key):
    return {part: Count(*numbers) for part, numbers in ROWS[name][key].items()}


def sampling_core(widths, num_tokens):
    """Both ways between neighbours after each of 12 groups, 4 points, 5 FLOPs each."""
    pairs = pairwise(zip(widths, num_tokens, strict=True))
    return sum(12 * 5 * 4 * dims * n for pair in pairs for dims, n in pair)


def test_reference_is_complete():
    assert len(PUBLISHED) == 11
    assert [len(row['branches']) for row in ROWS.values()].count(3) == 8
    assert len(FOUR) == 3


@pytest.mark.parametrize('name', [n for n in ROWS if 'as published' in ROWS[n]])
def test_as_published(name):
    assert columns(name)['as published'] == reference(name, 'as published')


@pytest.mark.parametrize('path', zoo.PUBLISHED)
def test_shipped_configs_count_as_their_rows(path):
    row = f'deit_{zoo.PUBLISHED[path]}'
    arch = 'deit3_small' if zoo.is_as_released(path) else None
    backbone = build_on_meta(zoo.load(path).model.backbone)
    assert count_backbone(backbone) == columns(row, arch=arch)


@pytest.mark.skipif(not zoo.REFERENCE.is_dir(), reason='no complete reference here')
def test_rows_agree_with_the_complete_reference():
    complete = zoo.read_json(zoo.REFERENCE / 'flops_reference.json')['configs']
    for name in PUBLISHED:
        (key,) = (key for key in complete if f'mask_rcnn_{name}_fpn' in key)
        published = complete[key]['published_convention(classification/get_flops.py)']
        counted = total(reference(name, 'as published'))
        assert counted.flops == published['flops_total']
        assert counted.params == published['params_total']
        entries = complete[key]['get_flops_det_script_convention']
        released = entries.get('branch4_intended', entries['as_coded'])
        assert total(reference(name, 'as released')).flops == released['flops_total']


@pytest.mark.parametrize('name', PUBLISHED)
def test_table_of_the_paper(name):
    counted = total(columns(name)['as published'])
    digits = [f'{counted.params / 1e6:.0f}M', f'{counted.flops / 1e9:.0f}G']
    assert digits == ROWS[name]['published']


@pytest.mark.parametrize(
    ('direction', 'num_interactions', 'gflops'),
    [
        ('neighbours', 0, 176),
        ('alternating', 12, 210),
        ('neighbours', 12, 243),
        ('all_pairs', 12, 283),
    ],
)
def test_directions_of_the_paper(direction, num_interactions, gflops):
    cfg = config('deit_tsb_1120_896_448', interaction=dict(direction=direction))
    cfg['num_interactions'] = num_interactions
    counted = total(count_backbone(build_on_meta(cfg))['as published'])
    assert round(counted.flops / 1e9) == gflops


@pytest.mark.parametrize(
    'name', [n for n in ROWS if n not in FOUR and not n.startswith('dino')]
)
def test_as_released(name):
    assert columns(name)['as released'] == reference(name, 'as released')


def test_as_released_without_the_level_that_nothing_reads():
    # Published DINO models hold the x4 level, 8 392 704 parameters, and take three maps.
    (name,) = [n for n in ROWS if n.startswith('dino')]
    parts = columns(name, out_strides=(8, 16, 32))['as released']
    expected = reference(name, 'as released')
    expected['pyramid'] = Count(expected['pyramid'].params - 8392704)
    assert parts == expected


@pytest.mark.parametrize('name', FOUR)
def test_as_released_four_branches_sampling_core(name):
    # The published script counts the core on 14 x 14 grids here, whatever the image.
    expected = reference(name, 'as released')
    branches = ROWS[name]['branches']
    widths = [VIT_ARCHS[branch['arch']].embed_dims for branch in branches]
    num_tokens = [(branch['img_size'] // 16) ** 2 for branch in branches]
    assert expected['sampling core'].flops == sampling_core(widths, [14 * 14] * 4)
    expected['sampling core'] = Count(flops=sampling_core(widths, num_tokens))
    assert columns(name)['as released'] == expected


@pytest.mark.parametrize('name', FOUR)
def test_as_released_four_branches_as_coded(name):
    # The released models have DeiT-S where DeiT-Ti was configured. The published script
    # counts the self-attention of the configured width, the rest of the built one.
    expected = reference(name, 'as released, as coded')
    branches = ROWS[name]['branches']
    widths = [384, *(VIT_ARCHS[branch['arch']].embed_dims for branch in branches[1:])]
    num_tokens = [(branch['img_size'] // 16) ** 2 for branch in branches]
    intended = reference(name, 'as released')['self-attention 0']
    assert expected['self-attention 0'] == intended
    expected['self-attention 0'] = Count(flops=intended.flops * 384 // 192)
    assert expected['sampling core'].flops == sampling_core(widths, [14 * 14] * 4)
    expected['sampling core'] = Count(flops=sampling_core(widths, num_tokens))
    assert columns(name, arch='deit3_small')['as released'] == expected
