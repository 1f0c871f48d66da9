"""Record what mmcv's compiled operators compute on the CPU, in mmcv_operators.pt.

Usage, in an environment with a compiled mmcv: python tests/data/mmcv_operators.py
"""

from pathlib import Path

import torch

FILE = Path(__file__).parent / 'mmcv_operators.pt'


def regions(num_images, width, height, count, generator):
    """(R, 5) regions in pixels: inside, across the border, outside, empty, and tiny."""
    size = torch.tensor([width, height] * 2)
    corners = (torch.rand(count, 4, generator=generator) * 1.6 - 0.3) * size
    low = torch.minimum(corners[:, :2], corners[:, 2:])
    high = torch.maximum(corners[:, :2], corners[:, 2:])
    special = torch.tensor(
        [
            [0.25, 0.25, 0.25, 0.25],  # empty
            [0.4, 0.4, 0.401, 0.401],  # tiny
            [-1.5, -1.5, -0.5, -0.5],  # outside
            [1.1, 0.2, 1.7, 0.6],
            [-0.5, -0.5, 1.5, 1.5],  # around the image
            [0.0, 0.0, 1.0, 1.0],
        ]
    )
    boxes = torch.cat([torch.cat([low, high], 1), special * size])
    images = torch.randint(num_images, (len(boxes), 1), generator=generator)
    return torch.cat([images.float(), boxes], 1)


def roi_align(extension, maps, rois, grads, bins, scale, ratio, aligned):
    """Forward and backward pass."""
    empty = maps.new_zeros(0)
    options = dict(
        aligned_height=bins[0],
        aligned_width=bins[1],
        spatial_scale=scale,
        sampling_ratio=ratio,
        pool_mode=1,
        aligned=aligned,
    )
    output, grad_maps = torch.zeros_like(grads), torch.zeros_like(maps)
    extension.roi_align_forward(maps, rois, output, empty, empty, **options)
    extension.roi_align_backward(grads, rois, empty, empty, grad_maps, **options)
    return output, grad_maps


def roi_align_inputs(seed):
    """Random inputs of :func:`roi_align`, but for the operators."""
    generator = torch.Generator().manual_seed(seed)
    height, width, images = [(9, 7, 2), (1, 5, 1), (20, 31, 3), (16, 16, 1)][seed % 4]
    bins = [(7, 7), (3, 2), (1, 1), (5, 4)][seed // 2 % 4]
    scale = [0.25, 1.0, 0.0625][seed % 3]
    ratio = [0, 0, 2, 3][seed // 3 % 4]
    maps = torch.randn(images, 3, height, width, generator=generator)
    count = 0 if seed == 5 else 8
    rois = regions(images, width / scale, height / scale, count, generator)
    rois = rois[:0] if seed == 5 else rois
    grads = torch.randn(len(rois), 3, *bins, generator=generator)
    return maps, rois, grads, bins, scale, ratio, bool(seed % 2)


def nms_inputs(seed):
    """Random boxes, scores, threshold and offset; some scores are equal."""
    generator = torch.Generator().manual_seed(seed)
    count = [0, 1, 40, 300, 600][seed % 5]
    boxes = torch.rand(count, 4, generator=generator) * torch.tensor([90, 90, 40, 40.0])
    boxes[:, 2:] += boxes[:, :2]
    scores = torch.rand(count, generator=generator)
    if seed % 2:
        boxes, scores = boxes.round(), (scores * 20).round() / 20
    return boxes, scores, [0.5, 0.7, 0.1, 0.95][seed % 4], seed // 5 % 2


def main():
    import mmcv._ext as extension

    assert getattr(extension, 'IS_COMPILED', True), 'this mmcv is not compiled'
    recorded = {}
    for seed in range(12):
        inputs = roi_align_inputs(seed)
        recorded['roi_align', seed] = (inputs, roi_align(extension, *inputs))
    for seed in range(20):
        boxes, scores, threshold, offset = inputs = nms_inputs(seed)
        kept = extension.nms(boxes, scores, iou_threshold=threshold, offset=offset)
        recorded['nms', seed] = (inputs, kept)
    torch.save(recorded, FILE)


if __name__ == '__main__':
    main()
