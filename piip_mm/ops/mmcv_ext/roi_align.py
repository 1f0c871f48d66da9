"""RoIAlign (Mask R-CNN, arXiv 1703.06870) with averaged samples.

Shapes: B images, C channels, an (H, W) map, R regions, P x Q bins per region.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .libraries import torchvision_runs

# Weights of samples in memory at once, to bound it: some 100 MB.
_MAX_WEIGHTS = 4_000_000


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    **geometry: Any,
) -> None:
    """Average bilinear samples of the maps in the bins of regions.

    Args:
        input: (B, C, H, W) maps.
        rois: (R, 5) index of the image and corners of each region in pixels.
        output: (R, C, P, Q), written in place.
        argmax_y: Only used by maximum pooling.
        argmax_x: Likewise.
        geometry: See :class:`_Bins`.

    Raises:
        NotImplementedError: For maximum pooling.
    """
    dtype = torch.promote_types(input.dtype, torch.float32)
    maps = input.to(dtype)
    bins = _Bins(rois.to(dtype), input.shape, **geometry)
    if torchvision_runs(input):
        pooled = torch.ops.torchvision.roi_align(maps, bins.rois, *bins.torchvision)
        output.copy_(pooled)
        return
    cells = maps.permute(0, 2, 3, 1).flatten(0, 2)
    for chosen, index, weight in bins.samples():
        pooled = F.embedding_bag(
            index.flatten(0, 1),
            cells,
            mode='sum',
            per_sample_weights=weight.flatten(0, 1),
        )
        pooled = pooled.unflatten(0, (len(chosen), *bins.shape)).permute(0, 3, 1, 2)
        output[chosen] = pooled.to(output.dtype)


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    **geometry: Any,
) -> None:
    """Write the gradient of :func:`roi_align_forward` with respect to the maps to
    ``grad_input`` (B, C, H, W), from that of its output (R, C, P, Q)."""
    dtype = torch.promote_types(grad_output.dtype, torch.float32)
    grads = grad_output.to(dtype)
    shape = grad_input.shape
    bins = _Bins(rois.to(dtype), shape, **geometry)
    if torchvision_runs(grad_output):
        scale, height, width, *sampling = bins.torchvision
        grad_input.copy_(
            torch.ops.torchvision._roi_align_backward(
                grads, bins.rois, scale, height, width, *shape, *sampling
            )
        )
        return
    grads = grads.permute(0, 2, 3, 1)
    total = grads.new_zeros(shape[0] * shape[2] * shape[3], shape[1])
    cells = torch.arange(len(total), device=grads.device)
    rows = torch.arange(grads[..., 0].numel(), device=grads.device)
    rows = rows.view(len(grads), math.prod(bins.shape), 1)
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

    for chosen, index, weight in bins.samples():
        reader = rows[chosen].expand_as(index)
        waiting.append((index.flatten(), reader.flatten(), weight.flatten()))
        if sum(len(part) for part, _, _ in waiting) > _MAX_WEIGHTS:
            add_waiting()
    if waiting:
        add_waiting()
    total = total.view(shape[0], *shape[2:], shape[1]).permute(0, 3, 1, 2)
    grad_input.copy_(total)


class _Bins:
    """The bins of regions, and which map cells they average.

    Args:
        rois: (R, 5) index of the image and corners of each region in pixels.
        maps_shape: (B, C, H, W).
        aligned_height: P.
        aligned_width: Q.
        spatial_scale: Map cells per pixel.
        sampling_ratio: Samples per bin and axis; 0 for one per cell.
        pool_mode: 1 for the average.
        aligned: Whether pixel centres are at half-integers.

    Attributes:
        shape: (P, Q).
        torchvision: The arguments after the regions of torchvision's operators.

    Raises:
        NotImplementedError: For maximum pooling.
    """

    def __init__(
        self,
        rois: Tensor,
        maps_shape: torch.Size,
        *,
        aligned_height: int,
        aligned_width: int,
        spatial_scale: float,
        sampling_ratio: int,
        pool_mode: int,
        aligned: bool,
    ) -> None:
        if pool_mode != 1:
            raise NotImplementedError(
                "RoIAlign with pool_mode='max' exists only in mmcv's compiled form, and "
                "this mmcv has none; use pool_mode='avg', or install a compiled mmcv"
            )
        self.rois = rois
        self.map_size = tuple(maps_shape[2:])
        self.shape = (aligned_height, aligned_width)
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned
        self.torchvision = (spatial_scale, *self.shape, sampling_ratio, aligned)

    def samples(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Which cells are averaged, and with which weights.

        A bilinear sample, and therefore an average over a grid of them, is a product of
        weights for rows and for columns. Regions whose bins touch the same number of rows
        and columns are treated together.

        Yields:
            Indices of the regions (r,); cells of their bins (r, P * Q, S), numbered
            through all images; and weights of the cells (r, P * Q, S).
        """
        height, width = self.map_size
        shift = 0.5 if self.aligned else 0.0
        starts = self.rois[:, 1:3] * self.spatial_scale - shift
        sizes = self.rois[:, 3:5] * self.spatial_scale - shift - starts
        if not self.aligned:
            sizes = sizes.clamp(min=1)
        steps = sizes / sizes.new_tensor(self.shape[::-1])
        if self.sampling_ratio > 0:
            counts = torch.full_like(steps, self.sampling_ratio, dtype=torch.long)
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
            per_region = math.prod(self.shape) * across * down
            for chosen in members.split(max(_MAX_WEIGHTS // per_region, 1)):
                (x, x_weight), (y, y_weight) = (
                    _axis(
                        starts[chosen, axis],
                        steps[chosen, axis],
                        counts[chosen, axis],
                        self.shape[1 - axis],
                        self.map_size[1 - axis],
                        span,
                    )
                    for axis, span in enumerate((across, down))
                )
                y_weight = y_weight * nonempty[chosen, None, None]
                image = self.rois[chosen, 0].long().view(-1, 1, 1, 1, 1)
                rows = image * height + y[:, :, None, :, None]
                index = rows * width + x[:, None, :, None, :]
                weight = y_weight[:, :, None, :, None] * x_weight[:, None, :, None, :]
                # (r, P, Q, rows, columns) to (r, P * Q, S)
                yield chosen, *(v.flatten(3).flatten(1, 2) for v in (index, weight))


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
