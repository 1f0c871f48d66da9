"""Deformable attention on several levels (Deformable DETR, arXiv 2010.04159, eq. 3).

Shapes: B images, N tokens of all L levels, M heads of D channels, Q queries, K points.
"""

from __future__ import annotations

import torch
from torch import Tensor


def ms_deform_attn_forward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Attend, in mmcv's own PyTorch.

    Args:
        value: (B, N, M, D) tokens of all levels.
        spatial_shapes: (L, 2) grids of the levels.
        level_start_index: (L,), which follows from the grids.
        sampling_locations: (B, Q, M, L, K, 2) points from 0 to 1.
        attention_weights: (B, Q, M, L, K).
        im2col_step: Images at once; of no effect here.

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
    """Write the gradients of :func:`ms_deform_attn_forward`, which is run again.

    Args besides those of the forward pass:
        grad_output: (B, Q, M * D).
        grad_value: Of the shape of ``value``.
        grad_sampling_loc: Of the shape of ``sampling_locations``.
        grad_attn_weight: Of the shape of ``attention_weights``.
    """
    value, points, weights = inputs = [
        tensor.detach().requires_grad_()
        for tensor in (value, sampling_locations, attention_weights)
    ]
    with torch.enable_grad():
        out = ms_deform_attn_forward(
            value, spatial_shapes, level_start_index, points, weights, im2col_step
        )
    grads = torch.autograd.grad(out, inputs, grad_output)
    targets = (grad_value, grad_sampling_loc, grad_attn_weight)
    for target, grad in zip(targets, grads, strict=True):
        target.copy_(grad)
