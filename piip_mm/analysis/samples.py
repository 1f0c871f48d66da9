"""Random images with annotations, as the models of each task take them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmengine.structures import InstanceData, PixelData
from torch import Tensor, nn

from .measure import Size, check_backbone

#: Objects in an image of a detector; COCO has seven on average.
NUM_OBJECTS = 7


def random_inputs(
    scope: str, model: nn.Module, batch_size: int, shape: Size
) -> dict[str, Any]:
    """Arguments ``inputs`` and ``data_samples`` of a model's forward method.

    Args:
        scope: 'mmdet', 'mmseg' or 'mmpretrain'.
        model: The model, on the device on which they are wanted.
        batch_size: Number of images.
        shape: (H, W) of the images in pixels.
    """
    device = next(model.parameters()).device
    channels = check_backbone(model.get_submodule('backbone')).branch_list[0].in_channels
    make = {'mmdet': _detection, 'mmseg': _segmentation, 'mmpretrain': _class}[scope]
    samples = [make(shape, device) for _ in range(batch_size)]
    for sample in samples:
        sample.set_metainfo(
            dict(
                img_shape=shape,
                ori_shape=shape,
                pad_shape=shape,
                batch_input_shape=shape,
                scale_factor=(1.0, 1.0),
            )
        )
    images = torch.randn(batch_size, channels, *shape, device=device)
    return dict(inputs=images, data_samples=samples)


def _detection(shape: Size, device: torch.device) -> Any:
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    height, width = shape
    corners = torch.rand(NUM_OBJECTS, 2, 2).sort(1).values * 0.8
    corners[:, 1] += 0.1
    boxes = (corners * torch.tensor([width, height])).flatten(1)
    masks = np.zeros((NUM_OBJECTS, height, width), np.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
        mask[top:bottom, left:right] = 1
    labels = torch.zeros(NUM_OBJECTS, dtype=torch.long)
    objects = InstanceData(
        bboxes=boxes.to(device),
        labels=labels.to(device),
        masks=BitmapMasks(masks, height, width),
    )
    return DetDataSample(gt_instances=objects)


def _segmentation(shape: Size, device: torch.device) -> Any:
    from mmseg.structures import SegDataSample

    labels: Tensor = torch.zeros(1, *shape, dtype=torch.long, device=device)
    return SegDataSample(gt_sem_seg=PixelData(data=labels))


def _class(shape: Size, device: torch.device) -> Any:
    from mmpretrain.structures import DataSample

    return DataSample().set_gt_label(torch.zeros(1, dtype=torch.long, device=device))
