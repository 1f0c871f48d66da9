"""The published classifiers: arguments, weights, recordings, released checkpoints."""

import golden
import pytest
import torch
import zoo
from mmengine.registry import MODELS

from piip_mm.published import migrate_config, migrate_state_dict
from piip_mm.published.checkpoints import convert_published
from piip_mm.weights.report import compare

RELEASED = {
    'cls/piip_tsb_368-192-128_in1k_released.py': 'cls_piip_tsb_368_192_128',
    'cls/piip_sbl_384-192-128_in1k_released.py': 'cls_piip_sbl_384_192_128',
    'cls/piip_sbl_320-160-96_in1k_released.py': 'cls_piip_sbl_320_160_96',
}


def branch(size=64, dims=32, **kwargs):
    defaults = dict(
        img_size=size,
        embed_dim=dims,
        depth=2,
        num_heads=4,
        qkv_bias=True,
        use_flash_attn=False,
        num_classes=7,
        interaction_indexes=[[0, 0], [1, 1]],
    )
    return {**defaults, **kwargs}


def two_branches(branch1=None, branch2=None, **kwargs):
    return dict(
        branch1=branch(64, 64, **(branch1 or {})),
        branch2=branch(96, 32, **(branch2 or {})),
        deform_num_heads=4,
        interact_attn_type='deform',
        **kwargs,
    )


def build(kind, kwargs):
    config = migrate_config(kind, kwargs)
    return MODELS.build(config).eval(), config


def test_recording():
    case = golden.load('p4_cls_separate_head')
    model, config = build(case.kind, case.kwargs)
    model.load_state_dict(migrate_state_dict(case.state_dict, config), strict=True)
    with torch.no_grad():
        logits = model(case.image)
    assert case.outputs[0].deviation(logits) < golden.OUTPUT_TOLERANCE
    with torch.no_grad():
        model.head.token = 'mean'
        assert case.outputs[0].deviation(model(case.image)) > 1e-2


@pytest.mark.parametrize('name', ['pretrained_cls_deit', 'pretrained_cls_augreg'])
def test_pretrained(name, tmp_path):
    """The branch loads blocks and embedding; the head loads final norm and classifier."""
    recorded = golden.load_conversion(name, tmp_path)
    config = migrate_config(recorded.kind, recorded.kwargs)
    init_cfg = dict(type='Pretrained', checkpoint=recorded.file)
    config['backbone']['branch']['init_cfg'] = init_cfg
    config['head']['init_cfg'] = init_cfg
    model = MODELS.build(config)
    model.init_weights()
    expected = migrate_state_dict(recorded.expected, config)
    own = model.state_dict()
    assert own.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(own[key], value, rtol=0, atol=3e-6)


@pytest.mark.parametrize('name', RELEASED)
def test_released_checkpoints_fit(name):
    model = zoo.built(name)
    published = {
        key: torch.empty(shape, device='meta')
        for key, shape in golden.released_names(RELEASED[name]).items()
    }
    converted, dropped = convert_published({**published, 'mask': None}, model)
    assert converted.pop('mask', 0) is None
    assert (len(converted), dropped) == (len(published), [])
    fit = compare(converted, model)
    assert fit.misfits == [], str(fit)


def test_published_defaults():
    kwargs = dict(branch1=branch(64, 64), branch2=branch(96, 48, model_type='augreg'))
    del kwargs['branch2']['qkv_bias']
    config = migrate_config('cls.PIIPTwoBranch', {**kwargs, 'separate_head': True})
    high, low = config['backbone']['branches']
    assert config['backbone']['out_type'] == 'maps'
    assert config['head']['num_classes'] == 7
    assert config['head']['token'] == 'first_patch'
    assert (high['pretrain_img_size'], low['pretrain_img_size']) == (96, 64)
    assert low['arch']['init_values'] == 1e-4
    assert low['window_pad'] == 'zero_qkv'
    assert high['arch']['init_values'] is None
    assert high['arch']['qkv_bias'] is False
    assert high['arch']['cls_pos_row'] and not high['arch']['qk_norm']
    for branch_config in (high, low):
        assert branch_config['with_cls_token']
        assert branch_config['drop_path_schedule'] == 'constant'
        assert not branch_config.get('cls_pos')
    merged = migrate_config('cls.PIIPTwoBranch', kwargs)
    assert merged['head']['type'] == 'PIIPMergedHead'
    assert merged['head']['num_classes'] == 1000


def test_merged_head():
    """Every parameter is found under the name that the published code gives it."""
    kwargs = two_branches(
        dict(use_cls_token=False), dict(use_cls_token=False), num_classes=5
    )
    model, config = build('cls.PIIPTwoBranch', kwargs)
    published = {
        'merge_branch1.weight': 'head.branches.1.weight',
        'merge_branch1.bias': 'head.branches.1.bias',
        'merge_branch2.0.weight': 'head.branches.0.norm1.weight',
        'merge_branch2.2.bias': 'head.branches.0.linear.bias',
        'merge_branch2.4.bias': 'head.branches.0.norm2.bias',
        'w1': 'head.scales.1',
        'w2': 'head.scales.0',
        'cls_norm.weight': 'head.norm.weight',
        'cls_head.weight': 'head.classifier.weight',
        'branch2.pos_embed': 'backbone.branches.0.pos_embed',
    }
    assert migrate_state_dict({name: name for name in published}, config) == {
        ours: name for name, ours in published.items()
    }
    assert set(published.values()) <= set(model.state_dict())
    assert model(torch.randn(2, 3, 96, 96)).shape == (2, 5)


def test_class_tokens_travel_through_the_blocks():
    """A merged head does not read the class token, but the patches attend to it."""
    scale = dict(init_scale=1.0)
    no_token = dict(init_scale=1.0, use_cls_token=False)
    without = two_branches(no_token, no_token)
    model, _ = build('cls.PIIPTwoBranch', two_branches(scale, scale))
    other, _ = build('cls.PIIPTwoBranch', without)
    fit = other.load_state_dict(model.state_dict(), strict=False)
    assert [key.rpartition('.')[2] for key in fit.unexpected_keys] == ['cls_token'] * 2
    image = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        assert not torch.allclose(model(image), other(image), atol=1e-5)


def test_windows():
    window = dict(
        use_cls_token=False, model_type='augreg', window_attn=True, window_size=2
    )
    _, config = build('cls.PIIPTwoBranch', two_branches(window, window))
    assert [b['window_size'] for b in config['backbone']['branches']] == [[2, 2]] * 2


@pytest.mark.parametrize('model_type', ['vit_models', 'InternViT6B'])
@pytest.mark.parametrize('with_cls_token', [True, False])
def test_single_branch(model_type, with_cls_token):
    """Compare position of the class token and pooling with a step-by-step computation."""
    kwargs = branch(64, 32, use_cls_token=with_cls_token)
    del kwargs['interaction_indexes']
    model, config = build(f'cls.{model_type}', kwargs)
    network = model.backbone.branch
    for param in model.parameters():
        torch.nn.init.normal_(param, std=0.3)
    has_row = model_type == 'InternViT6B'
    assert network.pos_embed.shape[1] == 16 + has_row
    image = torch.randn(2, 3, 64, 64)
    tokens = network.patch_embed(image).flatten(2).transpose(1, 2)
    tokens = tokens + network.pos_embed[:, has_row:]
    if with_cls_token:
        cls_token = network.cls_token.expand(2, -1, -1)
        if has_row:
            cls_token = cls_token + network.pos_embed[:, :1]
        tokens = torch.cat([cls_token, tokens], 1)
    for block in network.blocks:
        tokens = block(tokens, (4, 4))
    tokens = model.head.norms[0](tokens)
    pooled = tokens[:, 0] if with_cls_token else tokens.mean(1)
    expected = model.head.classifiers[0](pooled)
    torch.testing.assert_close(model(image), expected, rtol=1e-4, atol=1e-4)
    names = migrate_state_dict({'norm.bias': 1, 'head.weight': 2, 'pos_embed': 3}, config)
    assert names == {
        'head.norms.0.bias': 1,
        'head.classifiers.0.weight': 2,
        'backbone.branch.pos_embed': 3,
    }


def test_internvit():
    kwargs = branch(64, 32, norm_layer_type='RMSNorm', qk_normalization=True)
    del kwargs['interaction_indexes']
    _, config = build('cls.InternViT6B', {**kwargs, 'init_values': 0.1})
    assert config['head']['norm'] == 'RMS'
    assert config['backbone']['branch']['arch']['norm'] == 'RMS'
    assert config['backbone']['branch']['arch']['init_values'] == 0.1


def test_norms_of_a_head_per_branch():
    rms = dict(model_type='augreg', norm_layer_type='RMSNorm')
    kwargs = two_branches(rms, separate_head=True)
    config = migrate_config('cls.PIIPTwoBranch', kwargs)
    assert config['head']['norm'] == ['LN', 'RMS']


def test_four_branches_are_as_intended_here():
    sizes = {1: (32, 96), 2: (48, 64), 3: (64, 32), 4: (96, 24)}
    kwargs = {f'branch{k}': branch(*size) for k, size in sizes.items()}
    config = migrate_config('cls.PIIPFourBranch', {**kwargs, 'separate_head': True})
    assert config['head']['in_channels'] == [24, 32, 64, 96]


@pytest.mark.parametrize(
    'kind, kwargs, message',
    [
        (
            'cls.PIIPTwoBranch',
            two_branches(dict(model_type='beit')),
            r"unknown model_type 'beit'; choose one of 'deit', 'augreg'",
        ),
        (
            'cls.PIIPTwoBranch',
            two_branches(dict(num_classes=8), separate_head=True),
            r'num_classes of the branches are \[8, 7\]: expected the same number',
        ),
        (
            'cls.PIIPTwoBranch',
            two_branches(dict(use_cls_token=False), separate_head=True),
            r'separate_head=True, but branch1 has use_cls_token=False',
        ),
        (
            'cls.PIIPTwoBranch',
            two_branches(use_cls_head=False),
            r'use_cls_head=False cannot be migrated, only use_cls_head=True',
        ),
        (
            'cls.PIIPTwoBranch',
            two_branches(dict(model_type='augreg', drop_rate=0.1)),
            r"arguments of an AugReg branch.*\{'drop_rate': 0.1\}",
        ),
        ('cls.PIIPThreeBranch', two_branches(), r"lack 'branch3'"),
        ('cls.vit_models', dict(drop_rate=0.1), r'drop_rate=0.1 cannot be migrated'),
    ],
)
def test_errors(kind, kwargs, message):
    with pytest.raises(ValueError, match=message):
        migrate_config(kind, kwargs)


@pytest.mark.parametrize('pretrained', [None, 'pretrained/deit_base_patch16_224.pth'])
def test_positions_are_stored_for_the_image(pretrained):
    """Independently of the file name; segmentation stores those of a DeiT differently."""
    branch = dict(
        depth=2,
        embed_dim=32,
        num_heads=4,
        interaction_indexes=[[0, 0], [1, 1]],
        pretrain_img_size=224,
        pretrained=pretrained,
    )
    config = migrate_config(
        'cls.PIIPTwoBranch',
        dict(
            branch1={**branch, 'img_size': 32},
            branch2={**branch, 'img_size': 64},
            deform_num_heads=4,
        ),
    )
    sizes = [b['pretrain_img_size'] for b in config['backbone']['branches']]
    assert sizes == [64, 32]
