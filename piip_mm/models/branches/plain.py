"""What plain transformers have in common: blocks of one width on one grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmengine.logging import print_log
from torch import Tensor, nn

from piip_mm.checks import check_choice, check_int, check_ints, check_rate
from piip_mm.weights.resize import position_grid, resize_kernel, resize_positions

from ..init import init_new_layers
from ..layers import Block, as_tokens
from .base import Branch
from .geometry import PlainArch, PositionedArch, resolve_arch

#: How stochastic depth is spread over L blocks: the same rate r in all of them, or
#: r * i / (L - 1) in block i.
DROP_PATH_SCHEDULES: dict[str, Callable[[float, int], list[float]]] = {
    'constant': lambda rate, depth: [rate] * depth,
    'linear': lambda rate, depth: [rate * i / max(depth - 1, 1) for i in range(depth)],
}


class PlainBranch(Branch):
    """Patch embedding, followed by blocks that keep width and grid.

    A subclass builds its position embedding, then its blocks with :meth:`build_blocks`.

    Args:
        arch: Name of one of ``presets``, or the fields of ``arch_type``.
        img_size: Side of the branch's image in pixels, see :class:`Branch`.
        patch_size: Side of a patch in pixels.
        in_channels: Channels of the image.
        window_size: Side of the attention windows in tokens: one value for all blocks, or
            one per block; None attends globally.
        global_attn_indexes: Blocks that attend globally regardless of ``window_size``.
        drop_path_rate: Stochastic depth rate.
        drop_path_schedule: How the rate is spread over the blocks, one of
            :data:`DROP_PATH_SCHEDULES`.
        mlp_act: 'gelu' or 'gelu_tanh', see :class:`piip_mm.models.layers.Block`.
        kwargs: Further options, see :class:`Branch`.

    Raises:
        ValueError: If an option is unknown or out of range, or the windows do not fit the
            number of blocks.
    """

    arch_type: type[PlainArch]
    presets: Mapping[str, PlainArch]
    arch: PlainArch

    def __init__(
        self,
        arch: str | Mapping[str, Any],
        img_size: int,
        *,
        patch_size: int = 16,
        in_channels: int = 3,
        window_size: int | Sequence[int | None] | None = None,
        global_attn_indexes: Sequence[int] = (),
        drop_path_rate: float = 0.0,
        drop_path_schedule: str = 'linear',
        mlp_act: str = 'gelu',
        **kwargs: Any,
    ) -> None:
        check_int('patch_size', patch_size)
        check_int('in_channels', in_channels)
        resolved = resolve_arch(arch, self.arch_type, self.presets)
        dims, depth = resolved.embed_dims, resolved.num_layers
        super().__init__(
            img_size=img_size,
            dims=(dims,) * depth,
            strides=(patch_size,) * depth,
            **kwargs,
        )
        if img_size % patch_size:
            print_log(
                f'img_size {img_size} is not a multiple of patch_size {patch_size}: the '
                f'last {img_size % patch_size} rows and columns of pixels are dropped',
                logger='current',
            )
        self.arch = resolved
        self.in_channels = in_channels
        self.windows = windows_of_blocks(window_size, global_attn_indexes, depth)
        self.drop_path_rates = drop_path_rates(drop_path_rate, depth, drop_path_schedule)
        self.mlp_act = mlp_act
        self.patch_embed = nn.Conv2d(in_channels, dims, patch_size, patch_size)
        # Initialised like a linear layer on flattened patches, which it amounts to.
        nn.init.xavier_uniform_(self.patch_embed.weight.detach().flatten(1))
        assert self.patch_embed.bias is not None
        nn.init.zeros_(self.patch_embed.bias)

    def build_blocks(
        self,
        attention: Callable[[int | None], nn.Module],
        *,
        norm: str = 'LN',
        norm_eps: float = 1e-6,
    ) -> None:
        """Build and initialise the blocks.

        Args:
            attention: Builds the attention of a block from its window size.
            norm: Norm of the blocks, see :class:`piip_mm.models.layers.Block`.
            norm_eps: Added to the variance in the norms.
        """
        self.blocks = nn.ModuleList(
            Block(
                self.arch.embed_dims,
                attention(window),
                mlp_ratio=self.arch.mlp_ratio,
                init_values=self.arch.init_values,
                drop_path_rate=rate,
                mlp_act=self.mlp_act,
                norm=norm,
                norm_eps=norm_eps,
            )
            for window, rate in zip(self.windows, self.drop_path_rates, strict=True)
        )
        init_new_layers(self.blocks)

    def embed_patches(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """(B, in_channels, h, w) image to (B, N, C) tokens without positions, and their
        (H, W)."""
        x = self.patch_embed(image.to(self.patch_embed.weight.dtype))
        # Sums keep the order in memory of their first term: without this, all blocks
        # would add to tokens whose channels are far apart.
        return as_tokens(x).contiguous(), (x.shape[2], x.shape[3])

    def run(
        self, tokens: Tensor, grid: tuple[int, int], start: int, stop: int
    ) -> tuple[Tensor, tuple[int, int]]:
        for block in self.blocks[start:stop]:
            tokens = self.run_block(block, tokens, grid)
        return tokens, grid

    def fit_weight(self, name: str, tensor: Tensor) -> Tensor:
        """See :meth:`Branch.fit_weight`; resizes the patch kernel."""
        if name == 'patch_embed.weight':
            height, width = self.patch_embed.weight.shape[2:]
            return resize_kernel(tensor, (height, width))
        return tensor


class PositionedBranch(PlainBranch):
    """Plain transformer with a position embedding for a square grid of tokens.

    Args:
        pretrain_img_size: Side in pixels of the images that positions are stored for: a
            grid of pretrain_img_size // patch_size tokens per side, to which those of a
            pretrained file are resized. None stores the grid of the arch and accepts no
            other file: resized twice, there and to each image, positions would lose
            detail unnoticed.
        kwargs: Further options, see :class:`PlainBranch`.

    Raises:
        ValueError: If the images are smaller than a patch; see also
            :class:`PlainBranch`.
    """

    arch: PositionedArch

    def __init__(
        self,
        arch: str | Mapping[str, Any],
        img_size: int,
        *,
        pretrain_img_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(arch, img_size, **kwargs)
        side = self.arch.pos_grid
        if pretrain_img_size is not None:
            check_int('pretrain_img_size', pretrain_img_size, minimum=self.min_size)
            side = pretrain_img_size // self.min_size
        self.pretrain_img_size = pretrain_img_size
        self.pos_grid = (side, side)

    def fit_positions(self, rows: Tensor, *, cls_row: bool = False) -> Tensor:
        """Resize the (1, rows, C) positions of a pretrained file to the branch's grid.

        Args:
            rows: Positions of the file.
            cls_row: See :func:`piip_mm.weights.resize.resize_positions`.

        Raises:
            ValueError: If the file has another grid than the branch and the branch no
                ``pretrain_img_size``, or the rows do not form a square.
        """
        old, new = position_grid(rows)[0], self.pos_grid[0]
        if old != new and self.pretrain_img_size is None:
            raise ValueError(
                f'positions for {old} x {old} tokens, but the branch stores {new} x '
                f'{new}, the grid of its arch; set pretrain_img_size='
                f'{old * self.min_size} to keep those of the file, or '
                f'pretrain_img_size={new * self.min_size} to have them resized'
            )
        return resize_positions(rows, self.pos_grid, cls_row=cls_row)


def drop_path_rates(rate: float, depth: int, schedule: str) -> list[float]:
    """Stochastic depth rate of each block.

    Raises:
        ValueError: If the rate is not a probability or the schedule is not one of
            :data:`DROP_PATH_SCHEDULES`.
    """
    check_rate('drop_path_rate', rate)
    check_choice('drop_path_schedule', schedule, DROP_PATH_SCHEDULES)
    return DROP_PATH_SCHEDULES[schedule](rate, depth)


def windows_of_blocks(
    window_size: int | Sequence[int | None] | None,
    global_attn_indexes: Sequence[int],
    depth: int,
) -> list[int | None]:
    """Window size of each block, None for global attention.

    Raises:
        ValueError: If the values do not fit the number of blocks.
    """
    check_ints('global_attn_indexes', global_attn_indexes, minimum=0)
    windows: list[Any]
    if isinstance(window_size, (list, tuple)):
        windows = list(window_size)
    else:
        windows = [window_size] * depth
    if len(windows) != depth:
        raise ValueError(
            f'window_size has {len(windows)} values for {depth} blocks; give one value '
            'for all blocks, or one per block'
        )
    for index in global_attn_indexes:
        if index not in range(depth):
            raise ValueError(
                f'global_attn_indexes {tuple(global_attn_indexes)}: block {index} does '
                f'not exist, there are blocks 0 to {depth - 1}'
            )
        windows[index] = None
    return windows
