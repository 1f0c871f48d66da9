"""What the OpenMMLab packages need: to read MMEngine's checkpoints with today's PyTorch,
to find the configs of this package, and to be quiet about their own code."""

from __future__ import annotations

import logging
import warnings
from argparse import Namespace
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.logging import HistoryBuffer
from mmengine.runner import checkpoint as mmengine_checkpoint

# Statistics that every HistoryBuffer registers.
_STATISTICS = ('min', 'max', 'current', 'mean')


# Beginnings of warnings about code of the dependencies, which users cannot change.
_WARNINGS = (
    'pkg_resources is deprecated as an API',  # mmengine
    r'torch\.meshgrid: in an upcoming release',  # mmdet
    '``build_loss`` would be deprecated soon',  # mmseg
    'Default ``avg_non_ignore`` is False',  # mmseg
)
# The same for messages of the log.
_MESSAGES = (
    '"FileClient" will be deprecated in future',
    '"HardDiskBackend" is the alias of',
    'The prefix is not set in metric class',
)


def quiet_warnings() -> None:
    """Hide warnings about code of the dependencies."""
    for message in _WARNINGS:
        warnings.filterwarnings('ignore', message, UserWarning)


def quiet_logger(logger: logging.Logger) -> None:
    """Hide messages of a run's log about code of the dependencies."""
    logger.addFilter(lambda record: not record.getMessage().startswith(_MESSAGES))


def register_configs() -> None:
    """Let MMEngine find configs as 'piip_mm::det/NAME.py', as those of OpenMMLab."""
    MODULE2PACKAGE['piip_mm'] = 'piip_mm'


def allow_mmengine_checkpoints() -> None:
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


def refuse_code_in_checkpoints() -> None:
    """Let no MMEngine execute code of a file: that of OneDL loads a file once more with
    ``weights_only=False`` where ``weights_only=True`` has refused it."""
    if hasattr(mmengine_checkpoint, '_safe_torch_load'):
        mmengine_checkpoint._safe_torch_load = _load_without_code


def _load_without_code(
    file: Any, map_location: Any = None, weights_only: bool | None = None
) -> Any:
    return torch.load(file, map_location, weights_only=True)


def _history_buffer_method(owner: Any, name: str) -> Any:
    """``getattr`` for statistics methods of ``HistoryBuffer`` only."""
    if owner is not HistoryBuffer or name not in _STATISTICS:
        raise UnpicklingError(
            f'a checkpoint may only refer to statistics of HistoryBuffer, not to '
            f'{name!r} of {owner!r}'
        )
    return getattr(owner, name)
