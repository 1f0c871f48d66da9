"""Translation of published arguments and weights."""

import pytest
import torch
from mmengine.registry import MODELS

import piip_mm  # noqa: F401
from piip_mm.published import migrate_config, migrate_state_dict
from piip_mm.weights import migrate as weights_migrate


def branch(size=64, dims=32, depth=4, ends=(1, 3), **kwargs):
    starts = (0, *(end + 1 for end in ends[:-1]))
    defaults = dict(
        real_size=size,
        embed_dim=dims,
        depth=depth,
        num_heads=4,
        pretrain_img_size=64,
        interaction_indexes=[list(pair) for pair in zip(starts, ends, strict=True)],
        pretrained='./deit_toy.pth',
    )
    return {**defaults, **kwargs}


def vit(**kwargs):
    defaults = dict(embed_dim=32, depth=4, num_heads=4, pretrain_img_size=64)
    return migrate_config('det.vit_models', {**defaults, **kwargs})


def test_the_former_place():
    assert weights_migrate.migrate_config is migrate_config
    assert weights_migrate.migrate_state_dict is migrate_state_dict


def test_published_defaults():
    """Options that a published config omits get the published default, not ours."""
    config = migrate_config(
        'det.PIIPTwoBranch', dict(branch1=branch(64, 96), branch2=branch(96, 48))
    )
    assert config['interaction'] == dict(
        attn='regular',
        num_heads=6,
        ffn_ratio=None,
        drop_path_rate=0.3,
        proj=True,
        norm='LN',
    )
    high, low = config['branches']
    assert (high['img_size'], low['img_size']) == (96, 64)
    assert high['arch']['qkv_bias'] is False
    assert high['arch']['init_values'] == 1e-4
    assert high['window_pad'] == 'zero_qkv'
    assert config['out_strides'] == [4, 8, 16, 32]
    MODELS.build(config)


def test_published_defaults_of_deformable_attention():
    branches = dict(branch1=branch(64, 96), branch2=branch(96, 48))
    config = migrate_config(
        'det.PIIPTwoBranch', dict(branches, interact_attn_type='deform', with_cffn=True)
    )
    assert config['interaction'] == dict(
        attn='deform',
        num_heads=6,
        num_points=4,
        value_ratio=1.0,
        ffn_ratio=0.25,
        drop_path_rate=0.3,
        proj=True,
        norm='LN',
    )


def test_sizes_of_the_branches():
    """No branch sees an image larger than that of the last one."""
    sizes = dict(branch1=branch(48), branch2=branch(32), branch3=branch(64))
    config = migrate_config('det.PIIPThreeBranch', sizes)
    assert [cfg['img_size'] for cfg in config['branches']] == [64, 32, 48]
    sizes['branch1'] = branch(96)
    config = migrate_config('det.PIIPThreeBranch', sizes)
    assert [cfg['img_size'] for cfg in config['branches']] == [64, 32, 64]


@pytest.mark.parametrize('kind', ['det.vit_models', 'cls.vit_models'])
@pytest.mark.parametrize(('mlp', 'act'), [('fused_mlp', 'gelu_tanh'), (None, 'gelu')])
def test_fused_mlp(kind, mlp, act):
    """The published fused MLP computes the approximate GELU."""
    arguments = dict(embed_dim=32, depth=1, num_heads=4, pretrain_img_size=64)
    config = migrate_config(kind, dict(arguments, Mlp_block=mlp))
    backbone = config.get('backbone', config)
    assert backbone['branch']['mlp_act'] == act
    block = MODELS.build(backbone).branch.blocks[0]
    assert block.mlp.act.approximate == ('tanh' if mlp else 'none')


def test_windows():
    config = vit(
        window_size=[7, -1, 7, 5],
        window_attn=[True, True, False, True],
        out_indices=[3],
    )
    assert config['branch']['window_size'] == [7, None, None, 5]


def test_dino_has_no_map_of_stride_4():
    arguments = dict(
        branch1=branch(64, 96), branch2=branch(96, 48), is_dino=True, deform_num_heads=4
    )
    config = migrate_config('det.PIIPTwoBranch', arguments)
    assert config['out_strides'] == [8, 16, 32]
    names = migrate_state_dict({'fpn1.0.weight': 1, 'fpn2.0.weight': 2}, config)
    assert names == {'pyramid.levels.0.weight': 2}


@pytest.mark.parametrize(
    'variant, dims',
    [
        ('', 32),
        ('(as coded: branch4 built from branch3 kwargs)', 32),
        ('(fixed: branch4 built from branch4 kwargs)', 24),
        ('(intended)', 24),
        ('(As-coded, whatever)', 32),
        (' (fixed)', 24),
    ],
)
def test_four_branches(variant, dims):
    sizes = {1: (32, 96), 2: (48, 64), 3: (64, 32), 4: (96, 24)}
    # The class of these branches does not depend on the file name of the weights.
    arguments = {
        f'branch{k}': branch(*size, pretrained=None) for k, size in sizes.items()
    }
    config = migrate_config(f'det.PIIPFourBranch{variant}', arguments)
    high = config['branches'][0]
    assert high['arch']['embed_dims'] == dims
    assert high['img_size'] == 96


def test_baseline_in_published_order():
    config = vit(with_fpn=True, out_indices=[3], qkv_bias=True)
    network = MODELS.build(config)
    published = {
        'pos_embed': network.branch.pos_embed,
        'up1.1.weight': network.pyramid.levels[0][1].weight,
        'up2.0.bias': network.pyramid.levels[1].bias,
        'blocks.2.gamma_2': network.branch.blocks[2].ls2.gamma,
        'cls_token': None,
    }
    ours = dict(network.named_parameters())
    for name, value in migrate_state_dict(published, config).items():
        assert ours[name] is value
    maps = network(torch.randn(1, 3, 64, 96))
    assert [tuple(m.shape[2:]) for m in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]


def test_baseline_without_pyramid_ends_at_its_last_output():
    config = vit(out_indices=[1, 2, 11])
    assert config['branch']['arch']['num_layers'] == 3
    assert config['out_strides'] == [16]
    names = migrate_state_dict({'blocks.2.gamma_1': 1, 'blocks.3.gamma_1': 2}, config)
    assert names == {'branch.blocks.2.ls1.gamma': 1}


@pytest.mark.parametrize('out_indices', [[3, 1], [-1, 3], [1, 3, 7]])
def test_the_last_block_named_makes_the_output(out_indices):
    """The published code iterates over the blocks, not over the list."""
    assert vit(out_indices=out_indices)['branch']['arch']['num_layers'] == 4


def internvit(**kwargs):
    defaults = dict(embed_dim=32, num_heads=4, depth=4, pretrain_img_size=64)
    return migrate_config('det.InternViT6B', {**defaults, 'patch_size': 16, **kwargs})


def test_baselines_with_several_outputs():
    maps = vit(out_indices=[1, 3], use_simple_fpn=False)
    assert (maps['out_blocks'], maps['out_strides']) == ([1, 3], [16, 16])
    every = dict(out_indices=[0, 1, 2, 3], use_simple_fpn=False, with_fpn=True)
    assert 'out_blocks' not in vit(**every), 'its levels are all of the last map'
    levels = internvit(**every)
    assert levels['out_blocks'] == [0, 1, 2, 3]
    network = MODELS.build(levels).eval()
    image = torch.randn(1, 3, 64, 64)
    tokens, grid = network.branch.embed(image)
    tokens, _ = network.branch.run(tokens, grid, 0, 3)
    expected = tokens.transpose(1, 2).unflatten(2, grid)
    torch.testing.assert_close(network(image)[2], expected)


def test_beit_makes_all_levels_from_its_last_output():
    kwargs = dict(
        depth=4,
        embed_dim=32,
        num_heads=4,
        with_fpn=True,
        use_simple_fpn=False,
        out_indices=[0, 1, 2, 3],
        window_attn=True,
        window_size=4,
    )
    assert 'out_blocks' not in migrate_config('det.BEiT', kwargs)


def test_uniperceiver_runs_all_blocks():
    kwargs = dict(depth=10, embed_dim=32, num_heads=4)
    config = migrate_config('det.UnifiedBertEncoder', kwargs)
    assert config['branch']['arch']['num_layers'] == 10


def test_a_cut_branch_keeps_the_rates_of_its_blocks():
    config = internvit(depth=12, out_indices=[5], drop_path_rate=0.11)
    assert config['branch']['drop_path_rate'] == pytest.approx(0.05)


def test_pyramid_follows_the_patch():
    config = vit(patch_size=8, with_fpn=True, out_indices=[3])
    assert config['out_strides'] == [2, 4, 8, 16]
    config = vit(patch_size=14, with_fpn=True, out_indices=[3])
    assert config['out_strides'] == [3.5, 7, 14, 28]
    maps = MODELS.build(config)(torch.randn(1, 3, 56, 56))
    assert [m.shape[2] for m in maps] == [16, 8, 4, 2]
    names = migrate_state_dict({'up1.0.weight': 1, 'up2.0.weight': 2}, config)
    assert names == {'pyramid.levels.0.0.weight': 1, 'pyramid.levels.1.weight': 2}


def test_pyramid_follows_the_default_patch():
    """That of InternViT is 14."""
    kwargs = branch(112, with_cp=False, pretrained=None)
    config = migrate_config(
        'det.PIIPTwoBranch', dict(branch1=kwargs, branch2=kwargs, deform_num_heads=4)
    )
    assert config['out_strides'] == [3.5, 7, 14, 28]
    MODELS.build(config)


def test_blocks_after_the_last_group_are_never_run():
    short, long = branch(96, 32, ends=(0, 1)), branch(64, 96, depth=6)
    config = migrate_config(
        'det.PIIPTwoBranch', dict(branch1=long, branch2=short, deform_num_heads=4)
    )
    assert [b['arch']['num_layers'] for b in config['branches']] == [2, 4]
    published = {'branch1.blocks.3.gamma_1': 1, 'branch1.blocks.4.gamma_1': 2}
    names = migrate_state_dict(published, config)
    assert names == {'branches.1.blocks.3.ls1.gamma': 1}


def test_a_larger_size_leaves_the_image_as_it_is():
    arguments = dict(branch1=branch(128, 96), branch2=branch(96, 48))
    config = migrate_config('det.PIIPTwoBranch', arguments)
    assert [b['img_size'] for b in config['branches']] == [96, 96]


@pytest.mark.parametrize(
    'kind, kwargs, message',
    [
        ('det.PIIP', {}, r"'det.PIIP'; choose one of 'det.PIIPTwoBranch'"),
        (
            'det.PIIPFourBranch(mended)',
            {f'branch{k}': branch() for k in range(1, 5)},
            r"unknown variant 'mended'.*'as coded', 'fixed'",
        ),
        (
            'det.PIIPTwoBranch',
            dict(branch1=branch(), branch2=branch(), depth=3),
            r"arguments of the network that cannot be migrated: \{'depth': 3\}",
        ),
        (
            'det.PIIPTwoBranch',
            dict(branch1=branch(attn_drop_rate=0.1), branch2=branch()),
            r'attn_drop_rate=0.1 cannot be migrated, only attn_drop_rate=0.0',
        ),
        ('det.PIIPThreeBranch', {}, r"lack 'branch3'; given are \[\]"),
        (
            'det.PIIPTwoBranch',
            dict(branch1=branch(), branch2=branch(), norm_layer='BN'),
            r"unknown norm_layer 'BN'; choose one of 'none', None",
        ),
        (
            'det.PIIPTwoBranch',
            dict(branch1=branch(), branch2=branch(), interact_attn_type='window'),
            r"unknown interact_attn_type 'window'; choose one of 'normal', 'deform'",
        ),
        (
            'det.vit_models',
            dict(depth=4, out_indices=[3], window_size=[7] * 6),
            r'window_size=\[7.*\]: expected 4 values, one per block',
        ),
        (
            'det.PIIPTwoBranch',
            dict(branch1=branch(), branch2=branch(depth=3)),
            r'there is no block 3 in a branch of depth 3',
        ),
        (
            'det.PIIPTwoBranch',
            dict(branch1=branch(interaction_indexes=[[0, 1], [3, 3]]), branch2=branch()),
            r'expected groups that follow each other',
        ),
        (
            'det.PIIPTwoBranch',
            dict(branch1=branch(interaction_indexes=[]), branch2=branch()),
            r'interaction_indexes \[\]: expected at least one group',
        ),
        (
            'det.PIIPTwoBranch',
            dict(branch1=branch(branch1_w_cls_token=True), branch2=branch()),
            r'branch1_w_cls_token=True cannot be migrated for a DeiT branch',
        ),
        (
            'det.PIIPTwoBranch',
            dict(branch1=branch(), branch2=branch(), with_simple_fpn=False),
            r"arguments of the network that cannot be migrated: .*'with_simple_fpn'",
        ),
        (
            'det.PIIPThreeBranch',
            dict(
                branch1=branch(),
                branch2=branch(),
                branch3=branch(downsample_ratios=[4, 8], pretrained='convnext'),
            ),
            r'with_simple_fpn=True with a ConvNeXt as the last branch',
        ),
        (
            'det.InternViT6B',
            dict(use_simple_fpn=False, with_fpn=True, out_indices=[3, 11]),
            r'maps of blocks \[3, 11\]: expected one or four for a pyramid',
        ),
    ],
)
def test_errors(kind, kwargs, message):
    with pytest.raises(ValueError, match=message):
        migrate_config(kind, kwargs)


def test_unknown_names():
    config = vit(with_fpn=True, out_indices=[3])
    with pytest.raises(ValueError, match=r"'blocks.0.attn.bias_table' is not a known"):
        migrate_state_dict({'blocks.0.attn.bias_table': 1}, config)
    with pytest.raises(ValueError, match=r"model of type 'ResNet'"):
        migrate_state_dict({}, dict(type='ResNet'))
    arguments = dict(branch1=branch(64, 96), branch2=branch(96, 48))
    config = migrate_config('det.PIIPTwoBranch', arguments)
    with pytest.raises(ValueError, match='published branch 5 does not .* with 2 branch'):
        migrate_state_dict({'w5': 1}, config)
