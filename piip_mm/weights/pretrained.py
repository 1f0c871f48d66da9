"""Pretrained weights of single networks, loaded into the branches."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor

from .rename import VIT_RULES, rename
from .source import load_weights, unwrap_state_dict

if TYPE_CHECKING:
    from piip_mm.models import PIIPViT


@dataclass
class LoadReport:
    """What became of the tensors of a file and of the parameters of a branch."""

    loaded: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        def listed(names: list[str]) -> str:
            shown = ', '.join(names[:6]) + (', ...' if len(names) > 6 else '')
            return f'{len(names)} ({shown})' if names else '0'

        return (
            f'{len(self.loaded)} tensors loaded, resized: {listed(self.resized)}, '
            f'dropped: {listed(self.dropped)}, missing: {listed(self.missing)}'
        )


def load_pretrained_vit(branch: PIIPViT, checkpoint: str) -> LoadReport:
    """Load a DeiT or DeiT III file into a :class:`~piip_mm.models.PIIPViT`.

    Heads, norms, class and distillation tokens are dropped. The position embedding is
    resized bicubically from the grid of the file to that of the branch, and the patch
    kernel to the branch's patch size. Layer scales that the file does not have keep
    their initial value.

    Args:
        branch: Branch to load into.
        checkpoint: Local path, URL or timm model, see
            :func:`piip_mm.weights.source.load_weights`.

    Returns:
        The report, which is logged too.

    Raises:
        FileNotFoundError: If a local file does not exist.
        ConnectionError: If a download fails.
        ValueError: If a tensor is not of a plain vision transformer, has another shape
            than the branch, or the file lacks one other than a layer scale.
    """
    report = LoadReport()
    weights = _converted(checkpoint, branch, report)
    own = branch.state_dict()
    mismatched = [
        f'{name}: {tuple(tensor.shape)} in the file, {tuple(own[name].shape)} here'
        for name, tensor in weights.items()
        if name in own and own[name].shape != tensor.shape
    ]
    if mismatched:
        raise ValueError(
            f'{checkpoint!r} does not fit the branch; check its arch. '
            + '; '.join(mismatched[:4])
        )
    for name in [name for name in weights if name not in own]:
        # Blocks that the network does not read, and layer scales that the arch has not.
        block = re.match(r'blocks\.(\d+)\.(ls)?', name)
        if block is None or (int(block[1]) < branch.depth and not block[2]):
            raise ValueError(
                f'{checkpoint!r} has {name}, which the branch has not; check its arch'
            )
        report.dropped.append(name)
        del weights[name]
    report.loaded = list(weights)
    report.missing = [name for name in own if name not in weights]
    needed = [name for name in report.missing if '.ls' not in name]
    if needed:
        raise ValueError(
            f'{checkpoint!r} lacks {len(needed)} tensors of the branch, the first of '
            f'them {needed[:4]}; check its arch'
        )
    branch.load_state_dict(weights, strict=False)
    print_log(f'{checkpoint}: {report}', logger='current')
    return report


def _converted(checkpoint: str, branch: PIIPViT, report: LoadReport) -> dict[str, Tensor]:
    """Tensors of a file under our names and in our sizes."""
    weights = {}
    for name, tensor in unwrap_state_dict(load_weights(checkpoint)).items():
        try:
            new_name = rename(name, VIT_RULES)
        except ValueError as error:
            raise ValueError(
                f'{checkpoint!r} has {name}, which no DeiT or DeiT III model has; give '
                'weights of the family that the branch is'
            ) from error
        if new_name is None:
            report.dropped.append(name)
            continue
        if new_name == 'pos_embed':
            resized = _resize_positions(tensor, branch.pos_grid)
        elif new_name == 'patch_embed.weight':
            resized = _resize_bicubic(tensor, branch.patch_embed.weight.shape[2:])
        else:
            resized = tensor
        if resized is not tensor:
            shapes = f'{tuple(tensor.shape)} to {tuple(resized.shape)}'
            report.resized.append(f'{name} {shapes}')
        weights[new_name] = resized
    return weights


def _resize_positions(pos_embed: Tensor, grid: tuple[int, int]) -> Tensor:
    """(1, rows, C) position embedding to a grid; a class token's row is left out."""
    rows = pos_embed.shape[1]
    side = math.isqrt(rows)
    if side**2 != rows:
        side = math.isqrt(rows - 1)
        pos_embed = pos_embed[:, rows - side**2 :]
    if grid == (side, side):
        return pos_embed
    maps = pos_embed.transpose(1, 2).unflatten(2, (side, side))
    return _resize_bicubic(maps, grid).flatten(2).transpose(1, 2)


def _resize_bicubic(maps: Tensor, size: Sequence[int]) -> Tensor:
    if tuple(maps.shape[2:]) == tuple(size):
        return maps
    return F.interpolate(maps.float(), tuple(size), mode='bicubic', align_corners=False)
