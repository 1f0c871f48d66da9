"""Feature pyramids from maps of a backbone (ViTDet, arXiv 2203.16527, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

from timm.layers import LayerNorm2d
from torch import Tensor, nn

from piip_mm.checks import (
    check_choice,
    check_divisible,
    check_number,
)

from .layers import as_output
from .merging import NUM_GROUPS

#: Norm of the x4 level: GroupNorm in PIIP, channels-first LayerNorm in the single-branch
#: baselines.
PYRAMID_NORMS: dict[str, Callable[[int], nn.Module]] = {
    'GN': lambda dims: nn.GroupNorm(NUM_GROUPS, dims),
    'LN': lambda dims: LayerNorm2d(dims, eps=1e-6),
}


class Pyramid(nn.Module):
    """Scales a map by 4, 2, 1 or 1/2 for each level, depending on ``out_strides``.

    In a simple feature pyramid all levels are made from one map; in a regular one each
    level has its own map.

    Args:
        dims: Width of each level and of its map.
        in_strides: Stride of each level's map in pixels.
        out_strides: Stride of each level in pixels, in the order of the output: 1/4, 1/2,
            1 or 2 times that of its map.
        norm: One of :data:`PYRAMID_NORMS`.

    Raises:
        ValueError: If an output stride cannot be reached or the norm is unknown.
    """

    def __init__(
        self,
        dims: Sequence[int],
        in_strides: Sequence[int],
        out_strides: Sequence[float],
        norm: str = 'GN',
    ) -> None:
        super().__init__()
        check_choice('pyramid norm', norm, PYRAMID_NORMS)
        for index, stride in enumerate(out_strides):
            check_number(f'out_strides[{index}]', stride, above=0)
        self.ratios = [
            Fraction(float(out)) / stride
            for out, stride in zip(out_strides, in_strides, strict=True)
        ]
        self.dims = tuple(dims)
        levels = []
        for ratio, width, stride, out in zip(
            self.ratios, dims, in_strides, out_strides, strict=True
        ):
            if ratio not in _LEVELS:
                reachable = ', '.join(f'{float(stride * ratio):g}' for ratio in _LEVELS)
                raise ValueError(
                    f'out_strides {tuple(out_strides)}: stride {out} cannot be reached '
                    f'from a map of stride {stride}; choose from {reachable}'
                )
            levels.append(_LEVELS[ratio](width, norm))
        self.levels = nn.ModuleList(levels)
        #: Smallest side of a map that gives every level at least one pixel.
        self.min_grid = int(max(Fraction(1), *self.ratios))

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """One (B, C, H, W) map per level to one (B, C, H', W') per level, see
        :func:`as_output` for their type.

        Maps of tokens are channels-last in memory, and the levels stay so: convolutions
        are faster on them.
        """
        return tuple(
            as_output(level(x_BCHW))
            for level, x_BCHW in zip(self.levels, maps, strict=True)
        )


def _times_four(dims: int, norm: str) -> nn.Module:
    if norm == 'GN':
        check_divisible('pyramid width', dims, 'GroupNorm groups', NUM_GROUPS)
    return nn.Sequential(
        nn.ConvTranspose2d(dims, dims, 2, 2),
        PYRAMID_NORMS[norm](dims),
        nn.GELU(),
        nn.ConvTranspose2d(dims, dims, 2, 2),
    )


#: Layers that make a level, by the ratio of its stride to that of the map.
_LEVELS: dict[Fraction, Callable[[int, str], nn.Module]] = {
    Fraction(1, 4): _times_four,
    Fraction(1, 2): lambda dims, _: nn.ConvTranspose2d(dims, dims, 2, 2),
    Fraction(1): lambda *_: nn.Identity(),
    Fraction(2): lambda *_: nn.MaxPool2d(2, 2),
}
