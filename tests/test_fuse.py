"""A fused model computes what the model did, with fewer operations."""

import copy
from types import SimpleNamespace

import pytest
import timm_models
import torch
import zoo
from golden import OUTPUT_TOLERANCE
from mmcv.cnn import ConvModule
from mmengine.hooks import EMAHook
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner.checkpoint import load_state_dict
from timm.layers import DropPath
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from piip_mm.deploy import fuse
from piip_mm.engine.fuse_hook import FuseHook, fuse_before_test

MASK_RCNN = 'det/piip_tiny_maskrcnn_shapes.py'
CASCADE = 'det/piip_tiny_cascade_shapes.py'
DINO = 'det/piip_tiny_dino_shapes.py'
UPERNET = 'seg/piip_tiny_upernet_shapes.py'
CLASSIFIER = 'cls/piip_tiny_shapes.py'

ARCH = dict(embed_dims=32, num_layers=2, num_heads=2, init_values=0.5)
VIT = dict(type='PIIPViT', arch=ARCH, img_size=64, drop_path_rate=0.1)


def timm_branch(name):
    model, kwargs, _ = timm_models.PLAIN[name]
    return dict(type='PIIPTimm', model=model, img_size=96, model_kwargs=kwargs)


BRANCHES = {
    'ViT': dict(VIT, img_size=96, window_size=5),
    'BEiT': dict(VIT, type='PIIPBEiT', img_size=96, window_size=4),
    'Uni-Perceiver': dict(VIT, type='PIIPUniPerceiver', img_size=96),
    'ConvNeXt': dict(
        type='PIIPConvNeXt',
        arch=dict(depths=(1, 1, 1, 1), dims=(32, 32, 64, 64)),
        img_size=96,
        drop_path_rate=0.1,
    ),
    'DINOv2': timm_branch('patch 14, registers'),
    'DINOv3': timm_branch('RoPE, registers'),
}


def randomised(model):
    """The model with values that give every parameter and every statistic an effect."""
    torch.manual_seed(0)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name.endswith('running_var') or '.scales.' in name:
            nn.init.uniform_(tensor, 0.5, 2)
        elif tensor.is_floating_point():
            one = tensor.ndim == 1 and not name.endswith(('bias', 'mean'))
            fan_in = tensor[0].numel() if tensor.ndim > 1 else 25
            nn.init.normal_(tensor, mean=float(one), std=fan_in**-0.5)
    return model.eval()


def piip(branch, **options):
    branches = [branch, dict(VIT, img_size=min(64, branch['img_size']))]
    defaults = dict(
        type='PIIP', num_interactions=2, interaction=dict(num_heads=4, drop_path_rate=0.2)
    )
    if branch['type'] == 'PIIPConvNeXt':
        defaults.update(interaction_ends=[[4, 6], [0, 1]], out_strides=(8, 16, 32, 64))
    elif branch['type'] == 'PIIPTimm':
        defaults.update(interaction_ends=[[1, 2], [0, 1]])
    if 'dinov2' in branch.get('model', ''):
        defaults.update(out_strides=(3.5, 7, 14, 28))
    return randomised(MODELS.build({**defaults, 'branches': branches, **options}))


def build(name, edit=lambda model: None):
    cfg = zoo.load(name)
    edit(cfg.model)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return randomised(MODELS.build(cfg.model))


def deviation(outputs, expected):
    """Largest difference relative to the largest value of each map."""
    return max(
        float((a - b).abs().max() / b.abs().max())
        for a, b in zip(outputs, expected, strict=True)
    )


@torch.no_grad()
def outputs_of(model, image):
    """Maps of a backbone or neck, or scores."""
    if hasattr(model, 'decode_head'):
        return [model.decode_head(model.extract_feat(image))]
    if hasattr(model, 'head'):
        return [model.head(model.backbone(image))]
    return model.extract_feat(image) if hasattr(model, 'neck') else model(image)


def check(model, size=(101, 123)):
    """Fuse a model; returns the names of the parameters that this removed."""
    image = torch.randn(2, 3, *size)
    expected = outputs_of(model, image)
    names = set(dict(model.named_parameters()))
    assert fuse(model) is model
    outputs = outputs_of(model, image)
    assert [x.shape for x in outputs] == [x.shape for x in expected]
    assert deviation(outputs, expected) < OUTPUT_TOLERANCE
    assert not any(module.training for module in model.modules())
    assert not any(param.requires_grad for param in model.parameters())
    assert not any(isinstance(module, DropPath) for module in model.modules())
    return names - set(dict(model.named_parameters()))


@pytest.mark.parametrize('family', BRANCHES)
def test_scales_of_every_family_are_folded(family):
    removed = check(piip(BRANCHES[family]))
    per_block = dict(ConvNeXt=1).get(family, 2)
    blocks = dict(ConvNeXt=4, DINOv2=3, DINOv3=3).get(family, 2)
    of_first = [name for name in removed if name.startswith('branches.0.')]
    assert len(of_first) == per_block * blocks
    assert {name.split('.')[-1] for name in removed if 'interactions' in name} == {
        'gamma_attn',
        'gamma_ffn',
    }
    assert {'merges.0.scales.0', 'merges.0.scales.1'} <= removed


@pytest.mark.parametrize(
    'options',
    [
        dict(interaction=dict(attn='regular', num_heads=4, ffn_ratio=None)),
        dict(out_strides=(8,), out_interactions=()),
    ],
)
def test_other_interactions_and_merges(options):
    assert 'interactions.0.injectors.1_to_0.gamma_attn' in check(
        piip(BRANCHES['ViT'], **options)
    )


@pytest.mark.parametrize('norm', ['LN', 'GN'])
def test_single_branch(norm):
    model = randomised(MODELS.build(dict(type='ViTPyramid', branch=VIT, norm=norm)))
    assert len(check(model)) == 4


def test_negative_scalars_of_a_merge_stay():
    model = piip(BRANCHES['ViT'])
    with torch.no_grad():
        model.merges[0].scales['0'].fill_(-0.7)
    assert 'merges.0.scales.1' in check(model)
    assert set(model.merges[0].scales) == {'0'}
    assert model.merges[0].scales['0'] == -0.7


def with_extra_inputs(model):
    model.backbone.out_strides = (8, 4)
    model.neck.update(in_channels=[96] * 2, add_extra_convs='on_input', num_outs=3)


def with_other_convolutions(model):
    model.neck.conv_cfg = dict(type='ConvWS')


def with_norms(model):
    # An activation after the convolution stays.
    model.neck.update(norm_cfg=dict(type='BN'), act_cfg=dict(type='ReLU'))


def from_second_level(model):
    model.neck.update(start_level=1, num_outs=3)


def upsampled(model):
    """Give DINO a pyramid of four levels, of which the first two are upsampled."""
    model.backbone = zoo.load(MASK_RCNN).model.backbone
    model.neck.in_channels = [96] * 3


def upsampled_at_the_end(model):
    upsampled(model)
    model.backbone.out_strides = (8, 4)
    model.neck.update(in_channels=[96] * 2, num_outs=3)


def wider_kernels(model):
    upsampled(model)
    model.neck.kernel_size = 3


def twice(model):
    model.decode_head.update(in_index=[0, 0, 2])


@pytest.mark.parametrize(
    ('name', 'edit', 'joined'),
    [
        (MASK_RCNN, lambda model: None, [0]),
        (MASK_RCNN, with_extra_inputs, []),
        (MASK_RCNN, with_other_convolutions, []),
        (MASK_RCNN, with_norms, [0]),
        (MASK_RCNN, from_second_level, []),
        (CASCADE, lambda model: None, [0]),
        (DINO, lambda model: None, []),
        (DINO, upsampled, [0]),
        (DINO, upsampled_at_the_end, []),
        (DINO, wider_kernels, []),
        (UPERNET, lambda model: None, [0]),
        (UPERNET, twice, []),
    ],
)
def test_levels_are_joined_with_the_neck(name, edit, joined):
    model = build(name, edit)
    levels = copy.deepcopy(model.backbone.pyramid.levels)
    check(model, (128, 160))
    changed = [
        index
        for index, (old, new) in enumerate(
            zip(levels, model.backbone.pyramid.levels, strict=True)
        )
        if {x.shape for x in old.parameters()} != {x.shape for x in new.parameters()}
    ]
    assert changed == joined


def test_classifiers():
    removed = check(build(CLASSIFIER), (128, 128))
    assert any('ls1' in name for name in removed)


def flops_of(model, image):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.extract_feat(image)
    return counter.get_total_flops() // 2


def test_operations_and_parameters_that_are_saved():
    def edit(model):
        # Upsampling by 4 and by 2.
        for branch, patch in zip(model.backbone.branches, (16, 8, 8), strict=True):
            branch.patch_size = patch

    model = build(MASK_RCNN, edit)
    neck_and_pyramid = [model.neck, model.backbone.pyramid]

    def num_params():
        return sum(p.numel() for part in neck_and_pyramid for p in part.parameters())

    image = torch.zeros(1, 3, 128, 160)
    flops, params = flops_of(model, image), num_params()
    fuse(model)
    num_tokens, dims, out_dims = 8 * 10, 96, 64
    # The x4 level upsamples 4 times as many tokens as the x2 level.
    assert flops - flops_of(model, image) == (16 + 4) * num_tokens * dims**2
    of_level = 4 * dims**2 + dims + dims * out_dims - 4 * dims * out_dims
    assert params - num_params() == 2 * of_level


def test_batch_norms_of_the_segmentor_are_folded():
    model = build(UPERNET)
    fuse(model)
    assert not any(isinstance(x, nn.BatchNorm2d) for x in model.modules())


@pytest.mark.parametrize(
    'options',
    [
        dict(order=('norm', 'conv', 'act')),
        dict(order=('conv', 'act', 'norm')),
        dict(with_spectral_norm=True),
        dict(conv_cfg=dict(type='ConvWS')),
        dict(norm_cfg=dict(type='BN', track_running_stats=False)),
        dict(efficient_conv_bn_eval=True),
    ],
)
@torch.no_grad()
def test_only_what_follows_directly_is_folded(options):
    layer = ConvModule(4, 4, 3, **{'norm_cfg': dict(type='BN'), **options})
    layer = randomised(layer)
    image = torch.randn(1, 4, 8, 8)
    expected = layer(image)
    fuse(nn.ModuleDict({'backbone': piip(BRANCHES['ViT']), 'neck': layer}))
    assert deviation([layer(image)], [expected]) < OUTPUT_TOLERANCE
    is_folded = not isinstance(layer.norm, nn.BatchNorm2d)
    assert is_folded == ('efficient_conv_bn_eval' in options)


def test_fusing_again_changes_nothing():
    model = build(MASK_RCNN)
    fuse(model.backbone)
    # The neck was not known before.
    fuse(model)
    once = copy.deepcopy(model.state_dict())
    fuse(model)
    assert once.keys() == model.state_dict().keys()
    assert all(torch.equal(once[name], x) for name, x in model.state_dict().items())


@pytest.mark.parametrize('part', ['model', 'backbone'])
@pytest.mark.parametrize(
    'load', [nn.Module.load_state_dict, load_state_dict], ids=['torch', 'mmengine']
)
def test_a_fused_model_refuses_weights(part, load):
    model = build(MASK_RCNN)
    weights = copy.deepcopy(model.state_dict())
    fuse(model)
    before = copy.deepcopy(model.state_dict())
    if part == 'backbone':
        weights = {
            name.removeprefix('backbone.'): x
            for name, x in weights.items()
            if name.startswith('backbone.')
        }
    target = model if part == 'model' else model.backbone
    with pytest.raises(ValueError, match='is fused .* then call piip_mm.deploy.fuse'):
        load(target, weights, strict=False)
    assert all(torch.equal(before[name], x) for name, x in model.state_dict().items())


def test_a_copy_of_a_fused_model_refuses_weights():
    model = copy.deepcopy(fuse(piip(BRANCHES['ViT'])))
    with pytest.raises(ValueError, match='this PIIP is fused'):
        model.load_state_dict({})


def test_a_fused_model_does_not_train():
    model = fuse(piip(BRANCHES['ViT'])).train()
    loss = sum(level.sum() for level in model(torch.zeros(1, 3, 96, 96)))
    with pytest.raises(RuntimeError, match='does not require grad'):
        loss.backward()


@pytest.mark.parametrize(
    ('model', 'message'),
    [
        (nn.Linear(2, 2), 'is PIIP or ViTPyramid can be fused, got Linear$'),
        (nn.ModuleDict({'backbone': nn.Identity()}), 'got ModuleDict with Identity$'),
    ],
)
def test_models_of_others_are_refused(model, message):
    with pytest.raises(ValueError, match=message):
        fuse(model)
    runner = SimpleNamespace(model=nn.ModuleDict({'module': model}))
    with pytest.raises(ValueError, match=message):
        fuse_before_test(runner)


def test_the_hook_fuses_wrapped_models_and_averaged_ones():
    model = build(CLASSIFIER)
    wrapped = nn.ModuleDict({'module': nn.ModuleDict({'module': model})})
    hook = EMAHook()
    hook.src_model, hook.ema_model = wrapped, ExponentialMovingAverage(wrapped)
    image = torch.randn(1, 3, 128, 128)
    expected = outputs_of(model, image)
    FuseHook().before_test(SimpleNamespace(model=wrapped, hooks=[hook]))
    hook.before_test_epoch(None)
    assert 'blocks.0.ls1.gamma' not in ''.join(model.state_dict())
    assert deviation(outputs_of(model, image), expected) < OUTPUT_TOLERANCE
