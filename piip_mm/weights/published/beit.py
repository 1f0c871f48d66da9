"""Arguments of the published BEiT to configs of ours."""

from __future__ import annotations

from typing import Any

from .arguments import drop, expect, per_block, refuse_rest, run_depth, run_rate

#: Part of the names of these weights; the published code takes the class of a branch
#: from it.
NAME = 'beit'


def beit_branch(kwargs: dict[str, Any], depth: int | None = None) -> dict[str, Any]:
    """Config of a published ``BEiT`` as a branch.

    Args:
        kwargs: Constructor arguments, with ``img_size`` the side of the branch's image.
        depth: Number of blocks that are run; None for all.

    Raises:
        ValueError: If an argument cannot be migrated.
    """
    num_layers = kwargs.pop('depth', 12)
    config = dict(
        type='PIIPBEiT',
        arch=dict(
            embed_dims=kwargs.pop('embed_dim', 768),
            num_layers=run_depth(depth, num_layers),
            num_heads=kwargs.pop('num_heads', 12),
            mlp_ratio=kwargs.pop('mlp_ratio', 4.0),
            qkv_bias=kwargs.pop('qkv_bias', False),
            init_values=kwargs.pop('init_values', None),
        ),
        img_size=kwargs.pop('img_size'),
        patch_size=kwargs.pop('patch_size', 16),
        in_channels=kwargs.pop('in_chans', 3),
        window_size=per_block(kwargs, 'window_size', num_layers, 14)[:depth],
        drop_path_rate=run_rate(kwargs.pop('drop_path_rate', 0.0), depth, num_layers),
        with_cp=kwargs.pop('with_cp', False),
    )
    # A block with window_attn=False takes no grid but that of its window.
    drop(kwargs, 'window_attn', 'pretrain_img_size', 'pretrain_patch_size', 'pretrained')
    # Never read by the published forward pass, which always has one table a block.
    drop(kwargs, 'use_rel_pos_bias', 'use_shared_rel_pos_bias')
    expect(kwargs, use_abs_pos_emb=False)
    drop(kwargs, 'num_classes', 'use_checkpoint', 'cal_flops')
    expect(kwargs, qk_scale=None, drop_rate=0.0, attn_drop_rate=0.0)
    expect(kwargs, hybrid_backbone=None, norm_layer=None)
    refuse_rest(kwargs, 'a BEiT branch')
    return config
