"""Weights of Uni-Perceiver."""

from __future__ import annotations

from torch import Tensor

from piip_mm.models.branches.uniperceiver import PIIPUniPerceiver

from ..rename import Rule
from .base import Family, family_of
from .resize import resize_kernel, resize_positions

# The original release has the encoder under 'fused_encoder', takes images for videos of
# one frame and names the projections as torch's own attention does. The published PIIP
# code loads the files that ViT-Adapter converted, without all that.
_LAYER = r'(?:fused_encoder\.)?layers\.(\d+)\.'
_EMBED = r'(?:visual|video)_embed\.'
_POSITIONS = rf'{_EMBED}(?:patch_embed|embeddings_st_pos)\.'

_RULES: list[Rule] = [
    (rf'{_LAYER}gamma_([12])', r'blocks.\1.ls\2.gamma'),
    (rf'{_LAYER}self_attn\.in_proj[._](.+)', r'blocks.\1.attn.qkv.\2'),
    (rf'{_LAYER}self_attn\.out_proj\.(.+)', r'blocks.\1.attn.proj.\2'),
    (rf'{_LAYER}linear([12])\.(.+)', r'blocks.\1.mlp.fc\2.\3'),
    (rf'{_LAYER}(norm[12]\..+)', r'blocks.\1.\2'),
    (rf'{_EMBED}(?:patch_embed\.proj|embeddings)\.(.+)', r'patch_embed.\1'),
    (rf'{_EMBED}embeddings_norm\.(.+)', r'embed_norm.\1'),
    (rf'{_POSITIONS}(spatial|temporal)_pos_embed\.weight', r'\1_pos_embed'),
    # Words, the losses of the pretraining and types of input, none of which an image has.
    (rf'(?:token_embed|loss_prepare)\..+|{_EMBED}embeddings_type\..+', None),
]


def _fit(name: str, tensor: Tensor, branch: PIIPUniPerceiver) -> Tensor:
    match name:
        case 'patch_embed.weight':
            return resize_kernel(tensor, branch)
        case 'spatial_pos_embed' if len(tensor) != len(branch.spatial_pos_embed):
            return resize_positions(tensor[None], branch.pos_grid)[0]
        case _:
            return tensor


_FAMILY = Family(title='Uni-Perceiver', rules=_RULES, optional='', fit=_fit)


@family_of.register
def _uniperceiver_family(branch: PIIPUniPerceiver) -> Family:
    return _FAMILY
