"""One classifier on the merged maps of the branches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.registry import MODELS
from torch import Tensor, nn

from piip_mm.checks import check_divisible

from ..init import init_new_layers
from ..layers import as_tokens
from ..merging import NUM_GROUPS, BranchScales, weighted_sum
from .base import BranchHead


@MODELS.register_module()
class PIIPMergedHead(BranchHead):
    """Classifies the mean token of the weighted sum of the branches' maps.

    The last branch's map is normalised; the others are normalised, projected to its width
    and normalised again; all are resized bilinearly to the grid of the first branch, and
    the sum has one learned number per branch, initially 1. The backbone needs
    ``out_type='maps'``.

    Args:
        num_classes: Number of classes.
        in_channels: Width of each branch, in the order of the backbone's branches;
            divisible by 32.
        init_cfg: MMEngine's initialisation config.
        kwargs: Options of mmpretrain's ``ClsHead``: ``loss``, ``topk``, ``cal_acc``.

    Raises:
        ValueError: If a number is not positive or GroupNorm's 32 groups do not divide a
            width.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: Sequence[int],
        *,
        init_cfg: dict | Sequence[dict] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, in_channels, init_cfg=init_cfg, **kwargs)
        for dims in self.in_channels:
            check_divisible('in_channels', dims, 'GroupNorm groups', NUM_GROUPS)
        *others, out_dims = self.in_channels
        self.branches = nn.ModuleList(_Projection(dims, out_dims) for dims in others)
        self.branches.append(nn.GroupNorm(NUM_GROUPS, out_dims))
        self.scales = BranchScales(range(len(self.in_channels)))
        self.norm = nn.LayerNorm(out_dims, eps=1e-6)
        self.classifier = nn.Linear(out_dims, num_classes)
        init_new_layers(self)

    def pre_logits(self, feats: Sequence[Tensor]) -> Tensor:
        """(B, C) mean of the normalised tokens of the merged map.

        Args:
            feats: Maps (B, C_b, H_b, W_b).

        Raises:
            ValueError: If the features do not fit.
        """
        self.check_feats(feats, maps=True)
        maps = [layers(feat) for layers, feat in zip(self.branches, feats, strict=True)]
        height, width = feats[0].shape[2:]
        merged = weighted_sum(maps, list(self.scales.values()), (height, width))
        return self.norm(as_tokens(merged)).mean(1)

    def forward(self, feats: Sequence[Tensor]) -> Tensor:
        """Maps (see :meth:`pre_logits`) to (B, num_classes) logits."""
        return self.classifier(self.pre_logits(feats))


class _Projection(nn.Module):
    """GroupNorm, linear layer and GroupNorm on a (B, C, H, W) map."""

    def __init__(self, dims: int, out_dims: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(NUM_GROUPS, dims)
        self.linear = nn.Linear(dims, out_dims)
        self.norm2 = nn.GroupNorm(NUM_GROUPS, out_dims)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BHWC = self.linear(self.norm1(x_BCHW).permute(0, 2, 3, 1))
        return self.norm2(x_BHWC.permute(0, 3, 1, 2))
