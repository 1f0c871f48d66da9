"""Sampling core of deformable attention: one function, several backends.

Shapes: B batch, Q queries, N = H * W value tokens, M heads, D channels per head,
P sampling points.

Deformable DETR (arXiv 2010.04159), eq. 2, on one level::

    out[b, q, m] = sum_p weights[b, q, m, p]
                         * bilinear(value[b, :, m], locations[b, q, m, p])

with zeros outside the map and pixel centres at half-integers (``align_corners=False``).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor

from piip_mm.checks import check_choice

#: Names accepted as ``backend``: 'auto' uses 'mmcv' on CUDA, if mmcv was compiled for it,
#: and 'torch' otherwise.
DEFORM_ATTN_BACKENDS = ('auto', 'mmcv', 'torch')

# mmcv's kernel works through the batch in steps of at most this many images.
_MAX_IM2COL_STEP = 64


def deformable_attention(
    value: Tensor,
    value_grid: tuple[int, int],
    locations: Tensor,
    weights: Tensor,
    backend: str = 'auto',
) -> Tensor:
    """Weighted sum of bilinear samples of ``value`` around each query.

    Precision: mmcv's CUDA kernel exists for float64, float32 and float16, and casts the
    sampling locations to the type of the value, which costs whole pixels of accuracy in
    16 bits. Therefore every backend samples in float32 (float64 for float64 input),
    regardless of autocast, and the result has the type of ``value``.

    Args:
        value: (B, N, M, D) projected features, N = H * W in row-major order.
        value_grid: (H, W) of the value tokens.
        locations: (B, Q, M, P, 2) sampling points as (x, y), 0 to 1 from the left and
            the top edge of the value map; points outside read zeros.
        weights: (B, Q, M, P) attention weights, normalised over P by the caller.
        backend: One of :data:`DEFORM_ATTN_BACKENDS`.

    Returns:
        (B, Q, M * D), of the type of ``value``.

    Raises:
        ValueError: If ``backend`` is unknown, or 'mmcv' and the tensors are not on CUDA.
        RuntimeError: If 'mmcv' is requested and mmcv has no compiled CUDA operators.
    """
    sample = _BACKENDS[_select(backend, value.device.type)]
    dtype = value.dtype
    compute_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    with no_autocast(value.device):
        out = sample(
            value.to(compute_dtype),
            value_grid,
            locations.to(compute_dtype),
            weights.to(compute_dtype),
        )
    return out.to(dtype)


def no_autocast(device: torch.device) -> AbstractContextManager:
    """Disable autocast on device types that support it ('meta' does not)."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def filled(values: Sequence[float], like: Tensor) -> Tensor:
    """1-D tensor of the values, of the type and on the device of ``like``; unlike
    ``torch.tensor``, it copies nothing from the host, for which a GPU would wait."""
    return torch.cat([like.new_full((1,), value) for value in values])


def check_backend(backend: str) -> None:
    """Fail early if a backend can never run in this installation.

    Raises:
        ValueError: If the name is unknown.
        RuntimeError: If 'mmcv' is requested and mmcv has no compiled CUDA operators.
    """
    check_choice('deformable attention backend', backend, DEFORM_ATTN_BACKENDS)
    if backend == 'mmcv' and not _mmcv_has_cuda():
        raise RuntimeError(
            "backend 'mmcv' needs mmcv with compiled CUDA operators, but "
            f'{_mmcv_cuda_version()}; install such a build, or use '
            "backend='auto' or 'torch'"
        )


def _sample_torch(
    value: Tensor, value_grid: tuple[int, int], locations: Tensor, weights: Tensor
) -> Tensor:
    needs_gradient = torch.is_grad_enabled() and any(
        x.requires_grad for x in (value, locations, weights)
    )
    if value.device.type == 'cpu' and not needs_gradient:
        # Twice as fast, but its backward pass is slower than that of grid_sample.
        return _sum_of_rows(value, value_grid, locations, weights)
    batch, _, heads, dims = value.shape
    queries, points = locations.shape[1], locations.shape[3]
    maps = value.permute(0, 2, 3, 1).reshape(batch * heads, dims, *value_grid)
    # Coordinates of grid_sample run from -1 to 1, locations from 0 to 1.
    points_xy = (2 * locations - 1).transpose(1, 2).reshape(-1, queries, points, 2)
    sampled = F.grid_sample(
        maps, points_xy, mode='bilinear', padding_mode='zeros', align_corners=False
    )
    weights = weights.transpose(1, 2).reshape(batch * heads, 1, queries, points)
    out = (sampled * weights).sum(-1)
    return out.view(batch, heads * dims, queries).transpose(1, 2)


def _sum_of_rows(
    value: Tensor, value_grid: tuple[int, int], locations: Tensor, weights: Tensor
) -> Tensor:
    """Every query and head sums rows of D values: four for each sample."""
    batch, tokens, heads, dims = value.shape
    queries = locations.shape[1]
    height, width = value_grid
    size = filled((width, height), locations)
    last = size - 1
    position = locations * size - 0.5
    low = position.floor()
    share = position - low
    # What the neighbours below and above get in either direction: nothing if outside.
    shares = (
        (1 - share) * ((low >= 0) & (low <= last)),
        share * ((low >= -1) & (low < last)),
    )
    # Unlike clamp, these make an index of NaN, too; the sum is still NaN.
    zero = torch.zeros_like(last)
    indexes = [x.fmin(last).fmax(zero).int() for x in (low, low + 1)]
    heads_of_images = torch.arange(batch, dtype=torch.int32)[:, None] * (tokens * heads)
    heads_of_images = heads_of_images + torch.arange(heads, dtype=torch.int32)
    first_row = heads_of_images[:, None, :, None]
    rows = [first_row + index[..., 1] * (width * heads) for index in indexes]
    columns = [index[..., 0] * heads for index in indexes]
    weighted = [share[..., 1] * weights for share in shares]
    corners = [(y, x) for y in (0, 1) for x in (0, 1)]
    factors = torch.stack([weighted[y] * shares[x][..., 0] for y, x in corners], -1)
    chosen = torch.stack([rows[y] + columns[x] for y, x in corners], -1)
    num_sums = batch * queries * heads
    sums = F.embedding_bag(
        chosen.view(num_sums, -1),
        value.reshape(-1, dims),
        mode='sum',
        per_sample_weights=factors.view(num_sums, -1),
    )
    return sums.view(batch, queries, heads * dims)


def _sample_mmcv(
    value: Tensor, value_grid: tuple[int, int], locations: Tensor, weights: Tensor
) -> Tensor:
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

    start = torch.zeros(1, dtype=torch.long, device=value.device)
    return MultiScaleDeformableAttnFunction.apply(
        value.contiguous(),
        filled(value_grid, start)[None],
        start,
        locations.unsqueeze(3).contiguous(),
        weights.unsqueeze(3).contiguous(),
        _im2col_step(value.shape[0]),
    )


def _im2col_step(batch: int) -> int:
    """Images per step; the kernel requires a divisor of the batch size."""
    return next(s for s in range(min(batch, _MAX_IM2COL_STEP), 0, -1) if batch % s == 0)


_BACKENDS = {'mmcv': _sample_mmcv, 'torch': _sample_torch}


# Without this, torch.compile would break its graph at the log message.
@torch.compiler.assume_constant_result
def _select(backend: str, device_type: str) -> str:
    """Name of the backend to run."""
    return _select_once(backend, device_type)


@lru_cache
def _select_once(backend: str, device_type: str) -> str:
    """See :func:`_select`; logged once per choice and device type."""
    check_backend(backend)
    if backend == 'mmcv' and device_type != 'cuda':
        raise ValueError(
            f"backend 'mmcv' runs on CUDA tensors only, got one on {device_type!r}; "
            "use backend='auto' or 'torch', or move the model to a GPU"
        )
    if backend == 'auto':
        name = 'mmcv' if device_type == 'cuda' and _mmcv_has_cuda() else 'torch'
    else:
        name = backend
    message = f'Deformable attention on {device_type}: {name!r} backend'
    if backend == 'auto' and device_type == 'cuda' and name == 'torch':
        message += f', the slower one: {_mmcv_cuda_version()}'
    print_log(message, logger='current')
    return name


def _mmcv_cuda_version() -> str:
    """Which CUDA version mmcv's operators were compiled for, in words."""
    try:
        from mmcv.ops import get_compiling_cuda_version
    except (ImportError, OSError) as error:
        return f'mmcv.ops cannot be imported ({error})'
    return f'mmcv.ops was compiled with CUDA: {get_compiling_cuda_version()}'


@lru_cache
def _mmcv_has_cuda() -> bool:
    try:
        from mmcv.ops import get_compiling_cuda_version
    except (ImportError, OSError):
        return False
    return get_compiling_cuda_version() != 'not available'
