"""Arguments of the published ConvNeXt to configs of ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from piip_mm.models.branches.convnext import resolve_convnext_arch

from .arguments import drop, expect, refuse_rest, take


def add_archs(kwargs: Mapping[str, Any], archs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments in which what stands behind names of ConvNeXt weights is written out.

    Args:
        kwargs: Constructor arguments of a network or of a branch.
        archs: ``depths`` and ``hidden_sizes``, as in Hugging Face's configs, by name.

    Raises:
        ValueError: If a mapping has not these keys.
    """
    added = {
        key: add_archs(value, archs) if isinstance(value, Mapping) else value
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


def convnext_branch(kwargs: dict[str, Any], depth: int | None = None) -> dict[str, Any]:
    """Config of a published ``ConvNextHFWrapper`` as a branch.

    Args:
        kwargs: Constructor arguments, with ``img_size`` the side of the branch's image,
            perhaps from :func:`add_archs`.
        depth: Number of blocks that are run, which has to be all; None for all.

    Raises:
        ValueError: If nothing is known by the name of the weights or an argument cannot
            be migrated.
    """
    pretrained = take(kwargs, 'pretrained')
    arch = kwargs.pop('arch', None) or _arch_by_name(pretrained)
    strides = list(resolve_convnext_arch(arch).strides)
    if depth not in (None, len(strides)):
        raise ValueError(
            f'{depth} blocks of {pretrained!r} are run: only all of them, '
            f'{len(strides)}, can be migrated'
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
    drop(kwargs, 'cal_flops', 'single_branch')
    refuse_rest(kwargs, 'a ConvNeXt branch')
    return config


def single_convnext_config(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Config of a published ``ConvNextHFWrapper`` as a backbone of its own.

    Raises:
        ValueError: If it is not one, or an argument cannot be migrated.
    """
    single = kwargs.pop('single_branch', False)
    if not single:
        raise ValueError(
            f'single_branch={single}: the published ConvNeXt runs on its own with '
            'single_branch=True only'
        )
    expect(kwargs, with_simple_fpn=False)
    kwargs['img_size'] = take(kwargs, 'real_size')
    branch = convnext_branch(kwargs)
    strides = resolve_convnext_arch(branch['arch']).strides
    last_blocks = {stride: block for block, stride in enumerate(strides)}
    return dict(
        type='ViTPyramid',
        branch=branch,
        out_strides=list(last_blocks),
        out_blocks=list(last_blocks.values()),
    )


def _arch_by_name(pretrained: str) -> str:
    """Preset that a name like 'facebook/convnext-base-224-22k' stands for."""
    match = re.fullmatch(r'(?:.*/)?convnext-([a-z]+)-\d+(?:-22k)?(?:-1k)?', pretrained)
    if match is None:
        raise ValueError(
            f'pretrained={pretrained!r}: expected a name like '
            "'facebook/convnext-base-224', or one of convnext_archs"
        )
    return f'convnext_{match[1]}'
