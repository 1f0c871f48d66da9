"""Simple feature pyramid from one map (ViTDet, arXiv 2203.16527, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

from timm.layers import LayerNorm2d
from torch import Tensor, nn

from .checks import (
    check_choice,
    check_divisible,
    check_int,
    check_number,
    check_sequence,
)
from .merging import NUM_GROUPS

#: Norm of the x4 level: GroupNorm in PIIP, channels-first LayerNorm in the single-branch
#: baselines.
PYRAMID_NORMS: dict[str, Callable[[int], nn.Module]] = {
    'GN': lambda dims: nn.GroupNorm(NUM_GROUPS, dims),
    'LN': lambda dims: LayerNorm2d(dims, eps=1e-6),
}


class SimplePyramid(nn.Module):
    """Scales one map by 4, 2, 1 and 1/2, as far as ``out_strides`` ask for.

    Args:
        dims: Width C of the map and of every level.
        in_stride: Stride of the map in pixels.
        out_strides: Strides of the levels in pixels, in the order of the output: 1/4,
            1/2, 1 or 2 times ``in_stride``.
        norm: One of :data:`PYRAMID_NORMS`.

    Raises:
        ValueError: If an output stride cannot be reached or the norm is unknown.
    """

    def __init__(
        self,
        dims: int,
        in_stride: int,
        out_strides: Sequence[float] = (4, 8, 16, 32),
        norm: str = 'GN',
    ) -> None:
        super().__init__()
        check_choice('pyramid norm', norm, PYRAMID_NORMS)
        check_int('in_stride', in_stride)
        check_sequence('out_strides', out_strides)
        for stride in out_strides:
            check_number('out_strides', stride, above=0)
        if norm == 'GN':
            check_divisible('pyramid width', dims, 'GroupNorm groups', NUM_GROUPS)
        make: dict[Fraction, Callable[[], nn.Module]] = {
            Fraction(1, 4): lambda: nn.Sequential(
                nn.ConvTranspose2d(dims, dims, 2, 2),
                PYRAMID_NORMS[norm](dims),
                nn.GELU(),
                nn.ConvTranspose2d(dims, dims, 2, 2),
            ),
            Fraction(1, 2): lambda: nn.ConvTranspose2d(dims, dims, 2, 2),
            Fraction(1): nn.Identity,
            Fraction(2): lambda: nn.MaxPool2d(2, 2),
        }
        reachable = [f'{float(in_stride * ratio):g}' for ratio in make]
        self.ratios = [Fraction(stride) / in_stride for stride in out_strides]
        for stride, ratio in zip(out_strides, self.ratios, strict=True):
            if ratio not in make:
                raise ValueError(
                    f'out_strides {tuple(out_strides)}: stride {stride} cannot be '
                    f'reached from a map of stride {in_stride}; '
                    f'choose from {", ".join(reachable)}'
                )
        if not out_strides:
            raise ValueError(f'out_strides is empty; choose from {", ".join(reachable)}')
        self.levels = nn.ModuleList(make[ratio]() for ratio in self.ratios)

    @property
    def min_grid(self) -> int:
        """Smallest side of the map that gives every level a pixel."""
        return int(max(Fraction(1), *self.ratios))

    def forward(self, x_BCHW: Tensor) -> tuple[Tensor, ...]:
        """(B, C, H, W) to one float32 (B, C, H_l, W_l) a level."""
        return tuple(level(x_BCHW).float().contiguous() for level in self.levels)
