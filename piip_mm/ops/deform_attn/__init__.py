"""Sampling core of deformable attention; a file per backend."""

from .function import (
    DEFORM_ATTN_BACKENDS,
    check_backend,
    deformable_attention,
    runnable_backends,
)

__all__ = [
    'DEFORM_ATTN_BACKENDS',
    'check_backend',
    'deformable_attention',
    'runnable_backends',
]
