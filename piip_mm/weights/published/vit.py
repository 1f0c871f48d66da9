"""Arguments of the published plain vision transformers to configs of ours."""

from __future__ import annotations

from typing import Any

from piip_mm.models.checks import check_choice

from .arguments import drop, expect, per_block, refuse_rest, run_depth, run_rate

#: Depth of the classes where none is given.
VIT_DEPTH = 12
INTERNVIT_DEPTH = 48


def deit_branch(kwargs: dict[str, Any], depth: int | None = None) -> dict[str, Any]:
    """Config of a published DeiT (``vit_models``) as a branch.

    Args:
        kwargs: Constructor arguments, with ``img_size`` the side of the branch's image.
        depth: Number of blocks that are run; None for all.

    Raises:
        ValueError: If an argument cannot be migrated.
    """
    num_layers = kwargs.pop('depth', VIT_DEPTH)
    mlp = kwargs.pop('Mlp_block', None)
    check_choice('Mlp_block', mlp, ('fused_mlp', None))
    windows = [
        size if windowed is True and size > 0 else None
        for size, windowed in zip(
            per_block(kwargs, 'window_size', num_layers, -1),
            per_block(kwargs, 'window_attn', num_layers, False),
            strict=True,
        )
    ]
    config = dict(
        type='PIIPViT',
        arch=dict(
            embed_dims=kwargs.pop('embed_dim', 768),
            num_layers=run_depth(depth, num_layers),
            num_heads=kwargs.pop('num_heads', 12),
            mlp_ratio=kwargs.pop('mlp_ratio', 4.0),
            qkv_bias=kwargs.pop('qkv_bias', False),
            init_values=kwargs.pop('init_scale', 1e-4),
        ),
        window_size=windows[:depth],
        window_pad='zero_input' if kwargs.pop('use_flash_attn', False) else 'zero_qkv',
        mlp_act='gelu_tanh' if mlp == 'fused_mlp' else 'gelu',
        with_cp=kwargs.pop('with_cp', False),
        **_common(kwargs, patch_size=16),
    )
    drop(kwargs, 'use_cls_token', 'drop_rate')
    expect(kwargs, attn_drop_rate=0.0, qk_scale=None)
    refuse_rest(kwargs, 'a DeiT branch')
    return config


def internvit_branch(kwargs: dict[str, Any], depth: int | None = None) -> dict[str, Any]:
    """Config of a published ``InternViT6B`` as a branch: InternViT, MAE, DINOv2, AugReg.

    Arguments and errors as of :func:`deit_branch`. Arguments that it does not know have
    no effect, as in the published class.
    """
    num_layers = kwargs.pop('depth', INTERNVIT_DEPTH)
    mlp = kwargs.pop('mlp_type', 'regular')
    check_choice('mlp_type', mlp, ('regular', 'fused_mlp'))
    windows = [
        size if windowed else None
        for size, windowed in zip(
            per_block(kwargs, 'window_size', num_layers, 14),
            per_block(kwargs, 'window_attn', num_layers, False),
            strict=True,
        )
    ]
    common = _common(kwargs, patch_size=14)
    rate = run_rate(common.pop('drop_path_rate'), depth, num_layers)
    return dict(
        type='PIIPViT',
        arch=dict(
            embed_dims=kwargs.pop('embed_dim', 3200),
            num_layers=run_depth(depth, num_layers),
            num_heads=kwargs.pop('num_heads', 25),
            mlp_ratio=kwargs.pop('mlp_ratio', 4.0),
            qkv_bias=kwargs.pop('qkv_bias', False),
            init_values=kwargs.pop('init_values', 0.1) or None,
            # Any other name than this means LayerNorm there.
            norm='RMS' if kwargs.pop('norm_layer_type', 'RMSNorm') == 'RMSNorm' else 'LN',
            qk_norm=kwargs.pop('qk_normalization', True),
            cls_pos_row=True,
        ),
        window_size=windows[:depth],
        drop_path_rate=rate,
        drop_path_schedule='linear',
        mlp_act='gelu_tanh' if mlp == 'fused_mlp' else 'gelu',
        with_cp=kwargs.pop('with_cp', True),
        **common,
    )


def _common(kwargs: dict[str, Any], patch_size: int) -> dict[str, Any]:
    drop(kwargs, 'pretrained', 'pretrain_patch_size', 'cal_flops')
    return dict(
        img_size=kwargs.pop('img_size'),
        patch_size=kwargs.pop('patch_size', patch_size),
        in_channels=kwargs.pop('in_chans', 3),
        pretrain_img_size=kwargs.pop('pretrain_img_size', 224),
        drop_path_rate=kwargs.pop('drop_path_rate', 0.0),
    )
