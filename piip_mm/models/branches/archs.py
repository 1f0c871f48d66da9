"""Geometry of the branches by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..checks import check_choice, check_int, check_number


@dataclass(frozen=True, kw_only=True)
class ViTArch:
    """Geometry of a plain vision transformer.

    Attributes:
        embed_dims: Width C.
        num_layers: Number of blocks.
        num_heads: Heads of the self-attention.
        mlp_ratio: Hidden width of the MLP over C.
        qkv_bias: Whether query, key and value have a bias.
        init_values: Initial layer scale; None for none.
    """

    embed_dims: int
    num_layers: int
    num_heads: int
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    init_values: float | None = 1.0

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ('embed_dims', 'num_layers', 'num_heads'):
            check_int(f'arch.{name}', getattr(self, name))
        check_number('arch.mlp_ratio', self.mlp_ratio, above=0)


def _deit(embed_dims: int, num_layers: int, num_heads: int) -> ViTArch:
    return ViTArch(embed_dims=embed_dims, num_layers=num_layers, num_heads=num_heads)


#: Presets: DeiT (arXiv 2012.12877) and DeiT III (arXiv 2204.07118). The published PIIP
#: models give DeiT branches a layer scale of 1, which DeiT itself does not have.
VIT_ARCHS: dict[str, ViTArch] = {
    'deit_tiny': _deit(192, 12, 3),
    'deit_small': _deit(384, 12, 6),
    'deit_base': _deit(768, 12, 12),
    'deit3_small': _deit(384, 12, 6),
    'deit3_base': _deit(768, 12, 12),
    'deit3_large': _deit(1024, 24, 16),
}


def resolve_vit_arch(arch: str | Mapping[str, Any]) -> ViTArch:
    """Look a preset up, or build the geometry a mapping describes.

    Args:
        arch: Name in :data:`VIT_ARCHS`, or the fields of :class:`ViTArch`.

    Raises:
        ValueError: If the name is unknown, or a field is unknown, missing or wrong.
    """
    if isinstance(arch, str):
        check_choice('arch', arch, VIT_ARCHS)
        return VIT_ARCHS[arch]
    if not isinstance(arch, Mapping):
        raise ValueError(f'arch={arch!r}: expected the name of a preset or a dict')
    known = [field.name for field in fields(ViTArch)]
    unknown = sorted(set(arch) - set(known))
    missing = [
        name for name in ('embed_dims', 'num_layers', 'num_heads') if name not in arch
    ]
    if unknown or missing:
        raise ValueError(
            f'arch {dict(arch)}: unknown keys {unknown}, missing keys {missing}; '
            f'known are {known}'
        )
    return ViTArch(**arch)
