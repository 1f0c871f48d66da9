"""Configs of backbones from the arguments of the published ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

from piip_mm.checks import check_choice

from .arguments import Argument, Table, ignored, only, refuse, translate
from .branches import (
    BranchConfig,
    PlainClass,
    beit_branch,
    deit_branch,
    internvit_branch,
    pyramid_strides,
    seg_internvit_branch,
    uniperceiver_branch,
)
from .convnext import convnext_branch, convnext_strides, single_convnext

#: Chooses the class of a branch by its arguments.
Choice: TypeAlias = Callable[[Mapping[str, Any]], BranchConfig]


def _group_ends(groups: Sequence[Sequence[int]]) -> list[int]:
    """Last block of each published group (first, last)."""
    if not groups or not all(groups):
        raise ValueError(
            f'interaction_indexes {groups}: expected at least one group, none of them '
            'empty'
        )
    start = 0
    for group in groups:
        if group[0] != start or group[-1] < start:
            raise ValueError(
                f'interaction_indexes {groups}: expected groups that follow each other, '
                'starting at block 0'
            )
        start = group[-1] + 1
    return [group[-1] for group in groups]


_NETWORK: Table = {
    'interact_attn_type': Argument(
        'interaction.attn', 'normal', {'normal': 'regular', 'deform': 'deform'}
    ),
    'norm_layer': Argument('interaction.norm', None, {'none': None, None: 'LN'}),
    'deform_num_heads': Argument('interaction.num_heads', 6),
    'with_cffn': Argument('with_cffn', False),
    'cffn_ratio': Argument('interaction.ffn_ratio', 0.25),
    'interaction_drop_path_rate': Argument('interaction.drop_path_rate', 0.3),
    'interaction_proj': Argument('interaction.proj', True),
    'n_points': Argument('interaction.num_points', 4),
    'deform_ratio': Argument('interaction.value_ratio', 1.0),
    'is_dino': Argument('is_dino', False),
    **ignored('pretrained', 'cal_flops'),
}
# Only one class can have a regular pyramid.
_WITH_PYRAMID: Table = {
    **_NETWORK,
    'with_simple_fpn': Argument('simple', True),
    'out_interaction_indexes': Argument('out_interactions', None, lambda x: x or []),
}
_IN_NETWORK: Table = {
    'interaction_indexes': Argument('ends', values=_group_ends),
    'real_size': Argument('size'),
    # A network does not use outputs of a branch's own.
    **ignored('with_fpn', 'out_indices', 'use_simple_fpn', 'output_dtype'),
}
_SINGLE: Table = {
    'out_indices': Argument('out_indices', [7, 11, 15, 23]),
    'with_fpn': Argument('with_fpn', False),
    'use_simple_fpn': Argument('simple', True),
    **only(output_dtype='float32', with_final_norm=False),
}


def branch_arguments(num_branches: int) -> Table:
    """The branches of a published network in our order, see ``published_names.py``."""
    names = (f'branch{k}' for k in range(num_branches, 0, -1))
    return {name: Argument(name) for name in names}


def piip(
    kwargs: Mapping[str, Any],
    num_branches: int,
    choose: Choice,
    options: Table = _NETWORK,
) -> dict[str, Any]:
    """Config of a published network of several branches.

    ``options`` describes its arguments except for the branches, whose classes ``choose``
    chooses.
    """
    table = branch_arguments(num_branches)
    config, rest = translate(kwargs, {**options, **table})
    refuse(rest, 'the network')
    simple, is_dino = config.pop('simple', True), config.pop('is_dino')
    if is_dino and not simple:
        raise ValueError('is_dino=True with with_simple_fpn=False cannot be migrated')
    taps = config.pop('out_interactions', [])
    branches: list[dict[str, Any]] = []
    ends: list[list[int]] = []
    for name in table:
        token = f'{name}_w_cls_token'
        place, branch = translate(
            config.pop(name), {**_IN_NETWORK, token: Argument('token', False)}
        )
        if place['token'] and 'deit' in (branch.get('pretrained') or ''):
            raise ValueError(
                f'{token}=True cannot be migrated for a DeiT branch: its position '
                'embedding has no row for a class token'
            )
        make_branch = choose(branch)
        if simple and make_branch is convnext_branch and not branches:
            raise ValueError(
                'with_simple_fpn=True with a ConvNeXt as the last branch cannot be '
                'migrated: the published network has upsamplers for plain transformers '
                'only; set with_simple_fpn=False and out_interaction_indexes'
            )
        size = place['size']
        if branches:
            # A branch whose size exceeds that of the last one sees its image unscaled.
            size = min(size, branches[0]['img_size'])
        # Blocks after the last group exist in the published code but are never run.
        branches.append(make_branch(branch, size, place['ends'][-1] + 1))
        ends.append(place['ends'])
    if branches[0]['type'] == 'PIIPConvNeXt':
        all_strides = convnext_strides(branches[0])
        strides = [all_strides[ends[0][tap]] for tap in (*taps, -1)]
    else:
        strides = pyramid_strides(branches[0]['patch_size'])
    interaction = config['interaction']
    if not config.pop('with_cffn'):
        interaction['ffn_ratio'] = None
    if interaction['attn'] == 'regular':
        del interaction['num_points'], interaction['value_ratio']
    if not simple:
        config['out_interactions'] = list(taps)
    return dict(
        type='PIIP',
        branches=branches,
        num_interactions=len(ends[0]),
        interaction_ends=ends,
        out_strides=strides[1:] if is_dino else strides,
        **config,
    )


def single(kwargs: Mapping[str, Any], branch: PlainClass) -> dict[str, Any]:
    """Config of a published backbone of one branch, which returns (B, C, H, W) maps."""
    options, rest = translate(kwargs, _SINGLE)
    depth = {'depth': 12, **branch.defaults, **kwargs}['depth']
    # The published code runs the blocks and keeps the maps of those in out_indices. It
    # fails if there are none; then the last block is what a reader expects.
    outputs = sorted({i for i in options['out_indices'] if 0 <= i < depth})
    if not outputs or branch is uniperceiver_branch:
        # Uni-Perceiver returns the tokens of its last block.
        outputs = [depth - 1]
    with_fpn = options['with_fpn']
    # These make all levels from the last output regardless of the option.
    if options['simple'] or (with_fpn and branch in (deit_branch, beit_branch)):
        outputs = outputs[-1:]
    if with_fpn and len(outputs) not in (1, 4):
        raise ValueError(
            f'out_indices={options["out_indices"]} with depth={depth} give the maps of '
            f'blocks {outputs}: expected one or four for a pyramid (with_fpn=True)'
        )
    config = branch(rest, None, outputs[-1] + 1)
    patch = config['patch_size']
    strides = pyramid_strides(patch) if with_fpn else [patch] * len(outputs)
    taps = dict(out_blocks=outputs) if len(outputs) > 1 else {}
    return dict(type='ViTPyramid', branch=config, out_strides=strides, norm='LN', **taps)


def as_coded(kwargs: Mapping[str, Any], variant: str) -> Mapping[str, Any]:
    """Arguments of the published four-branch class, as its code reads them.

    It builds branch 4 with the settings of branch 3, unless the variant is 'fixed' or
    'intended'; after a comma or colon come remarks.
    """
    variant = re.split('[:,)]', variant.lower().replace('-', ' '))[0].strip()
    check_choice('variant', variant, ('', 'as coded', 'fixed', 'intended'))
    if variant in ('fixed', 'intended'):
        return kwargs
    given, _ = translate(kwargs, {'branch4': Argument('branch4')})
    place, _ = translate(
        given['branch4'],
        {key: Argument(key) for key in ('real_size', 'interaction_indexes')},
    )
    return {**kwargs, 'branch4': {**kwargs.get('branch3', {}), **place}}


def _seg_three_branches(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    # This class takes the image of branch 2 and scales it up for branch 3.
    middle, high = (kwargs.get(f'branch{k}', {}).get('real_size') for k in (2, 3))
    if middle != high:
        raise ValueError(
            f'real_size {high} of branch 3 and {middle} of branch 2: the published class '
            'takes the image of branch 2 and scales it for the others, where PIIP takes '
            'the image of its first branch; only equal sizes can be migrated'
        )
    return piip(kwargs, 3, _SEG)


def _by_file_name(
    classes: Mapping[str, BranchConfig], branch: Mapping[str, Any]
) -> BranchConfig:
    """The first class whose key is part of the name of the weights."""
    name = branch.get('pretrained') or ''
    return next(make for part, make in classes.items() if part in name)


_DET = partial(_by_file_name, {'deit': deit_branch, '': internvit_branch})
_SEG = partial(_by_file_name, {'deit': deit_branch, '': seg_internvit_branch})
_ANY = partial(
    _by_file_name,
    {
        'deit': deit_branch,
        'beit': beit_branch,
        'perceiver': uniperceiver_branch,
        'convnext': convnext_branch,
        '': internvit_branch,
    },
)

#: Translations of backbones by code base and class.
BACKBONES: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    'det.PIIPTwoBranch': partial(piip, num_branches=2, choose=_DET),
    'det.PIIPThreeBranch': partial(
        piip, num_branches=3, choose=_ANY, options=_WITH_PYRAMID
    ),
    # It builds DeiT branches whatever the names of their weights.
    'det.PIIPFourBranch': partial(piip, num_branches=4, choose=lambda _: deit_branch),
    'seg.PIIPTwoBranch': partial(piip, num_branches=2, choose=_SEG),
    'seg.PIIPThreeBranch': _seg_three_branches,
    'det.vit_models': partial(single, branch=deit_branch),
    'det.InternViT6B': partial(single, branch=internvit_branch),
    'det.BEiT': partial(single, branch=beit_branch),
    'det.UnifiedBertEncoder': partial(single, branch=uniperceiver_branch),
    'det.ConvNextHFWrapper': single_convnext,
    'seg.vit_models': partial(single, branch=deit_branch),
    'seg.InternViT6B': partial(single, branch=seg_internvit_branch),
}
