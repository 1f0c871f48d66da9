"""Backbones and branches, registered in MMEngine's root registry."""

from .branches import PIIPBEiT, PIIPConvNeXt, PIIPTimm, PIIPUniPerceiver, PIIPViT
from .piip import PIIP
from .vit_pyramid import ViTPyramid

__all__ = [
    'PIIP',
    'PIIPBEiT',
    'PIIPConvNeXt',
    'PIIPTimm',
    'PIIPUniPerceiver',
    'PIIPViT',
    'ViTPyramid',
]
