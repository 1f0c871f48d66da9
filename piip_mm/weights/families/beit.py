"""Weights of BEiT and BEiT v2."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy.interpolate import RectBivariateSpline
from torch import Tensor

from piip_mm.models.branches.beit import PIIPBEiT

from ..rename import Rule
from .base import Family, family_of
from .resize import resize_kernel

_TABLE = 'relative_position_bias_table'
#: Table of all blocks in files of the pretraining.
_SHARED_TABLE = f'rel_pos_bias.{_TABLE}'
#: Rows at the end of a table for pairs with the class token.
_NUM_CLS_ROWS = 3

#: The original releases, the published PIIP code and timm.
_RULES: list[Rule] = [
    (r'patch_embed\.proj\.(.+)', r'patch_embed.\1'),
    (r'(blocks\.\d+)\.gamma_([12])', r'\1.ls\2.gamma'),
    (rf'blocks\.\d+\.attn\.(?:[qv]_bias|{_TABLE})', r'\g<0>'),
    (r'blocks\.\d+\.(?:norm[12]|attn\.(?:qkv|proj)|mlp\.fc[12])\..+', r'\g<0>'),
    (r'.+\.relative_position_index|rel_pos_bias\..+', None),
    # No BEiT v2 has one, and a branch here neither.
    (r'cls_token|mask_token|pos_embed', None),
    (r'(?:norm|fc_norm|head|lm_head|cls_pt_layers|up[12])\..+', None),
]


def resize_position_table(table: Tensor, window: int) -> Tensor:
    """Fit a table of relative positions to another window.

    Near positions keep their meaning: the distances 0, 1, 2, ... of the table are taken
    for 0, 1, 1 + q, 1 + q + q^2, ... in the new window, with q such that the farthest
    ones coincide (1.01 <= q <= 1.5), and a bicubic spline through them is read at the
    whole numbers, as in the fine-tuning of BEiT (arXiv 2106.08254).

    Args:
        table: ((2 w - 1)^2, M) or, with rows for a class token, ((2 w - 1)^2 + 3, M) for
            windows of side w and M heads.
        window: Side of the windows wanted.

    Returns:
        ((2 * window - 1)^2, M), without rows for a class token; for the same window the
        rows themselves.

    Raises:
        ValueError: If the number of rows is neither of the two, or w is 1.
    """
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
    """2 w - 1 for the window side w of a table."""
    for count in (num_rows, num_rows - _NUM_CLS_ROWS):
        side = math.isqrt(max(count, 0))
        if side % 2 and side**2 == count:
            return side
    raise ValueError(
        f'a table of relative positions with {num_rows} rows: expected the square of an '
        f'odd number, or {_NUM_CLS_ROWS} more'
    )


def _geometric_points(old: int, new: int) -> np.ndarray:
    """Where the distances -old, ..., old of a table lie in one of -new, ..., new."""
    low, high = 1.01, 1.5
    ratio = high
    # The tolerance is that of the original, as it shows in the resized tables.
    while high - low > 1e-6:
        ratio = (low + high) / 2
        if sum(ratio**i for i in range(old)) > new:
            high = ratio
        else:
            low = ratio
    distances = np.cumsum(ratio ** np.arange(old))
    return np.concatenate([-distances[::-1], [0.0], distances])


def _prepare(weights: Mapping[str, Any], branch: PIIPBEiT) -> Mapping[str, Any]:
    """Give every block its own copy of a table that all blocks share."""
    if _SHARED_TABLE not in weights:
        return weights
    own = {name: tensor for name, tensor in weights.items() if name != _SHARED_TABLE}
    table = weights[_SHARED_TABLE]
    return own | {f'blocks.{i}.attn.{_TABLE}': table for i in range(branch.depth)}


def _fit(name: str, tensor: Tensor, branch: PIIPBEiT) -> Tensor:
    if name == 'patch_embed.weight':
        return resize_kernel(tensor, branch)
    block = name.split('.')[1]
    if name.endswith(_TABLE) and int(block) < branch.depth:
        window = branch.get_submodule(f'blocks.{block}.attn').window_size
        assert isinstance(window, int)
        return resize_position_table(tensor, window)
    return tensor


_FAMILY = Family(
    title='BEiT (BEiT, BEiT v2)',
    rules=_RULES,
    # Nothing: without its layer scale a pretrained block means something else.
    optional='',
    fit=_fit,
    prepare=_prepare,
)


@family_of.register
def _beit_family(branch: PIIPBEiT) -> Family:
    return _FAMILY
