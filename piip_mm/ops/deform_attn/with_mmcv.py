"""Sampling core by mmcv's compiled CUDA operator.

Its kernel exists for float64, float32 and float16, and casts the sampling locations to
the type of the value, which costs whole pixels of accuracy in 16 bits. Therefore all
tensors become float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..tensors import at_least_float32, filled

#: What the backend needs, for messages.
NEEDS = 'mmcv with compiled CUDA operators'

# The kernel works through the batch in steps of at most this many images.
_MAX_IM2COL_STEP = 64


def sample(
    value: Tensor, value_grid: tuple[int, int], locations: Tensor, weights: Tensor
) -> Tensor:
    """See :func:`piip_mm.ops.deformable_attention`; the result is not cast back."""
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

    value, locations, weights = at_least_float32(value, locations, weights)
    start = torch.zeros(1, dtype=torch.long, device=value.device)
    return MultiScaleDeformableAttnFunction.apply(
        value.contiguous(),
        filled(value_grid, start)[None],
        start,
        locations.unsqueeze(3).contiguous(),
        weights.unsqueeze(3).contiguous(),
        im2col_step(value.shape[0]),
    )


def im2col_step(batch: int) -> int:
    """Images per step; the kernel requires a divisor of the batch size."""
    return next(s for s in range(min(batch, _MAX_IM2COL_STEP), 0, -1) if batch % s == 0)


def what_is_missing() -> str:
    """Why the backend cannot run in this installation, in words; empty if it can."""
    try:
        from mmcv.ops import get_compiling_cuda_version
    except (ImportError, OSError) as error:
        return f'mmcv.ops cannot be imported ({error}); install such a build'
    version = get_compiling_cuda_version()
    if version == 'not available':
        return f'mmcv.ops was compiled with CUDA: {version}; install such a build'
    return ''
