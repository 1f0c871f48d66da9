"""Geometries of branches: the fields they share, and lookup by preset or dict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

from piip_mm.checks import check_choice, check_finite, check_int, check_number

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ArchT = TypeVar('ArchT', bound='DataclassInstance')


@dataclass(frozen=True, kw_only=True)
class PlainArch:
    """Geometry of a network whose blocks all have the same width.

    Attributes:
        embed_dims: Width C.
        num_layers: Number of blocks.
        num_heads: Heads of the self-attention.
        mlp_ratio: Hidden width of the MLP over C.
        init_values: Initial layer scale; None for no layer scale.
    """

    embed_dims: int
    num_layers: int
    num_heads: int
    mlp_ratio: float = 4.0
    init_values: float | None = 1.0

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ('embed_dims', 'num_layers', 'num_heads'):
            check_int(f'arch.{name}', getattr(self, name))
        # A hidden width below 1 would make timm's Mlp take the full width.
        check_number('arch.mlp_ratio', self.mlp_ratio, above=0)
        check_int('arch.mlp_ratio * embed_dims', int(self.mlp_ratio * self.embed_dims))
        if self.init_values is not None:
            check_finite('arch.init_values', self.init_values)


@dataclass(frozen=True, kw_only=True)
class PositionedArch(PlainArch):
    """Geometry of a network with a position embedding.

    Attributes:
        pos_grid: Side in tokens of the square grid of positions that the network was
            pretrained with.
    """

    pos_grid: int = 14

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        check_int('arch.pos_grid', self.pos_grid)


def resolve_arch(
    arch: str | Mapping[str, Any], kind: type[ArchT], presets: Mapping[str, ArchT]
) -> ArchT:
    """Look up a preset, or build the geometry that a mapping describes.

    Args:
        arch: Name of a preset, or the fields of ``kind``.
        kind: Class of the geometry.
        presets: Geometries by name.

    Raises:
        ValueError: If the name is unknown, or a field is unknown, missing or invalid.
    """
    if isinstance(arch, str):
        check_choice('arch', arch, presets)
        return presets[arch]
    if not isinstance(arch, Mapping):
        raise ValueError(f'arch={arch!r}: expected the name of a preset or a dict')
    known = [field.name for field in fields(kind)]
    required = [field.name for field in fields(kind) if field.default is MISSING]
    unknown = sorted(set(arch) - set(known))
    missing = [name for name in required if name not in arch]
    if unknown or missing:
        raise ValueError(
            f'arch {dict(arch)}: unknown keys {unknown}, missing keys {missing}; '
            f'choose from {known}'
        )
    return kind(**arch)
