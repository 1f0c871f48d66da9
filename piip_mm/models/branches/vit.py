"""Plain vision transformers as branches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..checks import check_int, check_sequence
from ..init import init_new_layers
from ..layers import Block
from .archs import resolve_vit_arch
from .base import Branch


@MODELS.register_module()
class PIIPViT(Branch):
    """Plain vision transformer: DeiT (arXiv 2012.12877), DeiT III (arXiv 2204.07118).

    As a branch it has neither class token nor final norm. Any image size of at least
    one patch works: pixels that do not fill a patch are dropped, and the position
    embedding is interpolated bicubically to the token grid.

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
        drop_path_rate: Stochastic depth, the same in every block.
        mlp_act: 'gelu' or 'gelu_tanh', see :class:`Block`.
        with_cp: Recompute blocks in the backward pass to save memory.
        frozen_stages: See :class:`Branch`.
        init_cfg: MMEngine's initialisation config; ``dict(type='Pretrained',
            checkpoint=...)`` loads a DeiT or DeiT III file, see
            :func:`piip_mm.weights.pretrained.load_pretrained_vit`.

    Raises:
        ValueError: If an option is unknown or out of range, the heads do not divide the
            width, or the windows do not fit the number of blocks.
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
        mlp_act: str = 'gelu',
        with_cp: bool = False,
        frozen_stages: int = -1,
        init_cfg: dict | None = None,
    ) -> None:
        geometry = resolve_vit_arch(arch)
        check_int('patch_size', patch_size)
        check_int('in_channels', in_channels)
        check_int('pretrain_img_size', pretrain_img_size, minimum=patch_size)
        dims, depth = geometry.embed_dims, geometry.num_layers
        super().__init__(
            img_size=img_size,
            dims=(dims,) * depth,
            strides=(patch_size,) * depth,
            min_size=patch_size,
            frozen_stages=frozen_stages,
            init_cfg=init_cfg,
        )
        if img_size % patch_size:
            print_log(
                f'img_size {img_size} is not a multiple of patch_size {patch_size}: '
                f'the last {img_size % patch_size} pixels of a row or column are dropped',
                logger='current',
            )
        self.with_cp = with_cp
        self.patch_embed = nn.Conv2d(in_channels, dims, patch_size, patch_size)
        self.pos_grid = (pretrain_img_size // patch_size,) * 2
        self.pos_embed = nn.Parameter(
            torch.zeros(1, self.pos_grid[0] * self.pos_grid[1], dims)
        )
        windows = _windows_of_blocks(window_size, global_attn_indexes, depth)
        self.blocks = nn.ModuleList(
            Block(
                dims,
                geometry.num_heads,
                mlp_ratio=geometry.mlp_ratio,
                qkv_bias=geometry.qkv_bias,
                init_values=geometry.init_values,
                drop_path_rate=drop_path_rate,
                mlp_act=mlp_act,
                window_size=window,
                window_pad=window_pad,
            )
            for window in windows
        )
        self._reset_parameters()
        self.freeze_stages()

    def init_weights(self) -> None:
        """Load pretrained weights, or initialise as ``init_cfg`` says."""
        cfg = self.init_cfg
        if isinstance(cfg, Mapping) and cfg.get('type') == 'Pretrained':
            # Here, because the weights know the models.
            from piip_mm.weights.pretrained import load_pretrained_vit

            if 'checkpoint' not in cfg:
                raise ValueError(f'init_cfg {dict(cfg)} has no checkpoint; set one')
            load_pretrained_vit(self, cfg['checkpoint'])
            self._is_init = True
        else:
            super().init_weights()

    def embed(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """See :meth:`Branch.embed`."""
        x = self.patch_embed(image.to(self.patch_embed.weight.dtype))
        grid = (x.shape[2], x.shape[3])
        pos_embed = self._pos_embed_on(grid)
        return x.flatten(2).transpose(1, 2) + pos_embed.to(x.dtype), grid

    def run(
        self, tokens: Tensor, grid: tuple[int, int], start: int, stop: int
    ) -> tuple[Tensor, tuple[int, int]]:
        """See :meth:`Branch.run`."""
        for block in self.blocks[start:stop]:
            if self.with_cp and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, grid, use_reentrant=False)
            else:
                tokens = block(tokens, grid)
        return tokens, grid

    def truncate(self, depth: int) -> None:
        """See :meth:`Branch.truncate`."""
        super().truncate(depth)
        del self.blocks[depth:]

    def stage_modules(self, stage: int) -> list[nn.Module | nn.Parameter]:
        """See :meth:`Branch.stage_modules`."""
        if stage == 0:
            return [self.patch_embed, self.pos_embed]
        return [self.blocks[stage - 1]]

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """See :meth:`Branch.get_layer_depth`."""
        num_layers = self.depth + 2
        name = param_name.removeprefix(prefix)
        if name.startswith(('patch_embed', 'pos_embed')):
            return 0, num_layers
        if name.startswith('blocks.'):
            return int(name.split('.')[1]) + 1, num_layers
        return num_layers - 1, num_layers

    def _pos_embed_on(self, grid: tuple[int, int]) -> Tensor:
        """(1, H * W, C) position embedding of a grid, in float32 if interpolated."""
        if grid == self.pos_grid:
            return self.pos_embed
        rows = self.pos_embed.float().transpose(1, 2).unflatten(2, self.pos_grid)
        rows = F.interpolate(rows, grid, mode='bicubic', align_corners=False)
        return rows.flatten(2).transpose(1, 2)

    def _reset_parameters(self) -> None:
        # As the linear layer on flattened patches that it is.
        nn.init.xavier_uniform_(self.patch_embed.weight.detach().flatten(1))
        if self.patch_embed.bias is not None:
            nn.init.zeros_(self.patch_embed.bias)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        init_new_layers(self.blocks)


def _windows_of_blocks(
    window_size: int | Sequence[int | None] | None,
    global_attn_indexes: Sequence[int],
    depth: int,
) -> list[int | None]:
    """Window of each block, None for global attention."""
    check_sequence('global_attn_indexes', global_attn_indexes)
    if isinstance(window_size, Sequence):
        windows: list[int | None] = list(window_size)
    else:
        windows = [window_size] * depth
    if len(windows) != depth:
        raise ValueError(
            f'window_size has {len(windows)} values for {depth} blocks; give one value, '
            'or one a block'
        )
    for index in global_attn_indexes:
        if index not in range(depth):
            raise ValueError(
                f'global_attn_indexes {tuple(global_attn_indexes)}: block {index} does '
                f'not exist, there are blocks 0 to {depth - 1}'
            )
        windows[index] = None
    return windows
