"""Trained models made ready for inference."""

from .fuse import find_backbone, fuse

__all__ = ['find_backbone', 'fuse']
