"""Geometry of plain vision transformers by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..checks import check_choice
from ..layers import BLOCK_NORMS
from .geometry import PlainArch, resolve_arch


@dataclass(frozen=True, kw_only=True)
class ViTArch(PlainArch):
    """Geometry of a plain vision transformer.

    Attributes:
        qkv_bias: Whether query, key and value have a bias.
        init_values: Initial layer scale; None for none.
        norm: One of :data:`piip_mm.models.layers.BLOCK_NORMS`.
        qk_norm: Whether queries and keys are normalised over the full width.
        cls_pos_row: Whether the position embedding is stored with a row for the class
            token in front, as the published InternViT, MAE, DINOv2 and AugReg branches
            store it. Only a class token with a position reads it.
    """

    qkv_bias: bool = True
    init_values: float | None = 1.0
    norm: str = 'LN'
    qk_norm: bool = False
    cls_pos_row: bool = False

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        check_choice('arch.norm', self.norm, BLOCK_NORMS)


def _vit(size: str, **options: Any) -> ViTArch:
    dims, layers, heads = {
        'tiny': (192, 12, 3),
        'small': (384, 12, 6),
        'base': (768, 12, 12),
        'large': (1024, 24, 16),
        'huge': (1280, 32, 16),
    }[size]
    return ViTArch(embed_dims=dims, num_layers=layers, num_heads=heads, **options)


#: Presets: DeiT (arXiv 2012.12877), DeiT III (2204.07118), AugReg (2106.10270), MAE
#: (2111.06377), DINOv2 (2304.07193), InternViT-6B (2312.14238). The published PIIP
#: models give every branch a layer scale, which DeiT, AugReg and MAE do not have; it
#: starts at 1.
VIT_ARCHS: dict[str, ViTArch] = {
    **{f'deit_{size}': _vit(size) for size in ('tiny', 'small', 'base')},
    **{f'deit3_{size}': _vit(size) for size in ('small', 'base', 'large')},
    **{
        f'augreg_{size}': _vit(size, cls_pos_row=True)
        for size in ('tiny', 'small', 'base', 'large')
    },
    **{f'mae_{size}': _vit(size, cls_pos_row=True) for size in ('base', 'large', 'huge')},
    **{
        f'dinov2_{size}': _vit(size, cls_pos_row=True)
        for size in ('small', 'base', 'large')
    },
    'internvit_6b': ViTArch(
        embed_dims=3200,
        num_layers=48,
        num_heads=25,
        qkv_bias=False,
        init_values=0.1,
        norm='RMS',
        qk_norm=True,
        cls_pos_row=True,
    ),
}


def resolve_vit_arch(arch: str | Mapping[str, Any]) -> ViTArch:
    """Preset or geometry, see :func:`resolve_arch`."""
    return resolve_arch(arch, ViTArch, VIT_ARCHS)
