"""The shipped configs and their published counterparts."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from functools import cache
from importlib.metadata import packages_distributions
from math import ceil, floor
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
    str(path.relative_to(ROOT / 'configs'))
    for path in ROOT.glob('configs/*/**/*.py')
    if '_base_' not in path.parts
)
#: Whether mmdet is the fork whose DINO is wider at one place than that of upstream.
IS_FORK = 'onedl-mmdetection' in packages_distributions()['mmdet']
#: Configs of detectors.
DETECTORS = [name for name in CONFIGS if name.startswith('det/')]
#: Published name of the config and checkpoint of each detector.
PUBLISHED = {
    **{
        f'det/{name}.py': f'mask_rcnn_{published}_fpn_1x_coco_bs16'
        for name, published in {
            'piip_sbl_maskrcnn_1x': 'deit_sbl_1568_1120_672',
            'piip_sbl_maskrcnn_1x_1120-672-448': 'deit_sbl_1120_672_448',
            'piip_sbl_maskrcnn_1x_1344-896-448': 'deit_sbl_1344_896_448',
            'piip_sbl_maskrcnn_1x_1568-896-672': 'deit_sbl_1568_896_672',
            'piip_sbl_maskrcnn_1x_augreg': 'augreg_sbl_1568_1120_672',
            'piip_sbl_maskrcnn_1x_beitv2': 'beit_sbl_1568_1120_672',
            'piip_sbl_maskrcnn_1x_dinov2': 'dinov2_sbl_1568_1120_672',
            'piip_sbl_maskrcnn_1x_mae': 'mae_sbl_1568_1120_672',
            'piip_sbl_maskrcnn_1x_uniperceiver': 'uniperceiver_sbl_1568_1120_672',
            'piip_tsb_maskrcnn_1x_1120-896-448': 'deit_tsb_1120_896_448',
            'piip_tsb_maskrcnn_1x_1568-896-448': 'deit_tsb_1568_896_448',
            'piip_tsb_maskrcnn_1x_1568-1120-672': 'deit_tsb_1568_1120_672',
            'vit_b_maskrcnn_1x': 'deit_vit_b',
            'vit_l_maskrcnn_1x': 'deit_vit_l',
        }.items()
    },
    **{
        f'det/piip_tsbl_maskrcnn_1x_{sizes}{suffix}.py': (
            f'mask_rcnn_deit_tsbl_{sizes.replace("-", "_")}_fpn_1x_coco_bs16'
        )
        for sizes in ('1344-896-672-448', '1568-1120-672-448', '1792-1568-1120-448')
        for suffix in ('', '_released')
    },
    **{
        f'det/piip_{name}_maskrcnn_1x_1024-672-448.py': (
            f'mask_rcnn_{published}_1024_672_448_regular-fpn'
        )
        for name, published in {
            'ct-cs-cb': 'convnext-tsb',
            'ct-cs-vb': 'convnext-t_convnext-s_vit-b',
            'ct-vs-cb': 'convnext-t_vit-s_convnext-b',
            'ct-vs-vb': 'convnext-t_vit-s_vit-b',
            'vt-cs-cb': 'vit-t_convnext-s_convnext-b',
            'vt-cs-vb': 'vit-t_convnext-s_vit-b',
            'vt-vs-cb': 'vit-t_vit-s_convnext-b',
        }.items()
    },
    **{
        f'det/{name}.py': published
        for name, published in {
            'convnext_b_maskrcnn_1x': 'mask_rcnn_convnext-base_1024_regular-fpn',
            'internvit_6b_maskrcnn_1x': 'mask_rcnn_internvit_6b_fpn_1x_coco_bs16_ms',
            'piip_h6b_maskrcnn_1x_1024-512': (
                'mask_rcnn_internvit_h6b_1024_512_fpn_1x_coco_bs16_ms'
            ),
            'piip_h6b_maskrcnn_1x_1024-512_speedup': (
                'mask_rcnn_internvit_h6b_1024_512_fpn_1x_coco_bs16_ms_speedup'
            ),
            'piip_lh6b_maskrcnn_1x_1536-1024-512': (
                'mask_rcnn_internvit_lh6b_1536_1024_512_fpn_1x_coco_bs32_ms'
            ),
            'piip_sbl_maskrcnn_1x_augreg_speedup': (
                'mask_rcnn_augreg_sbl_1568_1120_672_fpn_1x_coco_bs16_speedup'
            ),
            'piip_h6b_dino_1x_1024-768': (
                'dino_4scale_internvit_h6b_1024_768_fpn_1x_coco_bs32_ms'
            ),
            'piip_lh6b_dino_2x_1536-1024-512': (
                'dino_4scale_internvit_lh6b_1536_1024_512_fpn_2x_coco_bs32_ms'
            ),
            'piip_sbl_dino_3x_1792-1120-672': (
                'dino_4scale_deit_384_sbl_1792_1120_672_fpn_3x_coco_bs32_ms'
            ),
        }.items()
    },
}
#: Detectors that a paper reports, without a published config.
PAPER_ONLY = (
    'det/piip_sbl_cascade_1x.py',
    'det/piip_sbl_cascade_3x.py',
    'det/piip_tsb_cascade_3x.py',
)
#: How the published GFLOPs are rounded, if not to the nearest number.
ROUNDING = {
    'det/piip_ct-cs-cb_maskrcnn_1x_1024-672-448.py': floor,
    'det/piip_vt-cs-cb_maskrcnn_1x_1024-672-448.py': floor,
    'det/piip_vt-cs-vb_maskrcnn_1x_1024-672-448.py': floor,
    'det/piip_h6b_maskrcnn_1x_1024-512_speedup.py': ceil,
    'det/piip_sbl_maskrcnn_1x_augreg_speedup.py': ceil,
}


@cache
def _read(name: str) -> Config:
    return Config.fromfile(ROOT / 'configs' / name)


def load(name: str) -> Config:
    """A copy of a config, by its path below configs/; callers may modify it."""
    return copy.deepcopy(_read(name))


@cache
def built(name: str) -> nn.Module:
    """The model of a config on the meta device, built without setting a default scope."""
    cfg = load(name)
    with (
        DefaultScope.overwrite_default_scope(cfg.default_scope),
        torch.device('meta'),
    ):
        return MODELS.build(cfg.model)


def is_as_released(name: str) -> bool:
    """Whether a config has the slip of the released four-branch models."""
    return name.endswith('_released.py')


def recipes(task: str) -> dict[str, Any]:
    """Settings of the published configs of 'det', 'seg' or 'cls', by their names."""
    return {
        path.rpartition('/')[2]: recipe
        for path, recipe in golden.read('recipes').items()
        if path.startswith(f'{task}/')
    }


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def run_analysis_tool(name: str, *args: Any) -> subprocess.CompletedProcess[str]:
    """Run a tool of tools/analysis_tools as a user does."""
    return subprocess.run(
        [sys.executable, f'tools/analysis_tools/{name}.py', *map(str, args)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
