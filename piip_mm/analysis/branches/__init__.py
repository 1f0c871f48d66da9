"""Counting rules of the branch families."""

from . import beit, convnext, timm, uniperceiver, vit
from .base import BranchCount, count_branch

__all__ = [
    'BranchCount',
    'beit',
    'convnext',
    'count_branch',
    'timm',
    'uniperceiver',
    'vit',
]
