"""Parameters and FLOPs of the backbones, by part.

A backbone is added by a function registered at :func:`count_parts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import singledispatch
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import nn

from piip_mm.models import PIIP, ViTPyramid
from piip_mm.models.branches import Branch, PIIPViT
from piip_mm.models.merging import BranchMerge

from .branches import count_branch
from .conventions import CONVENTIONS, RELEASED, Convention, Count
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
    if len(network.merge_stages) > 1 and convention.classifier:
        # There is no classifier with these; their published counts are of the detector.
        convention = RELEASED
    parts: Parts = {}
    grids = []
    for index, branch in enumerate(branches):
        if convention.own_sizes:
            seen = branch.img_size, branch.img_size
        else:
            seen = _resized(network, index, shape)
        body, attention, branch_grids = count_branch(branch, seen, convention)
        parts |= {f'branch {index}': body, f'self-attention {index}': attention}
        # After each group of blocks; a branch may end before the others.
        ends = network.ends[index]
        missing = len(network.ends[0]) - len(ends)
        grids.append([branch_grids[end] for end in (*ends, *ends[-1:] * missing)])
    parts['interactions'], parts['sampling core'] = count_interactions(
        network.interactions,
        [
            [height * width for height, width in stage]
            for stage in list(zip(*grids, strict=True))[: len(network.interactions)]
        ],
        convention,
    )
    if network.out_type == 'pyramid':
        parts |= _count_outputs(network, grids, convention)
    return parts


def _count_outputs(
    network: PIIP, grids: Sequence[Sequence[Size]], convention: Convention
) -> Parts:
    """Merges and pyramid of a network, or what the published counts have instead.

    Args:
        network: The network.
        grids: For each branch the (H, W) of its tokens after each group of blocks.
        convention: What to count.
    """
    branches = _branches(network)
    dims = [branch.dims[-1] for branch in branches]
    parts: Parts = {}
    for stage, merge in zip(network.merge_stages, network.merges, strict=True):
        assert isinstance(merge, BranchMerge)
        for name, layers in merge.branches.items():
            index = int(name)
            assert isinstance(layers, nn.Sequential)
            if convention.classifier:
                out_dims = dims[-1] if index < len(dims) - 1 else None
                count = count_classifier_merge(dims[index], out_dims, grids[index][stage])
            else:
                width = branches[index].dims[network.ends[index][stage]]
                count = count_merge(layers, width, grids[index][stage], convention)
            key = f'merge {name}'
            parts[key] = parts.get(key, Count()) + count
    if convention.classifier:
        parts['classifier'] = count_classifier(dims[-1], grids[0][-1])
        return parts
    merged = [grids[0][stage] for stage in network.merge_stages]
    pyramid = count_pyramid(network.pyramid, merged, convention)
    if not convention.network_pyramid:
        pyramid = Count(params=pyramid.params)
    return parts | {'pyramid': pyramid}


@count_parts.register
def _count_vit_pyramid(network: ViTPyramid, shape: Size, convention: Convention) -> Parts:
    (branch,) = _branches(network)
    if convention.own_sizes:
        shape = configured_shape(network)
    if len(set(network.out_blocks)) > 1 and convention.classifier:
        convention = RELEASED
    min_grid = network.pyramid.min_grid if network.out_type == 'pyramid' else 1
    enough = branch.min_size * min_grid
    if min(shape) < enough:
        raise ValueError(
            f'input of {shape[0]} x {shape[1]} pixels is too small, use at least '
            f'{enough} pixels a side'
        )
    body, attention, grids = count_branch(branch, shape, convention)
    parts = {'branch': body, 'self-attention': attention}
    if network.out_type == 'pyramid' and convention.classifier:
        rms = isinstance(branch, PIIPViT) and branch.arch.norm == 'RMS'
        parts['classifier'] = count_classifier(branch.dims[-1], grids[-1], rms=rms)
    elif network.out_type == 'pyramid':
        out_grids = [grids[block] for block in network.out_blocks]
        parts['pyramid'] = count_pyramid(network.pyramid, out_grids, convention)
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
