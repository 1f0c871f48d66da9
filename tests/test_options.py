"""Options of the wrong type or without a meaning are refused when a model is built."""

import re

import pytest
import torch
from mmengine.registry import MODELS

import piip_mm  # noqa: F401

NAN, INF = float('nan'), float('inf')
ARCH = dict(embed_dims=32, num_layers=4, num_heads=4)


def vit(arch=(), **options):
    defaults = dict(type='PIIPViT', img_size=64, pretrain_img_size=64)
    return {**defaults, 'arch': {**ARCH, **dict(arch)}, **options}


def network(**options):
    defaults = dict(
        branches=[vit(), vit()], num_interactions=2, interaction=dict(num_heads=4)
    )
    return dict(type='PIIP', **{**defaults, **options})


def interaction(**options):
    return network(interaction=dict(num_heads=4, **options))


@pytest.mark.parametrize(
    ('cfg', 'message'),
    [
        (network(branches=[vit(), None]), 'branches[1]=None: expected a dict'),
        (network(branches=[vit(), 'vit']), "branches[1]='vit': expected a dict"),
        (
            network(branches=[vit(), dict(type='ViTPyramid', branch=vit())]),
            "branches[1].type='ViTPyramid': expected a branch: PIIPBEiT",
        ),
        (network(interaction=5), 'interaction=5: expected a dict of options'),
        (network(interaction=[]), 'interaction=[]: expected a dict of options'),
        (network(out_strides=[NAN]), 'out_strides[0]=nan: expected a number above 0'),
        (network(out_strides=[INF]), 'out_strides[0]=inf: expected a number above 0'),
        (interaction(proj='False'), "proj='False': expected True or False"),
        (
            network(num_interactions=0, interaction=dict(num_heads=4, ffn_ratio=-1)),
            'ffn_ratio=-1: expected a number above 0',
        ),
        (interaction(value_ratio=NAN), 'value_ratio=nan: expected a number above 0'),
        (interaction(ffn_ratio=INF), 'ffn_ratio=inf: expected a number above 0'),
        (interaction(direction=[[[(0, 0.5)]]]), 'direction [[[(0, 0.5)]]]: expected'),
        (interaction(direction=[[['01']]]), "direction [[['01']]]: expected one of"),
        (interaction(direction=[[[(True, False)]]]), 'direction [[[(True, False)]]]'),
        (vit(with_cp='yes'), "with_cp='yes': expected True or False"),
        (vit(with_cls_token='no'), "with_cls_token='no': expected True or False"),
        (vit(arch=dict(qkv_bias=1)), 'arch.qkv_bias=1: expected True or False'),
        (vit(arch=dict(mlp_ratio=NAN)), 'arch.mlp_ratio=nan: expected a number above'),
        (vit(arch=dict(mlp_ratio=0.01)), 'mlp_ratio * embed_dims=0: expected an integer'),
        (
            vit(arch=dict(init_values='a')),
            "arch.init_values='a': expected a finite number",
        ),
        (vit(arch=dict(init_values=NAN)), 'arch.init_values=nan: expected a finite'),
        (vit(global_attn_indexes=[True]), 'global_attn_indexes[0]=True: expected an int'),
        (
            dict(type='PIIPConvNeXt', arch='convnext_tiny', img_size=64)
            | dict(layer_scale_init_value=INF),
            'layer_scale_init_value=inf: expected a finite',
        ),
        (dict(type='PIIPTimm', model=None, img_size=64), 'model=None: expected the name'),
        (
            dict(type='PIIPTimm', model='vit_tiny_patch16_224', img_size=64)
            | dict(model_kwargs='abc'),
            "model_kwargs='abc': expected a dict",
        ),
        (dict(type='ViTPyramid', branch=None), 'branch=None: expected a dict'),
        (dict(type='ViTPyramid', branch=vit(), out_strides=[]), 'out_strides is empty'),
        (
            dict(type='ViTPyramid', branch=vit(), out_blocks=['0', 1, 2, 3]),
            "out_blocks[0]='0': expected an integer",
        ),
    ],
)
def test_refused(cfg, message):
    with torch.device('meta'), pytest.raises(ValueError, match=re.escape(message)):
        MODELS.build(cfg)


@pytest.mark.parametrize('shape', [(3, 64, 64), (1, 1, 3, 64, 64)])
@pytest.mark.parametrize('cfg', [network(), dict(type='ViTPyramid', branch=vit())])
def test_images_of_other_dimensions(cfg, shape):
    with torch.device('meta'), pytest.raises(ValueError, match=r'expected images \(B, 3'):
        MODELS.build(cfg)(torch.zeros(shape))
