"""Weights of the branch families: names, sizes, what may be missing."""

from . import beit, convnext, timm, uniperceiver, vit
from .base import Family, family_of

__all__ = ['Family', 'beit', 'convnext', 'family_of', 'timm', 'uniperceiver', 'vit']
