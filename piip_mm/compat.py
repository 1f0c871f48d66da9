"""Fixes for running the OpenMMLab stack on a current PyTorch.

Each fix applies only where its problem occurs and changes nothing else.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

# Operators whose schemas torchvision looks up while it is being imported.
_TORCHVISION_OPS = {
    'nms': '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor',
    'qnms': '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor',
}

# Statistics that every HistoryBuffer registers.
_STATISTICS = ('min', 'max', 'current', 'mean')


def apply_compat() -> None:
    """Make torchvision importable and MMEngine's checkpoints loadable."""
    _define_torchvision_ops()
    _allow_mmengine_checkpoints()


def _define_torchvision_ops() -> None:
    """Make torchvision importable with a CPU build of PyTorch.

    PyPI has torchvision for CUDA only: without the CUDA libraries its operators cannot be
    loaded, and importing it fails. Once their schemas are defined, transforms and models
    work, which is all that timm and mmpretrain need. ``torchvision.ops.nms`` remains
    unavailable; the detectors use mmcv's.
    """
    if torch.version.cuda or torch.version.hip or 'torchvision' in sys.modules:
        return
    spec = find_spec('torchvision')
    if spec is None or spec.origin is None:
        return
    try:
        for library in Path(spec.origin).parent.glob('_C*.so'):
            torch.ops.load_library(library)
    except OSError:
        pass
    for name, schema in _TORCHVISION_OPS.items():
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f'torchvision::{name}', schema)


def _allow_mmengine_checkpoints() -> None:
    """Let ``torch.load(weights_only=True)`` read what MMEngine's runner saves.

    Besides tensors, checkpoints contain the log's ``HistoryBuffer`` objects and NumPy
    scalars. They also call ``getattr`` to look up the buffers' statistics methods; it is
    replaced by a function that returns nothing else.
    """
    numpy_types = {type(np.dtype(code)) for code in ('bool', 'i4', 'i8', 'f4', 'f8')}
    core = np._core if hasattr(np, '_core') else np.core
    rebuild = [getattr(core.multiarray, name) for name in ('_reconstruct', 'scalar')]
    torch.serialization.add_safe_globals(
        [
            # Published classifiers were saved with the arguments of their script.
            Namespace,
            HistoryBuffer,
            np.ndarray,
            np.dtype,
            *numpy_types,
            *rebuild,
            # Files may come from NumPy 1 or 2, which name the module differently.
            *((f, f'numpy.core.multiarray.{f.__name__}') for f in rebuild),
            *((f, f'numpy._core.multiarray.{f.__name__}') for f in rebuild),
            (_history_buffer_method, 'builtins.getattr'),
        ]
    )


def _history_buffer_method(owner: Any, name: str) -> Any:
    """``getattr`` for statistics methods of ``HistoryBuffer`` only."""
    if owner is not HistoryBuffer or name not in _STATISTICS:
        raise UnpicklingError(
            f'a checkpoint may only refer to statistics of HistoryBuffer, not to '
            f'{name!r} of {owner!r}'
        )
    return getattr(owner, name)
