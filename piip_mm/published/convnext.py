"""The published ConvNeXt, whose arguments only name its geometry."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from piip_mm.models.branches import CONVNEXT_ARCHS, ConvNeXtArch
from piip_mm.models.branches.geometry import resolve_arch

from .arguments import Argument, Table, ignored, only, refuse, translate

_TABLE: Table = {
    'pretrained': Argument('pretrained'),
    'arch': Argument('arch', None),
    'downsample_ratios': Argument('ratios', None),
    'drop_path_rate': Argument('drop_path_rate', 0.0, lambda rate: rate or 0.0),
    **ignored('img_size', 'cal_flops', 'single_branch'),
}
_SINGLE: Table = {
    'single_branch': Argument('single_branch', False),
    'real_size': Argument('img_size'),
    **only(with_simple_fpn=False),
}


def add_archs(kwargs: Mapping[str, Any], archs: Mapping[str, Any]) -> dict[str, Any]:
    """Add an ``arch`` to every branch whose weights have a name in ``archs``.

    Raises:
        ValueError: If a geometry lacks ``depths`` or ``hidden_sizes``.
    """
    added = {
        key: add_archs(value, archs) if isinstance(value, Mapping) else value
        for key, value in kwargs.items()
    }
    name = kwargs.get('pretrained')
    if isinstance(name, str) and name in archs:
        arch = archs[name]
        if {'depths', 'hidden_sizes'} - set(arch):
            raise ValueError(
                f'convnext_archs[{name!r}]={arch}: expected depths and hidden_sizes'
            )
        added['arch'] = dict(depths=arch['depths'], dims=arch['hidden_sizes'])
    return added


def convnext_branch(
    kwargs: Mapping[str, Any], img_size: float | None, num_run: int | None
) -> dict[str, Any]:
    """Config of a ``ConvNextHFWrapper``, all of whose blocks must be run."""
    config, rest = translate(kwargs, _TABLE)
    refuse(rest, 'a ConvNeXt branch')
    pretrained, ratios = config.pop('pretrained'), config.pop('ratios')
    config['arch'] = config['arch'] or _preset(pretrained)
    strides = convnext_strides(config)
    if num_run not in (None, len(strides)):
        raise ValueError(
            f'{num_run} blocks of {pretrained!r} are run: only all {len(strides)} of '
            'them can be migrated'
        )
    if ratios is not None and list(ratios) != strides:
        raise ValueError(
            f'downsample_ratios {ratios} do not fit {pretrained!r}, whose blocks have '
            f'the strides {strides}'
        )
    return {'type': 'PIIPConvNeXt', 'img_size': img_size, **config}


def convnext_strides(branch: Mapping[str, Any]) -> list[int]:
    """Stride in pixels after each block, from the config of the branch."""
    return list(resolve_arch(branch['arch'], ConvNeXtArch, CONVNEXT_ARCHS).strides)


def single_convnext(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Config of a ``ConvNextHFWrapper`` that is a backbone on its own."""
    config, rest = translate(kwargs, _SINGLE)
    if not config['single_branch']:
        raise ValueError(
            f'single_branch={config["single_branch"]}: the published ConvNeXt only runs '
            'on its own with single_branch=True'
        )
    branch = convnext_branch(rest, config['img_size'], None)
    last_blocks = {s: block for block, s in enumerate(convnext_strides(branch))}
    return dict(
        type='ViTPyramid',
        branch=branch,
        out_strides=list(last_blocks),
        out_blocks=list(last_blocks.values()),
    )


def _preset(pretrained: str) -> str:
    """Preset that a name like 'facebook/convnext-base-224-22k' stands for."""
    match = re.fullmatch(r'(?:.*/)?convnext-([a-z]+)-\d+(?:-22k)?(?:-1k)?', pretrained)
    if match is None:
        raise ValueError(
            f'pretrained={pretrained!r}: expected a name like '
            "'facebook/convnext-base-224', or one of convnext_archs"
        )
    return f'convnext_{match[1]}'
