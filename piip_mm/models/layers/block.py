"""Pre-norm transformer block with layer scale (CaiT, arXiv 2103.17239; DeiT III)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from timm.layers import DropPath, LayerScale, Mlp
from torch import Tensor, nn

from piip_mm.checks import check_choice, check_rate

#: Activations of the MLP. 'gelu' is the exact (erf) form, 'gelu_tanh' the approximation
#: that the fused MLP of some published recipes computes.
MLP_ACTS: dict[str, Callable[[], nn.Module]] = {
    'gelu': nn.GELU,
    'gelu_tanh': partial(nn.GELU, approximate='tanh'),
}

#: Norms of the tokens. 'RMS' is root mean square normalisation (arXiv 1910.07467).
BLOCK_NORMS: dict[str, Callable[..., nn.Module]] = {
    'LN': nn.LayerNorm,
    'RMS': nn.RMSNorm,
}


class Block(nn.Module):
    """``x + scale(attn(norm(x)))``, then ``x + scale(mlp(norm(x)))``.

    Args:
        dims: Width C.
        attn: Attention, which maps (B, N, C) tokens and their (H, W) grid to (B, N, C).
        mlp_ratio: Hidden width of the MLP over ``dims``.
        init_values: Initial value of the layer scales; None for no layer scale.
        drop_path_rate: Probability of skipping a residual branch during training.
        mlp_act: One of :data:`MLP_ACTS`.
        norm: One of :data:`BLOCK_NORMS`.
        norm_eps: Added to the variance in the norms.

    Raises:
        ValueError: If an option is unknown or out of range.
    """

    def __init__(
        self,
        dims: int,
        attn: nn.Module,
        *,
        mlp_ratio: float = 4.0,
        init_values: float | None = 1.0,
        drop_path_rate: float = 0.0,
        mlp_act: str = 'gelu',
        norm: str = 'LN',
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        check_choice('mlp_act', mlp_act, MLP_ACTS)
        check_choice('norm', norm, BLOCK_NORMS)
        check_rate('drop_path_rate', drop_path_rate)
        self.norm1 = BLOCK_NORMS[norm](dims, eps=norm_eps)
        self.attn = attn
        self.ls1 = _layer_scale(dims, init_values)
        self.norm2 = BLOCK_NORMS[norm](dims, eps=norm_eps)
        self.mlp = Mlp(dims, int(dims * mlp_ratio), act_layer=MLP_ACTS[mlp_act])  # type: ignore[arg-type]
        self.ls2 = _layer_scale(dims, init_values)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x_BNC: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, N, C) tokens and their (H, W) grid to (B, N, C)."""
        attended = self.attn(self.norm1(x_BNC), grid)
        x_BNC = x_BNC + self.drop_path(self.ls1(attended))
        return x_BNC + self.drop_path(self.ls2(self.mlp(self.norm2(x_BNC))))


def _layer_scale(dims: int, init_values: float | None) -> nn.Module:
    return nn.Identity() if init_values is None else LayerScale(dims, init_values)
