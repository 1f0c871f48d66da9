"""Small models of timm, by mechanism and class."""

import torch
from mmengine.registry import MODELS

SMALL = dict(embed_dim=48, depth=3, num_heads=2)
STAGES = dict(depths=(1, 1, 2, 1), dims=(8, 16, 24, 32))
SWIN = dict(embed_dim=16, depths=(2, 2, 2, 2), num_heads=(1, 2, 2, 4))
HIERA = dict(embed_dim=16, stages=(1, 2, 3, 2))

# By mechanism: model name, options that make it small, number of prefix tokens.
PLAIN = {
    'class token': ('vit_tiny_patch16_224', SMALL, 1),
    'distillation token': ('deit_tiny_distilled_patch16_224', SMALL, 2),
    'positions of patches only': ('deit3_small_patch16_224', SMALL, 1),
    'norm first': ('vit_base_patch16_clip_224', SMALL, 1),
    'SigLIP 2': ('vit_base_patch16_siglip_224.v2_webli', SMALL, 0),
    'patch 14, registers': (
        'vit_small_patch14_reg4_dinov2',
        {**SMALL, 'img_size': 112},
        5,
    ),
    'EVA': ('eva_large_patch14_196', SMALL, 1),
    'RoPE': ('eva02_tiny_patch14_224', SMALL, 1),
    'RoPE, registers': ('vit_small_patch16_dinov3', SMALL, 5),
    'RoPE of each block': ('vit_small_patch16_rope_mixed_224', SMALL, 1),
}
HIERARCHICAL = {
    'shifted windows': ('swin_tiny_patch4_window7_224', SWIN),
    'shifted windows, v2': ('swinv2_tiny_window8_256', SWIN),
    'mask units': ('hiera_tiny_224', HIERA),
    'mask units, window positions': ('hiera_small_abswin_256', HIERA),
    'SAM 2': ('sam2_hiera_tiny', {**HIERA, 'global_att_blocks': (5,)}),
    'DINOv3': ('convnext_tiny.dinov3_lvd1689m', STAGES),
}
CLASSES = {
    'ByobNet': ('test_byobnet', {}),
    'ConvNeXt': ('convnextv2_atto', STAGES),
    'CspNet': ('cs3darknet_s', {}),
    'DaVit': ('davit_tiny', dict(depths=(1, 1, 2, 1), embed_dims=(24, 48, 96, 192))),
    'EdgeNeXt': ('edgenext_xx_small', {}),
    'FastVit': ('fastvit_sa12', dict(layers=(1, 1, 1, 1), embed_dims=(8, 16, 32, 64))),
    'FocalNet': ('focalnet_tiny_srf', {}),
    'HighPerfGpuNet': ('hgnetv2_b0', {}),
    'MambaOut': ('test_mambaout', {}),
    'MetaFormer': ('caformer_s18', {}),
    'MetaNeXt': ('inception_next_atto', STAGES),
    'PyramidVisionTransformerV2': ('pvt_v2_b0', dict(depths=(1, 1, 1, 1))),
    'VovNet': ('ese_vovnet19b_slim', {}),
}
ALL = {name: entry[:2] for name, entry in {**PLAIN, **HIERARCHICAL, **CLASSES}.items()}


def branch(model, kwargs, **options):
    """A branch with random weights, so that every parameter has an effect."""
    torch.manual_seed(0)
    built = MODELS.build(
        dict(type='PIIPTimm', model=model, img_size=224, model_kwargs=kwargs, **options)
    )
    for parameter in built.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return built


def run(built, image, ends=None):
    """Tokens and grid after running groups of blocks with the given ends."""
    tokens, grid = built.embed(image)
    start = 0
    for end in ends or [built.depth]:
        tokens, grid = built.run(tokens, grid, start, end)
        start = end
    return tokens, grid
