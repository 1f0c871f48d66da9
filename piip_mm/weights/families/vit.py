"""Weights of plain vision transformers."""

from __future__ import annotations

from torch import Tensor

from piip_mm.models import PIIPViT

from ..rename import Rule
from .base import Family, family_of
from .resize import resize_kernel, resize_positions

_PARTS = r'norm[12]|attn\.(?:qkv|proj|q_norm|k_norm)|mlp\.fc[12]|ls[12]'

#: The published code, the releases of DeiT, DeiT III, MAE, DINOv2 and InternViT, timm.
_RULES: list[Rule] = [
    (r'patch_embed\.proj\.(.+)', r'patch_embed.\1'),
    (r'pos_embed|cls_token', r'\g<0>'),
    (r'(blocks\.\d+)\.gamma_([12])', r'\1.ls\2.gamma'),
    (rf'blocks\.\d+\.(?:{_PARTS})\..+', r'\g<0>'),
    # A published branch may have an upsampler that nothing reads.
    (r'dist_token|mask_token|(?:norm|fc_norm|head|head_dist|up[12])\..+', None),
    # The decoder of MAE.
    (r'decoder_.+', None),
]


def _fit(name: str, tensor: Tensor, branch: PIIPViT) -> Tensor:
    match name:
        case 'patch_embed.weight':
            return resize_kernel(tensor, branch)
        case 'pos_embed':
            cls_row = branch.arch.cls_pos_row
            return resize_positions(tensor, branch.pos_grid, cls_row=cls_row)
        case _:
            return tensor


_FAMILY = Family(
    title='plain vision transformers (DeiT, DeiT III, AugReg, MAE, DINOv2, InternViT)',
    rules=_RULES,
    optional=r'cls_token|blocks\.\d+\.ls[12]\.gamma',
    fit=_fit,
)


@family_of.register
def _vit_family(branch: PIIPViT) -> Family:
    return _FAMILY
