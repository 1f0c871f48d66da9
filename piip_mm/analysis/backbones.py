"""Parameters and FLOPs of the backbones, by part.

A backbone is added by a function registered at :func:`count_parts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import singledispatch
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import nn

from piip_mm.models import PIIP, ViTPyramid
from piip_mm.models.branches import Branch

from .branches import count_branch
from .conventions import CONVENTIONS, Convention, Count
from .interactions import count_interactions
from .outputs import (
    count_classifier,
    count_classifier_merge,
    count_merge,
    count_pyramid,
)

#: (H, W) in pixels or in tokens.
Size = tuple[int, int]

#: Counts of the parts by name.
Parts = dict[str, Count]


def build_on_meta(cfg: Mapping[str, Any]) -> nn.Module:
    """Build a model without memory for its parameters, in evaluation mode.

    Args:
        cfg: Config of a backbone, or of a model that has one.

    Raises:
        ValueError: If there are no counting rules for the backbone.
    """
    name = cfg.get('backbone', cfg).get('type')
    if not isinstance(name, str):
        name = getattr(name, '__name__', name)
    if str(name).rpartition('.')[-1] not in _supported():
        raise _unsupported(name)
    with torch.device('meta'):
        return MODELS.build(dict(cfg)).eval()


def count_backbone(backbone: nn.Module, shape: Size | None = None) -> dict[str, Parts]:
    """Count a backbone in every convention.

    Args:
        backbone: From :func:`build_on_meta`.
        shape: (H, W) of the input in pixels, for the convention 'as run'; by default
            square, of the ``img_size`` of the (first) branch.

    Returns:
        Counts by the name of the convention (:data:`CONVENTIONS`), then of the part.

    Raises:
        ValueError: If the input is too small, or there are no counting rules for the
            backbone or for one of its branches.
    """
    shape = shape or configured_shape(backbone)
    return {
        convention.name: count_parts(backbone, shape, convention)
        for convention in CONVENTIONS
    }


def configured_shape(backbone: nn.Module) -> Size:
    """Square (H, W) of the ``img_size`` of the (first) branch."""
    size = _branches(backbone)[0].img_size
    return size, size


@singledispatch
def count_parts(backbone: nn.Module, shape: Size, convention: Convention) -> Parts:
    """Count a backbone in one convention; arguments as of :func:`count_backbone`."""
    raise _unsupported(type(backbone).__name__)


@count_parts.register
def _count_piip(network: PIIP, shape: Size, convention: Convention) -> Parts:
    branches = _branches(network)
    parts: Parts = {}
    grids = []
    for index, branch in enumerate(branches):
        if convention.own_sizes:
            seen = branch.img_size, branch.img_size
        else:
            seen = _resized(network, index, shape)
        body, attention, grid = count_branch(branch, seen, convention)
        parts |= {f'branch {index}': body, f'self-attention {index}': attention}
        grids.append(grid)
    parts['interactions'], parts['sampling core'] = count_interactions(
        network.interactions, [height * width for height, width in grids], convention
    )

    dims = [branch.dims[-1] for branch in branches]
    for name, layers in network.merge.branches.items():
        assert isinstance(layers, nn.Sequential)
        index = int(name)
        if convention.classifier:
            out_dims = dims[-1] if index < len(dims) - 1 else None
            merge = count_classifier_merge(dims[index], out_dims, grids[index])
        else:
            merge = count_merge(layers, dims[index], grids[index], convention)
        parts[f'merge {name}'] = merge

    if convention.classifier:
        parts['classifier'] = count_classifier(dims[-1], grids[0])
    else:
        pyramid = count_pyramid(network.pyramid, dims[-1], grids[0], convention)
        if not convention.network_pyramid:
            pyramid = Count(params=pyramid.params)
        parts['pyramid'] = pyramid
    return parts


@count_parts.register
def _count_vit_pyramid(network: ViTPyramid, shape: Size, convention: Convention) -> Parts:
    (branch,) = _branches(network)
    if convention.own_sizes:
        shape = configured_shape(network)
    enough = branch.min_size * network.pyramid.min_grid
    if min(shape) < enough:
        raise ValueError(
            f'input of {shape[0]} x {shape[1]} pixels is too small, use at least '
            f'{enough} pixels a side'
        )
    body, attention, grid = count_branch(branch, shape, convention)
    parts = {'branch': body, 'self-attention': attention}
    dims = branch.dims[-1]
    if convention.classifier:
        parts['classifier'] = count_classifier(dims, grid)
    else:
        parts['pyramid'] = count_pyramid(network.pyramid, dims, grid, convention)
    return parts


def _branches(backbone: nn.Module) -> list[Branch]:
    """The branches of a backbone, from high to low resolution."""
    match backbone:
        case PIIP():
            return list(backbone.branches)
        case ViTPyramid():
            return [backbone.branch]
        case _:
            raise _unsupported(type(backbone).__name__)


def _resized(network: PIIP, index: int, shape: Size) -> Size:
    """(H, W) in pixels of the image that a branch sees."""
    # The network itself says it; on the meta device nothing is computed.
    image = network.branch_image(torch.empty(1, 1, *shape, device='meta'), index)
    return image.shape[2], image.shape[3]


def _supported() -> list[str]:
    return sorted(c.__name__ for c in count_parts.registry if c is not object)


def _unsupported(name: object) -> ValueError:
    return ValueError(
        f'cannot count a backbone of type {name!r}; supported: {", ".join(_supported())}'
    )
