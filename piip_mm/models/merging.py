"""Branch merging: maps of all branches to one map (PIIP, section 3.3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from piip_mm.checks import check_divisible

from .layers import as_map

#: Groups of the GroupNorm layers, in the merge and in the pyramid.
NUM_GROUPS = 32


class BranchScales(nn.ParameterDict):
    """One learned number per branch, initially 1, by the branch's index.

    A parameter has the shape (1,), because FSDP refuses scalars. State dicts contain
    scalars, as those of the published models do, and either is loaded.
    """

    def __init__(self, indexes: Iterable[int]) -> None:
        super().__init__({str(i): nn.Parameter(torch.ones(1)) for i in indexes})
        self.register_load_state_dict_pre_hook(_to_vectors)
        self.register_state_dict_post_hook(_to_scalars)


def _to_vectors(
    scales: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any
) -> None:
    for name in scales.state_dict(prefix=prefix).keys() & state_dict.keys():
        if state_dict[name].ndim == 0:
            state_dict[name] = state_dict[name].reshape(1)


def _to_scalars(
    scales: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any
) -> None:
    for name, _parameter in scales.named_parameters(prefix.removesuffix('.')):
        # A shard of FSDP stays as it is.
        if type(state_dict[name]) in (Tensor, nn.Parameter):
            state_dict[name] = state_dict[name].reshape(())


class BranchMerge(nn.Module):
    """Weighted sum of the branches' maps.

    Each map is brought to one width by convolutions at its own resolution, then resized
    bilinearly to the output grid; the sum has one learned number per branch, initially 1.

    Args:
        in_dims: Width of each merged branch, by the branch's index.
        out_dims: Width of the merged map; must be divisible by 32.
        light: One convolution per branch instead of two, and none for ``main``, the
            branch that has the merged width by definition.
        main: Index of the branch that defines the merged width.

    Raises:
        ValueError: If GroupNorm's 32 groups do not divide ``out_dims``.
    """

    def __init__(
        self, in_dims: Mapping[int, int], out_dims: int, *, light: bool, main: int
    ) -> None:
        super().__init__()
        check_divisible('merged width', out_dims, 'GroupNorm groups', NUM_GROUPS)

        def layers(index: int, dims: int) -> list[nn.Module]:
            if light and index == main:
                return _norm_act(out_dims)
            stages = [dims] if light else [dims, out_dims]
            return [
                layer
                for width in stages
                for layer in (_conv(width, out_dims), *_norm_act(out_dims))
            ]

        self.branches = nn.ModuleDict(
            {
                str(index): nn.Sequential(*layers(index, dims))
                for index, dims in in_dims.items()
            }
        )
        self.scales = BranchScales(in_dims)

    def forward(
        self,
        tokens: Sequence[Tensor],
        grids: Sequence[tuple[int, int]],
        out_grid: tuple[int, int],
    ) -> Tensor:
        """Merge.

        Args:
            tokens: Per branch of the network (B, N_b, C_b).
            grids: Per branch of the network (H_b, W_b).
            out_grid: (H, W) of the merged map.

        Returns:
            (B, out_dims, H, W).
        """
        indexes = [int(name) for name in self.branches]
        maps = [
            layers(as_map(tokens[index], grids[index]))
            for index, layers in zip(indexes, self.branches.values(), strict=True)
        ]
        scales = [self.scales.get(name) for name in self.branches]
        return weighted_sum(maps, scales, out_grid)


def weighted_sum(
    maps: Sequence[Tensor], scales: Sequence[Tensor | None], grid: tuple[int, int]
) -> Tensor:
    """Weighted sum of maps, resized bilinearly to one grid.

    Args:
        maps: Per branch (B, C, H_b, W_b).
        scales: One number per branch; None for 1.
        grid: (H, W) of the sum.

    Returns:
        (B, C, H, W).
    """
    scaled = []
    for x_BCHW, scale in zip(maps, scales, strict=True):
        resized = x_BCHW
        if tuple(x_BCHW.shape[2:]) != tuple(grid):
            # Float32, because 16 bits are too coarse for sample positions.
            resized = F.interpolate(
                x_BCHW.float(), grid, mode='bilinear', align_corners=False
            ).to(x_BCHW.dtype)
        scaled.append(resized if scale is None else resized * scale)
    return reduce(torch.add, scaled)


def _conv(in_dims: int, out_dims: int) -> nn.Module:
    return nn.Conv2d(in_dims, out_dims, 3, padding=1, bias=False)


def _norm_act(dims: int) -> list[nn.Module]:
    return [nn.GroupNorm(NUM_GROUPS, dims), nn.ReLU(inplace=True)]
