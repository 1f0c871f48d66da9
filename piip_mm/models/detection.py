"""Support for mmdet's heads in bfloat16; requires mmdet.

mmcv's operators accept float32 and, on CUDA, float16, but not bfloat16, in which the
published models were trained. Because mmdet is slow to import, ``import piip_mm`` leaves
this out. A detector of mmdet imports it when it gets a backbone of this package; a config
that names a class of this module lists ``piip_mm.models.detection`` in its
``custom_imports`` next to ``piip_mm``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import wraps
from typing import Any

import torch
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction
from mmcv.ops.nms import NMSop
from mmcv.ops.roi_align import RoIAlign, RoIAlignFunction
from mmdet.models.dense_heads import DINOHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmengine.registry import MODELS
from torch import Tensor

from piip_mm.ops import no_autocast

from .layers import as_output


@MODELS.register_module()
class Float32RoIExtractor(SingleRoIExtractor):
    """mmdet's ``SingleRoIExtractor``, computed in float32 in any precision.

    mmdet rounds the corners of the regions to the precision of the maps, and bfloat16
    stores 1,001 as 1,000: at the resolutions of PIIP, regions would be off by up to 4
    pixels. The published training ran this part in float32 too. The arguments are those
    of the base class.
    """

    def forward(
        self,
        feats: Sequence[Tensor],
        rois: Tensor,
        roi_scale_factor: float | None = None,
    ) -> Tensor:
        """(B, C, H_l, W_l) maps and (R, 5) regions to (R, C, h, w), in float32 under
        autocast and in the type of the maps otherwise, which is that of the head."""
        with no_autocast(rois.device):
            maps = tuple(feat.float() for feat in feats)
            regions = super().forward(maps, rois.float(), roi_scale_factor)
        return as_output(regions, feats[0].dtype)


@MODELS.register_module()
class Float32DINOHead(DINOHead):
    """mmdet's ``DINOHead`` with boxes in float32, regardless of autocast.

    mmdet adds the reference boxes to the offsets in the precision of the latter. In
    bfloat16 a corner is off by up to 4 pixels in an image of 1,792 pixels. The arguments
    are those of the base class.
    """

    def forward(
        self, hidden_states: Tensor, references: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """(L, B, Q, C) queries and L + 1 (B, Q, 4) references to the class scores and
        boxes of all L decoder layers."""
        with no_autocast(hidden_states.device):
            return super().forward(
                hidden_states.float(), [reference.float() for reference in references]
            )


def accept_bfloat16(function: type[torch.autograd.Function]) -> None:
    """Make an operator accept bfloat16 tensors: it runs in float32 and returns float32.

    Calls in other precisions are unchanged. Autograd returns the gradients in the
    precision of the inputs.
    """
    forward = function.forward

    @wraps(forward)
    def in_float32(ctx: Any, *args: Any) -> Any:
        if not any(_is_bfloat16(arg) for arg in args):
            return forward(ctx, *args)
        args = tuple(
            arg.float() if isinstance(arg, Tensor) and arg.is_floating_point() else arg
            for arg in args
        )
        return forward(ctx, *args)

    function.forward = staticmethod(in_float32)  # type: ignore[method-assign, assignment]


def _is_bfloat16(arg: Any) -> bool:
    return isinstance(arg, Tensor) and arg.dtype is torch.bfloat16


def keep_corners(extractor: type[SingleRoIExtractor]) -> None:
    """Make a class extract regions from bfloat16 maps without rounding their corners.

    The features of the regions have the precision of the maps. See
    :class:`Float32RoIExtractor`, which returns them in float32.
    """
    forward = extractor.forward

    @wraps(forward)
    def with_float32_corners(
        self: SingleRoIExtractor, feats: Sequence[Tensor], rois: Tensor, *args: Any
    ) -> Tensor:
        if not _is_bfloat16(feats[0]):
            return forward(self, feats, rois, *args)
        maps = tuple(feat.float() for feat in feats)
        return forward(self, maps, rois.float(), *args).bfloat16()

    extractor.forward = with_float32_corners  # type: ignore[method-assign]


def keep_type(layer: type[RoIAlign]) -> None:
    """Make a layer return features of the type of its maps, as extractors expect that
    copy them into a tensor like the maps."""
    forward = layer.forward

    @wraps(forward)
    def in_type_of_maps(self: RoIAlign, maps: Tensor, rois: Tensor) -> Tensor:
        return forward(self, maps, rois).to(maps.dtype)

    layer.forward = in_type_of_maps


# DINO's encoder and decoder use the first one, every head with proposals the second, and
# those with regions the third.
for _operator in (MultiScaleDeformableAttnFunction, NMSop, RoIAlignFunction):
    accept_bfloat16(_operator)
keep_type(RoIAlign)
keep_corners(SingleRoIExtractor)
