"""Constructor arguments of the published backbones to configs of ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from piip_mm.models.checks import check_choice


def _piip_config(
    kwargs: dict[str, Any],
    num_branches: int,
    branch_config: Callable[[dict[str, Any]], dict[str, Any]],
) -> dict[str, Any]:
    """Config of the published two-, three- and four-branch classes."""
    branches: list[dict[str, Any]] = []
    ends: list[list[int]] = []
    for k in range(num_branches, 0, -1):
        branch = dict(_take(kwargs, f'branch{k}'))
        indexes = _take(branch, 'interaction_indexes')
        _expect(branch, **{f'branch{k}_w_cls_token': False})
        # Branches of a larger size than the last one see its image as it is.
        size = _take(branch, 'real_size')
        branch['img_size'] = min(size, branches[0]['img_size']) if branches else size
        ends.append(_group_ends(indexes))
        # Blocks after the last group exist in the published code and are never run.
        _truncate(branch, ends[-1][-1] + 1)
        branches.append(branch_config(branch))
    is_dino = kwargs.pop('is_dino', False)
    attn = kwargs.pop('interact_attn_type', 'normal')
    check_choice('interact_attn_type', attn, ('normal', 'deform'))
    norm = kwargs.pop('norm_layer', None)
    check_choice('norm_layer', norm, ('none', None))
    interaction = dict(
        attn='deform' if attn == 'deform' else 'regular',
        num_heads=kwargs.pop('deform_num_heads', 6),
        ffn_ratio=kwargs.pop('cffn_ratio', 0.25),
        drop_path_rate=kwargs.pop('interaction_drop_path_rate', 0.3),
        proj=kwargs.pop('interaction_proj', True),
        norm=None if norm == 'none' else 'LN',
    )
    if not kwargs.pop('with_cffn', False):
        interaction['ffn_ratio'] = None
    deform = dict(
        num_points=kwargs.pop('n_points', 4), value_ratio=kwargs.pop('deform_ratio', 1.0)
    )
    if attn == 'deform':
        interaction.update(deform)
    _drop(kwargs, 'pretrained', 'cal_flops')
    _expect(kwargs, with_simple_fpn=True)
    # Read by the other pyramid only.
    _drop(kwargs, 'out_interaction_indexes')
    _refuse_rest(kwargs, 'the network')
    return dict(
        type='PIIP',
        branches=branches,
        interaction=interaction,
        num_interactions=len(ends[0]),
        interaction_ends=ends,
        out_strides=_pyramid_strides(branches[0]['patch_size'])[1 if is_dino else 0 :],
    )


def _four_branch_config(kwargs: dict[str, Any], variant: str) -> dict[str, Any]:
    as_coded = {'': True, 'as coded': True, 'fixed': False, 'intended': False}
    meaning = re.split('[:,)]', variant.lower().replace('-', ' '))[0].strip()
    if meaning not in as_coded:
        raise ValueError(
            f"unknown variant {meaning!r} of 'det.PIIPFourBranch'; choose one of "
            f'{", ".join(map(repr, as_coded))}'
        )
    if as_coded[meaning]:
        branch4 = dict(_take(kwargs, 'branch4'))
        own = {key: _take(branch4, key) for key in ('real_size', 'interaction_indexes')}
        kwargs['branch4'] = {**kwargs.get('branch3', {}), **own}
    # This class builds DeiT branches whatever their weights are called.
    return _piip_config(kwargs, 4, _deit_branch_config)


def _single_vit_config(kwargs: dict[str, Any], variant: str) -> dict[str, Any]:
    """Config of a published DeiT on its own."""
    out_indices = kwargs.pop('out_indices', [7, 11, 15, 23])
    with_fpn = kwargs.pop('with_fpn', False)
    simple = kwargs.pop('use_simple_fpn', True)
    depth = kwargs.get('depth', 12)
    # The published code goes through the blocks and keeps the map of the last one named.
    outputs = sorted(index for index in out_indices if 0 <= index < depth)
    if not outputs or not (with_fpn or simple or len(outputs) == 1):
        raise ValueError(
            f'out_indices={out_indices} with depth={depth}, with_fpn={with_fpn} and '
            f'use_simple_fpn={simple}: only the map of one block, or a pyramid of it, '
            'can be migrated'
        )
    _expect(kwargs, output_dtype='float32')
    kwargs['img_size'] = kwargs.get('pretrain_img_size', 224)
    _truncate(kwargs, outputs[-1] + 1)
    branch = _vit_config(kwargs)
    patch_size = branch['patch_size']
    strides = _pyramid_strides(patch_size) if with_fpn else (patch_size,)
    return dict(type='ViTPyramid', branch=branch, out_strides=strides, norm='LN')


def _branch_config(kwargs: dict[str, Any]) -> dict[str, Any]:
    # The published code takes the class of a branch from the name of its weights.
    pretrained = kwargs.get('pretrained') or ''
    if 'deit' not in pretrained:
        raise ValueError(
            f'branch with pretrained={pretrained!r}: only the DeiT family can be migrated'
        )
    return _deit_branch_config(kwargs)


def _deit_branch_config(kwargs: dict[str, Any]) -> dict[str, Any]:
    # The network reads none of a branch's own outputs.
    _drop(kwargs, 'with_fpn', 'out_indices', 'use_simple_fpn', 'output_dtype')
    return _vit_config(kwargs)


def _vit_config(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Config of a published DeiT as a branch."""
    depth = kwargs.pop('depth', 12)
    mlp = kwargs.pop('Mlp_block', None)
    check_choice('Mlp_block', mlp, ('fused_mlp', None))
    config = dict(
        type='PIIPViT',
        arch=dict(
            embed_dims=kwargs.pop('embed_dim', 768),
            num_layers=depth,
            num_heads=kwargs.pop('num_heads', 12),
            mlp_ratio=kwargs.pop('mlp_ratio', 4.0),
            qkv_bias=kwargs.pop('qkv_bias', False),
            init_values=kwargs.pop('init_scale', 1e-4),
        ),
        img_size=kwargs.pop('img_size'),
        patch_size=kwargs.pop('patch_size', 16),
        in_channels=kwargs.pop('in_chans', 3),
        pretrain_img_size=kwargs.pop('pretrain_img_size', 224),
        window_size=[
            size if windowed is True and size > 0 else None
            for size, windowed in zip(
                kwargs.pop('window_size', None) or [-1] * depth,
                kwargs.pop('window_attn', None) or [False] * depth,
                strict=True,
            )
        ],
        window_pad='zero_input' if kwargs.pop('use_flash_attn', False) else 'zero_qkv',
        drop_path_rate=kwargs.pop('drop_path_rate', 0.0),
        mlp_act='gelu_tanh' if mlp == 'fused_mlp' else 'gelu',
        with_cp=kwargs.pop('with_cp', False),
    )
    _drop(
        kwargs,
        'pretrained',
        'pretrain_patch_size',
        'use_cls_token',
        'cal_flops',
        'drop_rate',
    )
    _expect(kwargs, attn_drop_rate=0.0, qk_scale=None)
    _refuse_rest(kwargs, 'a DeiT branch')
    return config


def _truncate(kwargs: dict[str, Any], depth: int) -> None:
    """Cut a published branch down to its first blocks."""
    blocks = kwargs.get('depth', 12)
    if depth > blocks:
        raise ValueError(f'there is no block {depth - 1} in a branch of depth {blocks}')
    kwargs['depth'] = depth
    for key in ('window_size', 'window_attn'):
        values = kwargs.get(key)
        if values is None:
            continue
        if not isinstance(values, Sequence) or len(values) != blocks:
            raise ValueError(f'{key}={values}: expected {blocks} values, one a block')
        kwargs[key] = values[:depth]


def _pyramid_strides(patch_size: int) -> tuple[float, ...]:
    """Strides of the published pyramid: the patch over 4, 2, 1 and 1/2."""
    return tuple(
        patch_size * ratio if patch_size % 4 else int(patch_size * ratio)
        for ratio in (0.25, 0.5, 1, 2)
    )


def _take(kwargs: dict[str, Any], name: str) -> Any:
    if name not in kwargs:
        raise ValueError(
            f'the published arguments have no {name!r}, only {sorted(kwargs)}'
        )
    return kwargs.pop(name)


def _group_ends(indexes: Sequence[Sequence[int]]) -> list[int]:
    """Last block of each published group (first, last)."""
    start = 0
    for group in indexes:
        if group[0] != start or group[-1] < start:
            raise ValueError(
                f'interaction_indexes {indexes}: expected groups that follow each other '
                'from block 0'
            )
        start = group[-1] + 1
    return [group[-1] for group in indexes]


def _drop(kwargs: dict[str, Any], *names: str) -> None:
    """Forget arguments that do not change what the network computes."""
    for name in names:
        kwargs.pop(name, None)


def _expect(kwargs: dict[str, Any], **values: Any) -> None:
    """Take arguments out that are supported at one value only."""
    for name, value in values.items():
        given = kwargs.pop(name, value)
        if given != value:
            raise ValueError(
                f'{name}={given!r} cannot be migrated, only {name}={value!r}'
            )


def _refuse_rest(kwargs: dict[str, Any], where: str) -> None:
    if kwargs:
        raise ValueError(f'arguments of {where} that cannot be migrated: {kwargs}')


#: Translations by code base and class; called with the arguments and the text after '('.
KINDS: dict[str, Callable[[dict[str, Any], str], dict[str, Any]]] = {
    'det.PIIPTwoBranch': lambda kwargs, _: _piip_config(kwargs, 2, _branch_config),
    'det.PIIPThreeBranch': lambda kwargs, _: _piip_config(kwargs, 3, _branch_config),
    'det.PIIPFourBranch': _four_branch_config,
    'det.vit_models': _single_vit_config,
}
