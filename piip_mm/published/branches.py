"""Configs of branches from the arguments of the published branches.

Each function takes the constructor arguments of a published class, with ``img_size`` the
side of the branch's image, and the number of blocks that are run (None for all). It
returns the config of a branch, and raises ``ValueError`` if an argument cannot be
migrated.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from piip_mm.checks import check_choice
from piip_mm.models.branches import CONVNEXT_ARCHS, ConvNeXtArch
from piip_mm.models.branches.geometry import resolve_arch

from .arguments import (
    discard,
    pop_per_block,
    pop_required,
    refuse_rest,
    require_values,
)

#: Config of a branch from its arguments and the number of its blocks that are run.
BranchConfig: TypeAlias = Callable[[dict[str, Any], int | None], dict[str, Any]]

#: Default depths of the published classes.
VIT_DEPTH = 12
INTERNVIT_DEPTH = 48

_ACTS = {'fused_mlp': 'gelu_tanh'}


def deit_branch(kwargs: dict[str, Any], num_run: int | None = None) -> dict[str, Any]:
    """Config of a published DeiT (``vit_models``)."""
    rate = kwargs.pop('drop_path_rate', 0.0)
    config = _plain_branch(kwargs, num_run, 'PIIPViT', window=-1)
    # This class only uses windows if window_attn is exactly True and the size positive.
    config['window_size'] = [
        size if windowed is True and size > 0 else None
        for size, windowed in config['window_size']
    ]
    config['arch'].update(
        qkv_bias=kwargs.pop('qkv_bias', False),
        init_values=kwargs.pop('init_scale', 1e-4),
    )
    mlp = kwargs.pop('Mlp_block', None)
    check_choice('Mlp_block', mlp, ('fused_mlp', None))
    pads_input = kwargs.pop('use_flash_attn', False)
    config.update(
        pretrain_img_size=kwargs.pop('pretrain_img_size', 224),
        drop_path_rate=rate,
        window_pad='zero_input' if pads_input else 'zero_qkv',
        mlp_act=_ACTS.get(mlp, 'gelu'),
    )
    discard(kwargs, 'use_cls_token', 'drop_rate')
    require_values(kwargs, attn_drop_rate=0.0, qk_scale=None)
    refuse_rest(kwargs, 'a DeiT branch')
    return config


def internvit_branch(
    kwargs: dict[str, Any], num_run: int | None = None
) -> dict[str, Any]:
    """Config of a published ``InternViT6B``: InternViT, MAE, DINOv2, AugReg.

    Unknown arguments are ignored, as in the published class.
    """
    kwargs.setdefault('depth', INTERNVIT_DEPTH)
    kwargs.setdefault('embed_dim', 3200)
    kwargs.setdefault('num_heads', 25)
    kwargs.setdefault('patch_size', 14)
    kwargs.setdefault('with_cp', True)
    config = _plain_branch(kwargs, num_run, 'PIIPViT', window=14)
    config['window_size'] = _windows(config)
    config['arch'].update(
        qkv_bias=kwargs.pop('qkv_bias', False),
        init_values=kwargs.pop('init_values', 0.1) or None,
        # The published class takes any other name to mean LayerNorm.
        norm='RMS' if kwargs.pop('norm_layer_type', 'RMSNorm') == 'RMSNorm' else 'LN',
        qk_norm=kwargs.pop('qk_normalization', True),
        cls_pos_row=True,
    )
    mlp = kwargs.pop('mlp_type', 'regular')
    check_choice('mlp_type', mlp, ('regular', 'fused_mlp'))
    config.update(
        pretrain_img_size=kwargs.pop('pretrain_img_size', 224),
        drop_path_schedule='linear',
        mlp_act=_ACTS.get(mlp, 'gelu'),
    )
    return config


def beit_branch(kwargs: dict[str, Any], num_run: int | None = None) -> dict[str, Any]:
    """Config of a published ``BEiT``."""
    config = _plain_branch(kwargs, num_run, 'PIIPBEiT', window=14)
    # A block with window_attn=False only accepts the grid of its window.
    config['window_size'] = [size for size, _ in config['window_size']]
    config['arch'].update(
        qkv_bias=kwargs.pop('qkv_bias', False),
        init_values=kwargs.pop('init_values', None),
    )
    # Never read by the published forward pass, which always has one table per block.
    discard(kwargs, 'use_rel_pos_bias', 'use_shared_rel_pos_bias')
    discard(kwargs, 'pretrain_img_size', 'num_classes', 'use_checkpoint')
    require_values(kwargs, use_abs_pos_emb=False, hybrid_backbone=None, norm_layer=None)
    require_values(kwargs, qk_scale=None, drop_rate=0.0, attn_drop_rate=0.0)
    refuse_rest(kwargs, 'a BEiT branch')
    return config


def uniperceiver_branch(
    kwargs: dict[str, Any], num_run: int | None = None
) -> dict[str, Any]:
    """Config of a published ``UnifiedBertEncoder``."""
    # The position embedding of the published class hard-codes this size.
    require_values(kwargs, patch_size=16)
    config = _plain_branch(kwargs, num_run, 'PIIPUniPerceiver', window=14)
    config['window_size'] = _windows(config)
    config['pretrain_img_size'] = kwargs.pop('pretrain_img_size', 224)
    refuse_rest(kwargs, 'a Uni-Perceiver branch')
    return config


def convnext_branch(kwargs: dict[str, Any], num_run: int | None = None) -> dict[str, Any]:
    """Config of a published ``ConvNextHFWrapper``, all of whose blocks must be run.

    Its geometry is ``arch``, see :func:`add_convnext_archs`, or the preset that the name
    ``pretrained`` stands for.
    """
    pretrained = pop_required(kwargs, 'pretrained')
    arch = kwargs.pop('arch', None) or _convnext_preset(pretrained)
    strides = convnext_strides(arch)
    if num_run not in (None, len(strides)):
        raise ValueError(
            f'{num_run} blocks of {pretrained!r} are run: only all {len(strides)} of '
            'them can be migrated'
        )
    ratios = kwargs.pop('downsample_ratios', None)
    if ratios is not None and list(ratios) != strides:
        raise ValueError(
            f'downsample_ratios {ratios} do not fit {pretrained!r}, whose blocks have '
            f'the strides {strides}'
        )
    config = dict(
        type='PIIPConvNeXt',
        arch=arch,
        img_size=kwargs.pop('img_size'),
        drop_path_rate=kwargs.pop('drop_path_rate', None) or 0.0,
    )
    discard(kwargs, 'cal_flops', 'single_branch')
    refuse_rest(kwargs, 'a ConvNeXt branch')
    return config


def convnext_strides(arch: str | Mapping[str, Any]) -> list[int]:
    """Stride in pixels after each block of a ConvNeXt."""
    return list(resolve_arch(arch, ConvNeXtArch, CONVNEXT_ARCHS).strides)


def add_convnext_archs(
    kwargs: Mapping[str, Any], archs: Mapping[str, Any]
) -> dict[str, Any]:
    """Add the geometries of ConvNeXt branches, which published arguments only name.

    Args:
        kwargs: Constructor arguments of a network or of a branch.
        archs: ``depths`` and ``hidden_sizes``, as in Hugging Face's configs, by the name
            of the weights.

    Returns:
        The arguments, with ``arch`` in those of every branch whose ``pretrained`` is one
        of the names.

    Raises:
        ValueError: If a geometry does not have these keys.
    """
    added = {
        key: add_convnext_archs(value, archs) if isinstance(value, Mapping) else value
        for key, value in kwargs.items()
    }
    name = kwargs.get('pretrained')
    if isinstance(name, str) and name in archs:
        if {'depths', 'hidden_sizes'} - set(archs[name]):
            raise ValueError(
                f'convnext_archs[{name!r}]={archs[name]}: expected depths and '
                'hidden_sizes'
            )
        added['arch'] = dict(
            depths=archs[name]['depths'], dims=archs[name]['hidden_sizes']
        )
    return added


def pyramid_strides(patch_size: int) -> list[float]:
    """Strides of the published pyramid: the patch size times 1/4, 1/2, 1 and 2."""
    return [
        patch_size * ratio if patch_size % 4 else int(patch_size * ratio)
        for ratio in (0.25, 0.5, 1, 2)
    ]


def _plain_branch(
    kwargs: dict[str, Any], num_run: int | None, kind: str, *, window: int
) -> dict[str, Any]:
    """Config from the arguments that all plain transformers share.

    Windows are returned as pairs of ``window_size`` and ``window_attn``, which the
    classes read differently; the drop path rate is that of a linear schedule.
    """
    depth = kwargs.pop('depth', VIT_DEPTH)
    if num_run is not None and num_run > depth:
        raise ValueError(f'there is no block {num_run - 1} in a branch of depth {depth}')
    num_run = num_run or depth
    windows = zip(
        pop_per_block(kwargs, 'window_size', depth, window),
        pop_per_block(kwargs, 'window_attn', depth, False),
        strict=True,
    )
    rate = kwargs.pop('drop_path_rate', 0.0)
    if num_run < depth:
        # The rates grow linearly over all blocks, including those that are not run.
        rate *= (num_run - 1) / (depth - 1)
    discard(kwargs, 'pretrained', 'pretrain_patch_size', 'cal_flops')
    return dict(
        type=kind,
        arch=dict(
            embed_dims=kwargs.pop('embed_dim', 768),
            num_layers=num_run,
            num_heads=kwargs.pop('num_heads', 12),
            mlp_ratio=kwargs.pop('mlp_ratio', 4.0),
        ),
        img_size=kwargs.pop('img_size'),
        patch_size=kwargs.pop('patch_size', 16),
        in_channels=kwargs.pop('in_chans', 3),
        window_size=list(windows)[:num_run],
        drop_path_rate=rate,
        with_cp=kwargs.pop('with_cp', False),
    )


def _windows(config: Mapping[str, Any]) -> list[int | None]:
    return [size if windowed else None for size, windowed in config['window_size']]


def _convnext_preset(pretrained: str) -> str:
    """Preset that a name like 'facebook/convnext-base-224-22k' stands for."""
    match = re.fullmatch(r'(?:.*/)?convnext-([a-z]+)-\d+(?:-22k)?(?:-1k)?', pretrained)
    if match is None:
        raise ValueError(
            f'pretrained={pretrained!r}: expected a name like '
            "'facebook/convnext-base-224', or one of convnext_archs"
        )
    return f'convnext_{match[1]}'
