"""Attention, injectors and interaction units compared with recordings."""

from functools import partial

import golden
import pytest
from torch import nn

from piip_mm.models.directions import plan_interactions
from piip_mm.models.interaction import Injector, InteractionStage
from piip_mm.models.layers import Block, DeformableCrossAttention, SelfAttention
from piip_mm.models.published_names import INJECTOR_RULES, interaction_rule
from piip_mm.weights.rename import rename

OPTIONS = dict(num_heads=4, num_points=4, value_ratio=0.5, ffn_ratio=0.25)


def deviation(output, recorded):
    return golden.Sampled.of(recorded).deviation(output)


def test_deformable_attention():
    unit = golden.load_unit('msdeform')
    module = DeformableCrossAttention(32, 24, num_heads=4, num_points=4, value_ratio=0.5)
    module.load_state_dict(unit['state_dict'])
    inputs = unit['inputs']
    output = module(
        inputs['query'],
        inputs['value'],
        tuple(inputs['query_grid']),
        tuple(inputs['value_grid']),
    )
    assert deviation(output, unit['outputs'][0]) < golden.OUTPUT_TOLERANCE


@pytest.mark.parametrize('name, attn', [('deform', 'deform'), ('normal', 'regular')])
def test_injector(name, attn):
    unit = golden.load_unit(f'injector_{name}')
    module = Injector(32, 32, attn=attn, proj=False, **OPTIONS)
    module.load_state_dict(
        {rename(key, INJECTOR_RULES): value for key, value in unit['state_dict'].items()}
    )
    inputs = unit['inputs']
    output = module(
        inputs['query'],
        inputs['feat'],
        tuple(inputs['query_grid']),
        tuple(inputs['feat_grid']),
    )
    assert deviation(output, unit['outputs'][0]) < golden.OUTPUT_TOLERANCE


@pytest.mark.parametrize('proj', [True, False])
def test_unit(proj):
    unit = golden.load_unit(f'unit_proj_{proj}')
    (pattern,) = plan_interactions('neighbours', 2, 1, outputs=[0, 1])
    stage = InteractionStage([32, 48], pattern, proj=proj, **OPTIONS)
    rules = [interaction_rule(2)]
    prefix = 'interactions.0.'
    stage.load_state_dict(
        {
            rename(f'{prefix}interaction_units_12.{key}', rules)[len(prefix) :]: value
            for key, value in unit['state_dict'].items()
        }
    )
    inputs = unit['inputs']
    high, low = stage(
        [inputs['x2'], inputs['x1']], [tuple(inputs['grid2']), tuple(inputs['grid1'])]
    )
    assert deviation(low, unit['outputs'][0]) < golden.OUTPUT_TOLERANCE
    assert deviation(high, unit['outputs'][1]) < golden.OUTPUT_TOLERANCE


@pytest.mark.parametrize(
    'name, window_pad', [('flash', 'zero_input'), ('naive', 'zero_qkv')]
)
def test_windowed_attention(name, window_pad):
    unit = golden.load_unit(f'deit_windowed_{name}')
    module = SelfAttention(48, 3, window_size=4, window_pad=window_pad)
    module.load_state_dict(unit['state_dict'])
    output = module(unit['inputs']['x'], tuple(unit['inputs']['grid']))
    assert deviation(output, unit['outputs'][0]) < golden.OUTPUT_TOLERANCE


@pytest.mark.parametrize(
    'name, attn, options',
    [
        (
            'internvit_block_rms_qknorm',
            dict(qkv_bias=False, qk_norm=partial(nn.RMSNorm, eps=1e-6)),
            dict(norm='RMS'),
        ),
        (
            'internvit_block_ln_windowed_fused',
            dict(window_size=4),
            dict(mlp_act='gelu_tanh'),
        ),
    ],
)
def test_internvit_block(name, attn, options):
    unit = golden.load_unit(name)
    module = Block(48, SelfAttention(48, 3, **attn), **options)
    module.load_state_dict(unit['state_dict'])
    output = module(unit['inputs']['x'], tuple(unit['inputs']['grid']))
    assert deviation(output, unit['outputs'][0]) < golden.OUTPUT_TOLERANCE
