"""FLOPs of necks and heads, measured on the meta device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from .conventions import Count
from .layers import num_params

#: What is counted, for the reports.
HEADS = (
    "Neck and heads: matrix products and convolutions, by PyTorch's FLOP counter; "
    'neither biases, norms and activations nor RoIAlign.'
)

#: Count and remark of each part by name.
Heads = dict[str, tuple[Count, str]]


def count_heads(model: nn.Module, shape: tuple[int, int]) -> Heads:
    """Count everything of a model but its backbone.

    Args:
        model: From :func:`piip_mm.analysis.build_on_meta`.
        shape: (H, W) of the input in pixels.

    Returns:
        For each part its count and a remark: how many regions it was counted for, or why
        its FLOPs are not counted.

    Raises:
        ValueError: If the input is too small.
    """
    with torch.no_grad():
        backbone = model.get_submodule('backbone')
        maps = backbone(torch.empty(1, 3, *shape, device='meta'))
        heads: Heads = {}
        for name, part in model.named_children():
            if name in ('backbone', 'data_preprocessor') or not num_params(part):
                continue
            if name == 'neck':
                heads[name] = _count(part, maps), ''
                maps = part(maps)
            elif name in ('rpn_head', 'decode_head'):
                heads[name] = _count(part, maps), ''
            elif name == 'roi_head':
                heads |= _count_roi_head(part, model.test_cfg)
            else:
                remark = 'FLOPs not counted: no rule for this part'
                if name == 'auxiliary_head':
                    remark = 'FLOPs not counted: in training only'
                heads[name] = Count(num_params(part)), remark
    return heads


def _count_roi_head(roi_head: Any, test_cfg: Any) -> Heads:
    """Heads that work on regions, for as many as the test settings allow."""
    regions = {
        'bbox': (test_cfg.rpn.max_per_img, 'proposals'),
        'mask': (test_cfg.rcnn.max_per_img, 'detections'),
    }
    heads: Heads = {}
    for kind, (number, what) in regions.items():
        if getattr(roi_head, f'{kind}_head', None) is None:
            continue
        # A cascade has several of both.
        stages = _as_list(getattr(roi_head, f'{kind}_head'))
        extractors = _as_list(getattr(roi_head, f'{kind}_roi_extractor'))
        count = Count()
        for stage, extractor in zip(stages, extractors, strict=True):
            size = extractor.roi_layers[0].output_size
            regions_map = torch.empty(
                number, extractor.out_channels, *size, device='meta'
            )
            count += _count(stage, regions_map)
        heads[f'{kind}_head'] = count, f'{number} {what}'
    return heads


def _count(module: nn.Module, inputs: Tensor | Sequence[Tensor]) -> Count:
    with FlopCounterMode(display=False) as counter:
        module(inputs)
    # PyTorch counts a multiply-add as two.
    return Count(num_params(module), counter.get_total_flops() // 2)


def _as_list(module: nn.Module) -> list[Any]:
    return list(module) if isinstance(module, nn.ModuleList) else [module]
