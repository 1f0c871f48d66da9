"""Which library runs an operator."""

from __future__ import annotations

from functools import lru_cache

from mmengine.logging import print_log
from torch import Tensor


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


def torchvision_runs(tensor: Tensor) -> bool:
    """Whether torchvision's operators run this tensor; logged once per device type."""
    loads = _torchvision_loads()
    _announce(tensor.device.type, 'torchvision' if loads else 'PyTorch')
    return loads
