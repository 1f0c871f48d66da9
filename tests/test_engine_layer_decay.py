"""Layer-decay constructor: ids, learning rates, weight decay, errors."""

import logging
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import MODELS
from torch import nn

from piip_mm.engine import PIIPLayerDecayOptimWrapperConstructor

CONFIGS = Path(__file__).parents[1] / 'configs'
CONSTRUCTOR = 'PIIPLayerDecayOptimWrapperConstructor'


class Backbone(nn.Module):
    """Embedding, two blocks, a merge: layers 0 to 3."""

    def __init__(self):
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, 4, 6))
        self.blocks = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))
        self.scale = nn.Parameter(torch.ones(1))

    def get_layer_depth(self, param_name, prefix=''):
        name = param_name.removeprefix(prefix)
        if name.startswith('pos_embed'):
            return 0, 4
        if name.startswith('blocks.'):
            return int(name.split('.')[1]) + 1, 4
        return 3, 4


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = Backbone()
        self.head = nn.Sequential(nn.Conv2d(6, 6, 1), nn.LayerNorm(6))


def build(model, paramwise_cfg=None, **optimizer):
    optimizer = {'type': 'AdamW', 'lr': 1.0, 'weight_decay': 0.1, **optimizer}
    return build_optim_wrapper(
        model,
        dict(constructor=CONSTRUCTOR, optimizer=optimizer, paramwise_cfg=paramwise_cfg),
    )


def settings(model, wrapper):
    """Name of each parameter to (lr, weight decay)."""
    names = {param: name for name, param in model.named_parameters()}
    return {
        names[param]: (group['lr'], group['weight_decay'])
        for group in wrapper.optimizer.param_groups
        for param in group['params']
    }


def test_rates_and_weight_decay():
    model = Detector()
    found = settings(model, build(model, dict(layer_decay_rate=0.5)))
    assert found == {
        'backbone.pos_embed': (0.125, 0.1),
        'backbone.blocks.0.weight': (0.25, 0.1),
        'backbone.blocks.0.bias': (0.25, 0.0),
        'backbone.blocks.1.weight': (0.5, 0.1),
        'backbone.blocks.1.bias': (0.5, 0.0),
        # The numbers of the merge are decayed, as in the published training.
        'backbone.scale': (1.0, 0.1),
        'head.0.weight': (1.0, 0.1),
        'head.0.bias': (1.0, 0.0),
        'head.1.weight': (1.0, 0.0),
        'head.1.bias': (1.0, 0.0),
    }


def test_without_options_the_weight_decay_rule_holds():
    model = Detector()
    found = settings(model, build(model))
    assert {lr for lr, _ in found.values()} == {1.0}
    assert found['head.0.bias'] == (1.0, 0.0)


def test_decay_pos_embed_false_exempts_only_position_embeddings():
    model = Detector()
    default = settings(model, build(model))
    exempt = settings(model, build(model, dict(decay_pos_embed=False)))
    changed = {name for name in default if default[name] != exempt[name]}
    assert changed == {'backbone.pos_embed'}
    assert exempt['backbone.pos_embed'] == (1.0, 0.0)


def test_longest_custom_key_counts():
    model = Detector()
    keys = {
        'blocks': dict(lr_mult=10.0),
        'blocks.1.bias': dict(lr_mult=2.0, decay_mult=0.5),
    }
    found = settings(model, build(model, dict(layer_decay_rate=0.5, custom_keys=keys)))
    assert found['backbone.blocks.0.weight'] == (2.5, 0.1)
    assert found['backbone.blocks.0.bias'] == (2.5, 0.0)
    assert found['backbone.blocks.1.bias'] == (1.0, 0.05)
    assert found['head.0.weight'] == (1.0, 0.1)


def test_frozen_parameters_are_left_out():
    model = Detector()
    model.backbone.blocks[0].requires_grad_(False)
    names = settings(model, build(model))
    assert 'backbone.blocks.0.weight' not in names
    assert len(names) == len(list(model.parameters())) - 2


@pytest.mark.parametrize('wrap', [nn.Module(), None])
def test_wrapped_models_and_bare_backbones(wrap):
    model = Detector() if wrap is not None else Backbone()
    expected = settings(model, build(model, dict(layer_decay_rate=0.5)))
    wrapped = model
    if wrap is not None:
        # What DistributedDataParallel looks like to a constructor.
        wrapped = wrap
        wrapped.module = model
    found = settings(model, build(wrapped, dict(layer_decay_rate=0.5)))
    assert found == expected
    assert min(lr for lr, _ in found.values()) == 0.125


def test_groups_are_few_and_in_order():
    groups = build(Detector(), dict(layer_decay_rate=0.5)).optimizer.param_groups
    ids = [group['layer_id'] for group in groups]
    assert ids == [0, 1, 1, 2, 2, 3, 3]
    assert [g['lr_scale'] for g in groups] == [0.125, 0.25, 0.25, 0.5, 0.5, 1.0, 1.0]


def test_table_is_logged_once(caplog):
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.INFO, logger=logger.name):
            build(Detector(), dict(layer_decay_rate=0.5))
    finally:
        logger.removeHandler(caplog.handler)
    tables = [r.message for r in caplog.records if 'Learning rate by layer' in r.message]
    assert len(tables) == 1
    rows = [line.split() for line in tables[0].splitlines()[2:]]
    # 24 values of the position embedding in layer 0.
    assert rows[0] == ['0', '0.125', '0.125', '0.1', '1', '0.000']
    assert [row[0] for row in rows] == ['0', '1', '1', '2', '2', '3', '3']


@pytest.mark.parametrize(
    ('paramwise_cfg', 'message'),
    [
        (
            dict(num_layers=24),
            r"unknown keys \['num_layers'\] of paramwise_cfg.*layer_decay_rate",
        ),
        (dict(layer_decay_rate=1.5), r'layer_decay_rate=1\.5: expected .*\(0, 1\]'),
        (dict(layer_decay_rate=0), r'layer_decay_rate=0: expected'),
        (
            dict(custom_keys={'head': dict(lr=1)}),
            r"unknown keys \['lr'\] of custom_keys\['head'\].*lr_mult",
        ),
        ([0.5], r'paramwise_cfg=\[0.5\]: expected a dict'),
        (dict(layer_decay_rate=True), 'layer_decay_rate=True: expected a number'),
        (dict(layer_decay_rate='0.9'), "layer_decay_rate='0.9': expected a number"),
        (dict(layer_decay_rate=float('nan')), 'layer_decay_rate=nan: expected a number'),
        (dict(decay_pos_embed='False'), "decay_pos_embed='False': expected True or Fal"),
        (dict(custom_keys=['head']), r"custom_keys=\['head'\]: expected a dict"),
        (dict(custom_keys={'head': 0.1}), r"custom_keys\['head'\]=0.1: expected a dict"),
        (
            dict(custom_keys={'head': dict(lr_mult='10')}),
            r"custom_keys\['head'\].lr_mult='10': expected a finite number of at least 0",
        ),
        (
            dict(custom_keys={'head': dict(decay_mult=-1)}),
            r"custom_keys\['head'\].decay_mult=-1: expected a finite number of at least",
        ),
    ],
)
def test_wrong_options(paramwise_cfg, message):
    with pytest.raises(ValueError, match=message):
        build(Detector(), paramwise_cfg)


def test_backbone_without_depths():
    with pytest.raises(TypeError, match='needs a backbone with get_layer_depth'):
        build(nn.Linear(2, 2))


def test_lr_must_be_in_the_config():
    with pytest.raises(ValueError, match='optim_wrapper.optimizer.lr'):
        build(Detector(), lr=None)


class Own(torch.optim.SGD):
    """An optimizer of a user, with a weight decay of its own."""

    def __init__(self, params, lr, weight_decay=0.3):
        super().__init__(params, lr, weight_decay=weight_decay)


@pytest.mark.parametrize(
    ('kind', 'default'),
    [
        ('AdamW', 0.01),
        (torch.optim.AdamW, 0.01),
        ('torch.optim.AdamW', 0.01),
        ('torch.optim.adamw.AdamW', 0.01),
        ('NAdam', 0.0),
        ('SGD', 0.0),
        (Own, 0.3),
    ],
)
def test_the_default_decay_of_the_optimizer_follows_the_rule(kind, default):
    model = Detector()
    cfg = dict(
        constructor=PIIPLayerDecayOptimWrapperConstructor,
        type=OptimWrapper,
        optimizer=dict(type=kind, lr=1.0),
        paramwise_cfg=dict(custom_keys={'blocks.0.bias': dict(decay_mult=0.5)}),
    )
    found = settings(model, build_optim_wrapper(model, cfg))
    assert found['head.0.weight'] == found['backbone.scale'] == (1.0, default)
    assert found['head.0.bias'] == found['head.1.weight'] == (1.0, 0.0)
    assert found['backbone.blocks.0.bias'] == (1.0, default / 2)


def test_an_optimizer_without_weight_decay():
    wrapper = build_optim_wrapper(
        Detector(), dict(constructor=CONSTRUCTOR, optimizer=dict(type='Rprop', lr=1.0))
    )
    assert all('weight_decay' not in group for group in wrapper.optimizer.param_groups)


def test_piip_sbl_has_the_published_rates():
    """24 layers for three branches of 12, 12 and 24 blocks; decay 0.85."""
    cfg = Config.fromfile(CONFIGS / 'det/piip_sbl_maskrcnn_1x.py')
    with torch.device('meta'):
        model = nn.Module()
        model.backbone = MODELS.build(cfg.model.backbone)
        model.neck = nn.Linear(2, 2)
    wrapper = cfg.optim_wrapper
    found = settings(
        model, build(model, wrapper.paramwise_cfg, lr=1e-4, weight_decay=0.05)
    )
    # Where blocks of branch b get floor((i + 1) * 24 / depth_b).
    layer_ids = {
        'branches.0.pos_embed': 0,
        'branches.2.patch_embed.weight': 0,
        'branches.0.blocks.0.attn.qkv.weight': 2,
        'branches.1.blocks.11.attn.qkv.weight': 24,
        'branches.2.blocks.0.attn.qkv.weight': 1,
        'branches.2.blocks.23.attn.qkv.weight': 24,
    }
    for name, layer_id in layer_ids.items():
        lr, weight_decay = found[f'backbone.{name}']
        assert lr == pytest.approx(1e-4 * 0.85 ** (25 - layer_id)), name
        assert weight_decay == 0.05, name
    assert found['neck.weight'] == (1e-4, 0.05)
    assert found['neck.bias'] == (1e-4, 0.0)
    rest = {n: s for n, s in found.items() if not n.startswith('backbone.branches.')}
    assert {lr for lr, _ in rest.values()} == {1e-4}
    shapes = {name: param.ndim for name, param in model.named_parameters()}
    for name, (_, weight_decay) in found.items():
        is_vector = shapes[name] == 1 and not name.startswith('backbone.merges.0.scales')
        assert (weight_decay == 0) == is_vector, name
    rates = sorted({lr for lr, _ in found.values()})
    assert len(rates) == 26
    assert all(b / a == pytest.approx(1 / 0.85) for a, b in pairwise(rates))


def test_the_pyramid_of_a_baseline_has_the_full_rate():
    """Regardless of what the branch says about names that it does not have."""
    branch = dict(type='PIIPTimm', model='vit_tiny_patch16_224', img_size=64)
    with torch.device('meta'):
        network = MODELS.build(dict(type='ViTPyramid', branch=branch))
    for name, _ in network.named_parameters():
        layer_id, num_layers = network.get_layer_depth(f'backbone.{name}', 'backbone.')
        if name.startswith('pyramid.'):
            assert (layer_id, num_layers) == (13, 14)
        else:
            assert layer_id < 13
