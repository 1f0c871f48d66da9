"""Operators with more than one implementation."""

from .deform_attn.function import (
    DEFORM_ATTN_BACKENDS,
    check_backend,
    deformable_attention,
    runnable_backends,
)
from .tensors import can_autocast, filled, no_autocast

__all__ = [
    'DEFORM_ATTN_BACKENDS',
    'can_autocast',
    'check_backend',
    'deformable_attention',
    'filled',
    'no_autocast',
    'runnable_backends',
]
