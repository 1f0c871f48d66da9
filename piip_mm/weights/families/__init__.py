"""Weights of the branch families: names, sizes, what may be missing."""

from . import beit, convnext, uniperceiver, vit
from .base import Family, family_of

__all__ = ['Family', 'beit', 'convnext', 'family_of', 'uniperceiver', 'vit']
