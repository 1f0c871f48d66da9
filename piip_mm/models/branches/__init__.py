"""Branch families: pretrained networks as the branches of a PIIP."""

from .base import Branch
from .beit import BEIT_ARCHS, BEiTArch, PIIPBEiT
from .convnext import CONVNEXT_ARCHS, ConvNeXtArch, PIIPConvNeXt
from .plain import PlainBranch
from .timm import PIIPTimm
from .uniperceiver import UNIPERCEIVER_ARCHS, PIIPUniPerceiver, UniPerceiverArch
from .vit import VIT_ARCHS, PIIPViT, ViTArch

__all__ = [
    'BEIT_ARCHS',
    'CONVNEXT_ARCHS',
    'UNIPERCEIVER_ARCHS',
    'VIT_ARCHS',
    'BEiTArch',
    'Branch',
    'ConvNeXtArch',
    'PIIPBEiT',
    'PIIPConvNeXt',
    'PIIPTimm',
    'PIIPUniPerceiver',
    'PIIPViT',
    'PlainBranch',
    'UniPerceiverArch',
    'ViTArch',
]
