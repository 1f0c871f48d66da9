"""Base class of the heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmpretrain.models.heads import ClsHead
from torch import Tensor

from piip_mm.checks import OptionErrors, check_int, check_ints


class BranchHead(ClsHead, metaclass=OptionErrors):
    """Head on one feature per branch.

    Args:
        num_classes: Number of classes.
        in_channels: Width of each branch, in the order of the backbone's branches.
        init_cfg: MMEngine's initialisation config.
        kwargs: Options of mmpretrain's ``ClsHead``: ``loss``, ``topk``, ``cal_acc``.

    Raises:
        ValueError: If a number is not positive.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: Sequence[int],
        *,
        init_cfg: dict | Sequence[dict] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(init_cfg=init_cfg, **kwargs)
        check_int('num_classes', num_classes)
        check_ints('in_channels', in_channels)
        if not in_channels:
            raise ValueError('in_channels is empty; name the width of every branch')
        self.num_classes = num_classes
        self.in_channels = tuple(in_channels)

    def check_feats(self, feats: Sequence[Tensor], *, maps: bool) -> None:
        """Raise ``ValueError`` unless there is one feature of the right shape per branch.

        Args:
            feats: What the backbone returned.
            maps: Whether (B, C_b, H_b, W_b) is expected, otherwise (B, C_b).
        """
        shapes = [tuple(feat.shape) for feat in feats]
        out_type = 'maps' if maps else 'cls_tokens'
        if any(len(shape) != (4 if maps else 2) for shape in shapes):
            raise ValueError(
                f'features of shapes {shapes}: expected '
                f'{"maps (B, C, H, W)" if maps else "class tokens (B, C)"}; set '
                f"out_type='{out_type}' in the backbone, or choose another token or head"
            )
        if tuple(shape[1] for shape in shapes) != self.in_channels:
            raise ValueError(
                f'features of shapes {shapes} do not fit in_channels '
                f'{self.in_channels}: expected one of each width, in the order of the '
                "backbone's branches"
            )
