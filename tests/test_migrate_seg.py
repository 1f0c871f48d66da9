"""The published backbones of segmentors: arguments, weights, outputs.

Their position embedding is stored for the image of the branch (``img_size``), to which
the published code of detectors (recorded) resizes it at run time.
"""

import golden
import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS

import piip_mm  # noqa: F401
from piip_mm.published import migrate_config, migrate_state_dict

PATCH = 16


def branch(size, dims, **kwargs):
    defaults = dict(
        real_size=size,
        img_size=size,
        pretrain_img_size=56,
        patch_size=PATCH,
        pretrain_patch_size=14,
        embed_dim=dims,
        depth=4,
        num_heads=2,
        qk_normalization=False,
        norm_layer_type='LayerNorm',
        mlp_type='fused_mlp',
        layerscale_force_fp32=False,
        with_fpn=False,
        interaction_indexes=[[0, 1], [2, 3]],
        pretrained='./mae_toy.pth',
    )
    return {**defaults, **kwargs}


def two_branches(low=48, high=96, **kwargs):
    return dict(
        n_points=4,
        deform_num_heads=4,
        with_cffn=True,
        deform_ratio=0.5,
        interact_attn_type='deform',
        interaction_proj=False,
        norm_layer='none',
        branch1=branch(low, 64, qk_normalization=True, norm_layer_type='RMSNorm'),
        branch2=branch(high, 32, qkv_bias=True, init_values=1.0),
        **kwargs,
    )


def internvit(**kwargs):
    defaults = dict(
        img_size=96,
        pretrain_img_size=56,
        patch_size=PATCH,
        embed_dim=32,
        depth=4,
        num_heads=2,
        with_fpn=True,
        out_indices=[0, 1, 2, 3],
    )
    return {**defaults, **kwargs}


def randomised(config):
    """A network in which every parameter has an effect."""
    torch.manual_seed(0)
    network = MODELS.build(config).eval()
    for param in network.parameters():
        torch.nn.init.normal_(param, std=0.2)
    return network


def block_names(number, *, qk_norm, qkv_bias, norm_bias):
    """Parameters of a published InternViT block, with our names."""
    biases = ['bias'] * norm_bias
    parts = {
        'norm1': ['weight', *biases],
        'attn.qkv': ['weight', *['bias'] * qkv_bias],
        'attn.proj': ['weight', 'bias'],
        'ls1': ['gamma'],
        'norm2': ['weight', *biases],
        'mlp.fc1': ['weight', 'bias'],
        'mlp.fc2': ['weight', 'bias'],
        'ls2': ['gamma'],
    }
    if qk_norm:
        parts |= {'attn.q_norm': ['weight'], 'attn.k_norm': ['weight']}
    return [f'blocks.{number}.{part}.{x}' for part, own in parts.items() for x in own]


def published_names():
    """Published parameters of :func:`two_branches`, each with our name."""
    names = {}
    for published, ours in ((1, 1), (2, 0)):
        options = dict(
            qk_norm=published == 1, qkv_bias=published == 2, norm_bias=published == 2
        )
        own = {name: name for i in range(4) for name in block_names(i, **options)}
        own |= {'pos_embed': 'pos_embed'}
        own |= {f'patch_embed.proj.{x}': f'patch_embed.{x}' for x in ('weight', 'bias')}
        for theirs, name in own.items():
            names[f'branch{published}.{theirs}'] = f'branches.{ours}.{name}'
        for layer in (0, 1, 3, 4):
            for x in ('weight', 'bias') if layer in (1, 4) else ('weight',):
                names[f'merge_branch{published}.{layer}.{x}'] = (
                    f'merges.0.branches.{ours}.{layer}.{x}'
                )
        names[f'w{published}'] = f'merges.0.scales.{ours}'
    injector = {'ca_gamma': 'gamma_attn', 'cffn_gamma': 'gamma_ffn'}
    for theirs, name in (
        *((f'attn.{n}', f'attn.{n}') for n in ('sampling_offsets', 'attention_weights')),
        *((f'attn.{n}', f'attn.{n}') for n in ('value_proj', 'output_proj')),
        *((f'ffn.{n}', f'ffn.{n}') for n in ('fc1', 'fc2')),
        ('ffn.dwconv.dwconv', 'ffn.dwconv'),
    ):
        injector |= {f'{theirs}.{x}': f'{name}.{x}' for x in ('weight', 'bias')}
    for stage in (0, 1):
        for direction, edge in (('2to1', '0_to_1'), ('1to2', '1_to_0')):
            unit = f'interactions.{stage}.interaction_units_12.branch{direction}_injector'
            for theirs, name in injector.items():
                names[f'{unit}.{theirs}'] = (
                    f'interactions.{stage}.injectors.{edge}.{name}'
                )
    for x in ('weight', 'bias'):
        for layer in (0, 1, 3):
            names[f'fpn1.{layer}.{x}'] = f'pyramid.levels.0.{layer}.{x}'
        names[f'fpn2.0.{x}'] = f'pyramid.levels.1.{x}'
    return names


def test_weights_of_two_branches():
    config = migrate_config('seg.PIIPTwoBranch', two_branches())
    own = randomised(config).state_dict()
    names = published_names()
    published = {theirs: own[ours] for theirs, ours in names.items()}
    migrated = migrate_state_dict(published, config)
    assert set(migrated) == set(own)
    assert all(migrated[name] is own[name] for name in own)


def test_arguments_of_two_branches():
    config = migrate_config('seg.PIIPTwoBranch', two_branches())
    assert config['interaction']['proj'] is False
    assert config['interaction']['norm'] is None
    high, low = config['branches']
    assert (high['img_size'], low['img_size']) == (96, 48)
    assert (high['pretrain_img_size'], low['pretrain_img_size']) == (96, 48)
    assert high['drop_path_schedule'] == low['drop_path_schedule'] == 'linear'
    assert high['mlp_act'] == low['mlp_act'] == 'gelu_tanh'
    assert (high['arch']['norm'], low['arch']['norm']) == ('LN', 'RMS')
    assert (high['arch']['qk_norm'], low['arch']['qk_norm']) == (False, True)
    network = MODELS.build(config)
    # There is one more row than there are tokens, for the class token.
    assert [b.pos_embed.shape[1] for b in network.branches] == [6 * 6 + 1, 3 * 3 + 1]
    assert config['out_strides'] == [4, 8, 16, 32]


@pytest.mark.parametrize('stored, real', [((48, 96), (48, 96)), ((64, 64), (48, 96))])
def test_the_ratio_is_that_of_the_real_sizes(stored, real):
    """The size that positions are stored for does not affect the sizes of the images."""
    kwargs = two_branches(*stored)
    for k, size in enumerate(real, start=1):
        kwargs[f'branch{k}']['real_size'] = size
    network = MODELS.build(migrate_config('seg.PIIPTwoBranch', kwargs))
    assert network.branch_image(torch.zeros(1, 3, 96, 130), 1).shape[2:] == (48, 65)
    rows = [b.pos_embed.shape[1] - 1 for b in network.branches]
    assert rows == [(size // PATCH) ** 2 for size in reversed(stored)]


@pytest.mark.parametrize('size', [(96, 96), (96, 160), (130, 113)])
def test_sizes_of_the_maps(size):
    network = randomised(migrate_config('seg.PIIPTwoBranch', two_branches()))
    height, width = (side // PATCH for side in size)
    with torch.no_grad():
        maps = network(torch.randn(2, 3, *size))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (64, int(height * ratio), int(width * ratio)) for ratio in (4, 2, 1, 0.5)
    ]
    assert all(m.isfinite().all() for m in maps)


def resized(rows, size):
    """Resize a (1, 1 + N, C) position embedding to images of ``size`` pixels."""
    row, old = rows[:, :1], int((rows.shape[1] - 1) ** 0.5)
    maps = rows[:, 1:].transpose(1, 2).unflatten(2, (old, old))
    new = F.interpolate(maps, (size // PATCH,) * 2, mode='bicubic', align_corners=False)
    return torch.cat([row, new.flatten(2).transpose(1, 2)], 1)


@pytest.mark.parametrize('resized_when', ['loading', 'running'])
def test_recorded_outputs(resized_when):
    """The detector's recording, whose position embedding is resized at run time."""
    case = golden.load('p2_two_branch_internvit_mae')
    state_dict = dict(case.state_dict)
    for k in (1, 2):
        options = case.kwargs[f'branch{k}']
        options['img_size'] = options['pretrain_img_size']
        if resized_when == 'loading':
            options['img_size'] = options['real_size']
            name = f'branch{k}.pos_embed'
            state_dict[name] = resized(state_dict[name], options['real_size'])
    config = migrate_config('seg.PIIPTwoBranch', case.kwargs)
    network = MODELS.build(config).eval()
    network.load_state_dict(migrate_state_dict(state_dict, config))
    with torch.no_grad():
        outputs = network(case.image)
    for output, recorded in zip(outputs, case.outputs, strict=True):
        assert recorded.deviation(output) < golden.OUTPUT_TOLERANCE


def test_internvit():
    config = migrate_config('seg.InternViT6B', internvit(mlp_type='fused_mlp'))
    branch = config['branch']
    assert (branch['img_size'], branch['pretrain_img_size']) == (96, 96)
    assert branch['mlp_act'] == 'gelu_tanh'
    # All levels are made from the last block, unless use_simple_fpn=False.
    assert 'out_blocks' not in config
    network = randomised(config)
    assert network.branch.pos_embed.shape == (1, 6 * 6 + 1, 32)
    own = network.state_dict()
    names = {
        f'{name}': f'branch.{name}'
        for i in range(4)
        for name in block_names(i, qk_norm=True, qkv_bias=False, norm_bias=False)
    }
    names |= {'pos_embed': 'branch.pos_embed'}
    for x in ('weight', 'bias'):
        names[f'patch_embed.proj.{x}'] = f'branch.patch_embed.{x}'
        for layer in (0, 1, 3):
            names[f'up1.{layer}.{x}'] = f'pyramid.levels.0.{layer}.{x}'
        names[f'up2.0.{x}'] = f'pyramid.levels.1.{x}'
    migrated = migrate_state_dict({a: own[b] for a, b in names.items()}, config)
    assert set(migrated) == set(own)
    for size in ((96, 96), (64, 130)):
        maps = network(torch.randn(1, 3, *size))
        assert maps[2].shape == (1, 32, size[0] // PATCH, size[1] // PATCH)


def test_internvit_with_a_map_of_each_output():
    arguments = internvit(use_simple_fpn=False)
    assert migrate_config('seg.InternViT6B', arguments)['out_blocks'] == [0, 1, 2, 3]


def vit(**kwargs):
    defaults = dict(pretrain_img_size=96, embed_dim=32, depth=4, num_heads=4)
    return migrate_config('seg.vit_models', {**defaults, **kwargs})


def test_deit():
    config = vit(img_size=96, with_fpn=True, out_indices=[3], qkv_bias=True)
    network = randomised(config)
    assert network.branch.pos_embed.shape == (1, 6 * 6, 32)
    published = {
        'pos_embed': network.branch.pos_embed,
        'blocks.3.gamma_1': network.branch.blocks[3].ls1.gamma,
        'up1.1.weight': network.pyramid.levels[0][1].weight,
    }
    own = dict(network.named_parameters())
    for name, value in migrate_state_dict(published, config).items():
        assert own[name] is value
    maps = network(torch.randn(1, 3, 80, 150))
    assert [tuple(m.shape[2:]) for m in maps] == [(20, 36), (10, 18), (5, 9), (2, 4)]


def test_what_the_position_embeddings_are_stored_for():
    """DeiT: for the pretraining images; InternViT: for the actual ones (default 224)."""
    assert vit(img_size=160)['branch']['pretrain_img_size'] == 96
    arguments = internvit()
    del arguments['img_size']
    alone = migrate_config('seg.InternViT6B', arguments)
    assert alone['branch']['pretrain_img_size'] == 224
    every = dict(out_indices=[0, 1, 2, 3], use_simple_fpn=False, with_fpn=True)
    assert 'out_blocks' not in vit(**every)


def test_three_branches_of_both_families():
    """Three branches, the first two of DeiT; sizes decrease or are equal."""
    deit = dict(
        real_size=96,
        pretrain_img_size=96,
        img_size=96,
        embed_dim=32,
        depth=4,
        num_heads=4,
        interaction_indexes=[[0, 1], [2, 3]],
        pretrained='./deit_toy.pth',
    )
    arguments = dict(
        deform_num_heads=4,
        branch1=branch(48, 64),
        branch2={**deit, 'embed_dim': 48},
        branch3=deit,
    )
    unequal = {**arguments, 'branch2': {**deit, 'embed_dim': 48, 'real_size': 48}}
    with pytest.raises(ValueError, match='real_size 96 of branch 3 and 48 of branch 2'):
        migrate_config('seg.PIIPThreeBranch', unequal)
    config = migrate_config('seg.PIIPThreeBranch', arguments)
    arches = [b['arch'] for b in config['branches']]
    assert [arch['embed_dims'] for arch in arches] == [32, 48, 64]
    assert [arch.get('cls_pos_row', False) for arch in arches] == [False, False, True]
    network = randomised(config)
    assert [b.pos_embed.shape[1] for b in network.branches] == [36, 36, 10]
    assert network(torch.randn(1, 3, 96, 96))[0].shape == (1, 64, 24, 24)
