"""Non-maximum suppression."""

from __future__ import annotations

import torch
from torch import Tensor

from .libraries import torchvision_runs

# Boxes that are compared with all others at once.
_BLOCK = 256


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Greedy non-maximum suppression.

    Args:
        boxes: (N, 4) corners x1, y1, x2, y2.
        scores: (N,).
        iou_threshold: A box is dropped if its intersection over union with a kept one of
            a higher score is larger.
        offset: 0 or 1, added to every width and height.

    Returns:
        Indices of the kept boxes, from high to low score.
    """
    # Of equal scores, mmcv keeps the first one in this order.
    order = scores.sort(0, descending=True).indices
    if not offset and torchvision_runs(boxes):
        dtype = torch.promote_types(boxes.dtype, torch.float32)
        ranks = torch.arange(len(order), 0, -1, device=boxes.device, dtype=dtype)
        kept = torch.ops.torchvision.nms(boxes[order].to(dtype), ranks, iou_threshold)
        return order[kept]
    # The decisions depend on each other and are made on the CPU.
    x1, y1, x2, y2 = boxes[order].cpu().unbind(1)
    corners = torch.stack([x1, y1, x2 + offset, y2 + offset])
    areas = (x2 - x1 + offset) * (y2 - y1 + offset)
    alive = torch.ones(len(areas), dtype=torch.bool)
    for start in range(0, len(areas), _BLOCK):
        block = start + alive[start : start + _BLOCK].nonzero()[:, 0]
        over = (_overlaps(corners, areas, block, block) > iou_threshold).numpy()
        keep = alive[block].numpy()
        for index in range(len(block)):
            if keep[index]:
                keep[index + 1 :] &= ~over[index, index + 1 :]
        alive[block] = torch.from_numpy(keep)
        kept = block[torch.from_numpy(keep)]
        rest = start + _BLOCK + alive[start + _BLOCK :].nonzero()[:, 0]
        dropped = (_overlaps(corners, areas, kept, rest) > iou_threshold).any(0)
        alive[rest[dropped]] = False
    return order[alive.to(order.device)]


def _overlaps(corners: Tensor, areas: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """(L, N) intersection over union of the boxes with indices ``left`` and ``right``."""
    x1, y1, x2, y2 = corners[:, left, None]
    u1, v1, u2, v2 = corners[:, None, right]
    width = (torch.minimum(x2, u2) - torch.maximum(x1, u1)).clamp_(min=0)
    height = (torch.minimum(y2, v2) - torch.maximum(y1, v1)).clamp_(min=0)
    shared = width.mul_(height)
    return shared / (areas[left, None] + areas[right] - shared)
