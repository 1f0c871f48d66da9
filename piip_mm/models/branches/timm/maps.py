"""timm models whose blocks work on maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .adapters import Adapter, Call, Tokens


class MapAdapter(Adapter):
    """A stem and stages that work on maps.

    Args:
        net: The model.
        stem: Names of the modules that make the first map, in the order they are run.
        root: Name of the child of the model that holds the stages.
        channels_last: Whether the maps are (B, H, W, C) instead of (B, C, H, W).
        split: Whether each block of a stage is a block of the branch; the down-sampling
            layer in front of a stage belongs to the first of them. Otherwise each stage
            is one block.
    """

    def __init__(
        self,
        net: Any,
        *,
        stem: Sequence[str] = ('stem',),
        root: str = 'stages',
        channels_last: bool = False,
        split: bool = True,
    ) -> None:
        super().__init__(net)
        self.stem = stem
        self.root = root
        self.channels_last = channels_last
        self.split = split

    def blocks(self) -> list[tuple[str, ...]]:
        if not self.split:
            return super().blocks()
        return [
            (f'{self.root}.{i}.downsample',) * (j == 0) + (f'{self.root}.{i}.blocks.{j}',)
            for i, stage in enumerate(getattr(self.net, self.root))
            for j in range(len(stage.blocks))
        ]

    def truncate(self, depth: int) -> None:
        if not self.split:
            super().truncate(depth)
            return
        stages = getattr(self.net, self.root)
        for index, stage in enumerate(stages):
            del stage.blocks[depth:]
            depth -= len(stage.blocks)
            if depth == 0:
                del stages[index + 1 :]
                return

    def embed(self, image: Tensor) -> Tokens:
        for name in self.stem:
            image = getattr(self.net, name)(image)
        return self.to_tokens(image)

    def run(
        self, tokens: Tensor, grid: tuple[int, int], start: int, stop: int, call: Call
    ) -> Tokens:
        """See :class:`Adapter`; grid and width may change."""
        x = tokens.unflatten(1, grid)
        if not self.channels_last:
            x = x.permute(0, 3, 1, 2)
        for names in self.blocks()[start:stop]:
            for name in names:
                x = call(self.net.get_submodule(name), x)
        return self.to_tokens(x)

    def to_tokens(self, x: Tensor) -> Tokens:
        """Map to (B, N, C) tokens and their (H, W) grid."""
        if not self.channels_last:
            x = x.permute(0, 2, 3, 1)
        return x.flatten(1, 2), (x.shape[1], x.shape[2])
