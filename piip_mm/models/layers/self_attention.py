"""Global and windowed self-attention of plain vision transformers.

Shapes: B batch, H x W token grid, N = H * W, C width, M heads, D = C // M, w window side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
        qkv_BHWC = self._pad_to_windows(x_BNC, grid)
        _, *padded_grid, _ = qkv_BHWC.shape
        out = self._attend(split_windows(qkv_BHWC, self.window_size))
        out_BHWC = join_windows(out, self.window_size, padded_grid)
        return self.proj(out_BHWC[:, : grid[0], : grid[1]].flatten(1, 2))

    def _attend(self, qkv: Tensor) -> Tensor:
        """(b, n, 3C) to (b, n, C), each of the b sequences on its own."""
        q, k, v = qkv.chunk(3, -1)
        q, k, v = (
            x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for x in (self.q_norm(q), self.k_norm(k), v)
        )
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    def _pad_to_windows(self, x_BNC: Tensor, grid: tuple[int, int]) -> Tensor:
        """Query, key and value of the padded grid, (B, H', W', 3C)."""
        assert self.window_size is not None
        pad_bottom, pad_right = (-side % self.window_size for side in grid)
        padding = (0, 0, 0, pad_right, 0, pad_bottom)
        bias = self.qkv.bias
        if not any(padding) or bias is None or self.window_pad == 'zero_qkv':
            return F.pad(self.qkv(x_BNC).unflatten(1, grid), padding)
        # Adding the bias after the padding gives what projecting padded zeros would,
        # without running the projection on them.
        qkv = F.pad(F.linear(x_BNC, self.qkv.weight).unflatten(1, grid), padding)
        return qkv + bias.to(qkv.dtype)


def split_windows(x_BHWC: Tensor, window: int) -> Tensor:
    """(B, H, W, C) to (B * windows, w * w, C)."""
    x = x_BHWC.unflatten(2, (-1, window)).unflatten(1, (-1, window))
    return x.transpose(2, 3).flatten(3, 4).flatten(0, 2)


def join_windows(x: Tensor, window: int, grid: Sequence[int]) -> Tensor:
    """(B * windows, w * w, C) to (B, H, W, C); inverse of :func:`split_windows`."""
    rows, columns = (side // window for side in grid)
    x = x.view(-1, rows, columns, window, window, x.shape[-1])
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)
