"""Small parts that operators share."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


# Without this, torch.compile of PyTorch 2.6 would break its graph.
@torch.compiler.assume_constant_result
def can_autocast(device_type: str) -> bool:
    """Whether a type of device supports autocast; 'meta' does not."""
    return torch.amp.is_autocast_available(device_type)


def no_autocast(device: torch.device) -> AbstractContextManager:
    """Disable autocast on device types that support it."""
    if can_autocast(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def filled(values: Sequence[float], like: Tensor) -> Tensor:
    """1-D tensor of the values, of the type and on the device of ``like``; unlike
    ``torch.tensor``, it copies nothing from the host, for which a GPU would wait."""
    return torch.cat([like.new_full((1,), value) for value in values])


def at_least_float32(*tensors: Tensor) -> list[Tensor]:
    """The tensors in float64 if the first one is, and in float32 otherwise."""
    double = tensors[0].dtype == torch.float64
    return [x.to(torch.float64 if double else torch.float32) for x in tensors]
