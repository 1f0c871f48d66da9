"""FLOPs of the necks and heads of detectors and segmentors, on the meta device."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .measure import Count, Size, branch_images, copy_to_meta

#: Count and remark of each part by name.
Heads = dict[str, tuple[Count, str]]


def count_heads(model: nn.Module, shape: Size) -> Heads:
    """Count everything of a detector or segmentor but its backbone.

    Args:
        model: Detector or segmentor, on any device.
        shape: (H, W) of the input in pixels.

    Returns:
        For each part its count and a remark: how many regions it was counted for, or why
        its FLOPs are not counted.

    Raises:
        ValueError: If the input is too small.
    """
    meta = copy_to_meta(model)
    heads: Heads = {}
    with torch.no_grad():
        maps = meta.backbone(branch_images(meta.backbone, shape))
        for name, part in meta.named_children():
            params = sum(param.numel() for param in part.parameters())
            if name in ('backbone', 'data_preprocessor') or not params:
                continue
            if name == 'roi_head':
                heads |= _count_roi_head(part, meta.test_cfg)
            elif name in ('neck', 'rpn_head', 'decode_head'):
                heads[name] = _count(part, maps), ''
            elif name == 'auxiliary_head':
                heads[name] = Count(params), 'FLOPs not counted: in training only'
            else:
                heads[name] = Count(params), 'FLOPs not counted: no rule for this part'
            if name == 'neck':
                maps = part(maps)
    return heads


def _count_roi_head(roi_head: Any, test_cfg: Any) -> Heads:
    """Heads that work on regions, for as many as the test settings allow."""
    heads: Heads = {}
    for kind, number, what in (
        ('bbox', test_cfg.rpn.max_per_img, 'proposals'),
        ('mask', test_cfg.rcnn.max_per_img, 'detections'),
    ):
        if getattr(roi_head, f'{kind}_head', None) is None:
            continue
        # A cascade has several of both.
        stages = _as_list(getattr(roi_head, f'{kind}_head'))
        extractors = _as_list(getattr(roi_head, f'{kind}_roi_extractor'))
        count = Count()
        for stage, extractor in zip(stages, extractors, strict=True):
            size = extractor.roi_layers[0].output_size
            count += _count(
                stage, torch.empty(number, extractor.out_channels, *size, device='meta')
            )
        heads[f'{kind}_head'] = count, f'{number} {what}'
    return heads


def _count(module: nn.Module, inputs: Any) -> Count:
    with FlopCounterMode(display=False) as counter:
        module(inputs)
    # PyTorch counts a multiply-add as two.
    flops = counter.get_total_flops() // 2
    return Count(sum(param.numel() for param in module.parameters()), flops)


def _as_list(module: nn.Module) -> list[Any]:
    return list(module) if isinstance(module, nn.ModuleList) else [module]
