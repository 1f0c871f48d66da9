"""The column 'as run' against counts by hand, and what the columns have in common."""

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import nn

from piip_mm.analysis import (
    PUBLISHED,
    RELEASED,
    RUN,
    Count,
    build_on_meta,
    configured_shape,
    count_backbone,
    total,
)
from piip_mm.models.branches import Branch

# Sides that neither patches nor ratios divide. The branches see it at 139 x 107, 115 x 89
# and 92 x 71 pixels.
ODD = (139, 107)
GRIDS = [(8, 6), (7, 5), (5, 4)]
WIDTHS = [32, 64, 96]
DEPTHS = [4, 4, 8]
NEIGHBOURS = [(1, 0), (0, 1), (2, 1), (1, 2)]


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
    'frozen': piip(first=dict(frozen_stages=3)),
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

# --- By hand --------------------------------------------------------------------------


def area(grid):
    return grid[0] * grid[1]


def windows(grid, window):
    """Tokens of each window of a grid: those at the edges may be smaller."""
    sides = [
        [min(window, side - start) for start in range(0, side, window)] for side in grid
    ]
    return [height * width for height in sides[0] for width in sides[1]]


def vit(grid, dims, depth, window=4, mlp_ratio=4, pad_qkv=True):
    """Patch embedding with bias; two norms, qkv, projection and MLP of each block. In a
    window that is not full, one more token is projected (``pad_qkv``), and a key."""
    n = area(grid)
    block = 2 * 2 * n * dims + (3 + 1 + 2 * mlp_ratio) * n * dims**2
    queries = windows(grid, window) if window else [n]
    padded = [bool(window) and tokens < window**2 for tokens in queries]
    if pad_qkv:
        block += sum(padded) * 3 * dims**2
    scores = sum(n * (n + pad) for n, pad in zip(queries, padded, strict=True))
    body = n * (3 * 16 * 16 + 1) * dims + depth * block
    return body, depth * 2 * scores * dims


def injector(target, source, *, attn, proj, norm, num_points, value_ratio, ffn_ratio):
    """Layers and core of the attention."""
    queries, feats = area(GRIDS[target]), area(GRIDS[source])
    dims, feat_dims = WIDTHS[target], WIDTHS[source]
    layers = 0
    if proj:
        layers += feats * feat_dims * dims
        feat_dims = dims
    if norm:
        layers += 2 * queries * dims + 2 * feats * feat_dims
    if attn == 'deform':
        values = int(value_ratio * dims)
        # Two offsets and a weight for each point of 4 heads.
        layers += queries * dims * 4 * num_points * 3
        layers += feats * feat_dims * values + queries * values * dims
        core = 5 * queries * num_points * values
    else:
        layers += 2 * queries * dims * dims + 2 * feats * feat_dims * dims
        core = 2 * queries * feats * dims
    if ffn_ratio:
        hidden = int(ffn_ratio * dims)
        # Two linear layers, and a depthwise 3x3 convolution with bias.
        layers += 2 * queries * dims * hidden + (9 + 1) * queries * hidden
        layers += 2 * queries * dims if norm else 0
    return layers, core


def interactions(edges=NEIGHBOURS, num_stages=4, **options):
    defaults = dict(
        attn='deform', proj=True, norm=True, num_points=4, value_ratio=0.5, ffn_ratio=0.25
    )
    counts = [injector(t, s, **{**defaults, **options}) for s, t in edges]
    layers, core = (num_stages * sum(part) for part in zip(*counts, strict=True))
    return {'interactions': layers, 'sampling core': core}


def merge(grid, dims, out_dims):
    """Two 3x3 convolutions without bias, each with GroupNorm and ReLU."""
    n = area(grid)
    return n * 9 * (dims + out_dims) * out_dims + 2 * (2 + 1) * n * out_dims


def pyramid(n, dims):
    """Strides 4, 8, 16 and 32 from n tokens of stride 16. A transposed convolution has 4
    weights for each pair of channels, and a bias for each of 4 times as many pixels."""
    times_two = 4 * n * dims**2 + 4 * n * dims
    norm = 2 * 4 * n * dims
    pool = n * dims
    return times_two + norm + 4 * times_two + times_two + pool


def network(**changed):
    """Parts of the default network for the odd input."""
    parts = {}
    for i, (grid, dims, depth) in enumerate(zip(GRIDS, WIDTHS, DEPTHS, strict=True)):
        parts[f'branch {i}'], parts[f'self-attention {i}'] = vit(grid, dims, depth)
        parts[f'merge {i}'] = merge(grid, dims, 96)
    return {**parts, **interactions(), 'pyramid': pyramid(48, 96), **changed}


GLOBAL = vit(GRIDS[0], 32, 4, window=None)
WINDOWED = vit(GRIDS[0], 32, 4)
BY_HAND = {
    'default': network(),
    'global_attention': network(**{'branch 0': GLOBAL[0], 'self-attention 0': GLOBAL[1]}),
    'mixed_attention': network(
        **{
            'branch 0': (WINDOWED[0] + GLOBAL[0]) // 2,
            'self-attention 0': (WINDOWED[1] + GLOBAL[1]) // 2,
        }
    ),
    'zero_qkv': network(**{'branch 0': vit(GRIDS[0], 32, 4, pad_qkv=False)[0]}),
    'frozen': network(),
    'arch': network(**{'branch 0': vit(GRIDS[0], 32, 4, mlp_ratio=2)[0]}),
    'regular': network(**interactions(attn='regular')),
    'regular_no_proj': network(**interactions(attn='regular', proj=False)),
    'points_and_values': network(**interactions(num_points=3, value_ratio=1)),
    'no_proj': network(**interactions(proj=False)),
    'no_norm': network(**interactions(norm=False)),
    'no_ffn': network(**interactions(ffn_ratio=None)),
    'all_pairs': network(**interactions([*NEIGHBOURS, (2, 0), (0, 2)])),
    'no_interactions': network(**{'interactions': 0, 'sampling core': 0}),
    'one_level': network(pyramid=0),
    'baseline': {
        **dict(zip(('branch', 'self-attention'), vit((8, 6), 32, 4), strict=True)),
        'pyramid': pyramid(48, 32),
    },
}


@pytest.mark.parametrize('name', BY_HAND)
def test_as_run_by_hand(name):
    parts = count_backbone(build_on_meta(CONFIGS[name]), ODD)[RUN]
    assert {part: count.flops for part, count in parts.items()} == BY_HAND[name]


@pytest.mark.parametrize('name', CONFIGS)
def test_parts_have_all_parameters(name):
    backbone = build_on_meta(CONFIGS[name])
    columns = count_backbone(backbone)
    params = sum(p.numel() for p in backbone.parameters())
    assert total(columns[RUN]).params == total(columns[RELEASED]).params == params
    for part, count in columns[RUN].items():
        assert columns[RELEASED][part].params == count.params
    assert 'other' not in columns[RUN]


def test_maps_have_no_merge():
    cfg = piip(out_type='maps', interaction=dict(direction='all_pairs'))
    parts = count_backbone(build_on_meta(cfg), ODD)[RUN]
    expected = BY_HAND['all_pairs']
    expected = {k: v for k, v in expected.items() if not k.startswith(('merge', 'pyr'))}
    assert {part: count.flops for part, count in parts.items()} == expected


def test_class_tokens_take_part_in_global_attention():
    """7 x 7 patches and a class token; the published counts leave it out of the products
    of attention."""
    cfg = dict(
        type='ViTPyramid',
        branch=branch(img_size=112, window_size=None, with_cls_token=True),
        out_type='cls_tokens',
    )
    columns = count_backbone(build_on_meta(cfg))
    body = 49 * (3 * 16 * 16 + 1) * 32 + 4 * (2 * 2 * 50 * 32 + 12 * 50 * 32**2)
    for name, tokens in ((PUBLISHED, 49), (RELEASED, 49), (RUN, 50)):
        assert columns[name]['branch'].flops == body
        assert columns[name]['self-attention'].flops == 4 * 2 * tokens**2 * 32


def test_channels_of_the_image():
    three, four = (
        count_backbone(build_on_meta(baseline(in_channels=channels)))[RUN]
        for channels in (3, 4)
    )
    assert four['branch'].flops - three['branch'].flops == 4 * 4 * 16 * 16 * 32
    assert four['branch'].params - three['branch'].params == 16 * 16 * 32


# --- A new family ---------------------------------------------------------------------


@MODELS.register_module()
class AveragingBranch(Branch):
    """A family without a layer of the package, which calls functions in its methods."""

    embedding = ('weight',)

    def __init__(self, img_size):
        super().__init__(img_size=img_size, dims=(32,) * 4, strides=(16,) * 4)
        self.weight = nn.Parameter(torch.zeros(32, 3, 16, 16))
        self.blocks = nn.ModuleList(nn.Linear(32, 32) for _ in range(4))

    def embed(self, image):
        x_BCHW = F.conv2d(image, self.weight, stride=16)
        return x_BCHW.flatten(2).transpose(1, 2), (x_BCHW.shape[2], x_BCHW.shape[3])

    def run(self, tokens, grid, start, stop):
        for block in self.blocks[start:stop]:
            tokens = F.layer_norm(tokens, tokens.shape[2:]) + block(tokens)
            tokens = tokens + torch.bmm(tokens, tokens.transpose(1, 2)).bmm(tokens)
        return tokens, grid


def test_new_family_needs_no_counting_code():
    first = dict(type='AveragingBranch', img_size=96)
    columns = count_backbone(build_on_meta(piip(branches=[first, branch(64)])), (96, 96))
    n = 6 * 6
    expected = Count(
        params=32 * 3 * 16 * 16 + 4 * 33 * 32,
        flops=n * 3 * 16 * 16 * 32 + 4 * (2 * n * 32 + n * 32 * 32),
    )
    for parts in columns.values():
        assert parts['branch 0'] == expected
        assert parts['self-attention 0'] == Count(flops=4 * 2 * n * n * 32)
        assert 'other' not in parts


# --- Columns --------------------------------------------------------------------------


def test_default_input_is_the_configured_square():
    backbone = build_on_meta(CONFIGS['default'])
    assert configured_shape(backbone) == (96, 96)
    assert count_backbone(backbone) == count_backbone(backbone, (96, 96))


def test_shape_is_that_of_the_run_alone():
    square, other = (
        count_backbone(build_on_meta(CONFIGS['default']), shape)
        for shape in ((96, 96), (96, 192))
    )
    for name in (PUBLISHED, RELEASED):
        assert square[name] == other[name]
    assert total(other[RUN]).flops > 1.9 * total(square[RUN]).flops
    assert total(other[RUN]).params == total(square[RUN]).params


def test_published_columns_have_the_size_of_each_branch():
    """A third of 100 pixels is 33, 2 patches; the configured 48 pixels are 3."""
    branches = [branch(img_size=144), branch(64, img_size=48)]
    columns = count_backbone(build_on_meta(piip(branches=branches)), (100, 100))
    assert columns[RUN]['branch 1'].flops == vit((2, 2), 64, 4)[0]
    assert columns[PUBLISHED]['branch 1'].flops == vit((3, 3), 64, 4, pad_qkv=False)[0]


def test_the_counted_model_stays_as_it_is():
    network = MODELS.build(CONFIGS['default']).train()
    attn = network.interactions[0].injectors['0_to_1'].attn
    # As where mmcv has CUDA operators; these do not run on the meta device.
    attn.backend = 'mmcv'
    assert count_backbone(network) == count_backbone(build_on_meta(CONFIGS['default']))
    assert network.training and attn.backend == 'mmcv'
    attn.backend = 'torch'
    assert network(torch.zeros(1, 3, 96, 96))[0].device.type == 'cpu'


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
    # Three of the four windows are not full.
    three_tokens = 3 * 32 * 3 * 32
    unpadded = body['as run', 'zero_qkv']
    assert body == {
        ('as published', 'zero_input'): unpadded,
        ('as published', 'zero_qkv'): unpadded,
        ('as released', 'zero_input'): unpadded + padded_qkv,
        ('as released', 'zero_qkv'): unpadded,
        ('as run', 'zero_input'): unpadded + three_tokens,
        ('as run', 'zero_qkv'): unpadded,
    }
    attention = {
        name: parts['self-attention'].flops
        for name, parts in columns['zero_input'].items()
    }
    assert attention == {
        'as published': 2 * 6 * 6 * 4 * 4 * 32,
        'as released': 2 * 6 * 6 * 4 * 4 * 32,
        'as run': 2 * (16 * 16 + 2 * 8 * 9 + 4 * 5) * 32,
    }


def test_sampling_core_by_column():
    """Published are 4 points of the full width; 3 points of 3/4 of it run here."""
    options = dict(num_points=3, value_ratio=0.75)
    columns = count_backbone(build_on_meta(piip(interaction=options)))
    tokens = [6 * 6, 5 * 5, 4 * 4]
    queries = [(tokens[target], WIDTHS[target]) for _, target in NEIGHBOURS]
    nominal = 4 * sum(5 * n * 4 * dims for n, dims in queries)
    for name in (PUBLISHED, RELEASED):
        assert columns[name]['sampling core'].flops == nominal
    assert columns[RUN]['sampling core'].flops == nominal * 3 * 3 // 16


# --- Errors ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('cfg', 'shape', 'message'),
    [
        (CONFIGS['one_level'], (96, 16), r'branch 1 sees the 96 x 16 input at 80 x 13'),
        (
            CONFIGS['baseline'],
            (8, 96),
            r'branch 0 sees the 8 x 96 input .* too small .* at least 32 pixels per side',
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
    assert getattr(kind, '__name__', str(kind)) in str(error.value)


def test_a_built_backbone_is_checked_too():
    with pytest.raises(ValueError, match=r"type 'Identity'; supported: PIIP, ViTPyr"):
        count_backbone(nn.Identity())
