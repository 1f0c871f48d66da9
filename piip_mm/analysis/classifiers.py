"""Parameters and FLOPs of classifiers; needs mmpretrain.

A head is added by a function registered at :func:`count_head`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch

import torch
from torch import nn

from piip_mm.models import PIIP
from piip_mm.models.heads import PIIPMergedHead, PIIPSeparateHead

from .backbones import Parts, Size, configured_shape, count_backbone
from .conventions import CONVENTIONS, Convention, Count
from .layers import linear_flops, map_flops, norm_flops, num_params


def count_classifier(model: nn.Module, shape: Size | None = None) -> dict[str, Parts]:
    """Count a classifier, backbone and head, in every convention.

    Args:
        model: From :func:`piip_mm.analysis.build_on_meta`.
        shape: As of :func:`piip_mm.analysis.count_backbone`.

    Returns:
        Counts by the name of the convention, then of the part.

    Raises:
        ValueError: If the input is too small, or there are no counting rules for the
            backbone, one of its branches, or the head.
    """
    backbone, head = model.get_submodule('backbone'), model.get_submodule('head')
    shape = shape or configured_shape(backbone)
    columns = count_backbone(backbone, shape)
    for convention in CONVENTIONS:
        grids = _grids(backbone, shape, convention)
        columns[convention.name] |= count_head(head, grids, convention)
    return columns


@singledispatch
def count_head(head: nn.Module, grids: Sequence[Size], convention: Convention) -> Parts:
    """Count a head in one convention.

    Args:
        head: The head.
        grids: (H, W) of the patch tokens of each branch.
        convention: What to count.

    Raises:
        ValueError: If there is no rule for the head.
    """
    known = sorted(c.__name__ for c in count_head.registry if c is not object)
    raise ValueError(
        f'cannot count a head of type {type(head).__name__!r}; supported: '
        f'{", ".join(known)}'
    )


@count_head.register
def _count_separate(
    head: PIIPSeparateHead, grids: Sequence[Size], convention: Convention
) -> Parts:
    parts: Parts = {}
    layers = zip(head.norms, head.classifiers, grids, strict=True)
    for index, (norm, classifier, (height, width)) in enumerate(layers):
        assert isinstance(classifier, nn.Linear)
        # The published code normalises all patches, whichever it classifies.
        is_one = not convention.own_sizes and head.token != 'mean'
        flops = norm_flops(norm, 1 if is_one else height * width)
        parts[f'head {index}'] = Count(
            num_params(norm) + num_params(classifier), flops + linear_flops(classifier, 1)
        )
    return parts


@count_head.register
def _count_merged(
    head: PIIPMergedHead, grids: Sequence[Size], convention: Convention
) -> Parts:
    parts: Parts = {}
    for index, (layers, dims, grid) in enumerate(
        zip(head.branches, head.in_channels, grids, strict=True)
    ):
        flops = 0
        for layer in list(layers.children()) or [layers]:
            if isinstance(layer, nn.Linear):
                flops += linear_flops(layer, grid[0] * grid[1])
                dims = layer.out_features
            else:
                flops += map_flops([layer], dims, grid, convention)
        # The scalar counts as a parameter of its branch.
        parts[f'head {index}'] = Count(num_params(layers) + 1, flops)
    flops = norm_flops(head.norm, grids[0][0] * grids[0][1])
    parts['classifier'] = Count(
        num_params(head.norm) + num_params(head.classifier),
        flops + linear_flops(head.classifier, 1),
    )
    return parts


def _grids(backbone: nn.Module, shape: Size, convention: Convention) -> list[Size]:
    """(H, W) of the patch tokens of each branch."""
    if isinstance(backbone, PIIP):
        image = torch.empty(1, 1, *shape, device='meta')
        sizes = [
            tuple(backbone.branch_image(image, index).shape[2:])
            for index in range(len(backbone.branches))
        ]
        branches = list(backbone.branches)
    else:
        sizes, branches = [shape], [backbone.get_submodule('branch')]
    if convention.own_sizes:
        sizes = [(branch.img_size, branch.img_size) for branch in branches]
    return [
        (height // branch.strides[-1], width // branch.strides[-1])
        for (height, width), branch in zip(sizes, branches, strict=True)
    ]
