"""Command-line switches of the tools, as changes of the config."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.runner import find_latest_checkpoint

from piip_mm.weights.source import load_weights

from .data_check import (
    leaf_datasets,
    metric_configs,
    pretrained_parts,
    pretrained_paths,
)


def enable_amp(cfg: Config) -> None:
    """Train with automatic mixed precision, in bfloat16 unless the config says else.

    bfloat16 has the exponents of float32 and needs no loss scaling, so the scale is 1
    there; float16 keeps MMEngine's dynamic scale.
    """
    wrapper = cfg.optim_wrapper
    wrapper.type = 'AmpOptimWrapper'
    wrapper.setdefault('dtype', 'bfloat16')
    is_bf16 = wrapper.dtype == 'bfloat16'
    wrapper.setdefault('loss_scale', 1.0 if is_bf16 else 'dynamic')


def check_amp_device(cfg: Config) -> None:
    """Raise ``ValueError`` if the config asks for AMP where MMEngine has none."""
    if cfg.optim_wrapper.get('type') == 'AmpOptimWrapper' and get_device() == 'cpu':
        raise ValueError(
            "optim_wrapper.type='AmpOptimWrapper' (mixed precision) needs a GPU, and "
            'PyTorch finds none here. Train in float32: without --amp, or with a config '
            "whose optim_wrapper has type='OptimWrapper' and neither dtype nor "
            'loss_scale'
        )


def enable_auto_scale_lr(cfg: Config) -> None:
    """Scale the learning rate by batch size over ``auto_scale_lr.base_batch_size``.

    Raises:
        ValueError: If the config does not name the base batch size.
    """
    if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise ValueError(
            'Can not find "auto_scale_lr.base_batch_size" in your configuration file; '
            'set it to the batch size that the learning rate was chosen for'
        )
    cfg.auto_scale_lr.enable = True


def set_resume(cfg: Config, resume: str | None) -> None:
    """Resume from the latest checkpoint of the work directory ('auto') or a given one."""
    if resume is not None:
        cfg.resume = True
        cfg.load_from = None if resume == 'auto' else resume


def accept_published_checkpoints(
    cfg: Config, *, strict: bool, ignore: Sequence[str] = ()
) -> None:
    """Let checkpoints of the published PIIP code load as they are.

    Args:
        cfg: The config; gets a :class:`PublishedCheckpointHook`.
        strict: Stop on a checkpoint that does not fit the model.
        ignore: Beginnings of names in the checkpoint that the model goes without.
    """
    hooks = [
        hook
        for hook in cfg.get('custom_hooks') or []
        if hook['type'] != 'PublishedCheckpointHook'
    ]
    hook = dict(type='PublishedCheckpointHook', strict=strict, ignore=ignore)
    cfg.custom_hooks = [*hooks, hook]


def skip_pretrained(cfg: Config) -> None:
    """Forget the pretrained weights of the parts where a checkpoint of the whole model
    is going to be loaded over them: ``load_from``, or a run that resumes."""
    checkpoint = cfg.get('load_from')
    if cfg.get('resume') and checkpoint is None:
        checkpoint = find_latest_checkpoint(cfg.work_dir)
    if checkpoint is None:
        return
    parts = list(pretrained_parts(cfg.model))
    for part in parts:
        part['init_cfg'] = None
    if parts:
        print_log(
            f'{len(parts)} pretrained weights are not loaded: {checkpoint} replaces them',
            logger='current',
        )


def fetch_pretrained(cfg: Config) -> None:
    """Download the pretrained weights of the model now, rather than inside the run.

    Raises:
        ConnectionError: If a download fails.
        ValueError: If a download is damaged, or timm has no such weights.
    """
    for path in pretrained_paths(cfg.model):
        if '://' in path:
            load_weights(path)


def enable_visualization(
    cfg: Config, *, show: bool, show_dir: str | None, wait_time: float
) -> None:
    """Draw predictions beside the ground truth: in windows, as files, or both.

    Args:
        cfg: The config; its visualization hook is switched on.
        show: Open a window for every image.
        show_dir: Directory of the pictures; a relative one is made below
            ``work_dir/timestamp``.
        wait_time: Seconds that a window stays open.

    Raises:
        ValueError: If the config has no visualization hook.
    """
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise ValueError(
            '--show and --show-dir need a hook that draws; add '
            "visualization=dict(type='DetVisualizationHook') to default_hooks"
        )
    hook.draw = True
    if show:
        hook.update(show=True, wait_time=wait_time)
    if show_dir:
        hook.test_out_dir = show_dir


def enable_tta(cfg: Config) -> None:
    """Test with test-time augmentation: the config's, or horizontal flips.

    mmdet merges boxes only, so a mask head is left out, and so are the metrics of masks.

    Raises:
        ValueError: If there is nothing to start from: another scope than mmdet without
            ``tta_model`` and ``tta_pipeline``, or a pipeline that ends otherwise.
    """
    dataset = next(iter(leaf_datasets(cfg.test_dataloader.dataset)))
    if cfg.get('default_scope') == 'mmdet':
        _leave_out_masks(cfg)
        if 'tta_model' not in cfg or 'tta_pipeline' not in cfg:
            print_log(
                'No tta_model or no tta_pipeline in the config: horizontal flips are '
                'used',
                logger='current',
            )
        cfg.setdefault('tta_model', _flip_model())
        cfg.setdefault('tta_pipeline', _flip_pipeline(dataset.pipeline))
    elif 'tta_model' not in cfg or 'tta_pipeline' not in cfg:
        raise ValueError('--tta needs tta_model and tta_pipeline in the config')
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


def _flip_model() -> dict[str, Any]:
    nms = dict(type='nms', iou_threshold=0.5)
    return dict(type='DetTTAModel', tta_cfg=dict(nms=nms, max_per_img=100))


def _flip_pipeline(pipeline: list) -> list:
    """The pipeline with its packing done twice, without and with a flip."""
    *steps, last = deepcopy(pipeline)
    if last.type != 'PackDetInputs':
        raise ValueError(
            f'--tta: the test pipeline ends with {last.type!r}, expected '
            "'PackDetInputs'; give tta_pipeline in the config"
        )
    keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
    flips = [dict(type='RandomFlip', prob=prob) for prob in (0.0, 1.0)]
    last.meta_keys = (*keys, 'flip', 'flip_direction')
    return [*steps, dict(type='TestTimeAug', transforms=[flips, [last]])]
