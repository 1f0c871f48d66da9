"""Backbones, registered in MMEngine's root registry."""

from .branches import PIIPViT
from .piip import PIIP
from .vit_pyramid import ViTPyramid

__all__ = ['PIIP', 'PIIPViT', 'ViTPyramid']
