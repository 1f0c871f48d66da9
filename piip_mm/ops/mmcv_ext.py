"""What mmcv's compiled extension does for the supported models, without compiling.

:mod:`piip_mm.startup` makes this file the module ``mmcv._ext`` where mmcv has none (as
mmcv-lite), so that it imports nothing of this package. The functions have the signatures
of the compiled ones. They run torchvision's compiled operators where these load, and
PyTorch elsewhere. Any other operator raises an error when it is called.

Shapes: B images, C channels, an (H, W) map, R regions, P x Q bins per region.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor

#: The operators of this file.
OPERATORS = (
    'get_compiler_version',
    'get_compiling_cuda_version',
    'ms_deform_attn_backward',
    'ms_deform_attn_forward',
    'nms',
    'roi_align_backward',
    'roi_align_forward',
    'sigmoid_focal_loss_backward',
    'sigmoid_focal_loss_forward',
)

# Boxes that are compared with all others at once.
_NMS_BLOCK = 256
# Weights of samples in memory at once, to bound it: some 100 MB.
_MAX_WEIGHTS = 4_000_000


def __getattr__(name: str) -> Callable[..., NoReturn]:
    """An operator that is not here; mmcv looks up all of them when it is imported."""
    if name.startswith('__'):
        raise AttributeError(name)

    def missing(*args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError(
            f"mmcv's operator {name!r} exists only in its compiled form, and this mmcv "
            'has none; install a compiled mmcv: '
            'https://mmcv.readthedocs.io/en/latest/get_started/installation.html'
        )

    return missing


def get_compiler_version() -> str:
    """What mmcv prints in reports of the environment."""
    return 'not available'


def get_compiling_cuda_version() -> str:
    """As a compiled mmcv without CUDA operators says it."""
    return 'not available'


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
    if not offset and _torchvision(boxes):
        dtype = torch.promote_types(boxes.dtype, torch.float32)
        ranks = torch.arange(len(order), 0, -1, device=boxes.device, dtype=dtype)
        kept = torch.ops.torchvision.nms(boxes[order].to(dtype), ranks, iou_threshold)
        return order[kept]
    # The decisions depend on each other and are made on the CPU.
    x1, y1, x2, y2 = boxes[order].cpu().unbind(1)
    corners = torch.stack([x1, y1, x2 + offset, y2 + offset])
    areas = (x2 - x1 + offset) * (y2 - y1 + offset)
    alive = torch.ones(len(areas), dtype=torch.bool)
    for start in range(0, len(areas), _NMS_BLOCK):
        block = start + alive[start : start + _NMS_BLOCK].nonzero()[:, 0]
        over = (_overlaps(corners, areas, block, block) > iou_threshold).numpy()
        keep = alive[block].numpy()
        for index in range(len(block)):
            if keep[index]:
                keep[index + 1 :] &= ~over[index, index + 1 :]
        alive[block] = torch.from_numpy(keep)
        kept = block[torch.from_numpy(keep)]
        rest = start + _NMS_BLOCK + alive[start + _NMS_BLOCK :].nonzero()[:, 0]
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


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """RoIAlign (Mask R-CNN, arXiv 1703.06870): bins of averaged bilinear samples.

    Args:
        input: (B, C, H, W) maps.
        rois: (R, 5) index of the image and corners of each region in pixels.
        output: (R, C, P, Q), written in place.
        argmax_y: Only used by maximum pooling.
        argmax_x: Likewise.
        aligned_height: P.
        aligned_width: Q.
        spatial_scale: Map cells per pixel.
        sampling_ratio: Samples per bin and axis; 0 for one per cell.
        pool_mode: 1 for the average.
        aligned: Whether pixel centres are at half-integers.

    Raises:
        NotImplementedError: For maximum pooling.
    """
    _check_average(pool_mode)
    bins = (aligned_height, aligned_width)
    dtype = torch.promote_types(input.dtype, torch.float32)
    input, rois = input.to(dtype), rois.to(dtype)
    if _torchvision(input):
        output.copy_(
            torch.ops.torchvision.roi_align(
                input, rois, spatial_scale, *bins, sampling_ratio, aligned
            )
        )
        return
    cells = input.permute(0, 2, 3, 1).flatten(0, 2)
    for chosen, index, weight in _samples(
        rois, input.shape, bins, spatial_scale, sampling_ratio, aligned
    ):
        pooled = F.embedding_bag(
            index.flatten(0, 1),
            cells,
            mode='sum',
            per_sample_weights=weight.flatten(0, 1),
        )
        pooled = pooled.unflatten(0, (len(chosen), *bins)).permute(0, 3, 1, 2)
        output[chosen] = pooled.to(output.dtype)


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Gradient of :func:`roi_align_forward` with respect to the maps.

    Args:
        grad_output: (R, C, P, Q).
        rois: See :func:`roi_align_forward`, as the other arguments.
        argmax_y: See there.
        argmax_x: See there.
        grad_input: (B, C, H, W), zeros, written in place.
        aligned_height: See there.
        aligned_width: See there.
        spatial_scale: See there.
        sampling_ratio: See there.
        pool_mode: See there.
        aligned: See there.

    Raises:
        NotImplementedError: For maximum pooling.
    """
    _check_average(pool_mode)
    bins = (aligned_height, aligned_width)
    shape = grad_input.shape
    dtype = torch.promote_types(grad_output.dtype, torch.float32)
    grad_output, rois = grad_output.to(dtype), rois.to(dtype)
    if _torchvision(grad_output):
        grad_input.copy_(
            torch.ops.torchvision._roi_align_backward(
                grad_output, rois, spatial_scale, *bins, *shape, sampling_ratio, aligned
            )
        )
        return
    grads = grad_output.permute(0, 2, 3, 1)
    total = grads.new_zeros(shape[0] * shape[2] * shape[3], shape[1])
    cells = torch.arange(len(total), device=grads.device)
    rows = torch.arange(grads[..., 0].numel(), device=grads.device)
    rows = rows.view(len(grads), bins[0] * bins[1], 1)
    waiting: list[tuple[Tensor, Tensor, Tensor]] = []

    def add_waiting() -> None:
        """The sums of the forward pass, transposed: every cell collects the bins that it
        was read for."""
        cell, reader, weight = (torch.cat(parts) for parts in zip(*waiting, strict=True))
        cell, order = cell.sort()
        total.add_(
            F.embedding_bag(
                reader[order],
                grads.flatten(0, 2),
                torch.searchsorted(cell, cells),
                mode='sum',
                per_sample_weights=weight[order],
            )
        )
        waiting.clear()

    for chosen, index, weight in _samples(
        rois, shape, bins, spatial_scale, sampling_ratio, aligned
    ):
        reader = rows[chosen].expand_as(index)
        waiting.append((index.flatten(), reader.flatten(), weight.flatten()))
        if sum(len(part) for part, _, _ in waiting) > _MAX_WEIGHTS:
            add_waiting()
    if waiting:
        add_waiting()
    total = total.view(shape[0], *shape[2:], shape[1]).permute(0, 3, 1, 2)
    grad_input.copy_(total)


def _samples(
    rois: Tensor,
    shape: torch.Size,
    bins: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Which map cells the bins of regions average, and with which weights.

    A bilinear sample, and therefore an average over a grid of them, is a product of
    weights for rows and for columns. Regions whose bins touch the same number of rows and
    columns are treated together.

    Yields:
        Indices of the regions (r,); cells of their bins (r, P * Q, S), numbered through
        all images; and weights of the cells (r, P * Q, S).
    """
    height, width = shape[2:]
    shift = 0.5 if aligned else 0.0
    starts = rois[:, 1:3] * spatial_scale - shift
    sizes = rois[:, 3:5] * spatial_scale - shift - starts
    if not aligned:
        sizes = sizes.clamp(min=1)
    steps = sizes / sizes.new_tensor(bins[::-1])
    if sampling_ratio > 0:
        counts = torch.full_like(steps, sampling_ratio, dtype=torch.long)
    else:
        counts = steps.ceil().long()
    # Regions of no or negative size have no samples.
    nonempty = (counts > 0).all(1)
    counts = counts.clamp(min=1)
    spans = (steps * (counts - 1) / counts).clamp(min=0).ceil().long() + 2
    spans = torch.minimum(spans, spans.new_tensor([width, height]))
    kinds, kind = spans.unique(dim=0, return_inverse=True)
    for number, (across, down) in enumerate(kinds.tolist()):
        members = (kind == number).nonzero()[:, 0]
        per_region = bins[0] * bins[1] * across * down
        for chosen in members.split(max(_MAX_WEIGHTS // per_region, 1)):
            x, x_weight = _axis(
                starts[chosen, 0],
                steps[chosen, 0],
                counts[chosen, 0],
                bins[1],
                width,
                across,
            )
            y, y_weight = _axis(
                starts[chosen, 1],
                steps[chosen, 1],
                counts[chosen, 1],
                bins[0],
                height,
                down,
            )
            y_weight = y_weight * nonempty[chosen, None, None]
            image = rois[chosen, 0].long().view(-1, 1, 1, 1, 1)
            rows = image * height + y[:, :, None, :, None]
            index = rows * width + x[:, None, :, None, :]
            weight = y_weight[:, :, None, :, None] * x_weight[:, None, :, None, :]
            yield chosen, index.flatten(3).flatten(1, 2), weight.flatten(3).flatten(1, 2)


def _axis(
    start: Tensor, step: Tensor, count: Tensor, bins: int, size: int, span: int
) -> tuple[Tensor, Tensor]:
    """Cells and weights of the bins along one axis.

    Args:
        start: (r,) where each region starts, in cells.
        step: (r,) size of a bin.
        count: (r,) samples per bin.
        bins: Number of bins.
        size: Length of the axis.
        span: Number of cells that a bin touches.

    Returns:
        (r, bins, span) cells and their weights.
    """
    sample = torch.arange(int(count.max()), device=start.device)
    position = torch.arange(bins, device=start.device, dtype=start.dtype)
    position = start[:, None] + position * step[:, None]
    inner = (sample + 0.5) * step[:, None] / count[:, None]
    position = position[:, :, None] + inner[:, None, :]
    # Samples up to one cell outside have the value of the border, others are zero.
    counts = (position >= -1) & (position <= size) & (sample < count[:, None])[:, None]
    share = counts / count[:, None, None]
    position = position.clamp(0, size - 1)
    low = position.floor()
    high_share = share * (position - low)
    first = low[..., :1].clamp(max=size - span).long()
    place = (low.long() - first).clamp_(max=span - 1)
    weight = position.new_zeros(len(start), bins, span)
    weight.scatter_add_(2, place, share - high_share)
    weight.scatter_add_(2, (place + 1).clamp_(max=span - 1), high_share)
    return first + torch.arange(span, device=start.device), weight


def _check_average(pool_mode: int) -> None:
    if pool_mode != 1:
        raise NotImplementedError(
            "RoIAlign with pool_mode='max' exists only in mmcv's compiled form, and this "
            "mmcv has none; use pool_mode='avg', or install a compiled mmcv"
        )


def ms_deform_attn_forward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Deformable attention on several levels (Deformable DETR, arXiv 2010.04159, eq. 3).

    Args:
        value: (B, N, M, D) tokens of all levels, for M heads.
        spatial_shapes: (L, 2) grids of the levels.
        level_start_index: (L,), not needed here.
        sampling_locations: (B, Q, M, L, K, 2) points from 0 to 1.
        attention_weights: (B, Q, M, L, K).
        im2col_step: Not needed here.

    Returns:
        (B, Q, M * D).
    """
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    return multi_scale_deformable_attn_pytorch(
        value, spatial_shapes, sampling_locations, attention_weights
    )


def ms_deform_attn_backward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Gradients of :func:`ms_deform_attn_forward`, which is run again.

    Args:
        value: See :func:`ms_deform_attn_forward`, as the next four.
        spatial_shapes: See there.
        level_start_index: See there.
        sampling_locations: See there.
        attention_weights: See there.
        grad_output: (B, Q, M * D).
        grad_value: Written in place, as the next two.
        grad_sampling_loc: Of the shape of ``sampling_locations``.
        grad_attn_weight: Of the shape of ``attention_weights``.
        im2col_step: Not needed here.
    """
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    value, points, weights = inputs = [
        tensor.detach().requires_grad_()
        for tensor in (value, sampling_locations, attention_weights)
    ]
    with torch.enable_grad():
        out = multi_scale_deformable_attn_pytorch(value, spatial_shapes, points, weights)
    grads = torch.autograd.grad(out, inputs, grad_output)
    targets = (grad_value, grad_sampling_loc, grad_attn_weight)
    for target, grad in zip(targets, grads, strict=True):
        target.copy_(grad)


def sigmoid_focal_loss_forward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    output: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Focal loss (arXiv 1708.02002) of every score, with p = sigmoid(input)::

        -alpha * (1 - p)^gamma * log(p)          for the target's class
        -(1 - alpha) * p^gamma * log(1 - p)      for the others

    Args:
        input: (N, K) scores before the sigmoid.
        target: (N,) classes; K is the background.
        weight: (K,) factor of each target's class, or empty.
        output: (N, K), written in place.
        gamma: Focusing parameter.
        alpha: Weight of the target's class.
    """
    x, is_target = _focal_inputs(input, target)
    positive = -alpha * (-x).sigmoid() ** gamma * F.logsigmoid(x)
    negative = -(1 - alpha) * x.sigmoid() ** gamma * F.logsigmoid(-x)
    output.copy_(torch.where(is_target, positive, negative))
    _weigh(output, target, weight)


def sigmoid_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Derivative of :func:`sigmoid_focal_loss_forward` with respect to the scores.

    Args:
        input: See :func:`sigmoid_focal_loss_forward`, as the other arguments.
        target: See there.
        weight: See there.
        grad_input: (N, K), written in place.
        gamma: See there.
        alpha: See there.
    """
    x, is_target = _focal_inputs(input, target)
    p, q = x.sigmoid(), (-x).sigmoid()
    positive = -alpha * q**gamma * (q - gamma * p * F.logsigmoid(x))
    negative = -(1 - alpha) * p**gamma * (gamma * q * F.logsigmoid(-x) - p)
    grad_input.copy_(torch.where(is_target, positive, negative))
    _weigh(grad_input, target, weight)


def _focal_inputs(input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Scores in float32, and whether a column is the target's class."""
    columns = torch.arange(input.shape[1], device=input.device)
    return input.float(), target[:, None] == columns


def _weigh(values: Tensor, target: Tensor, weight: Tensor) -> None:
    if weight.numel():
        values *= weight[target][:, None]


@lru_cache
def _torchvision_loads() -> bool:
    try:
        from torchvision.extension import _has_ops
    except (ImportError, OSError, RuntimeError):
        return False
    return _has_ops()


@lru_cache
def _announce(device: str, library: str) -> None:
    print_log(
        f"NMS and RoIAlign on {device}: {library}, in place of mmcv's compiled operators",
        logger='current',
    )


def _torchvision(tensor: Tensor) -> bool:
    """Whether torchvision's operators run this tensor; logged once per device type."""
    loads = _torchvision_loads()
    _announce(tensor.device.type, 'torchvision' if loads else 'PyTorch')
    return loads
