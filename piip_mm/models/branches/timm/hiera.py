"""timm's two Hieras (arXiv 2306.00989): one with mask units, one with windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
from timm.models.hiera import Reroll, Unroll
from torch import Tensor

from .adapters import Adapter, Call, Tokens
from .maps import MapAdapter


class HieraAdapter(Adapter):
    """``Hiera``: attention in mask units, whose tokens are contiguous between blocks.

    The image must consist of whole mask units of the first stage (32 x 32 pixels in all
    models), so other sizes are resized to the nearest multiple: cropping or padding would
    shift the map relative to those of the other branches. A learned position embedding
    without window part is resampled to each grid.
    """

    def embed(self, image: Tensor) -> Tokens:
        net = self.net
        strides = zip(net.patch_stride, net.mask_unit_size, strict=True)
        image = resize_to_multiple(image, [stride * unit for stride, unit in strides])
        grid = tuple(
            side // stride
            for side, stride in zip(image.shape[2:], net.patch_stride, strict=True)
        )
        tokens = net.patch_embed(image)
        return tokens + self._positions(grid).to(tokens.dtype), grid

    def _positions(self, grid: tuple[int, ...]) -> Tensor:
        """(1, N, C) position embedding of a grid."""
        net = self.net
        if net.pos_embed_win is None:
            old_grid = list(net.tokens_spatial_shape)
            return resample_abs_pos_embed(
                net.pos_embed, list(grid), old_grid, num_prefix_tokens=0
            )
        # Float32, because antialiasing has no 16-bit kernel on CPUs.
        coarse = F.interpolate(
            net.pos_embed.float(), grid, mode='bicubic', antialias=True
        )
        units = zip(grid, net.mask_unit_size, strict=True)
        window = net.pos_embed_win.tile([side // unit for side, unit in units])
        return (coarse + window).flatten(2).transpose(1, 2)

    def run(
        self, tokens: Tensor, grid: tuple[int, int], start: int, stop: int, call: Call
    ) -> Tokens:
        """See :class:`Adapter`; the first block of a stage halves the grid."""
        net = self.net
        pooled = self._num_pooled(start - 1)
        first_grid = tuple(
            side * stride**pooled for side, stride in zip(grid, net.q_stride, strict=True)
        )
        schedule = [net.q_stride] * (len(net.stage_ends) - 1)
        x = Unroll(grid, (1, 1), schedule[pooled:])(tokens)
        for block in net.blocks[start:stop]:
            x = call(block, x)
        reroll = Reroll(first_grid, (1, 1), schedule, net.stage_ends, net.q_pool)
        x_BHWC = reroll(x, stop - 1)
        return x_BHWC.flatten(1, 2), (x_BHWC.shape[1], x_BHWC.shape[2])

    def _num_pooled(self, block: int) -> int:
        """How many times the grid has been halved after a block; -1 is the embedding."""
        return sum(block > end for end in self.net.stage_ends[: self.net.q_pool])


class HieraDetAdapter(MapAdapter):
    """``HieraDet``, SAM 2's Hiera: windows on maps. It resizes images like ``Hiera``."""

    def __init__(self, net: Any) -> None:
        super().__init__(net, root='blocks', channels_last=True, split=False)

    def embed(self, image: Tensor) -> Tokens:
        stride = 2 ** (len(self.net.stage_ends) + 1)
        image = resize_to_multiple(image, (stride, stride))
        return self.to_tokens(self.net._pos_embed(self.net.patch_embed(image)))


def resize_to_multiple(image: Tensor, divisors: Sequence[int]) -> Tensor:
    """Resize an image bilinearly to the nearest positive multiples of ``divisors``."""
    size = [
        max(math.floor(side / divisor + 0.5), 1) * divisor
        for side, divisor in zip(image.shape[2:], divisors, strict=True)
    ]
    if size == list(image.shape[2:]):
        return image
    return F.interpolate(image, size, mode='bilinear', align_corners=False)
