"""Test-time augmentation, from the config or by flips."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from .data_check import leaf_datasets, walk

#: Models that merge the predictions, by scope; mmdet's is the default of its test.py.
_MODELS: dict[str, dict[str, Any]] = {
    'mmdet': dict(
        type='DetTTAModel',
        tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100),
    ),
    'mmseg': dict(type='SegTTAModel'),
    'mmpretrain': dict(type='AverageClsScoreTTA'),
}


def enable_tta(cfg: Config) -> None:
    """Test with the config's test-time augmentation, by default with horizontal flips.

    mmdet merges boxes only, so mask heads and the metrics of masks are left out.

    Raises:
        ValueError: If neither the config has ``tta_model`` and ``tta_pipeline`` nor its
            scope a default.
    """
    dataset, *_ = leaf_datasets(cfg.test_dataloader)
    scope = cfg.get('default_scope')
    if scope == 'mmdet':
        _leave_out_masks(cfg)
    if 'tta_model' not in cfg or 'tta_pipeline' not in cfg:
        if scope not in _MODELS:
            raise ValueError(
                '--tta needs tta_model and tta_pipeline in the config, or a '
                f'one of the default scopes {sorted(_MODELS)}, not {scope!r}'
            )
        print_log(
            'No tta_model or no tta_pipeline in the config: horizontal flips are used',
            logger='current',
        )
        cfg.setdefault('tta_model', deepcopy(_MODELS[scope]))
        *steps, pack = deepcopy(dataset.pipeline)
        # The default keys of every codebase include the flip.
        pack.pop('meta_keys', None)
        # The first view is the one that is drawn.
        flips = [dict(type='RandomFlip', prob=prob) for prob in (0.0, 1.0)]
        views = dict(type='TestTimeAug', transforms=[flips, [pack]])
        cfg.setdefault('tta_pipeline', [*steps, views])
    # Unpacking would turn the classes of the config into what cannot be saved.
    tta_model = ConfigDict(cfg.tta_model)
    tta_model.module = cfg.model
    cfg.model = tta_model
    dataset.pipeline = cfg.tta_pipeline


def _leave_out_masks(cfg: Config) -> None:
    roi_head = cfg.model.get('roi_head', {})
    if not roi_head.get('mask_head'):
        return
    print_log(
        "Test-time augmentation: mmdet merges boxes only, so the mask head and 'segm' "
        'are left out',
        logger='current',
    )
    roi_head.update(mask_head=None, mask_roi_extractor=None)
    for _, metric in walk(cfg.test_evaluator):
        if 'segm' in metric.get('metric', ()):
            metric['metric'] = 'bbox'
