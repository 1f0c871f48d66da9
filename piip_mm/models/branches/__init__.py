"""Branch families: pretrained networks as the branches of a PIIP."""

from .archs import VIT_ARCHS, ViTArch, resolve_vit_arch
from .base import Branch
from .vit import PIIPViT

__all__ = ['VIT_ARCHS', 'Branch', 'PIIPViT', 'ViTArch', 'resolve_vit_arch']
