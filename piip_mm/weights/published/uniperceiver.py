"""Arguments of the published Uni-Perceiver to configs of ours."""

from __future__ import annotations

from typing import Any

from .arguments import drop, expect, per_block, refuse_rest, run_depth, run_rate

#: Part of the names of these weights; the published code takes the class of a branch
#: from it.
NAME = 'perceiver'


def uniperceiver_branch(
    kwargs: dict[str, Any], depth: int | None = None
) -> dict[str, Any]:
    """Config of a published ``UnifiedBertEncoder`` as a branch.

    Args:
        kwargs: Constructor arguments, with ``img_size`` the side of the branch's image.
        depth: Number of blocks that are run; None for all.

    Raises:
        ValueError: If an argument cannot be migrated.
    """
    num_layers = kwargs.pop('depth', 12)
    windows = [
        size if windowed else None
        for size, windowed in zip(
            per_block(kwargs, 'window_size', num_layers, 14),
            per_block(kwargs, 'window_attn', num_layers, False),
            strict=True,
        )
    ]
    # The published class has this size written into its position embedding.
    expect(kwargs, patch_size=16)
    config = dict(
        type='PIIPUniPerceiver',
        arch=dict(
            embed_dims=kwargs.pop('embed_dim', 768),
            num_layers=run_depth(depth, num_layers),
            num_heads=kwargs.pop('num_heads', 12),
            mlp_ratio=kwargs.pop('mlp_ratio', 4.0),
        ),
        img_size=kwargs.pop('img_size'),
        patch_size=16,
        in_channels=kwargs.pop('in_chans', 3),
        pretrain_img_size=kwargs.pop('pretrain_img_size', 224),
        window_size=windows[:depth],
        drop_path_rate=run_rate(kwargs.pop('drop_path_rate', 0.0), depth, num_layers),
        with_cp=kwargs.pop('with_cp', False),
    )
    drop(kwargs, 'pretrained', 'pretrain_patch_size', 'cal_flops')
    refuse_rest(kwargs, 'a Uni-Perceiver branch')
    return config
