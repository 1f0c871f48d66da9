"""Configs of networks from the arguments of the published multi-branch networks."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from piip_mm.checks import check_choice

from .arguments import discard, pop_required, refuse_rest
from .branches import (
    BranchConfig,
    beit_branch,
    convnext_branch,
    deit_branch,
    internvit_branch,
    pyramid_strides,
    uniperceiver_branch,
)

#: Arguments about a branch's own outputs, which a network does not use.
_OWN_OUTPUTS = ('with_fpn', 'out_indices', 'use_simple_fpn', 'output_dtype')

#: The published networks choose the class of a branch by the first of these strings that
#: the name of its weights contains; if there is none, it is an InternViT6B.
_FAMILIES: dict[str, BranchConfig] = {
    'deit': deit_branch,
    'beit': beit_branch,
    'perceiver': uniperceiver_branch,
    'convnext': convnext_branch,
}


def _branch_by_name(kwargs: dict[str, Any], depth: int | None) -> dict[str, Any]:
    """Config of a branch whose class is chosen by the name of its weights."""
    pretrained = kwargs.get('pretrained') or ''
    for part, config in _FAMILIES.items():
        if part in pretrained:
            return config(kwargs, depth)
    return internvit_branch(kwargs, depth)


def _deit_or_internvit(kwargs: dict[str, Any], depth: int | None) -> dict[str, Any]:
    """The same for the networks that only know these two families."""
    return (deit_branch if _is_deit(kwargs) else internvit_branch)(kwargs, depth)


def _is_deit(branch: Mapping[str, Any]) -> bool:
    return 'deit' in (branch.get('pretrained') or '')


def piip_config(
    kwargs: dict[str, Any],
    num_branches: int,
    branch_config: BranchConfig,
) -> dict[str, Any]:
    """Config of a published network of two, three or four branches.

    Args:
        kwargs: Constructor arguments.
        num_branches: Number of branches.
        branch_config: Translates the arguments of one branch, whose position embedding is
            stored for its ``pretrain_img_size``.

    Raises:
        ValueError: If an argument is missing or cannot be migrated.
    """
    branches: list[dict[str, Any]] = []
    ends: list[list[int]] = []
    strides: list[float] = []
    # Only the class that knows all families has a regular pyramid.
    knows_regular = branch_config is _branch_by_name
    regular = knows_regular and not kwargs.pop('with_simple_fpn', True)
    taps = (knows_regular and kwargs.pop('out_interaction_indexes', None)) or []
    for k in range(num_branches, 0, -1):
        branch = dict(pop_required(kwargs, f'branch{k}'))
        indexes = pop_required(branch, 'interaction_indexes')
        if branch.pop(f'branch{k}_w_cls_token', False) and _is_deit(branch):
            raise ValueError(
                f'branch{k}_w_cls_token=True cannot be migrated for a DeiT branch: its '
                'position embedding has no row for a class token'
            )
        # Branches whose size exceeds that of the last one see its image unscaled.
        size = pop_required(branch, 'real_size')
        branch['img_size'] = min(size, branches[0]['img_size']) if branches else size
        discard(branch, *_OWN_OUTPUTS)
        ends.append(_group_ends(indexes))
        if not branches:
            strides = _strides(branch, [ends[0][tap] for tap in (*taps, -1)], regular)
        # Blocks after the last group exist in the published code but are never run.
        branches.append(branch_config(branch, ends[-1][-1] + 1))
    is_dino = kwargs.pop('is_dino', False)
    config = dict(
        type='PIIP',
        branches=branches,
        interaction=interaction_config(kwargs),
        num_interactions=len(ends[0]),
        interaction_ends=ends,
        out_strides=strides[1:] if is_dino else strides,
    )
    if regular:
        if is_dino:
            raise ValueError('is_dino=True with with_simple_fpn=False cannot be migrated')
        config['out_interactions'] = list(taps)
    discard(kwargs, 'pretrained', 'cal_flops')
    refuse_rest(kwargs, 'the network')
    return config


def interaction_config(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Options of the interactions, removed from the arguments of a network."""
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
    return interaction


def _four_branch_config(kwargs: dict[str, Any], variant: str) -> dict[str, Any]:
    as_coded = {'': True, 'as coded': True, 'fixed': False, 'intended': False}
    choice = re.split('[:,)]', variant.lower().replace('-', ' '))[0].strip()
    if choice not in as_coded:
        raise ValueError(
            f"unknown variant {choice!r} of 'det.PIIPFourBranch'; choose one of "
            f'{", ".join(map(repr, as_coded))}'
        )
    if as_coded[choice]:
        branch4 = dict(pop_required(kwargs, 'branch4'))
        kept = {
            key: pop_required(branch4, key)
            for key in ('real_size', 'interaction_indexes')
        }
        kwargs['branch4'] = {**kwargs.get('branch3', {}), **kept}
    # This class builds DeiT branches regardless of the names of their weights.
    return piip_config(kwargs, 4, deit_branch)


def _seg_config(kwargs: dict[str, Any], num_branches: int) -> dict[str, Any]:
    """Config of a published network for segmentation."""
    for k in range(1, num_branches + 1):
        branch = kwargs[f'branch{k}'] = dict(pop_required(kwargs, f'branch{k}'))
        if not _is_deit(branch):
            # Its positions are stored for img_size, DeiT's for pretrain_img_size.
            branch['pretrain_img_size'] = branch.get('img_size', 224)
    return piip_config(kwargs, num_branches, _deit_or_internvit)


def _seg_three_branch_config(kwargs: dict[str, Any]) -> dict[str, Any]:
    # This class takes the image of branch 2 and scales it up for branch 3.
    middle, high = (
        pop_required(dict(pop_required(dict(kwargs), f'branch{k}')), 'real_size')
        for k in (2, 3)
    )
    if middle != high:
        raise ValueError(
            f'real_size {high} of branch 3 and {middle} of branch 2: the published class '
            'takes the image of branch 2 and scales it for the others, where PIIP takes '
            'the image of its first branch; only equal sizes can be migrated'
        )
    return _seg_config(kwargs, 3)


def _strides(
    branch: Mapping[str, Any], outputs: Sequence[int], regular: bool
) -> list[float]:
    """Strides of the output maps, from the arguments of the branch that makes them.

    Args:
        branch: Arguments of the published last branch.
        outputs: Its blocks whose maps are merged.
        regular: Whether the pyramid is a regular one.

    Raises:
        ValueError: If the branch is a ConvNeXt and the pyramid is not.
    """
    if 'downsample_ratios' in branch:
        if not regular:
            raise ValueError(
                'with_simple_fpn=True with a ConvNeXt as the last branch cannot be '
                'migrated: the published network has upsamplers for plain transformers '
                'only; set with_simple_fpn=False and out_interaction_indexes'
            )
        return [branch['downsample_ratios'][block] for block in outputs]
    return pyramid_strides(branch.get('patch_size', 16))


def _group_ends(indexes: Sequence[Sequence[int]]) -> list[int]:
    """Last block of each published group (first, last)."""
    start = 0
    if not indexes or not all(indexes):
        raise ValueError(
            f'interaction_indexes {indexes}: expected at least one group, none of them '
            'empty'
        )
    for group in indexes:
        if group[0] != start or group[-1] < start:
            raise ValueError(
                f'interaction_indexes {indexes}: expected groups that follow each other, '
                'starting at block 0'
            )
        start = group[-1] + 1
    return [group[-1] for group in indexes]


#: Translations by code base and class, called with the arguments and the variant: the
#: text after '(' in the kind.
NETWORK_KINDS: dict[str, Callable[[dict[str, Any], str], dict[str, Any]]] = {
    'det.PIIPTwoBranch': lambda kwargs, _: piip_config(kwargs, 2, _deit_or_internvit),
    'det.PIIPThreeBranch': lambda kwargs, _: piip_config(kwargs, 3, _branch_by_name),
    'det.PIIPFourBranch': _four_branch_config,
    'seg.PIIPTwoBranch': lambda kwargs, _: _seg_config(kwargs, 2),
    'seg.PIIPThreeBranch': lambda kwargs, _: _seg_three_branch_config(kwargs),
}
