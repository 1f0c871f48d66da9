"""Test-time augmentation, from the config or by flips."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from .data_check import leaf_datasets, metric_configs

#: Model that merges, last step of a pipeline, and what that keeps of an image if it does
#: not keep the flip by itself.
_TTA: dict[str, tuple[dict[str, Any], str, tuple[str, ...] | None]] = {
    'mmdet': (
        dict(
            type='DetTTAModel',
            tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100),
        ),
        'PackDetInputs',
        ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
    'mmseg': (dict(type='SegTTAModel'), 'PackSegInputs', None),
    'mmpretrain': (dict(type='AverageClsScoreTTA'), 'PackInputs', None),
}


def enable_tta(cfg: Config) -> None:
    """Test with test-time augmentation: the config's, or horizontal flips.

    mmdet merges boxes only, so a mask head is left out, and so are the metrics of masks.

    Raises:
        ValueError: If there is nothing to start from: an unknown scope without
            ``tta_model`` and ``tta_pipeline``, or a pipeline that ends otherwise.
    """
    dataset = next(iter(leaf_datasets(cfg.test_dataloader.dataset)))
    scope = cfg.get('default_scope')
    if scope == 'mmdet':
        _leave_out_masks(cfg)
    if 'tta_model' not in cfg or 'tta_pipeline' not in cfg:
        if scope not in _TTA:
            raise ValueError(
                '--tta needs tta_model and tta_pipeline in the config, or a '
                f'default_scope out of {sorted(_TTA)}; it is {scope!r}'
            )
        print_log(
            'No tta_model or no tta_pipeline in the config: horizontal flips are used',
            logger='current',
        )
        model, last, keys = _TTA[scope]
        cfg.setdefault('tta_model', deepcopy(model))
        cfg.setdefault('tta_pipeline', _flip_pipeline(dataset.pipeline, last, keys))
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
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
    for metric in metric_configs(cfg.test_evaluator):
        if 'segm' in metric.get('metric', ()):
            metric['metric'] = 'bbox'


def _flip_pipeline(pipeline: list, last_type: str, keys: tuple | None) -> list:
    """The pipeline with its packing done twice, without and with a flip."""
    *steps, last = deepcopy(pipeline)
    if last.type != last_type:
        raise ValueError(
            f'--tta: the test pipeline ends with {last.type!r}, expected {last_type!r}; '
            'give tta_pipeline in the config'
        )
    flips = [
        dict(type='RandomFlip', prob=prob, direction='horizontal') for prob in (0.0, 1.0)
    ]
    if keys is not None:
        last.meta_keys = (*keys, 'flip', 'flip_direction')
    return [*steps, dict(type='TestTimeAug', transforms=[flips, [last]])]
