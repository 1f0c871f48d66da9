"""Uni-Perceiver as a branch: presets, module, weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from piip_mm.weights.rename import Rule
from piip_mm.weights.resize import resize_rows

from ..layers import SelfAttention
from .geometry import PositionedArch
from .plain import PositionedBranch

_EPS = 1e-5
#: Video frames of the pretrained model; an image counts as the first one.
_NUM_FRAMES = 8

# The original release has the encoder under 'fused_encoder', treats images as videos of
# one frame, and names the projections as PyTorch's attention does. The published PIIP
# code loads files converted by ViT-Adapter, to which none of this applies.
_LAYER = r'(?:fused_encoder\.)?layers\.(\d+)\.'
_EMBED = r'(?:visual|video)_embed\.'
_POSITIONS = rf'{_EMBED}(?:patch_embed|embeddings_st_pos)\.'

_WEIGHT_RULES: list[Rule] = [
    (rf'{_LAYER}gamma_([12])', r'blocks.\1.ls\2.gamma'),
    (rf'{_LAYER}self_attn\.in_proj[._](.+)', r'blocks.\1.attn.qkv.\2'),
    (rf'{_LAYER}self_attn\.out_proj\.(.+)', r'blocks.\1.attn.proj.\2'),
    (rf'{_LAYER}linear([12])\.(.+)', r'blocks.\1.mlp.fc\2.\3'),
    (rf'{_LAYER}(norm[12]\..+)', r'blocks.\1.\2'),
    (rf'{_EMBED}(?:patch_embed\.proj|embeddings)\.(.+)', r'patch_embed.\1'),
    (rf'{_EMBED}embeddings_norm\.(.+)', r'embed_norm.\1'),
    (rf'{_POSITIONS}(spatial|temporal)_pos_embed\.weight', r'\1_pos_embed'),
    # Words, losses of the pretraining and input types, which do not apply to images.
    (rf'(?:token_embed|loss_prepare)\..+|{_EMBED}embeddings_type\..+', None),
]


@dataclass(frozen=True, kw_only=True)
class UniPerceiverArch(PositionedArch):
    """Geometry of a Uni-Perceiver.

    The layer scale of the published models starts at 0, so that blocks without
    pretrained weights pass their input on unchanged.
    """

    init_values: float | None = 0.0


#: Presets: the two pretrained models that the published PIIP models use.
UNIPERCEIVER_ARCHS: dict[str, UniPerceiverArch] = {
    'uniperceiver_base': UniPerceiverArch(embed_dims=768, num_layers=12, num_heads=12),
    'uniperceiver_large': UniPerceiverArch(embed_dims=1024, num_layers=24, num_heads=16),
}


@MODELS.register_module()
class PIIPUniPerceiver(PositionedBranch):
    """Image encoder of Uni-Perceiver (arXiv 2112.01522).

    A token is ``norm(patch + spatial position + temporal position)``; the spatial
    positions are interpolated bicubically to the token grid, the temporal position is
    that of the first frame. The norms have an epsilon of 1e-5. Any image of at least one
    patch works.

    Args:
        arch: Name of a preset (:data:`UNIPERCEIVER_ARCHS`) or the fields of
            :class:`UniPerceiverArch`.
        img_size: Side of the branch's image in pixels, see :class:`Branch`.
        kwargs: Further options, see :class:`PositionedBranch`.

    Raises:
        ValueError: If an option is unknown or out of range, the heads do not divide the
            width, or the windows do not fit the number of blocks.
    """

    embedding = ('patch_embed', 'spatial_pos_embed', 'temporal_pos_embed', 'embed_norm')
    arch_type = UniPerceiverArch
    presets = UNIPERCEIVER_ARCHS
    arch: UniPerceiverArch
    weights_title = 'Uni-Perceiver'

    def __init__(
        self,
        arch: str | Mapping[str, Any],
        img_size: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(arch, img_size, **kwargs)
        dims = self.arch.embed_dims
        num_rows = math.prod(self.pos_grid)
        self.spatial_pos_embed = nn.Parameter(torch.zeros(num_rows, dims))
        # All frames are kept because the pretrained files contain them.
        self.temporal_pos_embed = nn.Parameter(torch.zeros(_NUM_FRAMES, dims))
        for positions in (self.spatial_pos_embed, self.temporal_pos_embed):
            nn.init.trunc_normal_(positions, std=0.02)
        self.embed_norm = nn.LayerNorm(dims, eps=_EPS)
        self.build_blocks(
            lambda window: SelfAttention(dims, self.arch.num_heads, window_size=window),
            norm_eps=_EPS,
        )

    def embed(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        tokens, grid = self.embed_patches(image)
        spatial = resize_rows(self.spatial_pos_embed[None], self.pos_grid, grid)
        positions = spatial + self.temporal_pos_embed[0]
        # The sum is not rounded under autocast, see PIIPViT.
        return self.embed_norm(tokens + positions.to(self.temporal_pos_embed.dtype)), grid

    def weight_rules(self) -> Sequence[Rule]:
        return _WEIGHT_RULES

    def fit_weight(self, name: str, tensor: Tensor) -> Tensor:
        """See :meth:`Branch.fit_weight`; also resizes the spatial positions."""
        if name == 'spatial_pos_embed' and tensor.shape != self.spatial_pos_embed.shape:
            return self.fit_positions(tensor[None])[0]
        return super().fit_weight(name, tensor)
