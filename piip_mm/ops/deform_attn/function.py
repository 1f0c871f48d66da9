"""Sampling core of deformable attention: one function, several backends.

Shapes: B batch, Q queries, N = H * W value tokens, M heads, D channels per head,
P sampling points.

Deformable DETR (arXiv 2010.04159), eq. 2, on one level::

    out[b, q, m] = sum_p weights[b, q, m, p]
                         * bilinear(value[b, :, m], locations[b, q, m, p])

with zeros outside the map and pixel centres at half-integers (``align_corners=False``).
"""

from __future__ import annotations

from functools import lru_cache

import torch
from mmengine.logging import print_log
from torch import Tensor

from piip_mm.checks import check_choice

from ..tensors import no_autocast
from . import with_deformops, with_mmcv, with_torch

#: Names accepted as ``backend``: 'auto' uses on CUDA the first of 'mmcv' and 'deformops'
#: that is installed for it, and 'torch' otherwise.
DEFORM_ATTN_BACKENDS = ('auto', 'mmcv', 'deformops', 'torch')

# In the order of preference, in which they have not been measured yet.
_ON_CUDA = {'mmcv': with_mmcv, 'deformops': with_deformops}
_SAMPLE = {
    'mmcv': with_mmcv.sample,
    'deformops': with_deformops.sample,
    'torch': with_torch.sample,
}


def deformable_attention(
    value: Tensor,
    value_grid: tuple[int, int],
    locations: Tensor,
    weights: Tensor,
    backend: str = 'auto',
) -> Tensor:
    """Weighted sum of bilinear samples of ``value`` around each query.

    Precision: coordinates, bilinear weights and sums are float32 in every backend
    (float64 for float64 input), regardless of autocast, and the result has the type of
    ``value``. 'mmcv' and 'torch' cast the value to float32 first; 'deformops' reads
    values of 16 bits as they are and rounds the attention weights to their type.

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
        ValueError: If ``backend`` is unknown, or runs on CUDA only and the tensors are
            elsewhere.
        RuntimeError: If what ``backend`` needs is not installed.
    """
    sample = _SAMPLE[_select(backend, value.device.type)]
    with no_autocast(value.device):
        return sample(value, value_grid, locations, weights).to(value.dtype)


def check_backend(backend: str) -> None:
    """Fail early if a backend can never run in this installation.

    Raises:
        ValueError: If the name is unknown.
        RuntimeError: If what it needs is not installed.
    """
    check_choice('deformable attention backend', backend, DEFORM_ATTN_BACKENDS)
    if backend in _ON_CUDA and (missing := _ON_CUDA[backend].what_is_missing()):
        raise RuntimeError(
            f'backend {backend!r} needs {_ON_CUDA[backend].NEEDS}, but {missing}. '
            "Otherwise use backend='auto' or 'torch'"
        )


def runnable_backends(device_type: str) -> list[str]:
    """Names of the backends that can run on a type of device, the preferred one first."""
    on_cuda = [name for name, module in _ON_CUDA.items() if not module.what_is_missing()]
    return [*(on_cuda if device_type == 'cuda' else []), 'torch']


# Without this, torch.compile would break its graph at the log message.
@torch.compiler.assume_constant_result
def _select(backend: str, device_type: str) -> str:
    """Name of the backend to run."""
    return _select_once(backend, device_type)


@lru_cache
def _select_once(backend: str, device_type: str) -> str:
    """See :func:`_select`; logged once per choice and device type."""
    check_backend(backend)
    if backend in _ON_CUDA and device_type != 'cuda':
        raise ValueError(
            f'backend {backend!r} runs on CUDA tensors only, got one on {device_type!r}; '
            "use backend='auto' or 'torch', or move the model to a GPU"
        )
    name = runnable_backends(device_type)[0] if backend == 'auto' else backend
    message = f'Deformable attention on {device_type}: {name!r} backend'
    if backend == 'auto' and device_type == 'cuda' and name == 'torch':
        reasons = [f'{n!r}: {m.what_is_missing()}' for n, m in _ON_CUDA.items()]
        message += f'. Expected to be faster, but missing: {". ".join(reasons)}'
    print_log(message, logger='current')
    return name
