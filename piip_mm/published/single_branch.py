"""Configs of backbones from the arguments of the published single-branch backbones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .arguments import pop_required, require_values
from .branches import (
    INTERNVIT_DEPTH,
    VIT_DEPTH,
    BranchConfig,
    beit_branch,
    convnext_branch,
    convnext_strides,
    deit_branch,
    internvit_branch,
    pyramid_strides,
    uniperceiver_branch,
)


def _single_config(
    kwargs: dict[str, Any],
    branch_config: BranchConfig,
    depth: int,
) -> dict[str, Any]:
    """Config of a published network of one branch, which returns (B, C, H, W) maps.

    Args:
        kwargs: Constructor arguments.
        branch_config: Translates the arguments of the branch.
        depth: Default number of blocks.
    """
    out_indices = kwargs.pop('out_indices', [7, 11, 15, 23])
    with_fpn = kwargs.pop('with_fpn', False)
    depth = kwargs.get('depth', depth)
    # The published code runs the blocks and keeps the maps of those in out_indices. It
    # fails if there are none; then the last block is what a reader expects.
    outputs = sorted({i for i in out_indices if 0 <= i < depth}) or [depth - 1]
    if kwargs.pop('use_simple_fpn', True) or (
        # These make all levels from the last output regardless of the option.
        with_fpn and branch_config in (deit_branch, beit_branch)
    ):
        outputs = outputs[-1:]
    if with_fpn and len(outputs) not in (1, 4):
        raise ValueError(
            f'out_indices={out_indices} with depth={depth} give the maps of blocks '
            f'{outputs}: expected one or four for a pyramid (with_fpn=True)'
        )
    require_values(kwargs, output_dtype='float32', with_final_norm=False)
    kwargs.setdefault('pretrain_img_size', 224)
    kwargs['img_size'] = kwargs['pretrain_img_size']
    branch = branch_config(kwargs, outputs[-1] + 1)
    patch_size = branch['patch_size']
    strides = pyramid_strides(patch_size) if with_fpn else [patch_size] * len(outputs)
    config = dict(type='ViTPyramid', branch=branch, out_strides=strides, norm='LN')
    if len(outputs) > 1:
        config['out_blocks'] = outputs
    return config


def _single_convnext_config(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Config of a published ``ConvNextHFWrapper`` as a backbone on its own."""
    single = kwargs.pop('single_branch', False)
    if not single:
        raise ValueError(
            f'single_branch={single}: the published ConvNeXt only runs on its own '
            'with single_branch=True'
        )
    require_values(kwargs, with_simple_fpn=False)
    kwargs['img_size'] = pop_required(kwargs, 'real_size')
    branch = convnext_branch(kwargs)
    last_blocks = {s: block for block, s in enumerate(convnext_strides(branch['arch']))}
    return dict(
        type='ViTPyramid',
        branch=branch,
        out_strides=list(last_blocks),
        out_blocks=list(last_blocks.values()),
    )


#: See :data:`piip_mm.published.networks.NETWORK_KINDS`.
SINGLE_BRANCH_KINDS: dict[str, Callable[[dict[str, Any], str], dict[str, Any]]] = {
    'det.vit_models': lambda kwargs, _: _single_config(kwargs, deit_branch, VIT_DEPTH),
    'det.InternViT6B': lambda kwargs, _: _single_config(
        kwargs, internvit_branch, INTERNVIT_DEPTH
    ),
    'det.BEiT': lambda kwargs, _: _single_config(kwargs, beit_branch, VIT_DEPTH),
    # It runs all blocks and returns tokens, which the migrated network returns as a map.
    'det.UnifiedBertEncoder': lambda kwargs, _: _single_config(
        {**kwargs, 'out_indices': [kwargs.get('depth', VIT_DEPTH) - 1]},
        uniperceiver_branch,
        VIT_DEPTH,
    ),
    'det.ConvNextHFWrapper': lambda kwargs, _: _single_convnext_config(kwargs),
    'seg.vit_models': lambda kwargs, _: _single_config(kwargs, deit_branch, VIT_DEPTH),
    'seg.InternViT6B': lambda kwargs, _: _single_config(
        {**kwargs, 'pretrain_img_size': kwargs.get('img_size', 224)},
        internvit_branch,
        INTERNVIT_DEPTH,
    ),
}
