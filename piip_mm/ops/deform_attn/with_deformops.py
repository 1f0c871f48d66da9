"""Sampling core by the Triton kernels of deformops (https://github.com/tue-p8n/deformops).

What its version 3.0.1 does, from its source:

- Values may be of 16 bits next to float32 locations. Coordinates, bilinear weights and
  sums are float32 in the kernels. The attention weights have to be of the type of the
  value; the gradients of locations and weights are rounded to that type, once.
- The gradient of the value is summed in float32 if ``fp32acc`` is set. Otherwise GPUs of
  compute capability 9.0 and newer, such as the H100, sum it in the type of the value.
- It is summed by atomic additions, so that its last bits differ between runs, as those of
  mmcv do.
- Any number of channels per head and of points works. Channels are padded to a power of
  two within the kernel, not in memory.
- The kernels do not exist for float64; deformops runs plain PyTorch then.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

import torch
from mmengine.utils import digit_version
from torch import Tensor

from ..tensors import at_least_float32, filled

#: What the backend needs, for messages.
NEEDS = 'the package deformops'

# The versions of Python and the first PyTorch that deformops supports.
_PYTHON = ((3, 12), (3, 13))
_PYTORCH = '2.11'


def sample(
    value: Tensor, value_grid: tuple[int, int], locations: Tensor, weights: Tensor
) -> Tensor:
    """See :func:`piip_mm.ops.deformable_attention`; values of 16 bits stay as they are.

    CPU tensors, which only tests pass, are sampled by deformops' plain PyTorch.
    """
    from deformops.registry import msda

    (locations,) = at_least_float32(locations)
    start = torch.zeros(1, dtype=torch.int32, device=value.device)
    return msda(
        value,
        filled(value_grid, start)[None],
        start,
        locations.unsqueeze(3),
        weights.unsqueeze(3).to(value.dtype),
        fp32acc=True,
    )


def what_is_missing() -> str:
    """Why the backend cannot run in this installation, in words; empty if it can.

    It also loads the kernels, which torch.compile could not do while it traces.
    """
    try:
        from deformops.registry import msda
    except ImportError as error:
        return f'deformops cannot be imported ({error}); {how_to_install()}'
    if find_spec('triton') is None:
        return 'deformops runs Triton kernels, and there is no Triton; install triton'
    if torch.cuda.is_available():
        if torch.cuda.get_device_capability() < (7, 0):
            return 'Triton needs a GPU of compute capability 7.0 or newer'
        msda.available()
    return ''


def how_to_install(
    python: tuple[int, int] = sys.version_info[:2], pytorch: str = torch.__version__
) -> str:
    """The command, or the versions that deformops needs if these are others."""
    if python in _PYTHON and digit_version(pytorch) >= digit_version(_PYTORCH):
        return 'pip install deformops'
    pythons = ' or '.join(f'{major}.{minor}' for major, minor in _PYTHON)
    return (
        f'it needs Python {pythons} and PyTorch {_PYTORCH} or newer, but this is Python '
        f'{python[0]}.{python[1]} with PyTorch {pytorch}'
    )
