"""Joins the levels of a pyramid with the 1x1 convolutions that read them.

A pyramid upsamples at the full width of the merged map, and the first that a neck does
with its largest maps is to reduce their width: both are linear, and nothing stands
between them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from piip_mm.models.pyramid import Pyramid


def join_laterals(model: nn.Module, pyramid: Pyramid) -> int:
    """Replace the last transposed convolution of each level by one that includes the 1x1
    convolution behind it, which becomes an identity.

    Args:
        model: Model whose neck or decode head reads the levels; a backbone has neither.
        pyramid: Pyramid of its backbone.

    Returns:
        Number of levels that were joined.
    """
    # The decode head reads the neck, if there is one. Auxiliary heads only run in
    # training.
    reader = getattr(model, 'neck', None) or getattr(model, 'decode_head', None)
    find = _READERS.get(f'{type(reader).__module__}.{type(reader).__qualname__}')
    if find is None:
        return 0
    joined = 0
    for index, lateral in find(reader, len(pyramid.levels)).items():
        level = pyramid.levels[index]
        last = level[-1] if isinstance(level, nn.Sequential) else level
        conv = lateral.conv
        # Derived convolutions compute their weights anew in each call.
        is_pointwise = type(conv) is nn.Conv2d and conv.kernel_size == (1, 1)
        if isinstance(last, nn.ConvTranspose2d) and is_pointwise:
            new = _join(last, conv)
            if isinstance(level, nn.Sequential):
                level[-1] = new
            else:
                pyramid.levels[index] = new
            lateral.conv = nn.Identity()
            joined += 1
    return joined


def _read_by_fpn(neck: Any, num_levels: int) -> dict[int, Any]:
    laterals = dict(enumerate(neck.lateral_convs, neck.start_level))
    if neck.add_extra_convs == 'on_input':
        del laterals[neck.backbone_end_level - 1]
    return laterals


def _read_by_channel_mapper(neck: Any, num_levels: int) -> dict[int, Any]:
    laterals = dict(enumerate(neck.convs))
    if neck.extra_convs:
        del laterals[num_levels - 1]
    return laterals


def _read_by_uper_head(head: Any, num_levels: int) -> dict[int, Any]:
    indexes = [index % num_levels for index in head.in_index]
    # The last map goes into the pooling module.
    laterals = zip(indexes[:-1], head.lateral_convs, strict=True)
    return {index: conv for index, conv in laterals if indexes.count(index) == 1}


#: By class of a neck or head: the ``ConvModule`` of each level that is read by nothing
#: else. Derived classes may read maps in other ways. By name, because importing the
#: classes takes mmdet and mmseg.
_READERS: dict[str, Callable[[Any, int], dict[int, Any]]] = {
    'mmdet.models.necks.fpn.FPN': _read_by_fpn,
    'mmdet.models.necks.channel_mapper.ChannelMapper': _read_by_channel_mapper,
    'mmseg.models.decode_heads.uper_head.UPerHead': _read_by_uper_head,
}


def _join(up: nn.ConvTranspose2d, conv: nn.Conv2d) -> nn.ConvTranspose2d:
    """``conv(up(x))`` as one transposed convolution, for a 1x1 convolution."""
    joined = nn.ConvTranspose2d(
        up.in_channels,
        conv.out_channels,
        up.kernel_size,  # type: ignore[arg-type]
        up.stride,  # type: ignore[arg-type]
        device=up.weight.device,
        dtype=up.weight.dtype,
    )
    assert up.bias is not None and joined.bias is not None
    matrix_OC = conv.weight.flatten(1).double()
    joined.weight.copy_(torch.einsum('icyx,oc->ioyx', up.weight.double(), matrix_OC))
    bias = matrix_OC @ up.bias.double()
    joined.bias.copy_(bias if conv.bias is None else bias + conv.bias.double())
    return joined
