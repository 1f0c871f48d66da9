"""Global and windowed self-attention of plain vision transformers.

Shapes: B batch, H x W token grid, N = H * W, C width, M heads, D = C // M, w window side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from piip_mm.checks import check_choice, check_divisible, check_int

#: What fills windows that extend beyond the right and bottom edges of the grid.
#: 'zero_input': tokens of zeros, so their query, key and value are the projection's bias.
#: 'zero_qkv': zeros in place of query, key and value.
WINDOW_PADS = ('zero_input', 'zero_qkv')


class SelfAttention(nn.Module):
    """Multi-head self-attention over the whole grid or in windows.

    Windows are not shifted. The grid is padded at its right and bottom edge to a
    multiple of the window; padded tokens take part in the softmax unmasked, as in the
    published models.

    Args:
        dims: Width C.
        num_heads: Number of heads M; must divide ``dims``.
        qkv_bias: Whether query, key and value have a bias.
        qk_norm: Builds a norm over the full width C, for the queries and for the keys
            before they are split into heads; None for no norm.
        window_size: Side of the windows in tokens; None attends globally.
        window_pad: One of :data:`WINDOW_PADS`.

    Raises:
        ValueError: If the heads do not divide the width, the window is not positive or
            ``window_pad`` is unknown.
    """

    def __init__(
        self,
        dims: int,
        num_heads: int,
        *,
        qkv_bias: bool = True,
        qk_norm: Callable[[int], nn.Module] | None = None,
        window_size: int | None = None,
        window_pad: str = 'zero_input',
    ) -> None:
        super().__init__()
        check_divisible('embed_dims: width', dims, 'num_heads', num_heads)
        check_choice('window_pad', window_pad, WINDOW_PADS)
        if window_size is not None:
            check_int('window_size', window_size)
        self.num_heads = num_heads
        self.window_size = window_size
        self.window_pad = window_pad
        self.qkv = nn.Linear(dims, 3 * dims, bias=qkv_bias)
        self.q_norm = nn.Identity() if qk_norm is None else qk_norm(dims)
        self.k_norm = nn.Identity() if qk_norm is None else qk_norm(dims)
        self.proj = nn.Linear(dims, dims)

    def forward(self, x_BNC: Tensor, grid: tuple[int, int]) -> Tensor:
        """Attend.

        Args:
            x_BNC: (B, N, C) tokens in row-major order; with global attention there may be
                additional tokens that have no place in the grid.
            grid: (H, W); H * W = N with windows.

        Returns:
            (B, N, C).
        """
        if self.window_size is None:
            return self.proj(self._attend(self.qkv(x_BNC)))
        out_BHWC = self._attend_in_windows(x_BNC.unflatten(1, grid), self.window_size)
        return self.proj(out_BHWC.flatten(1, 2))

    def _attend_in_windows(self, x_BHWC: Tensor, window: int) -> Tensor:
        """(B, H, W, C) to (B, H, W, C), before the output projection.

        Full windows, and those that the right edge, the bottom edge or both cut off, are
        four groups of windows of one shape each.
        """
        parts_y, parts_x = (_parts(side, window) for side in x_BHWC.shape[1:3])
        rows = []
        for height, y in parts_y:
            row = [
                self._attend_to_padding(x_BHWC[:, y, x], (height, width), window)
                for width, x in parts_x
            ]
            rows.append(row[0] if len(row) == 1 else torch.cat(row, 2))
        return rows[0] if len(rows) == 1 else torch.cat(rows, 1)

    def _attend_to_padding(
        self, x_BHWC: Tensor, part: tuple[int, int], window: int
    ) -> Tensor:
        """Attend in windows of which only a part lies within the grid.

        All tokens of the padding have the same key and the same value. So one of them
        stands for all, its score raised by the logarithm of their number.
        """
        num_padding = window**2 - part[0] * part[1]
        grid = x_BHWC.shape[1:3]
        x = split_windows(x_BHWC, part)
        if not num_padding:
            return join_windows(self._attend(self.qkv(x)), part, grid)
        if self.window_pad == 'zero_input':
            qkv = self.qkv(F.pad(x, (0, 0, 0, 1)))
        else:
            qkv = F.pad(self.qkv(x), (0, 0, 0, 1))
        # Not math.log(), which would make a graph for every number.
        dtype = torch.promote_types(qkv.dtype, torch.float32)
        score = qkv.new_full((1,), num_padding, dtype=dtype).log().to(qkv.dtype)
        mask = F.pad(score, (x.shape[1], 0))
        return join_windows(self._attend(qkv, mask), part, grid)

    def _attend(self, qkv: Tensor, mask: Tensor | None = None) -> Tensor:
        """(b, n, 3C) to (b, n, C), each of the b sequences on its own.

        With a mask, which is added to the scores of the n keys, the last token is only a
        key, and the result (b, n - 1, C).
        """
        q, k, v = qkv.chunk(3, -1)
        q, k, v = (
            x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for x in (self.q_norm(q), self.k_norm(k), v)
        )
        if mask is not None:
            # The fused kernels require four dimensions.
            q, mask = q[:, :, :-1], mask[None, None, None]
        out = F.scaled_dot_product_attention(q, k, v, mask)
        return out.transpose(1, 2).flatten(2)


def _parts(side: int, window: int) -> list[tuple[int, slice]]:
    """Full windows along a side and the cut-off one, if there are any: how much of a
    window lies within the grid, and where."""
    full = side - side % window
    parts = [(window, slice(0, full)), (side - full, slice(full, side))]
    return [(length, where) for length, where in parts if where.start < where.stop]


def split_windows(x_BHWC: Tensor, window: Sequence[int]) -> Tensor:
    """(B, H, W, C) to (B * windows, h * w, C), for windows of (h, w) tokens."""
    height, width = window
    x = x_BHWC.unflatten(2, (-1, width)).unflatten(1, (-1, height))
    return x.transpose(2, 3).flatten(3, 4).flatten(0, 2)


def join_windows(x: Tensor, window: Sequence[int], grid: Sequence[int]) -> Tensor:
    """(B * windows, h * w, C) to (B, H, W, C); inverse of :func:`split_windows`."""
    rows, columns = (side // length for side, length in zip(grid, window, strict=True))
    x = x.view(-1, rows, columns, *window, x.shape[-1])
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)
