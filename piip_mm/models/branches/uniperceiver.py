"""Uni-Perceiver as a branch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..checks import check_int
from ..layers import Block, SelfAttention
from .geometry import PlainArch, resolve_arch
from .plain import PlainBranch, drop_path_rates, resize_rows, windows_of_blocks

_EPS = 1e-5
#: Frames of a video that the pretrained model knows; an image is the first one.
_NUM_FRAMES = 8


@dataclass(frozen=True, kw_only=True)
class UniPerceiverArch(PlainArch):
    """Geometry of a Uni-Perceiver.

    Attributes:
        init_values: Initial layer scale. The published models start at 0, where blocks
            without pretrained weights pass their input on.
    """

    init_values: float = 0.0


#: Presets: the two pretrained models that the published PIIP models use.
UNIPERCEIVER_ARCHS: dict[str, UniPerceiverArch] = {
    'uniperceiver_base': UniPerceiverArch(embed_dims=768, num_layers=12, num_heads=12),
    'uniperceiver_large': UniPerceiverArch(embed_dims=1024, num_layers=24, num_heads=16),
}


@MODELS.register_module()
class PIIPUniPerceiver(PlainBranch):
    """Image part of Uni-Perceiver (arXiv 2112.01522).

    A token is ``norm(patch + spatial position + temporal position)``; the spatial
    positions are interpolated bicubically to the token grid, the temporal one is that of
    the first frame. The norms add 1e-5. Any image size of at least one patch works.

    Args:
        arch: Name of a preset (:data:`UNIPERCEIVER_ARCHS`) or the fields of
            :class:`UniPerceiverArch`.
        img_size: Side of the branch's image in pixels, see :class:`Branch`.
        patch_size: Side of a patch in pixels.
        in_channels: Channels of the image.
        pretrain_img_size: Side of the images of the pretraining in pixels. Spatial
            positions are stored for this size: (pretrain_img_size // patch_size)^2 rows.
        window_size: Side of the attention windows in tokens, for all blocks or one value
            a block; None attends globally.
        global_attn_indexes: Blocks that attend globally all the same.
        drop_path_rate: Stochastic depth.
        drop_path_schedule: How it is spread over the blocks, one of
            :data:`piip_mm.models.branches.plain.DROP_PATH_SCHEDULES`.
        mlp_act: 'gelu' or 'gelu_tanh', see :class:`Block`.
        with_cp: Recompute blocks in the backward pass to save memory.
        frozen_stages: See :class:`Branch`.
        init_cfg: See :class:`Branch`.

    Raises:
        ValueError: If an option is unknown or out of range, the heads do not divide the
            width, or the windows do not fit the number of blocks.
    """

    embedding = ('patch_embed', 'spatial_pos_embed', 'temporal_pos_embed', 'embed_norm')

    def __init__(
        self,
        arch: str | Mapping[str, Any],
        img_size: int,
        *,
        patch_size: int = 16,
        in_channels: int = 3,
        pretrain_img_size: int = 224,
        window_size: int | Sequence[int | None] | None = None,
        global_attn_indexes: Sequence[int] = (),
        drop_path_rate: float = 0.0,
        drop_path_schedule: str = 'linear',
        mlp_act: str = 'gelu',
        with_cp: bool = False,
        frozen_stages: int = -1,
        init_cfg: dict | None = None,
    ) -> None:
        geometry = resolve_arch(arch, UniPerceiverArch, UNIPERCEIVER_ARCHS)
        dims, depth = geometry.embed_dims, geometry.num_layers
        super().__init__(
            dims,
            depth,
            img_size,
            patch_size=patch_size,
            in_channels=in_channels,
            with_cp=with_cp,
            frozen_stages=frozen_stages,
            init_cfg=init_cfg,
        )
        check_int('pretrain_img_size', pretrain_img_size, minimum=patch_size)
        self.arch = geometry
        side = pretrain_img_size // patch_size
        self.pos_grid = (side, side)
        self.spatial_pos_embed = nn.Parameter(torch.zeros(side * side, dims))
        # All frames are kept for the sake of the files, which have them.
        self.temporal_pos_embed = nn.Parameter(torch.zeros(_NUM_FRAMES, dims))
        for positions in (self.spatial_pos_embed, self.temporal_pos_embed):
            nn.init.trunc_normal_(positions, std=0.02)
        self.embed_norm = nn.LayerNorm(dims, eps=_EPS)
        rates = drop_path_rates(drop_path_rate, depth, drop_path_schedule)
        windows = windows_of_blocks(window_size, global_attn_indexes, depth)
        self.set_blocks(
            [
                Block(
                    dims,
                    SelfAttention(dims, geometry.num_heads, window_size=window),
                    mlp_ratio=geometry.mlp_ratio,
                    init_values=geometry.init_values,
                    drop_path_rate=rate,
                    mlp_act=mlp_act,
                    norm_eps=_EPS,
                )
                for window, rate in zip(windows, rates, strict=True)
            ]
        )
        self.freeze_stages()

    def embed(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """See :meth:`Branch.embed`."""
        tokens, grid = self.embed_patches(image)
        spatial = resize_rows(self.spatial_pos_embed[None], self.pos_grid, grid)
        positions = spatial + self.temporal_pos_embed[0]
        return self.embed_norm(tokens + positions.to(tokens.dtype)), grid
