"""The shipped configs, and the published ones they stand for."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import golden
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

ROOT = Path(__file__).parents[1]
#: Every shipped config by its path below configs/.
CONFIGS = sorted(
    str(path.relative_to(ROOT / 'configs')) for path in ROOT.glob('configs/*/*.py')
)
#: The published config that a config stands for: part of its name.
PUBLISHED = {
    'det/piip_sbl_maskrcnn_1x.py': 'sbl_1568_1120_672',
    'det/piip_sbl_maskrcnn_1x_1120-672-448.py': 'sbl_1120_672_448',
    'det/piip_sbl_maskrcnn_1x_1344-896-448.py': 'sbl_1344_896_448',
    'det/piip_sbl_maskrcnn_1x_1568-896-672.py': 'sbl_1568_896_672',
    'det/piip_tsb_maskrcnn_1x_1120-896-448.py': 'tsb_1120_896_448',
    'det/piip_tsb_maskrcnn_1x_1568-896-448.py': 'tsb_1568_896_448',
    'det/piip_tsb_maskrcnn_1x_1568-1120-672.py': 'tsb_1568_1120_672',
    'det/piip_tsbl_maskrcnn_1x_1344-896-672-448.py': 'tsbl_1344_896_672_448',
    'det/piip_tsbl_maskrcnn_1x_1344-896-672-448_released.py': 'tsbl_1344_896_672_448',
    'det/piip_tsbl_maskrcnn_1x_1568-1120-672-448.py': 'tsbl_1568_1120_672_448',
    'det/piip_tsbl_maskrcnn_1x_1568-1120-672-448_released.py': 'tsbl_1568_1120_672_448',
    'det/piip_tsbl_maskrcnn_1x_1792-1568-1120-448.py': 'tsbl_1792_1568_1120_448',
    'det/piip_tsbl_maskrcnn_1x_1792-1568-1120-448_released.py': 'tsbl_1792_1568_1120_448',
    'det/vit_b_maskrcnn_1x.py': 'vit_b',
    'det/vit_l_maskrcnn_1x.py': 'vit_l',
}
#: Complete recipes and counts, where there are any: beside the complete recordings.
REFERENCE = golden.FULL.parent


def load(name: str) -> Config:
    """A config by its path below configs/."""
    return Config.fromfile(ROOT / 'configs' / name)


@cache
def built(name: str) -> nn.Module:
    """The model of a config on the meta device; leaves no default scope behind."""
    cfg = load(name)
    with (
        DefaultScope.overwrite_default_scope(cfg.default_scope),
        torch.device('meta'),
    ):
        return MODELS.build(cfg.model)


def checkpoint_of(name: str) -> str:
    """Published name of the config that ours stands for, and of its checkpoint."""
    return f'mask_rcnn_deit_{PUBLISHED[name]}_fpn_1x_coco_bs16'


def is_as_released(name: str) -> bool:
    """Whether a config has the slip of the released four-branch models."""
    return name.endswith('_released.py')


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())
