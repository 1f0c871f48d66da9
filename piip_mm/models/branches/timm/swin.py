"""timm's two Swins (arXiv 2103.14030, 2111.09883): shifted windows."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.models.swin_transformer import (
    SwinTransformerBlock,
    window_partition,
    window_reverse,
)
from timm.models.swin_transformer_v2 import SwinTransformerV2, SwinTransformerV2Block
from torch import Tensor

from .adapters import Tokens, crop
from .maps import MapAdapter


class _AnySize:
    """Decides for each map whether windows are shifted; timm decides when it builds the
    block. Windows are shifted along sides that are longer than one window."""

    def _attn(self, x_BHWC: Tensor) -> Tensor:
        block: Any = self
        size, windows = x_BHWC.shape[1:3], block.window_size
        shift = [
            window // 2 if any(block.target_shift_size) and side > window else 0
            for side, window in zip(size, windows, strict=True)
        ]
        bottom, right = (
            -side % window for side, window in zip(size, windows, strict=True)
        )
        rolled = x_BHWC.roll((-shift[0], -shift[1]), (1, 2))
        padded = F.pad(rolled, (0, 0, 0, right, 0, bottom))
        height, width = padded.shape[1:3]
        mask = None
        if any(shift):
            regions = (
                _regions(height, windows[0], shift[0], x_BHWC.device)[:, None] * 3
                + _regions(width, windows[1], shift[1], x_BHWC.device)[None]
            )
            regions = window_partition(regions[None, ..., None], windows).flatten(1)
            apart = regions[:, :, None] != regions[:, None]
            mask = torch.zeros_like(apart, dtype=x_BHWC.dtype).masked_fill(apart, -100)
        tokens = window_partition(padded, windows).flatten(1, 2)
        attended = window_reverse(block.attn(tokens, mask=mask), windows, height, width)
        return attended[:, : size[0], : size[1]].roll(shift, (1, 2))


def _regions(side: int, window: int, shift: int, device: torch.device) -> Tensor:
    """(side,) numbers of the parts of a shifted side that do not attend to each other."""
    position = torch.arange(side, device=device)
    if not shift:
        return torch.zeros_like(position)
    return (position >= side - window).long() + (position >= side - shift).long()


class SwinBlock(_AnySize, SwinTransformerBlock):
    """Block of ``SwinTransformer`` for maps of any size."""


class SwinV2Block(_AnySize, SwinTransformerV2Block):
    """Block of ``SwinTransformerV2`` for maps of any size."""


_BLOCKS: dict[type, type] = {
    SwinTransformerBlock: SwinBlock,
    SwinTransformerV2Block: SwinV2Block,
}


class SwinAdapter(MapAdapter):
    """``SwinTransformer`` and its second version.

    Windows have the size that they have at the model's own image size. Maps are padded to
    whole windows. The result is that of a timm model built for the size of the image with
    these windows.
    """

    def __init__(self, net: Any) -> None:
        super().__init__(net, stem=('patch_embed',), root='layers', channels_last=True)
        # timm has no option for the class of the blocks.
        for block in net.modules():
            block.__class__ = _BLOCKS.get(type(block), type(block))

    def embed(self, image: Tensor) -> Tokens:
        if image.dtype == torch.float16 and isinstance(self.net, SwinTransformerV2):
            raise ValueError(
                'float16 weights of a Swin V2 give NaN where windows are padded (keys of '
                'length 0 are normalised); use bfloat16, or float32 weights with autocast'
            )
        return super().embed(crop(image, self.net.patch_embed.patch_size))
