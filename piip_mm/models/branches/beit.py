"""BEiT and BEiT v2 as branches: presets, module, weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.registry import MODELS
from scipy.interpolate import RectBivariateSpline
from torch import Tensor, nn

from piip_mm.checks import check_bool
from piip_mm.weights.rename import Rule

from ..layers.relative_position import RelativePositionAttention
from .geometry import PlainArch
from .plain import PlainBranch

_TABLE = 'relative_position_bias_table'
#: The table that all blocks share in files of the pretraining.
_SHARED_TABLE = f'rel_pos_bias.{_TABLE}'
#: Rows at the end of a table for pairs that include the class token.
_NUM_CLS_ROWS = 3

#: Names in the original releases, the published PIIP code and timm.
_WEIGHT_RULES: list[Rule] = [
    (r'patch_embed\.proj\.(.+)', r'patch_embed.\1'),
    (r'(blocks\.\d+)\.gamma_([12])', r'\1.ls\2.gamma'),
    (rf'blocks\.\d+\.attn\.(?:[qv]_bias|{_TABLE})', r'\g<0>'),
    (r'blocks\.\d+\.(?:norm[12]|attn\.(?:qkv|proj)|mlp\.fc[12])\..+', r'\g<0>'),
    (r'.+\.relative_position_index|rel_pos_bias\..+', None),
    # BEiT v2 models do not have a position embedding, and neither does this branch.
    (r'cls_token|mask_token|pos_embed', None),
    (r'(?:norm|fc_norm|head|lm_head|cls_pt_layers|up[12])\..+', None),
]


@dataclass(frozen=True, kw_only=True)
class BEiTArch(PlainArch):
    """Geometry of a BEiT.

    Attributes:
        qkv_bias: Whether queries and values have a bias; keys have none.
    """

    qkv_bias: bool = True
    init_values: float | None = 1e-6

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        check_bool('arch.qkv_bias', self.qkv_bias)


#: Presets: BEiT v2 (arXiv 2208.06366), with the initial layer scale of the published PIIP
#: models; the pretrained files contain their own.
BEIT_ARCHS: dict[str, BEiTArch] = {
    'beitv2_base': BEiTArch(embed_dims=768, num_layers=12, num_heads=12),
    'beitv2_large': BEiTArch(embed_dims=1024, num_layers=24, num_heads=16),
}


@MODELS.register_module()
class PIIPBEiT(PlainBranch):
    """BEiT (arXiv 2106.08254) or BEiT v2 (arXiv 2208.06366).

    There is no position embedding: positions are relative, within the windows of the
    attention, see :class:`RelativePositionAttention`. As a branch it has neither a class
    token nor a final norm. Any image of at least one patch works.

    Args:
        arch: Name of a preset (:data:`BEIT_ARCHS`) or the fields of :class:`BEiTArch`.
        img_size: Side of the branch's image in pixels, see :class:`Branch`.
        window_size: Side of the attention windows in tokens: one value for all blocks, or
            one per block; for global attention, the side of the grid.
        kwargs: Further options, see :class:`PlainBranch`.

    Raises:
        ValueError: If an option is unknown or out of range, the heads do not divide the
            width, or a block has no window.
    """

    arch_type = BEiTArch
    presets = BEIT_ARCHS
    arch: BEiTArch
    weights_title = 'BEiT (BEiT, BEiT v2)'

    def __init__(
        self,
        arch: str | Mapping[str, Any],
        img_size: int,
        *,
        window_size: int | Sequence[int] = 14,
        **kwargs: Any,
    ) -> None:
        super().__init__(arch, img_size, window_size=window_size, **kwargs)
        if None in self.windows:
            raise ValueError(
                f'window_size={window_size!r}: block {self.windows.index(None)} has no '
                'window, which its table of relative positions requires; for global '
                'attention, give the side of the grid in tokens instead of None or '
                'global_attn_indexes'
            )

        def attention(window: int | None) -> nn.Module:
            assert window is not None
            return RelativePositionAttention(
                self.arch.embed_dims,
                self.arch.num_heads,
                window,
                qkv_bias=self.arch.qkv_bias,
            )

        self.build_blocks(attention)

    def embed(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        return self.embed_patches(image)

    def weight_rules(self) -> Sequence[Rule]:
        return _WEIGHT_RULES

    def prepare_weights(self, weights: Mapping[str, Any]) -> Mapping[str, Any]:
        """Give every block the table that all blocks share in the file."""
        if _SHARED_TABLE not in weights:
            return weights
        others = {name: value for name, value in weights.items() if name != _SHARED_TABLE}
        table = weights[_SHARED_TABLE]
        tables = {f'blocks.{i}.attn.{_TABLE}': table for i in range(self.depth)}
        if own := sorted(tables.keys() & others.keys()):
            raise ValueError(
                f'{_SHARED_TABLE!r} is for all blocks, but there is also {own[0]!r}; '
                'keep the right one of them'
            )
        return others | tables

    def fit_weight(self, name: str, tensor: Tensor) -> Tensor:
        """See :meth:`Branch.fit_weight`; also resizes tables of relative positions."""
        if name.endswith(_TABLE):
            window = self.windows[int(name.split('.')[1])]
            assert window is not None
            return resize_position_table(tensor, window)
        return super().fit_weight(name, tensor)


def resize_position_table(table: Tensor, window: int) -> Tensor:
    """Resize a table of relative positions to another window size.

    Nearby positions keep their meaning: the distances 0, 1, 2, ... of the table become
    0, 1, 1 + q, 1 + q + q^2, ... in the new window, with q such that the farthest ones
    coincide (1.01 <= q <= 1.5), and a bicubic spline through them is evaluated at the
    integers, as in the fine-tuning of BEiT (arXiv 2106.08254).

    Args:
        table: ((2 w - 1)^2, M) or, with rows for a class token, ((2 w - 1)^2 + 3, M) for
            windows of side w and M heads.
        window: Side of the new windows.

    Returns:
        ((2 * window - 1)^2, M), without rows for a class token; the rows themselves if
        the window size stays the same.

    Raises:
        ValueError: If the table has another shape, or the window size has to change
            from 1.
    """
    if table.ndim != 2 or not table.numel():
        raise ValueError(
            f'table of relative positions of shape {tuple(table.shape)}: expected '
            '((2 w - 1)^2, M)'
        )
    old, new = _table_side(len(table)), 2 * window - 1
    rows = table[: old**2]
    if old == new:
        return table if len(table) == old**2 else rows
    if old == 1:
        raise ValueError('a table for windows of one token cannot be resized')
    points = _geometric_points(old // 2, new // 2)
    targets = np.arange(-(new // 2), new // 2 + 1)
    degree = min(3, old - 1)
    maps = rows.float().T.unflatten(1, (old, old)).numpy()
    resized = [
        RectBivariateSpline(points, points, values, kx=degree, ky=degree, s=0)(
            targets, targets
        )
        for values in maps
    ]
    return torch.from_numpy(np.stack(resized, -1)).flatten(0, 1).to(torch.float32)


def _table_side(num_rows: int) -> int:
    """2 w - 1 for a table of windows of side w."""
    for count in (num_rows, num_rows - _NUM_CLS_ROWS):
        side = math.isqrt(max(count, 0))
        if side % 2 and side**2 == count:
            return side
    raise ValueError(
        f'a table of relative positions with {num_rows} rows: expected the square of an '
        f'odd number, or {_NUM_CLS_ROWS} more'
    )


def _geometric_points(old: int, new: int) -> np.ndarray:
    """Positions of the distances -old, ..., old in a table for -new, ..., new."""
    low, high = 1.01, 1.5
    ratio = high
    # The tolerance is that of the original code; it affects the resized tables.
    while high - low > 1e-6:
        ratio = (low + high) / 2
        if sum(ratio**i for i in range(old)) > new:
            high = ratio
        else:
            low = ratio
    distances = np.cumsum(ratio ** np.arange(old))
    return np.concatenate([-distances[::-1], [0.0], distances])
