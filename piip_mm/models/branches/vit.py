"""Plain vision transformers as branches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..checks import check_int
from ..layers import BLOCK_NORMS, Block, SelfAttention
from .archs import resolve_vit_arch
from .plain import PlainBranch, drop_path_rates, resize_rows, windows_of_blocks

_EPS = 1e-6


@MODELS.register_module()
class PIIPViT(PlainBranch):
    """Plain vision transformer: DeiT, DeiT III, AugReg, MAE, DINOv2, InternViT-6B.

    As a branch it has no final norm, and a class token only if asked for. Any image size
    of at least one patch works: pixels that do not fill a patch are dropped, and the
    position embedding is interpolated bicubically to the token grid.

    Args:
        arch: Name of a preset (:data:`piip_mm.models.branches.VIT_ARCHS`) or the fields
            of :class:`ViTArch`.
        img_size: Side of the branch's image in pixels, see :class:`Branch`.
        patch_size: Side of a patch in pixels.
        in_channels: Channels of the image.
        pretrain_img_size: Side of the images of the pretraining in pixels. The position
            embedding is stored for this size: (pretrain_img_size // patch_size)^2 rows.
            Grid and patch size of a pretrained file are read off its tensors.
        window_size: Side of the attention windows in tokens, for all blocks or one value
            a block; None attends globally.
        global_attn_indexes: Blocks that attend globally all the same.
        window_pad: What fills incomplete windows, see :class:`SelfAttention`.
        drop_path_rate: Stochastic depth.
        drop_path_schedule: How it is spread over the blocks, one of
            :data:`piip_mm.models.branches.plain.DROP_PATH_SCHEDULES`.
        mlp_act: 'gelu' or 'gelu_tanh', see :class:`Block`.
        with_cls_token: Send a class token through the blocks. It has no position
            embedding, except with ``cls_pos``.
        cls_pos: Add the class token's row of the position embedding to the class token;
            the published multi-branch classifiers do not. Needs ``cls_pos_row`` in the
            geometry.
        with_cp: Recompute blocks in the backward pass to save memory.
        frozen_stages: See :class:`Branch`.
        init_cfg: See :class:`Branch`.

    Raises:
        ValueError: If an option is unknown or out of range, the heads do not divide the
            width, the windows do not fit the number of blocks, or there is a class token
            beside windows.
    """

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
        window_pad: str = 'zero_input',
        drop_path_rate: float = 0.0,
        drop_path_schedule: str = 'constant',
        mlp_act: str = 'gelu',
        with_cls_token: bool = False,
        cls_pos: bool = False,
        with_cp: bool = False,
        frozen_stages: int = -1,
        init_cfg: dict | None = None,
    ) -> None:
        geometry = resolve_vit_arch(arch)
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
        windows = windows_of_blocks(window_size, global_attn_indexes, depth)
        if with_cls_token and any(windows):
            raise ValueError(
                f'with_cls_token=True with window_size={window_size}: a class token '
                'belongs to no window; use global attention or no class token'
            )
        if cls_pos and not (with_cls_token and geometry.cls_pos_row):
            raise ValueError(
                f'cls_pos=True needs with_cls_token=True (got {with_cls_token}) and an '
                f'arch with cls_pos_row=True (got {geometry.cls_pos_row})'
            )
        self.arch = geometry
        side = pretrain_img_size // patch_size
        self.pos_grid = (side, side)
        self.pos_embed = nn.Parameter(
            torch.zeros(1, geometry.cls_pos_row + side * side, dims)
        )
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.embedding = ('patch_embed', 'pos_embed')
        self.cls_pos = cls_pos
        if with_cls_token:
            self.num_prefix_tokens = 1
            self.has_cls_token = True
            self.cls_token = nn.Parameter(torch.zeros(1, 1, dims))
            nn.init.trunc_normal_(self.cls_token, std=0.02)
            self.embedding += ('cls_token',)
        self.set_blocks(
            [
                Block(
                    dims,
                    SelfAttention(
                        dims,
                        geometry.num_heads,
                        qkv_bias=geometry.qkv_bias,
                        qk_norm=(
                            partial(BLOCK_NORMS[geometry.norm], eps=_EPS)
                            if geometry.qk_norm
                            else None
                        ),
                        window_size=window,
                        window_pad=window_pad,
                    ),
                    mlp_ratio=geometry.mlp_ratio,
                    init_values=geometry.init_values,
                    drop_path_rate=rate,
                    mlp_act=mlp_act,
                    norm=geometry.norm,
                    norm_eps=_EPS,
                )
                for window, rate in zip(
                    windows,
                    drop_path_rates(drop_path_rate, depth, drop_path_schedule),
                    strict=True,
                )
            ]
        )
        self.freeze_stages()

    def embed(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """See :meth:`Branch.embed`."""
        tokens, grid = self.embed_patches(image)
        num_rows = self.pos_grid[0] * self.pos_grid[1]
        rows = resize_rows(self.pos_embed[:, -num_rows:], self.pos_grid, grid)
        tokens = tokens + rows.to(tokens.dtype)
        if self.num_prefix_tokens:
            cls_token: Tensor = self.cls_token
            if self.cls_pos:
                cls_token = cls_token + self.pos_embed[:, :1]
            cls_token = cls_token.to(tokens.dtype).expand(len(tokens), -1, -1)
            tokens = torch.cat([cls_token, tokens], 1)
        return tokens, grid
