"""What runs a model of timm block by block, and the plain transformers.

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

#: Applies a block to its arguments, perhaps to recompute it in the backward pass.
Call = Callable[..., Tensor]


class Adapter(ABC):
    """How the models of one timm class are embedded and run block by block.

    What depends on the grid is computed from the grid of each call; a model keeps nothing
    of the last image.

    Args:
        net: The model, without what comes after its last block.
    """

    #: The child of the model that holds the blocks, or the stages that hold them.
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
        """(B, 3, h, w) image to (B, P + N, C) tokens and their grid."""

    @abstractmethod
    def run(
        self, tokens: Tensor, grid: tuple[int, int], start: int, stop: int, call: Call
    ) -> Tokens:
        """Run blocks ``start`` to ``stop - 1``, each through ``call``."""


class PlainAdapter(Adapter):
    """``VisionTransformer``: one width, one grid, prefix tokens.

    A remainder of pixels is dropped, as by any patch convolution. The position embedding
    is kept as timm stores it and resampled to each grid with timm's function.
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
        """Patches to tokens with prefix and position."""
        return self.net._pos_embed(x_BHWC)

    def run(
        self, tokens: Tensor, grid: tuple[int, int], start: int, stop: int, call: Call
    ) -> Tokens:
        for block in self.net.blocks[start:stop]:
            tokens = call(block, tokens)
        return tokens, grid


class EvaAdapter(PlainAdapter):
    """``Eva``: as :class:`PlainAdapter`, and rotary positions on queries and keys.

    The random shifts and scales that some models train their rotary positions with are
    switched off: every run of blocks would draw others for the same image.
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
            own = rope[index] if net.rope_mixed else rope
            tokens = call(net.blocks[index], tokens, own)
        return tokens, grid


def crop(image: Tensor, divisors: tuple[int, int]) -> Tensor:
    """Drop the pixels at right and bottom that make no whole patch."""
    height, width = (
        side - side % divisor
        for side, divisor in zip(image.shape[2:], divisors, strict=True)
    )
    return image[..., :height, :width]
