"""Uni-Perceiver: compared with recordings, published names and counts."""

import golden
import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import nn

import piip_mm  # noqa: F401
from piip_mm.analysis import Count, build_on_meta, count_backbone, total
from piip_mm.models.layers import Block, SelfAttention
from piip_mm.published import migrate_config, migrate_state_dict
from piip_mm.published.branches import uniperceiver_branch
from piip_mm.weights.pretrained import load_pretrained
from piip_mm.weights.rename import rename

ARCH = dict(embed_dims=32, num_layers=2, num_heads=2)


def branch(**kwargs):
    defaults = dict(arch=ARCH, img_size=64, pretrain_img_size=64)
    return MODELS.build(dict(type='PIIPUniPerceiver', **{**defaults, **kwargs}))


def randomised(module):
    torch.manual_seed(0)
    for param in module.parameters():
        nn.init.normal_(param, mean=float(param.ndim == 1), std=0.3)
    return module


def test_recorded_layer():
    unit = golden.load_unit('uniperceiver_layer')
    inputs = unit['inputs']
    attn = SelfAttention(48, inputs['heads'], window_size=inputs['window'])
    module = Block(48, attn, norm_eps=1e-5)
    rules = branch().weight_rules()
    module.load_state_dict(
        {
            rename(f'layers.0.{name}', rules).removeprefix('blocks.0.'): tensor
            for name, tensor in unit['state_dict'].items()
        }
    )
    output = module(inputs['x'], tuple(inputs['grid']))
    recorded = golden.Sampled.of(unit['outputs'][0])
    # Tight enough to see the eps: with 1e-6 it is 6e-6.
    assert recorded.deviation(output) < 1e-6


@pytest.mark.parametrize('size', [(64, 64), (70, 111)])
def test_embedding(size):
    network = randomised(branch()).eval()
    image = torch.randn(2, 3, *size)
    tokens, grid = network.embed(image)
    assert grid == (size[0] // 16, size[1] // 16)
    # norm(patches + spatial positions + position of the first frame), eps 1e-5
    patches = F.conv2d(image, network.patch_embed.weight, network.patch_embed.bias, 16)
    spatial = network.spatial_pos_embed.T.view(1, 32, 4, 4)
    spatial = F.interpolate(spatial, grid, mode='bicubic')
    x = (patches + spatial).flatten(2).transpose(1, 2) + network.temporal_pos_embed[0]
    mean, var = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
    norm = network.embed_norm
    expected = (x - mean) / (var + 1e-5).sqrt() * norm.weight + norm.bias
    torch.testing.assert_close(tokens, expected)


@pytest.mark.parametrize('window', [None, 3, [4, None]])
def test_branch_of_any_size(window):
    network = randomised(branch(window_size=window)).eval()
    image = torch.randn(2, 3, 70, 111)
    tokens, grid = network.embed(image)
    out, same = network.run(tokens, grid, 0, 2)
    assert same == grid and out.shape == (2, 24, 32)
    (out**2).mean().backward()
    for name, param in network.named_parameters():
        assert param.grad is not None and param.grad.abs().max() > 0, name
    # An image has one frame.
    assert not network.temporal_pos_embed.grad[1:].any()
    network.with_cp = True
    with_cp, _ = network.run(*network.embed(image), 0, 2)
    torch.testing.assert_close(with_cp, out)


def test_without_weights_blocks_pass_on():
    # The published layer scale starts at zero; the scales still get gradients.
    network = branch()
    tokens, grid = network.embed(torch.randn(1, 3, 64, 64))
    out, _ = network.run(tokens, grid, 0, 2)
    torch.testing.assert_close(out, tokens)
    (out**2).mean().backward()
    assert network.blocks[1].ls1.gamma.grad.abs().max() > 0


def test_contract():
    network = branch(
        drop_path_rate=0.2, frozen_stages=1, window_size=4, global_attn_indexes=(1,)
    )
    assert [block.attn.window_size for block in network.blocks] == [4, None]
    assert [block.drop_path.drop_prob for block in network.blocks] == [0.0, 0.2]
    norms = [module for module in network.modules() if isinstance(module, nn.LayerNorm)]
    assert [norm.eps for norm in norms] == [1e-5] * 5
    trained = {name[:8] for name, p in network.named_parameters() if p.requires_grad}
    assert trained == {'blocks.1'}
    for name, _ in network.named_parameters():
        depth = int(name.split('.')[1]) + 1 if name.startswith('blocks') else 0
        assert network.get_layer_depth(f'b.{name}', 'b.') == (depth, 4)


def test_presets():
    with torch.device('meta'):
        base, large = (branch(arch=f'uniperceiver_{size}') for size in ('base', 'large'))
    assert (base.dims[0], base.depth, base.arch.num_heads) == (768, 12, 12)
    assert (large.dims[0], large.depth, large.arch.num_heads) == (1024, 24, 16)


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(arch='uniperceiver_huge'), r"unknown arch .*'uniperceiver_base'"),
        (dict(arch={**ARCH, 'qkv_bias': True}), r"unknown keys \['qkv_bias'\]"),
        (dict(arch={**ARCH, 'num_heads': 3}), r'width 32 is not divisible .* 3'),
        (dict(window_size=[4]), r'window_size has 1 values for 2 blocks'),
        (dict(global_attn_indexes=(2,)), r'block 2 does not exist'),
        (dict(pretrain_img_size=8), r'pretrain_img_size=8: .* at least 16'),
    ],
)
def test_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        branch(**kwargs)


def test_recorded_pretrained(tmp_path):
    recorded = golden.load_conversion('pretrained_uniperceiver', tmp_path)
    network = MODELS.build(uniperceiver_branch(recorded.kwargs, 64))
    report = load_pretrained(network, recorded.file)
    rules = network.weight_rules()
    renamed = {rename(key, rules): value for key, value in recorded.expected.items()}
    loaded = network.state_dict()
    assert loaded.keys() == renamed.keys()
    for key, value in renamed.items():
        torch.testing.assert_close(loaded[key], value, rtol=0, atol=0)
    assert not (report.missing or report.dropped or report.resized)


def published_file(path, **changes):
    """A file in the layout of the converted weights, with random values."""
    torch.manual_seed(0)
    network = randomised(branch())
    embed, layer = 'visual_embed.', 'self_attn.'
    names = {
        'patch_embed.': f'{embed}patch_embed.proj.',
        'spatial_pos_embed': f'{embed}patch_embed.spatial_pos_embed.weight',
        'temporal_pos_embed': f'{embed}patch_embed.temporal_pos_embed.weight',
        'embed_norm': f'{embed}embeddings_norm',
        'blocks.': 'layers.',
        'attn.qkv': f'{layer}in_proj',
        'attn.proj': f'{layer}out_proj',
        'mlp.fc': 'linear',
        'ls1.gamma': 'gamma_1',
        'ls2.gamma': 'gamma_2',
    }
    weights = {}
    for name, tensor in network.state_dict().items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        weights[name] = tensor
    torch.save({**weights, **changes}, path)
    return weights


def test_other_grid_and_patch(tmp_path):
    path = str(tmp_path / 'perceiver.pth')
    rows = torch.randn(36, 32)
    name = 'visual_embed.patch_embed.{}'
    changes = {
        name.format('spatial_pos_embed.weight'): rows,
        name.format('proj.weight'): torch.randn(32, 3, 14, 14),
    }
    published_file(path, **changes)
    network = branch(init_cfg=dict(type='Pretrained', checkpoint=path))
    network.init_weights()
    maps = rows.T.view(1, 32, 6, 6)
    expected = F.interpolate(maps, (4, 4), mode='bicubic').flatten(2)[0].T
    torch.testing.assert_close(network.spatial_pos_embed, expected)
    assert len(load_pretrained(network, path).resized) == 2


def test_original_names(tmp_path):
    converted, original = (str(tmp_path / f'{name}.pth') for name in 'ab')
    renamed = {}
    for name, tensor in published_file(converted).items():
        name = name.replace('in_proj.', 'in_proj_')
        name = name.replace('visual_embed.patch_embed.proj', 'video_embed.embeddings')
        name = name.replace('visual_embed.patch_embed', 'video_embed.embeddings_st_pos')
        name = name.replace('visual_embed', 'video_embed')
        renamed[f'fused_encoder.{name}' if name.startswith('layers') else name] = tensor
    words = {'token_embed.embeddings.weight': torch.zeros(2, 2)}
    torch.save({'model': renamed | words}, original)
    networks = [branch(), branch()]
    load_pretrained(networks[0], converted)
    report = load_pretrained(networks[1], original)
    assert report.dropped == list(words)
    for expected, tensor in zip(
        *(n.state_dict().values() for n in networks), strict=True
    ):
        torch.testing.assert_close(tensor, expected)


def test_files_that_do_not_fit(tmp_path):
    path = str(tmp_path / 'perceiver.pth')
    weights = published_file(path)
    wide = branch(arch=dict(embed_dims=64, num_layers=2, num_heads=2))
    with pytest.raises(ValueError, match=r'does not fit the branch'):
        load_pretrained(wide, path)
    weights.pop('layers.1.gamma_2')
    torch.save(weights, path)
    with pytest.raises(ValueError, match=r"lacks 1 tensors.*'blocks.1.ls2.gamma'"):
        load_pretrained(branch(), path)
    torch.save({'blocks.0.attn.q_bias': torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r'in any file of Uni-Perceiver'):
        load_pretrained(branch(), path)


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(patch_size=14), r'patch_size=14 cannot be migrated, only patch_size=16'),
        (dict(colour=1), r"arguments of a Uni-Perceiver branch .*'colour': 1"),
    ],
)
def test_arguments_that_cannot_be_migrated(kwargs, message):
    with pytest.raises(ValueError, match=message):
        uniperceiver_branch(kwargs)


def published_branch(size, **kwargs):
    depth = kwargs['depth']
    group = depth // 12
    ends = [[group * i, group * (i + 1) - 1] for i in range(12)]
    windows = dict(window_attn=[True] * depth, window_size=[28] * depth)
    return dict(real_size=size, interaction_indexes=ends, **windows, **kwargs)


@pytest.fixture(scope='module')
def released():
    """Config of the published model with Uni-Perceiver."""
    name = dict(pretrained='uni-perceiver.pth', pretrain_img_size=224)
    kwargs = dict(
        n_points=4,
        deform_num_heads=16,
        cffn_ratio=0.25,
        deform_ratio=0.5,
        with_cffn=True,
        interact_attn_type='deform',
        branch1=published_branch(672, depth=24, embed_dim=1024, num_heads=16, **name),
        branch2=published_branch(1120, depth=12, embed_dim=768, num_heads=12, **name),
        branch3=published_branch(
            1568,
            depth=12,
            embed_dim=384,
            num_heads=6,
            qkv_bias=True,
            use_flash_attn=True,
            pretrained='deit_3.pth',
        ),
    )
    return migrate_config('det.PIIPThreeBranch', kwargs)


def test_released_names(released):
    names = golden.released_names('mask_rcnn_piip_sbl_uniperceiver')
    published = {
        name.removeprefix('backbone.'): torch.empty(shape, device='meta')
        for name, shape in names.items()
        if name.startswith('backbone.')
    }
    renamed = migrate_state_dict(published, released)
    assert len(renamed) == len(published)
    own = build_on_meta(released).state_dict()
    assert {name: t.shape for name, t in own.items()} == {
        name: tensor.shape for name, tensor in renamed.items()
    }


def test_blocks_that_are_not_run_are_dropped():
    branches = [
        dict(type='PIIPUniPerceiver', arch=ARCH, img_size=size) for size in (128, 64)
    ]
    config = dict(
        type='PIIP',
        branches=branches,
        num_interactions=2,
        interaction=dict(num_heads=4),
    )
    weights = {f'branch1.layers.{i}.norm1.bias': torch.zeros(32) for i in (1, 2)}
    assert list(migrate_state_dict(weights, config)) == ['branches.1.blocks.1.norm1.bias']


def test_released_counts(released):
    counts = count_backbone(build_on_meta(released))
    parts = counts['as released']
    assert parts['branch 1'] == Count(85821696, 465041654784)
    assert parts['branch 2'] == Count(303356928, 637858787328)
    assert parts['self-attention 1'] == Count(flops=70808371200)
    assert parts['self-attention 2'] == Count(flops=67976036352)
    assert total(parts) == Count(547827971, 2105247051264)
    # The published count is of a classifier, with positions for 42 x 42 tokens instead of
    # 14 x 14.
    published = counts['as published']['branch 2']
    assert published.params == 303356928 + (42**2 - 14**2) * 1024
    # This implementation projects one token for the padding of each of the three windows
    # that are not full.
    padding = 24 * (56**2 - 42**2 - 3) * 3 * 1024**2
    assert parts['branch 2'].flops - counts['as run']['branch 2'].flops == padding
