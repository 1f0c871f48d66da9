"""Pre-norm transformer block with layer scale (CaiT, arXiv 2103.17239; DeiT III)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from timm.layers import DropPath, LayerScale, Mlp
from torch import Tensor, nn

from ..checks import check_choice, check_rate
from .self_attention import SelfAttention

#: Activations of the MLP. 'gelu' is the exact (erf) form, 'gelu_tanh' the approximation
#: that the fused MLP of some published recipes computes.
MLP_ACTS: dict[str, Callable[[], nn.Module]] = {
    'gelu': nn.GELU,
    'gelu_tanh': partial(nn.GELU, approximate='tanh'),
}


class Block(nn.Module):
    """``x + scale(attn(norm(x)))``, then ``x + scale(mlp(norm(x)))``.

    Args:
        dims: Width C.
        num_heads: Number of attention heads.
        mlp_ratio: Hidden width of the MLP over ``dims``.
        qkv_bias: Whether query, key and value have a bias.
        init_values: Initial value of the layer scales; None builds none.
        drop_path_rate: Probability of skipping a residual branch during training.
        mlp_act: One of :data:`MLP_ACTS`.
        window_size: Side of the attention windows; None attends globally.
        window_pad: See :class:`SelfAttention`.

    Raises:
        ValueError: If an option is unknown or the heads do not divide the width.
    """

    def __init__(
        self,
        dims: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        init_values: float | None = 1.0,
        drop_path_rate: float = 0.0,
        mlp_act: str = 'gelu',
        window_size: int | None = None,
        window_pad: str = 'zero_input',
    ) -> None:
        super().__init__()
        check_choice('mlp_act', mlp_act, MLP_ACTS)
        check_rate('drop_path_rate', drop_path_rate)
        self.norm1 = nn.LayerNorm(dims, eps=1e-6)
        self.attn = SelfAttention(
            dims,
            num_heads,
            qkv_bias=qkv_bias,
            window_size=window_size,
            window_pad=window_pad,
        )
        self.ls1 = _layer_scale(dims, init_values)
        self.norm2 = nn.LayerNorm(dims, eps=1e-6)
        self.mlp = Mlp(dims, int(dims * mlp_ratio), act_layer=MLP_ACTS[mlp_act])  # type: ignore[arg-type]
        self.ls2 = _layer_scale(dims, init_values)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x_BNC: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, N, C) tokens of an (H, W) grid to (B, N, C)."""
        attended = self.attn(self.norm1(x_BNC), grid)
        x_BNC = x_BNC + self.drop_path(self.ls1(attended))
        return x_BNC + self.drop_path(self.ls2(self.mlp(self.norm2(x_BNC))))


def _layer_scale(dims: int, init_values: float | None) -> nn.Module:
    return nn.Identity() if init_values is None else LayerScale(dims, init_values)
