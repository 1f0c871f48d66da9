"""BEiT and BEiT v2 as branches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.registry import MODELS
from torch import Tensor

from ..layers import Block
from ..layers.relative_position import RelativePositionAttention
from .geometry import PlainArch, resolve_arch
from .plain import PlainBranch, drop_path_rates, windows_of_blocks


@dataclass(frozen=True, kw_only=True)
class BEiTArch(PlainArch):
    """Geometry of a BEiT.

    Attributes:
        qkv_bias: Whether queries and values have a bias; keys have none.
        init_values: Initial layer scale; None for none.
    """

    qkv_bias: bool = True
    init_values: float | None = 1e-6


#: Presets: BEiT v2 (arXiv 2208.06366), with the initial layer scale of the published PIIP
#: models; the pretrained files have one of their own.
BEIT_ARCHS: dict[str, BEiTArch] = {
    'beitv2_base': BEiTArch(embed_dims=768, num_layers=12, num_heads=12),
    'beitv2_large': BEiTArch(embed_dims=1024, num_layers=24, num_heads=16),
}


@MODELS.register_module()
class PIIPBEiT(PlainBranch):
    """BEiT (arXiv 2106.08254) or BEiT v2 (arXiv 2208.06366).

    Tokens have no position embedding: all positions are relative and belong to the
    windows of the attention, see :class:`RelativePositionAttention`. As a branch it has
    neither class token nor final norm. Any image size of at least one patch works.

    Args:
        arch: Name of a preset (:data:`BEIT_ARCHS`) or the fields of :class:`BEiTArch`.
        img_size: Side of the branch's image in pixels, see :class:`Branch`.
        patch_size: Side of a patch in pixels.
        in_channels: Channels of the image.
        window_size: Side of the attention windows in tokens, for all blocks or one value
            a block; the side of the grid for global attention.
        drop_path_rate: Stochastic depth.
        drop_path_schedule: How it is spread over the blocks, one of
            :data:`piip_mm.models.branches.plain.DROP_PATH_SCHEDULES`.
        mlp_act: 'gelu' or 'gelu_tanh', see :class:`Block`.
        with_cp: Recompute blocks in the backward pass to save memory.
        frozen_stages: See :class:`Branch`.
        init_cfg: See :class:`Branch`.

    Raises:
        ValueError: If an option is unknown or out of range, the heads do not divide the
            width, or a block has no window.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any],
        img_size: int,
        *,
        patch_size: int = 16,
        in_channels: int = 3,
        window_size: int | Sequence[int] = 14,
        drop_path_rate: float = 0.0,
        drop_path_schedule: str = 'linear',
        mlp_act: str = 'gelu',
        with_cp: bool = False,
        frozen_stages: int = -1,
        init_cfg: dict | None = None,
    ) -> None:
        geometry = resolve_arch(arch, BEiTArch, BEIT_ARCHS)
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
        self.arch = geometry
        rates = drop_path_rates(drop_path_rate, depth, drop_path_schedule)
        windows = windows_of_blocks(window_size, (), depth)
        blocks = []
        for index, (window, rate) in enumerate(zip(windows, rates, strict=True)):
            if window is None:
                raise ValueError(
                    f'window_size={window_size!r}: block {index} has no window, which '
                    'its table of relative positions needs; for global attention give '
                    'the side of the grid in tokens'
                )
            attn = RelativePositionAttention(
                dims, geometry.num_heads, window, qkv_bias=geometry.qkv_bias
            )
            block = Block(
                dims,
                attn,
                mlp_ratio=geometry.mlp_ratio,
                init_values=geometry.init_values,
                drop_path_rate=rate,
                mlp_act=mlp_act,
            )
            blocks.append(block)
        self.set_blocks(blocks)
        self.freeze_stages()

    def embed(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """See :meth:`Branch.embed`."""
        return self.embed_patches(image)
