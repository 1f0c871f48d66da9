"""Self-attention in windows with a learned bias of relative positions.

Shapes: b sequences of n = w * w tokens, w window side, C width, M heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .self_attention import SelfAttention, join_windows, split_windows


class RelativePositionAttention(SelfAttention):
    """Windowed self-attention of BEiT (arXiv 2106.08254).

    ``softmax(q k^T / sqrt(C / M) + bias) v``, where the bias of a pair of tokens depends
    on the head and on the vector from one token to the other. Queries and values have a
    bias, keys do not. The table of biases is made for one window size, so for global
    attention the window must have the size of the grid. Incomplete windows are padded
    with zeros, which are projected and have positions like any token.

    Args:
        dims: Width C.
        num_heads: Number of heads M; must divide ``dims``.
        window_size: Side w of the windows in tokens.
        qkv_bias: Whether queries and values have a bias.

    Raises:
        ValueError: If the heads do not divide the width or the window is not positive.
    """

    def __init__(
        self, dims: int, num_heads: int, window_size: int, *, qkv_bias: bool = True
    ) -> None:
        super().__init__(dims, num_heads, qkv_bias=False, window_size=window_size)
        self.q_bias = nn.Parameter(torch.zeros(dims)) if qkv_bias else None
        self.v_bias = nn.Parameter(torch.zeros(dims)) if qkv_bias else None
        #: Row ``(y + w - 1) * (2 w - 1) + x + w - 1`` is for a query that lies (y, x)
        #: tokens from its key; one column per head.
        self.relative_position_bias_table = nn.Parameter(
            torch.zeros((2 * window_size - 1) ** 2, num_heads)
        )
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def position_bias(self) -> Tensor:
        """(M, n, n) bias of every query to every key of a window."""
        window = self.window_size
        assert window is not None
        table = self.relative_position_bias_table.unflatten(0, (2 * window - 1, -1))
        # The keys of one query read a w x w part of the table, backwards. Sliding a
        # window over the table saves an index of n * n integers per block.
        parts = table.flip(0, 1).unfold(0, window, 1).unfold(1, window, 1).flip(0, 1)
        return parts.permute(2, 0, 1, 3, 4).flatten(3).flatten(1, 2)

    def _attend_in_windows(self, x_BHWC: Tensor, window: int) -> Tensor:
        """See :class:`SelfAttention`; tokens of the padding differ in their positions."""
        height, width = x_BHWC.shape[1:3]
        padding = (0, 0, 0, -width % window, 0, -height % window)
        # Padded after the projection, which is zero for zeros: the bias comes later.
        qkv = F.pad(self.qkv(x_BHWC), padding) if any(padding) else self.qkv(x_BHWC)
        out = self._attend_by_position(split_windows(qkv, (window, window)))
        out_BHWC = join_windows(out, (window, window), qkv.shape[1:3])
        return out_BHWC[:, :height, :width]

    def _attend_by_position(self, qkv: Tensor) -> Tensor:
        """(b, n, 3C) to (b, n, C), each of the b sequences on its own."""
        if self.q_bias is not None and self.v_bias is not None:
            bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
            # Added here and not in the projection, so that padding gets it as well.
            qkv = qkv + bias.to(qkv.dtype)
        q, k, v = qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        # The fused kernels require a mask of four dimensions.
        mask = self.position_bias()[None].to(q.dtype)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return out.transpose(1, 2).flatten(2)
