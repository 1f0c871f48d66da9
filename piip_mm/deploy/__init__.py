"""Trained models made ready for inference, and models compiled."""

from .compile import COMPILE_MODES, compile_model
from .fuse import find_backbone, fuse

__all__ = ['COMPILE_MODES', 'compile_model', 'find_backbone', 'fuse']
