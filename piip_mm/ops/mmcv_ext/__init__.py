"""What mmcv's compiled extension does for the supported models, without compiling.

:mod:`piip_mm.startup` makes this package the module ``mmcv._ext`` where mmcv has none (as
mmcv-lite), so that its files import nothing else of piip_mm. The functions have the
signatures of the compiled ones. They run torchvision's compiled operators where these
load, and PyTorch elsewhere. Any other operator raises an error when it is called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from .deform_attn import ms_deform_attn_backward, ms_deform_attn_forward
from .focal_loss import sigmoid_focal_loss_backward, sigmoid_focal_loss_forward
from .roi_align import roi_align_backward, roi_align_forward
from .suppression import nms

__all__ = [
    'get_compiler_version',
    'get_compiling_cuda_version',
    'ms_deform_attn_backward',
    'ms_deform_attn_forward',
    'nms',
    'roi_align_backward',
    'roi_align_forward',
    'sigmoid_focal_loss_backward',
    'sigmoid_focal_loss_forward',
]

IS_COMPILED = False


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
