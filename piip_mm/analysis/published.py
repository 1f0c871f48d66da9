"""The three columns of a report: what runs, and two published ways to count it.

The published counts are those of a measured run, corrected. Each correction has a closed
form and says why it exists. They concern the families that the published code has: a
branch of any other family has the same counts in all columns.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from piip_mm.models import PIIP, PIIPBEiT, PIIPConvNeXt, PIIPUniPerceiver, PIIPViT
from piip_mm.models.branches import Branch
from piip_mm.models.layers import DeformableCrossAttention, SelfAttention
from piip_mm.models.pyramid import Pyramid

from . import measure
from .measure import Count, Flops, Parts, Size, add, attention_of, part_of

PUBLISHED, RELEASED, RUN = 'as published', 'as released', 'as run'

#: What the columns mean, in their order, for the reports.
COLUMNS = {
    PUBLISHED: 'the convention of the papers: the backbone with a classification merge '
    'and a head of 1000 classes, without pyramid, at its square configured size',
    RELEASED: 'the backbone of the released checkpoints as the published code computes '
    'it, at its square configured size: query, key and value of padded window tokens '
    'included, FLOPs of the pyramid excluded (included for a single branch)',
    RUN: 'the backbone as this implementation executes it for the given input, pyramid '
    'included; one token stands for the padding of a window',
}

_LAYER_NORM = torch.ops.aten.native_layer_norm
_SAMPLING = torch.ops.aten.grid_sampler_2d

# Of the sampling core and of the classifier in the published counts.
_NUM_POINTS = 4
_NUM_CLASSES = 1000


def count_backbone(backbone: nn.Module, shape: Size | None = None) -> dict[str, Parts]:
    """Count a backbone.

    Args:
        backbone: ``PIIP`` or ``ViTPyramid``, on any device.
        shape: (H, W) of the input in pixels, for the column 'as run'; by default square,
            of the ``img_size`` of the (first) branch.

    Returns:
        Counts by column (:data:`COLUMNS`), then by part.

    Raises:
        ValueError: If the input is too small, or the backbone is of another type.
    """
    return _count(shape, backbone=backbone)


def count_classifier(model: nn.Module, shape: Size | None = None) -> dict[str, Parts]:
    """Count backbone and head of mmpretrain's classifiers, as :func:`count_backbone`."""
    backbone, head = model.get_submodule('backbone'), model.get_submodule('head')
    return _count(shape, backbone=backbone, head=head)


def _count(shape: Size | None, **modules: nn.Module) -> dict[str, Parts]:
    backbone = measure.check_backbone(modules['backbone'])
    shape = shape or measure.configured_shape(backbone)
    model = measure.copy_to_meta(nn.Sequential(OrderedDict(modules)))
    seen = measure.branch_images(model.backbone, shape)
    own = measure.branch_images(model.backbone)
    run, flops = measure.trace(model, own)
    columns = {PUBLISHED: dict(run), RELEASED: dict(run), RUN: run}
    if [image.shape for image in seen] != [image.shape for image in own]:
        columns[RUN], _ = measure.trace(model, seen)
    # There is no classifier with a regular pyramid: what is published is the detector.
    published = RELEASED if _has_regular_pyramid(model.backbone) else PUBLISHED
    for column, corrections in ((PUBLISHED, published), (RELEASED, RELEASED)):
        for correct in _CORRECTIONS[corrections]:
            correct(columns[column], model, flops)
    return columns


def _has_regular_pyramid(backbone: Any) -> bool:
    maps = backbone.merge_stages if isinstance(backbone, PIIP) else backbone.out_blocks
    return len(set(maps)) > 1


# The corrections take the counts by part, which they change, the model, and the FLOPs by
# module of a run in which each branch has an image of its configured size.


def project_padding(
    parts: Parts, model: Any, flops: Flops, *, of_deit: bool = True
) -> None:
    """Published blocks project query, key and value of all window padding, here one token
    of each window or none. Only the published class of DeiT, which stores no position of
    the class token, has a second form without any, which the papers count.
    """
    for part, branch, layer in _self_attentions(model):
        is_deit = isinstance(branch, PIIPViT) and not branch.arch.cls_pos_row
        window = layer.window_size if layer.window_pad == 'zero_input' else None
        if window is not None:
            side = _grid_side(branch)
            full, cut_off = divmod(side, window)
            windows = full + bool(cut_off)
            run = 0 if isinstance(branch, PIIPBEiT) else windows**2 - full**2
            published = (windows * window) ** 2 - side**2
            if is_deit and not of_deit:
                published = 0
            add(parts, part, flops=(published - run) * layer.qkv.weight.numel())


def attend_to_patches_only(parts: Parts, model: Any, flops: Flops) -> None:
    """The published products of attention contain neither window padding nor prefix
    tokens."""
    products: Parts = {}
    for part, branch, layer in _self_attentions(model):
        num_queries = _grid_side(branch) ** 2
        num_keys = layer.window_size**2 if layer.window_size else num_queries
        of_layer = 2 * num_queries * num_keys * layer.proj.in_features
        add(products, attention_of(part), flops=of_layer)
    parts.update(products)


def sample_nominal_points(parts: Parts, model: Any, flops: Flops) -> None:
    """The published sampling core takes 4 points of the queries' full width, regardless
    of the number of points and the width of the values."""
    for name, layer in model.named_modules():
        if isinstance(layer, DeformableCrossAttention):
            dims, value_dims = layer.output_proj.weight.shape
            run = flops[name][_SAMPLING]
            nominal = run // (layer.num_points * value_dims) * _NUM_POINTS * dims
            add(parts, attention_of(part_of(name)), flops=nominal - run)


def leave_out_norms_of_maps(parts: Parts, model: Any, flops: Flops) -> None:
    """The published scripts do not see the LayerNorms of ConvNeXt and of the pyramid of a
    single branch, which are of classes of their own there."""
    for name, module in model.named_modules():
        if isinstance(module, (PIIPConvNeXt, Pyramid)):
            add(parts, part_of(name), flops=-flops[name][_LAYER_NORM])


def leave_out_flops_of_pyramid(parts: Parts, model: Any, flops: Flops) -> None:
    """A published network of several branches skips its pyramid when it is counted."""
    if isinstance(model.backbone, PIIP) and 'pyramid' in parts:
        parts['pyramid'] = Count(params=parts['pyramid'].params)


def normalise_all_patches(parts: Parts, model: Any, flops: Flops) -> None:
    """The published heads of branches normalise all patches, then read one token."""
    head: Any = getattr(model, 'head', None)
    # By name, because importing the class takes mmpretrain.
    if type(head).__name__ == 'PIIPSeparateHead' and head.token != 'mean':
        for index, branch in enumerate(model.backbone.branch_list):
            of_one = flops[f'head.norms.{index}'][_LAYER_NORM]
            add(parts, f'head {index}', flops=of_one * (_grid_side(branch) ** 2 - 1))


def store_positions_of_image(parts: Parts, model: Any, flops: Flops) -> None:
    """The published parameters hold positions for the branch's image, the released ones
    for that of the pretraining."""
    for name, branch in model.named_modules():
        if isinstance(branch, (PIIPUniPerceiver, PIIPViT)):
            height, width = branch.pos_grid
            num_rows = _grid_side(branch) ** 2 - height * width
            add(parts, part_of(name), params=num_rows * branch.dims[0])


def classify(parts: Parts, model: Any, flops: Flops) -> None:
    """The published numbers are of a classifier of 1000 classes: without pyramid, and
    with a linear layer between norms instead of the convolutions of a merge."""
    backbone = model.backbone
    if backbone.out_type != 'pyramid':
        return
    del parts['pyramid']
    branches = backbone.branch_list
    out_dims = branches[-1].dims[-1]
    final_norm = _norm(out_dims, _grid_side(branches[0]) ** 2)
    if isinstance(backbone, PIIP):
        for name in backbone.merges[0].branches:
            branch = branches[int(name)]
            dims, num_patches = branch.dims[-1], _grid_side(branch) ** 2
            # The scalar of the branch is a parameter.
            merge = Count(params=1) + _norm(dims, num_patches)
            if branch is not branches[-1]:
                merge += _linear(dims, out_dims, num_patches)
                merge += _norm(out_dims, num_patches)
            parts[f'merge {name}'] = merge
    elif any(isinstance(layer, nn.RMSNorm) for layer in backbone.modules()):
        # A single branch ends in a norm of its own kind; this one has no bias.
        final_norm = Count(params=out_dims)
    parts['classifier'] = final_norm + _linear(out_dims, _NUM_CLASSES, 1)


_BOTH = (
    attend_to_patches_only,
    sample_nominal_points,
    leave_out_norms_of_maps,
    normalise_all_patches,
)
_CORRECTIONS = {
    PUBLISHED: (
        partial(project_padding, of_deit=False),
        *_BOTH,
        store_positions_of_image,
        classify,
    ),
    RELEASED: (project_padding, *_BOTH, leave_out_flops_of_pyramid),
}


def _self_attentions(model: nn.Module) -> Iterator[tuple[str, Branch, SelfAttention]]:
    """Part, branch and layer of all self-attention in the published families."""
    for name, branch in model.named_modules():
        if isinstance(branch, (PIIPBEiT, PIIPUniPerceiver, PIIPViT)):
            for layer in branch.modules():
                if isinstance(layer, SelfAttention):
                    yield part_of(name), branch, layer


def _grid_side(branch: Branch) -> int:
    """Side of the grid after the last block, for an image of the configured size."""
    return branch.img_size // branch.strides[-1]


def _norm(dims: int, num_tokens: int) -> Count:
    """A LayerNorm or GroupNorm."""
    return Count(2 * dims, 2 * num_tokens * dims)


def _linear(in_dims: int, out_dims: int, num_tokens: int) -> Count:
    return Count((in_dims + 1) * out_dims, num_tokens * in_dims * out_dims)
