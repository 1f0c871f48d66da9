"""The column 'as run' against what the built model executes."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import piip_mm.models.layers.cross_attention as cross_attention
from piip_mm.analysis import build_on_meta, configured_shape, count_backbone, total
from piip_mm.models.branches import Branch

CONFIG_DIR = Path(__file__).parents[1] / 'configs/det'

# Batched products are those of attention alone.
BMM = torch.ops.aten.bmm

# Sides that neither patches nor ratios divide.
ODD = (139, 107)


def branch(embed_dims=32, img_size=64, num_layers=4, arch=(), **kwargs):
    arch = dict(embed_dims=embed_dims, num_layers=num_layers, num_heads=4, **dict(arch))
    defaults = dict(pretrain_img_size=64, window_size=4)
    return dict(type='PIIPViT', arch=arch, img_size=img_size, **{**defaults, **kwargs})


def piip(num_branches=3, first=(), interaction=(), **kwargs):
    """Windows of 4 tokens on grids of 6, 5, 4 ... at 96 pixels."""
    branches = [
        branch(32 * (i + 1), 96 - 16 * i, 4 if i < 2 else 8) for i in range(num_branches)
    ]
    branches[0] = branch(img_size=96, **dict(first))
    interaction = dict(num_heads=4, **dict(interaction))
    defaults = dict(branches=branches, num_interactions=4, interaction=interaction)
    return dict(type='PIIP', **{**defaults, **kwargs})


def baseline(norm='LN', **kwargs):
    return dict(type='ViTPyramid', branch=branch(**kwargs), norm=norm)


CONFIGS = {
    'default': piip(),
    'two_branches': piip(2),
    'four_branches': piip(4),
    'equal_sizes': piip(branches=[branch(), branch(64)]),
    'global_attention': piip(first=dict(window_size=None)),
    'mixed_attention': piip(first=dict(global_attn_indexes=[1, 3])),
    'patch_8': piip(
        branches=[branch(img_size=96, patch_size=8), branch(64)],
        out_strides=(2, 4, 8, 16),
    ),
    'zero_qkv': piip(first=dict(window_pad='zero_qkv')),
    'arch': piip(first=dict(arch=dict(mlp_ratio=2, qkv_bias=False, init_values=None))),
    'alternating': piip(interaction=dict(direction='alternating')),
    'cycle': piip(interaction=dict(direction='cycle')),
    'reverse_cycle': piip(interaction=dict(direction='reverse_cycle')),
    'all_pairs': piip(interaction=dict(direction='all_pairs')),
    'one_way': piip(interaction=dict(direction=[[[(2, 0)], [(1, 0)]]])),
    'no_interactions': piip(num_interactions=0),
    'uneven_groups': piip(2, num_interactions=2, interaction_ends=[[0, 3], [2, 3]]),
    'regular': piip(interaction=dict(attn='regular')),
    'regular_no_proj': piip(interaction=dict(attn='regular', proj=False)),
    'points_and_values': piip(interaction=dict(num_points=3, value_ratio=1.0)),
    'no_proj': piip(interaction=dict(proj=False)),
    'no_norm': piip(interaction=dict(norm=None)),
    'no_ffn': piip(interaction=dict(ffn_ratio=None)),
    'merge_of_the_first': piip(merge_branches=[0]),
    'merge_of_two': piip(merge_branches=[0, 2], interaction=dict(direction='cycle')),
    'no_x4_level': piip(out_strides=(8, 16, 32)),
    'one_level': piip(out_strides=(16,)),
    'baseline': baseline(),
    'baseline_gn': baseline('GN', global_attn_indexes=[0]),
}


def attention_of(part):
    """Part that holds the products of attention of another part."""
    if part == 'interactions':
        return 'sampling core'
    return part.replace('branch', 'self-attention')


def part_of(module_name):
    """Name of the part that a module of a backbone belongs to."""
    kind, *rest = module_name.split('.')
    if kind == 'branches':
        return f'branch {rest[0]}'
    if kind == 'merges':
        return f'merge {rest[2]}'
    return kind


def small_layers(network, flops):
    """Add norms, biases of convolutions, ReLU and pooling by hooks."""

    def hook(name):
        def add(module, inputs, output):
            part = part_of(name)
            if isinstance(module, (nn.LayerNorm, nn.GroupNorm)):
                flops[part] += 2 * inputs[0].numel()
            elif isinstance(module, nn.ReLU):
                flops[part] += output.numel()
            elif isinstance(module, nn.MaxPool2d):
                flops[part] += inputs[0].numel()
            elif getattr(module, 'bias', None) is not None:
                flops[part] += output.numel()

        return add

    kinds = (nn.LayerNorm, nn.GroupNorm, nn.ReLU, nn.MaxPool2d)
    for name, module in network.named_modules():
        if isinstance(module, (*kinds, nn.Conv2d, nn.ConvTranspose2d)):
            module.register_forward_hook(hook(name))


def measure(cfg, shape, monkeypatch):
    """FLOPs by part of a forward pass, from PyTorch's counter and hooks."""
    network = MODELS.build(cfg).eval()
    flops = Counter()
    small_layers(network, flops)
    sample = cross_attention.deformable_attention

    def count_samples(value, value_grid, locations, weights, backend):
        flops['sampling core'] += 5 * weights.numel() * value.shape[-1]
        return sample(value, value_grid, locations, weights, backend)

    monkeypatch.setattr(cross_attention, 'deformable_attention', count_samples)
    # The plain implementation runs products that the counter sees.
    with (
        torch.no_grad(),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        network(torch.zeros(1, 3, *shape))
    # Of nested modules the outermost has it all; the merge is taken branch by branch.
    root = type(network).__name__
    counts = counter.get_flop_counts()
    whole = {'Global', root, f'{root}.merges.0'}
    for module, by_operator in counts.items():
        path = module.split('.')
        outer = {'.'.join(path[:i]) for i in range(1, len(path))}
        if module in whole or (outer & set(counts)) - whole:
            continue
        part = part_of(module.removeprefix(f'{root}.'))
        for operator, twice in by_operator.items():
            flops[attention_of(part) if operator == BMM else part] += twice // 2
    return network, {part: number for part, number in flops.items() if number}


@pytest.mark.parametrize(
    ('name', 'shape'),
    [
        *((name, ODD) for name in CONFIGS),
        *((name, (96, 96)) for name in ('default', 'regular', 'baseline')),
        *((name, (96, 128)) for name in ('default', 'regular', 'baseline')),
    ],
)
def test_as_run_is_what_runs(name, shape, monkeypatch):
    network, measured = measure(CONFIGS[name], shape, monkeypatch)
    parts = count_backbone(build_on_meta(CONFIGS[name]), shape)['as run']
    counted = {part: count.flops for part, count in parts.items() if count.flops}
    assert counted == measured
    assert total(parts).params == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ('config', 'shape'),
    [('piip_sbl_maskrcnn_1x', (896, 1568)), ('vit_b_maskrcnn_1x', (640, 1024))],
)
def test_as_run_of_published_models(config, shape, monkeypatch):
    cfg = Config.fromfile(CONFIG_DIR / f'{config}.py').model.backbone
    with torch.device('meta'):
        _, measured = measure(cfg, shape, monkeypatch)
    parts = count_backbone(build_on_meta(cfg), shape)['as run']
    assert {part: count.flops for part, count in parts.items()} == measured


def test_default_input_is_the_configured_square():
    backbone = build_on_meta(CONFIGS['default'])
    assert configured_shape(backbone) == (96, 96)
    assert count_backbone(backbone) == count_backbone(backbone, (96, 96))


def test_shape_is_that_of_the_run_alone():
    square, other = (
        count_backbone(build_on_meta(CONFIGS['default']), shape)
        for shape in ((96, 96), (96, 192))
    )
    for name in ('as published', 'as released'):
        assert square[name] == other[name]
    assert total(other['as run']).flops > 1.9 * total(square['as run']).flops
    assert total(other['as run']).params == total(square['as run']).params


@pytest.mark.parametrize('name', ['default', 'baseline'])
def test_released_has_the_parameters_of_the_run(name):
    columns = count_backbone(build_on_meta(CONFIGS[name]))
    for part, count in columns['as run'].items():
        assert columns['as released'][part].params == count.params


def test_window_padding_by_column():
    """A grid of 6 x 6 tokens of width 32 in windows of 4, hence padded to 8 x 8."""
    columns = {
        pad: count_backbone(
            build_on_meta(baseline(img_size=96, num_layers=1, window_pad=pad))
        )
        for pad in ('zero_input', 'zero_qkv')
    }
    body = {
        (name, pad): columns[pad][name]['branch'].flops
        for pad in columns
        for name in columns[pad]
    }
    padded_qkv = (8 * 8 - 6 * 6) * 32 * 3 * 32
    run = body['as run', 'zero_input']
    assert body == {
        ('as published', 'zero_input'): run,
        ('as published', 'zero_qkv'): run,
        ('as released', 'zero_input'): run + padded_qkv,
        ('as released', 'zero_qkv'): run,
        ('as run', 'zero_input'): run,
        ('as run', 'zero_qkv'): run,
    }
    attention = {
        name: parts['self-attention'].flops
        for name, parts in columns['zero_input'].items()
    }
    assert attention == {
        'as published': 2 * 6 * 6 * 4 * 4 * 32,
        'as released': 2 * 6 * 6 * 4 * 4 * 32,
        'as run': 2 * 8 * 8 * 4 * 4 * 32,
    }


@pytest.mark.parametrize(
    ('cfg', 'shape', 'message'),
    [
        (CONFIGS['one_level'], (96, 16), r'branch 1 sees the 96 x 16 input at 80 x 13'),
        (
            CONFIGS['baseline'],
            (8, 96),
            r'input of 8 x 96 pixels is too small, .* at least 32',
        ),
    ],
)
def test_too_small_an_input_is_refused(cfg, shape, message):
    with pytest.raises(ValueError, match=message):
        count_backbone(build_on_meta(cfg), shape)


@pytest.mark.parametrize('kind', ['ResNet', 'mmdet.ResNet', nn.Identity, None])
def test_unknown_backbone_is_named(kind):
    message = r'cannot count a backbone of type .*; supported: PIIP, ViTPyramid'
    with pytest.raises(ValueError, match=message) as error:
        build_on_meta(dict(type='MaskRCNN', backbone=dict(type=kind, depth=50)))
    assert repr(getattr(kind, '__name__', kind)) in str(error.value)


def test_a_built_backbone_is_checked_too():
    with pytest.raises(ValueError, match=r"type 'Identity'; supported: PIIP, ViTPyr"):
        count_backbone(nn.Identity())


def test_unknown_branch_family_is_named():
    backbone = build_on_meta(CONFIGS['default'])
    backbone.branches[0].__class__ = Branch
    with pytest.raises(ValueError, match=r"type 'Branch'; supported: .*PIIPViT"):
        count_backbone(backbone)


def test_unknown_layer_is_named():
    backbone = build_on_meta(CONFIGS['default'])
    backbone.pyramid.levels[0] = nn.Upsample(scale_factor=4)
    with pytest.raises(TypeError, match=r'no counting rule for Upsample'):
        count_backbone(backbone)
