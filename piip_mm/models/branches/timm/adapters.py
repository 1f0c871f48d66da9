"""Adapters that run timm models block by block: interface and plain transformers.

Shapes: B batch, P prefix tokens (class, distillation, registers), N = H * W patch tokens
in row-major order, C the width after the last block that was run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from torch import Tensor

#: Tokens and their grid (H, W).
Tokens = tuple[Tensor, tuple[int, int]]

#: Calls a block with its arguments, possibly recomputing it in the backward pass.
Call = Callable[..., Tensor]


class Adapter(ABC):
    """Embeds images and runs blocks with the models of one timm class.

    Everything that depends on the grid is computed anew in each call. No attribute of the
    model is set while it runs: images of different sizes may run at the same time.

    Args:
        net: The model, without the layers after its last block.
    """

    #: Name of the child of the model that holds the blocks, or the stages with them.
    root = 'blocks'

    def __init__(self, net: Any) -> None:
        self.net = net

    @property
    def num_prefix_tokens(self) -> int:
        """Number P of tokens in front of the patch tokens."""
        return 0

    def blocks(self) -> list[tuple[str, ...]]:
        """Names of the modules that make up each block, in the order they are run."""
        return [(f'{self.root}.{i}',) for i in range(len(getattr(self.net, self.root)))]

    def truncate(self, depth: int) -> None:
        """Remove all but the first ``depth`` blocks."""
        del getattr(self.net, self.root)[depth:]

    @abstractmethod
    def embed(self, image: Tensor) -> Tokens:
        """Images (B, channels, h, w) to (B, P + N, C) tokens and their grid."""

    @abstractmethod
    def run(
        self, tokens: Tensor, grid: tuple[int, int], start: int, stop: int, call: Call
    ) -> Tokens:
        """Run blocks ``start`` to ``stop - 1``, each through ``call``."""


class PlainAdapter(Adapter):
    """``VisionTransformer``: one width, one grid, prefix tokens.

    Pixels that do not fill a patch are dropped, as by any patch convolution. The position
    embedding is stored as in timm and resampled to each grid by timm's function.
    """

    @property
    def num_prefix_tokens(self) -> int:
        return self.net.num_prefix_tokens

    def embed(self, image: Tensor) -> Tokens:
        ratio = self.net.patch_embed.feat_ratio(as_scalar=False)
        x_BHWC = self.net.patch_embed(crop(image, ratio))
        tokens = self.add_positions(x_BHWC)
        return self.net.norm_pre(tokens), (x_BHWC.shape[1], x_BHWC.shape[2])

    def add_positions(self, x_BHWC: Tensor) -> Tensor:
        """(B, H, W, C) patches to (B, P + N, C) tokens with prefix and positions."""
        return self.net._pos_embed(x_BHWC)

    def run(
        self, tokens: Tensor, grid: tuple[int, int], start: int, stop: int, call: Call
    ) -> Tokens:
        for block in self.net.blocks[start:stop]:
            tokens = call(block, tokens)
        return tokens, grid


class EvaAdapter(PlainAdapter):
    """``Eva``: like :class:`PlainAdapter`, with rotary positions on queries and keys.

    The random shifts and scales of rotary positions that some models are trained with are
    switched off: each call of :meth:`run` would draw new ones for the same image.
    """

    def __init__(self, net: Any) -> None:
        super().__init__(net)
        if net.rope is not None:
            net.rope.aug_active = False

    def add_positions(self, x_BHWC: Tensor) -> Tensor:
        return self.net._pos_embed(x_BHWC)[0]

    def run(
        self, tokens: Tensor, grid: tuple[int, int], start: int, stop: int, call: Call
    ) -> Tokens:
        net = self.net
        rope: Any = None if net.rope is None else net.rope.get_embed(shape=grid)
        for index in range(start, stop):
            # Mixed rotary positions differ from block to block.
            block_rope = rope[index] if net.rope_mixed else rope
            tokens = call(net.blocks[index], tokens, block_rope)
        return tokens, grid


def crop(image: Tensor, divisors: tuple[int, int]) -> Tensor:
    """Crop an image at the right and bottom to a multiple of ``divisors``."""
    height, width = (
        side - side % divisor
        for side, divisor in zip(image.shape[2:], divisors, strict=True)
    )
    return image[..., :height, :width]
